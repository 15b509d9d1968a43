"""Models: loaded whole or refused, from their folders only, kept while there is room."""

import hashlib
import json
import logging
import os
import pickle
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import MODEL, REQUEST
from micro import make_model

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(micro, micro_folder):
    """A copy of the random model to spoil: (folder, how a request names it)."""
    made = []

    def make(name):
        folder = micro_folder / name
        shutil.copytree(micro["path"], folder)
        made.append(folder)
        return folder, {"id": name, "path": str(folder), "body_hash": hashlib.sha256(name.encode()).hexdigest(), "family": "sd1"}

    yield make
    for folder in made:
        shutil.rmtree(folder)


def ensure(child, model, files=(), weight_bytes=0):
    return child.until(child.send("model.ensure", {"model": model, "files": list(files), "weight_bytes": weight_bytes}))


def refused(child, model, code, words):
    answer = ensure(child, model)
    assert (answer["type"], answer.get("code"), answer.get("field")) == ("error", code, "model.path"), answer
    assert words in answer["message"]
    assert model["id"] not in child.models()


def test_models_stay_together_as_long_as_their_bytes_fit(fork, fresh, micro, micro_folder):
    other, third = make_model(micro_folder / "other", seed=2), make_model(micro_folder / "third", seed=3)
    size = ensure(fresh, micro)["output"]["bytes"]
    drawn = fresh.run("denoise", model=micro)["files"]["latents"]["sha256"]
    child = fork(models=[micro_folder], model_bytes=2 * size)
    child.ready()
    loaded = [ensure(child, model)["output"] for model in (micro, other)]
    assert [(each["resident"], each["bytes"], each["disk_bytes"] > 0) for each in loaded] == [(False, size, True)] * 2
    for model in (micro, other) * 3:
        assert (again := ensure(child, model)["output"])["resident"] and again["seconds"] == 0
    ensure(child, third)
    held = {model["id"]: model for model in child.vitals()["models"]}
    assert list(held) == ["other", "third"]
    assert sum(model["bytes"] for model in held.values()) == 2 * size
    assert [part["name"] for part in held["third"]["parts"]] == ["unet", "vae", "text_encoder"]
    answer = child.run("denoise", model=micro)
    assert answer["stats"]["load_s"] > 0
    assert answer["files"]["latents"]["sha256"] == drawn


def test_a_model_larger_than_its_place_draws_the_same_one_network_at_a_time(fork, fresh, micro, micro_folder):
    ensure(fresh, micro)
    [model] = [model for model in fresh.vitals()["models"] if model["id"] == "micro"]
    child = fork(models=[micro_folder], model_bytes=max(part["bytes"] for part in model["parts"]))
    child.ready()
    asked = child.send("model.ensure", {"model": micro, "files": [], "weight_bytes": 0})
    assert child.until(asked)["type"] == "result"
    assert ["offloaded micro" in note["text"] for note in child.of(asked, "note")] == [True]
    for _ in range(2):
        assert pixels(child, micro) == pixels(fresh, micro)
        assert [len(each["parts"]) for each in child.vitals()["models"]] == [1]


def cached(folder, to):
    """Copies of a model's weights elsewhere, as the worker's cache offers them."""
    offers = []
    for number, file in enumerate(sorted(folder.glob("*/*.safetensors"))):
        copied = to / f"{number}"
        shutil.copy(file, copied)
        state = copied.stat()
        offers.append({"path": str(file.resolve()), "mapping": str(copied), "bytes": state.st_size, "inode": state.st_ino})
    return offers


def test_a_model_is_read_from_the_cache_and_draws_the_same(fresh, micro, copy, tmp_path):
    folder, model = copy("from the cache")
    files = cached(folder, tmp_path)
    # Only the headers are looked at on disk: nothing of the weights is there any more.
    for file in folder.glob("*/*.safetensors"):
        os.truncate(file, 8 + int.from_bytes(file.read_bytes()[:8], "little"))
    read = ensure(fresh, model, files)["output"]
    assert (read["ram_bytes"] > 100_000, read["disk_bytes"]) == (True, 0)
    assert pixels(fresh, model) == pixels(fresh, micro)


