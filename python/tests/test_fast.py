"""The class `fast`: what it computes, what it says it used, and that nothing of it leads to a picture of the other
class."""

import contextlib
import functools
import gc
import os
import stat
import weakref
from importlib.metadata import version

import pytest
import torch
from conftest import EVERY_CALL, lasting
from micro_flow import SCHEDULERS, make_flow_control, make_flow_model

from darkroom import compiling, fast, schema
from darkroom.families import families
from darkroom.step_cache import StepCache

FIELDS = {"steps": 16, "width": 64, "height": 48, "sampler": "Euler", "negative_prompt": "", "guidance": 1.0}
CACHED = sorted(SCHEDULERS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, device, micro_folder):
    """A child that finds no compiler: its kernels are those of the class `exact`."""
    options = {"device": device, "models": [micro_folder], "checkpoint": EVERY_CALL, "environment": {"PATH": "/nonexistent"}}
    yield from lasting(tmp_path_factory, "plain", **options)


@pytest.fixture(scope="module")
def model_of(micro_folder):
    made = {}

    def model(family):
        if family not in made:
            # Those with one block of a kind have two in all; a cache needs blocks that it may leave out.
            more = {"num_layers": 2} if family in ("flux1", "flux2") else {}
            made[family] = make_flow_model(micro_folder / f"fast {family}", family, 31, transformer=more)
        return made[family]

    return model


def drawn(child, model, threshold=None, **changes):
    """(digest of the latents, stats of the denoise); of the class `exact` where no threshold is said."""
    asked = {**FIELDS, **changes, "model": model, **({} if threshold is None else {"class": "fast", "step_cache": threshold})}
    answer = child.run("denoise", **asked)
    assert answer["type"] == "result", answer
    return answer["files"]["latents"], answer["stats"]


def latents_of(file):
    from safetensors.torch import load_file

    return load_file(file["path"])["latents"]


def reasons(stats):
    return {each["way"]: each["why"] for each in stats["fast"]["not_used"]}


@pytest.mark.parametrize("family", CACHED)
def test_a_step_cache_that_leaves_nothing_out_moves_no_bit_and_one_that_does_says_how_often(plain, model_of, family):
    model = model_of(family)
    exact, stats = drawn(plain, model)
    assert "fast" not in stats
    off, stats = drawn(plain, model, 0)
    assert (off["bytes"], stats["fast"]["used"]) == (exact["bytes"], [])
    assert reasons(stats)["step-cache"] == "the request turns it off: stepCache is 0"
    assert "compiler" in reasons(stats)["compile"]
    never, stats = drawn(plain, model, 1e-9)
    assert stats["fast"]["used"] == ["step-cache"]
    assert stats["fast"]["step_cache"] == {"threshold": 1e-9, "computed": 16, "reused": 0}
    whole = latents_of(exact)
    assert torch.equal(latents_of(off), whole)
    assert torch.equal(latents_of(never), whole)
    often, stats = drawn(plain, model, 1.0)
    numbers = stats["fast"]["step_cache"]
    assert numbers["computed"] + numbers["reused"] == 16
    assert numbers["reused"] > 0
    less = latents_of(often)
    assert not torch.equal(less, whole)
    assert (less - whole).norm() / whole.norm() < 0.5
    again, stats = drawn(plain, model, 1.0)
    assert (again["sha256"], stats["fast"]["step_cache"]) == (often["sha256"], numbers), "a cache is of one picture alone"
    assert drawn(plain, model)[0]["sha256"] == exact["sha256"], "and leaves the network as it was"


def test_each_text_of_a_call_has_a_pass_of_its_own(plain, model_of):
    _, stats = drawn(plain, model_of("qwen-image"), 1.0, guidance=4.0, negative_prompt="blurry")
    assert sum(stats["fast"]["step_cache"][name] for name in ("computed", "reused")) == 32


def test_what_reused_blocks_add_is_what_they_added():
    class Block(torch.nn.Module):
        def __init__(self, add):
            super().__init__()
            self.add, self.runs = add, 0

        def forward(self, hidden_states, encoder_hidden_states):
            self.runs += 1
            return encoder_hidden_states + 1, hidden_states + self.add

    blocks = [Block(1.0), Block(2.0), Block(4.0)]

    def forward(value):
        text, drawn = torch.zeros(1, 2, 1), torch.full((1, 3, 1), value)
        for block in blocks:
            text, drawn = block(hidden_states=drawn, encoder_hidden_states=text)
        return drawn[0, 0, 0].item()

    cache = StepCache(blocks, 0.1)
    with cache.within():
        for value in (0.0, 10.0, 20.0):
            cache.begin_call()
            assert forward(value) == value + 7
        blocks[0].add = 2.0
        cache.begin_call()
        assert forward(0.0) == 8, "the first block adds something else: all of them run"
    assert [block.runs for block in blocks] == [4, 2, 2]
    assert (cache.computed, cache.reused) == (2, 2)
    assert all("forward" not in vars(block) for block in blocks)


