"""Words of one's own: what is encoded is what diffusers encodes with the same vectors in its vocabulary."""

from pathlib import Path

import pytest
import torch
from conftest import MODEL
from micro import FIRST_ENCODER, SECOND_ENCODER, make_model, make_sdxl
from safetensors.torch import save_file
from test_adapters import body_hash
from test_families import pipelines  # noqa: F401

from darkroom import tensors

FIRST, SECOND = FIRST_ENCODER["hidden_size"], SECOND_ENCODER["hidden_size"]


def vectors(places, width, seed=3):
    return torch.randn(places, width, generator=torch.Generator().manual_seed(seed)) * 0.4


@pytest.fixture(scope="module")
def models(micro_folder):
    return {"sd1": make_model(micro_folder / "with words", seed=81), "sdxl": make_sdxl(micro_folder / "xl with words", seed=82)}


@pytest.fixture(scope="module")
def embedding(micro_folder):
    """Writes tensors as a file; returns it as a request on the wire names it."""

    def write(name, held, word=None):
        path = micro_folder / f"{name}.safetensors"
        save_file(held, path)
        return {"model": {"id": name, "path": str(path), "body_hash": body_hash(path)}, "word": word or name}

    return write


def encoded(child, **request):
    answer = child.run("encode", **request)
    assert answer["type"] == "result", answer
    return tensors.load(Path(answer["files"]["conditioning"]["path"]).read_bytes())[0], answer["stats"]["tokens"]


def expected(pipeline, prompt, word, places, held, suffix=""):
    """What the pipeline's encoder makes of the prompt with `held` as tokens of their own in place of the word."""
    tokenizer = getattr(pipeline, f"tokenizer{suffix}")
    encoder = getattr(pipeline, f"text_encoder{suffix}")
    before, _, after = prompt.partition(word)
    ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after)]
    filler = [0] * places
    row = [tokenizer.bos_token_id, *ids[0], *filler, *ids[1], tokenizer.eos_token_id]
    row += [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(row))
    lookup = encoder.get_input_embeddings()

    def put(_, given, made):
        at = 1 + len(ids[0])
        made[0, at : at + places] = held
        return made

    hook = lookup.register_forward_hook(put)
    try:
        with torch.inference_mode():
            return encoder(torch.tensor([row]), output_hidden_states=True)
    finally:
        hook.remove()


def test_a_word_is_its_vectors_for_sd1(fresh, models, embedding, pipelines):  # noqa: F811
    held = vectors(3, FIRST)
    given = embedding("mystyle", {"emb_params": held})
    prompt = "a MyStyle, b"
    made, heard = encoded(fresh, model=models["sd1"], prompt=prompt, negative_prompt="mystyle", embeddings=[given])
    pipeline = pipelines(models["sd1"]["path"])
    wanted = expected(pipeline, prompt.lower(), "mystyle", 3, held).last_hidden_state
    assert torch.allclose(made["positive"], wanted, atol=1e-5)
    assert torch.allclose(made["negative"], expected(pipeline, "mystyle", "mystyle", 3, held).last_hidden_state, atol=1e-5)
    # a, three places, a comma, b.
    assert (heard["prompt"]["read"], heard["negative_prompt"]["read"]) == (6, 3)
    # Without it the letters are heard, also after it was.
    plain, heard = encoded(fresh, model=models["sd1"], prompt=prompt, negative_prompt="mystyle")
    assert not torch.allclose(plain["positive"], made["positive"], atol=1e-2)
    assert heard["negative_prompt"]["read"] == 7


def test_a_word_has_vectors_for_both_encoders_of_sdxl(fresh, models, embedding, pipelines):  # noqa: F811
    first, second = vectors(2, FIRST), vectors(2, SECOND, seed=4)
    given = embedding("both", {"clip_l": first, "clip_g": second}, word="sub/both")
    made, _ = encoded(fresh, model=models["sdxl"], prompt="x sub/both", negative_prompt="y", embeddings=[given])
    pipeline = pipelines(models["sdxl"]["path"])
    wanted = [expected(pipeline, "x sub/both", "sub/both", 2, held, suffix) for held, suffix in ((first, ""), (second, "_2"))]
    assert torch.allclose(made["positive"], torch.cat([each.hidden_states[-2] for each in wanted], -1), atol=1e-5)
    assert torch.allclose(made["positive_pooled"], wanted[1].text_embeds, atol=1e-5)