def test_what_is_not_what_the_cache_offered_is_not_believed(fresh, micro, copy, tmp_path):
    folder, model = copy("offered and gone")
    files = cached(folder, tmp_path)
    other = tmp_path / "other"
    other.write_bytes(b"x" * files[0]["bytes"])
    files[0]["mapping"] = str(other)
    os.truncate(files[1]["mapping"], 100)
    os.remove(files[2]["mapping"])
    read = ensure(fresh, model, files)["output"]
    assert (read["ram_bytes"], read["disk_bytes"] > 100_000) == (0, True)
    assert pixels(fresh, model) == pixels(fresh, micro)


def test_a_load_is_told_by_the_bytes_that_it_has_read(tmp_path, monkeypatch):
    import torch
    from safetensors.torch import save_file

    from darkroom import tools
    from darkroom.weight_files import WeightFiles

    path, told = str(tmp_path / "some.safetensors"), []
    save_file({f"{number}": torch.zeros(1 << 18) for number in range(5)}, path)
    monkeypatch.setattr(tools, "PROGRESS_S", 0)
    work = tools.Tools("1", "model.ensure", {"weight_bytes": (5 << 20) + 1}, SimpleNamespace(), told.append, logging.getLogger())
    work.begin_load()
    weights = WeightFiles(torch.device("cpu"))
    weights.advance = work.loaded
    weights.read(path)
    # The last one comes with the end of the load; it is no call that the watchdog counts.
    assert [frame.get("call") for frame in told] == [None, 1, 2, 3, 4, 5]
    assert {frame.get("calls", 6) for frame in told} == {6} and work.call is None
    weights.read(path)
    assert [frame["call"] for frame in told[6:]] == [5] * 5
    work.begin_load()
    work.loaded(1 << 20)
    assert told[-1]["call"] == 1


def test_the_disk_reads_ahead_while_a_network_is_made(tmp_path):
    import torch
    from safetensors.torch import save_file

    from darkroom.weight_files import WeightFiles

    tensors = {f"{part}.{number}": torch.full((1 << 20,), float(number)) for part in ("unet", "vae") for number in range(5)}
    path, size = str(tmp_path / "both.safetensors"), 5 * (4 << 20)
    save_file(tensors, path)
    weights = WeightFiles(torch.device("cpu"))
    with weights.reading_ahead([path], lambda name: name.startswith("vae")):
        time.sleep(0.5)
    assert weights.measure().ahead == size
    read = weights.read(path, None, lambda name: name.startswith("vae"))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in read.items())
    assert (len(read), weights.measure().disk) == (5, size)
    # Whoever needs it is told what has become of it.
    with weights.reading_ahead([path]):
        os.truncate(path, 100)
    with pytest.raises(Exception, match="no whole safetensors file"):
        weights.read(path)


def test_nothing_is_read_ahead_that_the_cache_has(copy, tmp_path):
    import torch

    from darkroom.weight_files import WeightFiles

    folder, _ = copy("in the cache already")
    weights = WeightFiles(torch.device("cpu"))
    weights.offer(cached(folder, tmp_path))
    with weights.reading_ahead([str(folder / WEIGHTS)]):
        time.sleep(0.1)
    assert weights.measure().ahead == 0


def test_a_benchmark_is_cold_although_the_cache_has_the_model(fresh, copy, tmp_path):
    folder, model = copy("measured")
    ensure(fresh, model, cached(folder, tmp_path))
    names = ("prompt", "width", "height", "steps", "guidance", "seed", "sampler")
    data = {**fresh.data("denoise", model=model), "input": {"model": model, **{name: REQUEST[name] for name in names}}}
    asked = fresh.send("model.benchmark", data)
    answer = fresh.until(asked)
    told = answer["output"]
    assert told["is_cold"] and min(told["cold_load_s"], told["warm_load_s"], told["call_s"]) > 0
    assert [frame["call"] for frame in fresh.of(asked, "progress") if frame["stage"] == "measure"][-1] == 7
    # Cold makes the networks too.
    assert told["cold_load_s"] > told["warm_load_s"]