def test_a_control_net_and_the_cache_do_not_act_together(plain, model_of, micro_folder):
    control = make_flow_control(micro_folder / "fast control", "sd3", 33)
    one = {"model": control, "weight": 1.0, "start": 0.0, "end": 1.0, "mode": "balanced", "preprocessor": {"kind": "pose", "people": []}}
    # Whether the picture can be drawn so is said by other tests; here only that the cache stays away.
    used = fast.Used("")
    network = torch.nn.Module()
    network.transformer_blocks = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
    with contextlib.ExitStack() as stack:
        fast._cache(used, families()["sd3"].fast, network, {"step_cache": 0.5, "control": [one]}, stack)
    assert used.cache is None
    assert "ControlNet" in used.not_used["step-cache"]


def test_neither_class_goes_on_from_what_the_other_has_left(plain, model_of):
    model = model_of("z-image")
    as_fast = {"class": "fast", "step_cache": 0.5}
    of_exact, of_fast = (plain.work("denoise", model=model, **{**FIELDS, **more}) for more in ({}, as_fast))
    results = [plain.until(request) for request in (of_exact, of_fast)]
    checkpoints = [plain.of(request, "checkpoint")[2] for request in (of_exact, of_fast)]
    for checkpoint, more in ((checkpoints[0], as_fast), (checkpoints[1], {})):
        answer = plain.run("denoise", model=model, checkpoint=checkpoint, **{**FIELDS, **more})
        assert answer["stats"]["resumed_from"] == 0
        assert "class" in answer["stats"]["checkpoint_refused"], answer
    # One of its own class it takes, with a cache that is empty, and says so.
    answer = plain.run("denoise", model=model, checkpoint=checkpoints[1], **{**FIELDS, **as_fast})
    assert (answer["stats"]["resumed_from"], answer["stats"]["checkpoint_refused"]) == (3, None)
    assert sum(answer["stats"]["fast"]["step_cache"][name] for name in ("computed", "reused")) == 13
    assert answer["stats"]["fast"]["step_cache"]["computed"] >= 1
    notes = [frame["data"]["text"] for frame in plain.frames if frame["data"].get("type") == "note"]
    assert "the picture goes on from call 3 with a step cache that is empty" in notes
    texts = plain.run("encode", model=model, prompt="p", negative_prompt="")
    answer = plain.run("denoise", model=model, files=texts["files"], **{**FIELDS, **as_fast, "prompt": "p"})
    assert answer["stats"]["remade"] == ["conditioning"]
    for result, more in ((results[0], {"class": "fast"}), (results[1], {})):
        refused = plain.run("decode", model=model, files=result["files"], width=64, height=48, **more)
        assert (refused["type"], refused["code"]) == ("error", "artifact.missing"), refused


def test_families_with_a_step_cache_are_those_that_the_node_knows():
    assert sorted(name for name, family in families().items() if family.fast.sequence) == sorted(schema.DOCUMENT["step_cached"])


# --- compiling ---


class Block(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = torch.nn.Linear(width, width)

    def forward(self, hidden_states):
        return self.linear(hidden_states) + 1


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(4), Block(4), Block(4)]).requires_grad_(False)

    def forward(self, given):
        for block in self.blocks:
            given = block(given)
        return given


@pytest.fixture
def eager_backend(monkeypatch):
    """What torch traces runs as it is: how regions are made is tested, not what a compiler makes of them."""
    made = []

    def backend(graph, _):
        def run(*given):
            return graph(*given)

        made.append(weakref.ref(graph))
        return run

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return made


def test_blocks_of_one_kind_are_compiled_once_and_let_go_of_with_their_network(eager_backend):
    network = Network()
    with torch.inference_mode():
        # As in a picture: what comes in was made here, weights were not.
        given = torch.ones(2, 4)
        whole = network(given)
        compiled = compiling.of(network, ["Block"], False)
        with compiled.within("shape", lambda: None):
            assert torch.equal(network(given), whole)
            # Weights are read, not kept: an adapter changes them in place, and a load puts others there.
            network.blocks[0].linear.bias.add_(1)
            with torch.inference_mode(False):
                network.blocks[1].linear.weight = torch.nn.Parameter(torch.zeros(4, 4), requires_grad=False)
            changed = network(given)
        assert len(eager_backend) == 1
        assert compiled.counts == {"Block": 3}
        assert torch.equal(network(given), changed)
        assert not torch.equal(changed, whole)
    assert all("forward" not in vars(block) for block in network.blocks)
    assert compiled.failure is None
    compiling.drop(network)
    gc.collect()
    assert eager_backend[0]() is None
    # And by itself, when nobody has the network any more.
    with torch.inference_mode(), compiled.within("shape", lambda: None):
        network(given)
    network = compiled = None
    gc.collect()
    assert eager_backend[1]() is None