def test_one_vector_without_a_row_is_one_place_and_two_words_do_not_meet(fresh, models, embedding, pipelines):  # noqa: F811
    one = vectors(1, FIRST)[0]
    given = [embedding("mine", {"*": one}), embedding("mine-too", {"anything": vectors(2, FIRST, seed=9)})]
    made, heard = encoded(fresh, model=models["sd1"], prompt="mine-too", negative_prompt="mine", embeddings=given)
    pipeline = pipelines(models["sd1"]["path"])
    assert (heard["prompt"]["read"], heard["negative_prompt"]["read"]) == (2, 1)
    assert torch.allclose(made["positive"], expected(pipeline, "w", "w", 2, vectors(2, FIRST, seed=9)).last_hidden_state, atol=1e-5)
    assert torch.allclose(made["negative"], expected(pipeline, "w", "w", 1, one).last_hidden_state, atol=1e-5)
    _, heard = encoded(fresh, model=models["sd1"], prompt="mined", embeddings=given)
    assert heard["prompt"]["read"] == 5


def test_the_conditioning_of_another_embedding_is_not_taken(fresh, models, embedding):
    request = {"model": models["sd1"], "prompt": "a word", "sampler": "DDIM", "steps": 2}
    one, other = embedding("one", {"e": vectors(1, FIRST)}, word="word"), embedding("other", {"e": vectors(1, FIRST, seed=8)}, word="word")
    answer = fresh.run("encode", embeddings=[one], **{name: request[name] for name in ("model", "prompt")})
    assert fresh.run("denoise", embeddings=[one], files=answer["files"], **request)["stats"]["remade"] == []
    remade = fresh.run("denoise", embeddings=[other], files=answer["files"], **request)
    assert remade["stats"]["remade"] == ["conditioning"]
    undisturbed = fresh.run("denoise", embeddings=[other], **request)
    assert remade["files"]["latents"]["sha256"] == undisturbed["files"]["latents"]["sha256"]


@pytest.mark.parametrize(
    ("family", "held", "words"),
    [
        ("sd1", {"e": torch.zeros(1, 48)}, "its vectors are [1, 48], and those of the text_encoder of this model have 32 numbers"),
        ("sd1", {"e": torch.zeros(15, FIRST)}, "it takes 15 places, and a prompt of this model has 14"),
        ("sd1", {"clip_g": torch.zeros(1, FIRST)}, "it has no vectors clip_l for the text_encoder of this model, but clip_g"),
        ("sdxl", {"clip_l": torch.zeros(1, FIRST)}, "it has no vectors clip_g for the text_encoder_2 of this model, but clip_l"),
        ("sd1", {"e": torch.zeros(1, 1, FIRST)}, "its vectors are [1, 1, 32]"),
    ],
)
def test_an_embedding_that_does_not_fit_is_refused_by_its_name(fresh, models, embedding, family, held, words):
    given = embedding("unfit", held)
    answer = fresh.run("encode", model=models[family], prompt="unfit", embeddings=[given])
    assert (answer["code"], answer["field"]) == ("inference.embedding_unfit", "input.embeddings")
    assert f"embedding unfit: {words}" in answer["message"]
    assert fresh.run("encode", model=models[family], prompt="unfit")["type"] == "result"


def test_a_file_that_is_not_the_pinned_one_is_refused(fresh, embedding):
    given = embedding("pinned", {"e": torch.zeros(1, 96)})
    given["model"]["body_hash"] = "0" * 64
    answer = fresh.run("encode", model=MODEL, prompt="pinned", embeddings=[given])
    assert (answer["code"], answer["class"]) == ("model.changed", "permanent")