def test_the_same_name_with_another_body_is_another_model(fresh, micro, micro_folder):
    other = {**make_model(micro_folder / "another body", seed=4), "id": "micro"}
    pictures = {fresh.run("denoise", model=model)["files"]["latents"]["sha256"] for model in (micro, other)}
    assert len(pictures) == 2


def test_half_precision_files_are_found_by_their_usual_name(fresh, copy):
    folder, model = copy("half")
    for part, stem in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}.fp16.safetensors")
    assert ensure(fresh, model)["type"] == "result"


# Names of the shards and of their index, by who wrote them: {} is the stem.
SHARDED = {
    "plain": ("{}-{:05d}-of-{:05d}.safetensors", "{}.safetensors.index.json"),
    "fp16 as today": ("{}.fp16-{:05d}-of-{:05d}.safetensors", "{}.safetensors.index.fp16.json"),
    "fp16 as before": ("{}-{:05d}-of-{:05d}.fp16.safetensors", "{}.fp16.safetensors.index.json"),
    "fp16 mixed": ("{}-{:05d}-of-{:05d}.fp16.safetensors", "{}.safetensors.index.fp16.json"),
    "no index": ("{}.fp16-{:05d}-of-{:05d}.safetensors", None),
}


def shard(folder, names, index):
    """Cuts the one file of weights in a folder into three; returns their paths."""
    from safetensors.torch import load_file, save_file

    [file] = folder.glob("*.safetensors")
    held = load_file(file)
    file.unlink()
    made, weight_map = [], {}
    for number in range(1, 4):
        part = dict(sorted(held.items())[number - 1 :: 3])
        made.append(folder / names.format(file.stem, number, 3))
        save_file(part, made[-1], {"format": "pt"})
        weight_map |= dict.fromkeys(part, made[-1].name)
    if index:
        (folder / index.format(file.stem)).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return made


def pixels(child, model):
    """SHA-256 of a picture that every network of the model has drawn."""
    latents = child.run("denoise", model=model)["files"]
    return child.run("decode", model=model, files=latents)["files"]["pixels"]["sha256"]


@pytest.mark.parametrize("layout", SHARDED)
def test_shards_load_by_whatever_names_they_were_written(fresh, copy, micro, layout):
    folder, model = copy(layout)
    for part in ("unet", "vae", "text_encoder"):
        shard(folder / part, *SHARDED[layout])
    assert pixels(fresh, model) == pixels(fresh, micro)
    assert not list(fresh.attempts.glob("weights-*"))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("layout", SHARDED)