def test_more_shapes_than_are_kept_begin_anew(eager_backend):
    network = Network()
    compiled = compiling.of(network, ["Block"], False)
    with torch.inference_mode():
        for rows in range(1, compiling.MOST_SHAPES + 2):
            with compiled.within(rows, lambda: None):
                network(torch.ones(rows, 4))
    gc.collect()
    assert [made() is not None for made in eager_backend] == [*[False] * compiling.MOST_SHAPES, True]


def test_what_cannot_be_compiled_is_computed_eagerly_and_said(monkeypatch):
    def backend(*_):
        raise RuntimeError("no such instruction: vnothing\nand more")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    network, given = Network(), torch.ones(2, 4)
    with torch.inference_mode():
        whole = network(given)
        used = fast.Used("torch 9", compiling.of(network, ["Block"], False), began=compiling.counted())
        with used.compiled.within("shape", lambda: None):
            assert torch.equal(network(given), whole)
    stats = used.stats()["fast"]
    assert stats["used"] == []
    assert stats["not_used"][0]["way"] == "compile"
    assert "no such instruction" in stats["not_used"][0]["why"]
    assert "and more" not in stats["not_used"][0]["why"]


def test_memory_that_runs_out_while_something_is_compiled_is_no_fault_of_the_compiler(monkeypatch):
    def backend(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    network = Network()
    compiled = compiling.of(network, ["Block"], False)
    with torch.inference_mode(), compiled.within("shape", lambda: None), pytest.raises(Exception, match="out of memory"):
        network(torch.ones(2, 4))
    assert compiled.failure is None
    assert all("forward" not in vars(block) for block in network.blocks)


def test_what_is_compiled_is_kept_by_build_in_folders_of_ones_own(tmp_path, monkeypatch):
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS")
    for name in names:
        monkeypatch.setenv(name, "before")
    root = tmp_path / "compiled"
    assert compiling.prepare_environment(str(root), "cpu") is None
    [folder] = root.iterdir()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (root, folder)] == [0o700, 0o700]
    assert f'"torch": "{version("torch")}"' in (folder / "build.json").read_text()
    old, other = root / ("0" * 16), root / ("1" * 16)
    for each, age in ((old, 40), (other, 1)):
        each.mkdir()
        then = each.stat().st_mtime - age * 86_400
        os.utime(each, (then, then))
    assert compiling.prepare_environment(str(root), "cpu") is None
    assert sorted(root.iterdir()) == sorted([folder, other]), "a build that is gone leaves nothing for ever"
    root.chmod(0o777)
    monkeypatch.setenv(names[0], "before")
    assert "is not this user's alone" in compiling.prepare_environment(str(root), "cpu")
    assert os.environ[names[0]] == "before", "what others may have put there is not run"
    assert "named no folder" in compiling.prepare_environment(None, "cpu")


@pytest.mark.long
def test_compiled_blocks_draw_nearly_the_same_and_the_next_process_finds_them_on_disk(
    spawn, tmp_path, micro_folder, model_of, device
):
    model = model_of("qwen-image")
    cache = tmp_path / "compiled"
    cold, warm = (spawn(models=[micro_folder], compiled=str(cache)) for _ in range(2))
    assert cold.ready()["fast"] == {"why": None, "uncached": None}
    exact, _ = drawn(cold, model)
    file, stats = drawn(cold, model, 0)
    [compiled] = [stats["fast"]["compile"]]
    assert stats["fast"]["used"] == ["compile"]
    assert compiled["blocks"] == [{"kind": "QwenImageTransformerBlock", "count": 2}]
    assert (compiled["functions"] > 0, compiled["from_cache"]) == (True, 0)
    assert "compile" in {frame["data"].get("stage") for frame in cold.frames}, "who waits is told what for"
    whole, made = latents_of(exact), latents_of(file)
    assert not torch.equal(made, whole) or torch.allclose(made, whole)
    # Fused sums round otherwise: by some of the last digits of fp32, on a GPU of bf16, grown over the calls.
    assert (made - whole).norm() / whole.norm() < (1e-4 if device == "cpu" else 1e-2)
    assert drawn(cold, model)[0]["sha256"] == exact["sha256"], "the class exact computes as before"
    # Another text has another length: what was compiled holds for it.
    _, stats = drawn(cold, model, 0.5, prompt="a longer prompt than before, by some words")
    assert stats["fast"]["compile"]["functions"] == 0
    assert stats["fast"]["used"] == ["compile", "step-cache"]
    warm.ready()
    _, stats = drawn(warm, model, 0)
    again = stats["fast"]["compile"]
    assert (again["functions"], again["from_cache"]) == (compiled["functions"], compiled["functions"])
    assert again["seconds"] < compiled["seconds"]