def test_a_shard_that_is_missing_or_broken_is_named(fresh, copy, layout, part):
    folder, model = copy(f"{layout} of {part}")
    first, second, third = shard(folder / part, *SHARDED[layout])
    content = second.read_bytes()
    second.unlink()
    refused(fresh, model, "model.corrupt", f"{part} lacks {second.name}")
    second.write_bytes(content[: len(content) // 2])
    refused(fresh, model, "model.corrupt", f"{second} (")
    second.write_bytes(content)
    shutil.copy(first, third)
    refused(fresh, model, "model.corrupt", f"{first.name} and {third.name} both hold ")


def test_the_index_of_a_variant_that_was_not_fetched_is_passed_over(fresh, copy):
    folder, model = copy("only fp16")
    index = {"metadata": {}, "weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (folder / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert ensure(fresh, model)["type"] == "result"


@pytest.mark.parametrize(
    "index",
    ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "../../x.safetensors"}}', '{"weight_map": {"a": 1}}', '{"weight_map": 3}'],
)
def test_a_broken_index_is_named(fresh, copy, index):
    folder, model = copy("broken index")
    (folder / WEIGHTS).unlink()
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(index)
    refused(fresh, model, "model.corrupt", "diffusion_pytorch_model.safetensors.index.json ")


NEITHER = "has neither tokenizer.json nor vocab.json with merges.txt"


def vocabulary(change):
    def spoil(folder):
        path = folder / "tokenizer" / "vocab.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return spoil


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("no files", lambda folder: [file.unlink() for file in (folder / "tokenizer").iterdir()], NEITHER),
        ("no vocabulary", lambda folder: (folder / "tokenizer" / "vocab.json").unlink(), NEITHER),
        ("no merges", lambda folder: (folder / "tokenizer" / "merges.txt").unlink(), NEITHER),
        ("an empty vocabulary", vocabulary(lambda _: {}), "lacks 512 of the 512 letters"),
        ("a broken vocabulary", lambda folder: (folder / "tokenizer" / "vocab.json").write_text("{"), "the tokenizer in "),
        ("a vocabulary of another type", vocabulary(list), "the tokenizer in "),
        ("half a vocabulary", vocabulary(lambda words: dict(list(words.items())[256:])), "lacks 256 of the 512 letters"),
        (
            "words without merges",
            vocabulary(lambda words: {**words, "cat</w>": 514}),
            "has no merge for 1 of its 515 words, such as 'cat</w>'",
        ),
        ("a larger vocabulary", lambda folder: larger(folder, 8), "words with ids up to 521; its text encoder has 514"),
        ("ids beyond", vocabulary(lambda words: {**words, "a": 9000}), "with ids up to 9000"),
        ("one id twice", vocabulary(lambda words: {**words, "a": words["b"]}), "lacks 1 of the 512 letters"),
        ("no window", lambda folder: configured(folder, model_max_length=0), "has a model_max_length of 0"),
        ("a window in words", lambda folder: configured(folder, model_max_length="16"), "has a model_max_length of '16'"),
    ],
)
def test_a_tokenizer_that_would_not_hear_the_prompt_is_refused(fresh, copy, name, spoil, words):
    folder, model = copy(f"tokenizer {name}")
    spoil(folder)
    refused(fresh, model, "model.corrupt", words)
    answer = fresh.run("encode", model=model)
    assert answer["code"] == "model.corrupt"
    assert str(folder / "tokenizer") in answer["message"]


def larger(folder, more):
    """Adds words with their merges: a sound tokenizer, of another model."""
    words = [f"a{letter}</w>" for letter in "bcdefghi"[:more]]
    vocabulary(lambda known: {**known, **{word: 514 + index for index, word in enumerate(words)}})(folder)
    merges = "".join(f"a {word[1:]}\n" for word in words)
    (folder / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{merges}")


def configured(folder, **changes):
    path = folder / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_tokenizer_in_one_file_is_heard_alike(fresh, copy, micro):
    """As today's library writes it beside the two of old."""
    from transformers import CLIPTokenizer

    folder, model = copy("one file")
    CLIPTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder / "tokenizer")
    assert (folder / "tokenizer" / "tokenizer.json").exists()
    for file in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / file).unlink(missing_ok=True)
    assert pixels(fresh, model) == pixels(fresh, micro)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_model_that_lacks_a_tensor_is_not_filled_up_with_noise(fresh, copy, part):
    from safetensors.torch import load_file, save_file

    folder, model = copy(f"lacks in {part}")
    [file] = (folder / part).glob("*.safetensors")
    held = load_file(file)
    name = sorted(held)[-1]
    save_file({key: tensor for key, tensor in held.items() if key != name}, file, {"format": "pt"})
    refused(fresh, model, "model.corrupt", "lacks ")


def test_pickled_weights_are_not_opened(fresh, copy, tmp_path):
    folder, model = copy("pickled")
    proof = tmp_path / "proof"

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(proof),))

    (folder / WEIGHTS).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    refused(fresh, model, "model.corrupt", "diffusion_pytorch_model.bin is pickled, and such files are not opened")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("name", "spoil", "code", "words"),
    [
        (
            "truncated",
            lambda folder: os.truncate(folder / WEIGHTS, 5000),
            "model.corrupt",
            f"{WEIGHTS} (5000 bytes) is no whole safetensors",
        ),
        ("a lying header", lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 64), "model.corrupt", "is no whole safetensors"),
        (
            "a pointer",
            lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"),
            "model.corrupt",
            "git lfs",
        ),
        ("an empty file", lambda folder: (folder / WEIGHTS).write_bytes(b""), "model.corrupt", f"{WEIGHTS} (0 bytes)"),
        ("no weights", lambda folder: (folder / WEIGHTS).unlink(), "model.corrupt", "has no diffusion_pytorch_model.safetensors"),
        ("no part", lambda folder: shutil.rmtree(folder / "vae"), "model.corrupt", "has no vae/"),
        ("a broken config", lambda folder: (folder / "unet/config.json").write_text("{"), "model.load_failed", ""),
        (
            "no schedule",
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text("x"),
            "model.corrupt",
            "scheduler_config.json: cannot",
        ),
    ],
)
def test_a_broken_model_is_refused(fresh, copy, name, spoil, code, words):
    folder, model = copy(name)
    spoil(folder)
    refused(fresh, model, code, words)


@pytest.mark.parametrize(
    ("name", "unet"),
    [
        ("cross_attention_dim", {"cross_attention_dim": 48}),
        ("in_channels", {"in_channels": 8}),
        ("addition_embed_type", {"addition_embed_type": "text"}),
        ("time_cond_proj_dim", {"time_cond_proj_dim": 16}),
        ("num_class_embeds", {"num_class_embeds": 7}),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_the_first_call(fresh, micro_folder, name, unet):
    refused(fresh, make_model(micro_folder / name, seed=5, unet=unet), "model.corrupt", f"the UNet's {name} is ")


def test_a_model_outside_the_model_folders_is_refused(fresh, copy, tmp_path, micro_folder):
    folder, model = copy("outside")
    shutil.move(folder, tmp_path / "outside")
    for path in (tmp_path / "outside", micro_folder / ".." / tmp_path.name / "outside", Path("/etc"), micro_folder):
        refused(fresh, {**model, "path": str(path)}, "worker.path_refused", "is in no model folder")
    folder.symlink_to(tmp_path / "outside")
    refused(fresh, model, "worker.path_refused", "is in no model folder")
    folder.unlink()
    shutil.copytree(tmp_path / "outside", folder)


def test_a_link_that_leads_out_of_the_model_folders_is_refused(fresh, copy, tmp_path):
    folder, model = copy("linked out")
    shutil.move(folder / WEIGHTS, tmp_path / "weights")
    (folder / WEIGHTS).symlink_to(tmp_path / "weights")
    refused(fresh, model, "worker.path_refused", "leads out of the model folders")


def test_a_link_within_the_model_folders_is_followed(fresh, copy, micro_folder):
    """As in a cache of the Hugging Face hub, whose files are links to blobs beside them."""
    folder, model = copy("linked")
    shutil.move(folder / WEIGHTS, micro_folder / "blob")
    (folder / WEIGHTS).symlink_to(micro_folder / "blob")
    assert ensure(fresh, model)["type"] == "result"


def test_weights_in_memory_do_not_follow_the_file(fresh, copy):
    folder, model = copy("overwritten")
    before = fresh.run("denoise", model=model)["files"]["latents"]["sha256"]
    for file in folder.glob("*/*.safetensors"):
        with open(file, "r+b") as weights:
            weights.write(os.urandom(file.stat().st_size))
    assert fresh.run("denoise", model=model)["files"]["latents"]["sha256"] == before


def test_code_that_a_model_brings_along_is_not_run(fresh, copy, tmp_path):
    folder, model = copy("with code")
    proof = tmp_path / "proof"
    for part in ("unet", "text_encoder"):
        (folder / part / "evil.py").write_text(f"open({str(proof)!r}, 'w')\n")
        config = json.loads((folder / part / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
        (folder / part / "config.json").write_text(json.dumps(config))
    ensure(fresh, model)
    assert not proof.exists()


def test_what_is_said_of_resident_models_is_what_they_are(fresh, micro):
    size = ensure(fresh, micro)["output"]["bytes"]
    fresh.run("denoise", steps=1)
    first, second = fresh.vitals()["models"][-2:]
    assert (first["id"], first["bytes"], first["is_idle"]) == ("micro", size, True)
    assert (second["id"], second["is_idle"]) == (MODEL["id"], True)
    assert first["used_s"] >= second["used_s"] >= 0


def test_trim_lets_idle_models_go_from_the_one_used_longest_ago_on(fresh, micro):
    def trim(models):
        return fresh.until(fresh.send("memory.trim", {"idle_models": models}))["output"]["models"]

    trim(99)
    drawn = fresh.run("denoise")["files"]["latents"]["sha256"]
    ensure(fresh, micro)
    before = fresh.models()
    assert (trim(0), fresh.models()) == ([], before)
    assert (trim(1), fresh.models()) == ([MODEL["id"]], ["micro"])
    assert (trim(9), fresh.models()) == (["micro"], [])
    again = fresh.run("denoise")
    assert again["stats"]["load_s"] > 0
    assert again["files"]["latents"]["sha256"] == drawn


def test_trim_never_drops_a_model_that_a_request_uses_or_waits_for(shared, micro):
    # What other tests have left there.
    shared.until(shared.send("memory.trim", {"idle_models": 99}))
    ensure(shared, micro)
    stall = shared.stall("denoise", 3)
    trimmed = shared.send("memory.trim", {"idle_models": 9})
    waits = shared.work("denoise", steps=1, model=micro)
    assert {model["id"]: model["is_idle"] for model in shared.vitals()["models"]} == {MODEL["id"]: False, "micro": False}
    stall.end()
    assert shared.until(stall.request_id)["type"] == "result"
    # The picture is done, and its model idle; the other one is waited for.
    assert shared.until(trimmed)["output"]["models"] == [MODEL["id"]]
    assert shared.until(waits)["stats"]["load_s"] == 0


def test_trim_says_how_much_went_back_to_the_device(shared, device):
    shared.run("denoise", steps=1)
    before = shared.vitals()
    output = shared.until(shared.send("memory.trim", {"idle_models": 9}))["output"]
    freed = output["freed_bytes"]
    if device == "cpu":
        # torch pools no memory of the CPU: what went back is unknown, which is not 0.
        assert freed is None
        assert MODEL["id"] in output["models"]
        return
    after = shared.vitals()
    assert freed > sum(model["bytes"] for model in before["models"]) / 2
    assert after["device_bytes"] == before["device_bytes"] - freed
    assert after["allocated_bytes"] < before["allocated_bytes"]


def test_chunks_bring_every_byte_to_its_tensor(monkeypatch):
    """What a GPU's upload does, without one: sizes and types, cut and gathered, skipped ones between, none aligned."""
    import random

    import torch

    from darkroom import upload
    from darkroom.weight_files import Stored

    monkeypatch.setattr(upload, "CHUNK_BYTES", 256)
    rng = random.Random(5)
    for _ in range(30):
        body = torch.randint(0, 120, (4000,), dtype=torch.uint8)
        stored, at = [], 0
        while at < 3000:
            dtype = rng.choice([torch.float16, torch.float32, torch.int64, torch.uint8])
            count = rng.choice([0, 1, 3, 40, 200])
            at += rng.choice([0, 0, 0, 1, 30])
            end = at + count * dtype.itemsize
            if end <= len(body):
                stored.append(Stored(f"t{at}-{len(stored)}", dtype, (count,), at, end))
            at = end
        made = {each.name: torch.empty(each.shape, dtype=each.dtype) for each in stored}
        sizes = []
        for chunk in upload.chunks_of(stored, lambda each, made=made: made[each.name]):
            landed = torch.zeros(256, dtype=torch.uint8)
            landed[: chunk.end - chunk.begin] = body[chunk.begin : chunk.end]
            upload.spread(landed, chunk)
            sizes.append(chunk.end - chunk.begin)
        assert max(sizes) <= 256
        for each in stored:
            assert made[each.name].view(torch.uint8).tolist() == body[each.begin : each.end].tolist()
