"""Prompts of any length and their weights: equal to what the text encoder makes of each chunk, worked out here; and on
pictures, that what is asked last and what weighs more is drawn."""

import json
import random
from pathlib import Path

import numpy
import pytest
import torch
from micro import make_sd2, make_sdxl

from darkroom import prompts, tensors

# --- the grammar ---


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("", [[]]),
        ("a cat", [[("a cat", 1)]]),
        ("a (red) cat", [[("a ", 1), ("red", 1.1), (" cat", 1)]]),
        ("((a) b)", [[("a", 1.1 * 1.1), (" b", 1.1)]]),
        ("(a:1.3)(b: .5 )[c]", [[("a", 1.3), ("b", 0.5), ("c", 1 / 1.1)]]),
        ("((a:2) b:3)", [[("a", 2.0 * 3.0), (" b", 3.0)]]),
        ("(a:-1)", [[("a", -1)]]),
        ("(a", [[("a", 1.1)]]),
        ("[a (b", [[("a ", 1 / 1.1), ("b", 1.1 * (1 / 1.1))]]),
        ("a) b] c", [[("a) b] c", 1)]]),
        ("at 10:30) it", [[("at 10:30) it", 1)]]),
        ("(a:b) (a:1.2.3)", [[("a:b", 1.1), (" ", 1), ("a:1.2.3", 1.1)]]),
        (r"\(a\) \[b\] \\ c\d", [[(r"(a) [b] \ c\d", 1)]]),
        (r"(a\):1.3)", [[("a)", 1.3)]]),
        ("a BREAK b", [[("a", 1)], [("b", 1)]]),
        ("(a BREAK b:1.5)", [[("a", 1.5)], [("b", 1.5)]]),
        ("BREAK BREAK", [[], [], []]),
        ("BREAKING break", [[("BREAKING break", 1)]]),
        ("[a:b:0.5]", [[("a:b:0.5", 1 / 1.1)]]),
    ],
)
def test_a_text_is_read_as_the_grammar_says(text, sections):
    assert [[(part.text, part.weight) for part in section] for section in prompts.parse(text)] == sections


def test_any_text_is_one_of_the_grammar_and_loses_no_letter():
    """Of brackets that are closed by a bracket; a number that is a weight goes with it."""
    chance = random.Random(5)
    for _ in range(3000):
        text = "".join(chance.choice(["(", ")", "[", "]", "\\", "a", " ", ":", ",", "圆"]) for _ in range(chance.randrange(30)))
        parts = [part for section in prompts.parse(text) for part in section]
        assert all(part.text for part in parts)
        assert [letter for part in parts for letter in part.text if letter not in "()[]\\"] == [
            letter for letter in text if letter not in "()[]\\"
        ]


# --- what the encoder makes of it ---

# Fourteen letters fill a window of this model, each letter is a token.
FULL, REST = "abcdefg hijklmn", "opq"


class Encoder:
    """A text encoder of a folder, by transformers alone."""

    def __init__(self, model, number="", projects=False):
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        torch.set_num_threads(1)
        kind = CLIPTextModelWithProjection if projects else CLIPTextModel
        self.network = kind.from_pretrained(f"{model['path']}/text_encoder{number}", dtype=torch.float32).eval()
        # Out of the mapped files: on what address a matrix lies decides how a product of it is summed.
        for tensor in self.network.parameters():
            tensor.data = tensor.data.clone()
        self.tokenizer = CLIPTokenizer.from_pretrained(f"{model['path']}/tokenizer{number}")

    def output(self, words):
        ids = self.tokenizer(words, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.inference_mode():
            return self.network(ids, output_hidden_states=True)

    def last(self, *chunks):
        return torch.cat([self.output(words).last_hidden_state for words in chunks], 1)

    def layer(self, number, *chunks):
        return torch.cat([self.output(words).hidden_states[number] for words in chunks], 1)


def encoded(child, model, prompt, negative_prompt="", **more):
    answer = child.run("encode", model=model, prompt=prompt, negative_prompt=negative_prompt, **more)
    assert answer["type"] == "result", answer
    held = tensors.load(Path(answer["files"]["conditioning"]["path"]).read_bytes())[0]
    return held, answer["stats"]["tokens"]


@pytest.fixture(scope="module")
def sd2(micro_folder):
    return make_sd2(micro_folder / "prompts-sd2", seed=71)


@pytest.fixture(scope="module")
def sdxl(micro_folder):
    return make_sdxl(micro_folder / "prompts-sdxl", seed=72)


@pytest.fixture(scope="module")
def first(micro):
    return Encoder(micro)


@pytest.mark.parametrize("text", ["", "a star", FULL, "ein Kreis 圆", "<|endoftext|> a"])
def test_a_text_of_one_window_is_what_it_always_was(fresh, micro, first, text):
    held, told = encoded(fresh, micro, text)
    assert torch.equal(held["positive"], first.last(text))
    assert told["prompt"]["chunks"] == 1
    assert told["prompt"]["dropped"] == 0


@pytest.mark.parametrize("kind", ["micro", "sd2"])
def test_a_longer_text_is_the_states_of_its_chunks_and_the_other_one_is_filled_up(fresh, request, kind):
    model = request.getfixturevalue(kind)
    encoder = Encoder(model)
    held, told = encoded(fresh, model, f"{FULL} {REST}", "xyz")
    assert torch.equal(held["positive"], encoder.last(FULL, REST))
    assert torch.equal(held["negative"], encoder.last("xyz", ""))
    assert told == {
        "prompt": {"read": 17, "dropped": 0, "dropped_text": "", "chunks": 2},
        "negative_prompt": {"read": 3, "dropped": 0, "dropped_text": "", "chunks": 2},
    }
    held, _ = encoded(fresh, model, "xyz", f"{FULL} {FULL} {REST}")
    assert torch.equal(held["positive"], encoder.last("xyz", "", ""))


def test_sdxl_hears_both_encoders_chunk_by_chunk_and_the_first_chunks_vector(fresh, sdxl):
    first, second = Encoder(sdxl), Encoder(sdxl, "_2", projects=True)
    held, _ = encoded(fresh, sdxl, f"{FULL} {REST}", "xyz")
    for name, chunks in (("positive", (FULL, REST)), ("negative", ("xyz", ""))):
        assert torch.equal(held[name], torch.cat([first.layer(-2, *chunks), second.layer(-2, *chunks)], -1))
        assert torch.equal(held[f"{name}_pooled"], second.output(chunks[0]).text_embeds)
    held, _ = encoded(fresh, sdxl, f"{FULL} {REST}")
    assert held["negative"].shape == held["positive"].shape == (1, 32, 80)
    assert not bool(held["negative"].any())


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        # A full chunk ends behind its last comma: what follows it stays together.
        ("abcdef, hijklmn opq", ["abcdef,", "hijklmn opq"]),
        ("ab, cdef, hijklmn opq", ["ab, cdef,", "hijklmn opq"]),
        # A comma that is itself the first of the next chunk moves nothing.
        (f"ab, {FULL[:7]} hijk, opq", ["ab, abcdefg hijk", ", opq"]),
        ("a BREAK b", ["a", "b"]),
        ("a BREAK BREAK b BREAK", ["a", "", "b"]),
        ("BREAK", [""]),
        (f"{FULL} BREAK {REST}", [FULL, REST]),
    ],
)
def test_a_chunk_ends_where_it_should(fresh, micro, first, text, chunks):
    held, told = encoded(fresh, micro, text, prompt_syntax="a1111")
    assert torch.equal(held["positive"], first.last(*chunks))
    assert told["prompt"]["chunks"] == len(chunks)


def weights_of(*chunks):
    """[chunk of (text, weight) …] as the weights of all tokens, the marks' and the padding's 1."""
    rows = [[1.0, *(weight for text, weight in chunk for letter in text if letter != " ")] for chunk in chunks]
    return torch.tensor([[*row, *[1.0] * (16 - len(row))] for row in rows], dtype=torch.float32).reshape(1, -1, 1)


def by_mean(states, weights):
    """Each chunk multiplied, and brought back to its mean."""
    made = []
    for state, weight in zip(states.split(16, 1), weights.split(16, 1), strict=True):
        weighed = state * weight
        made.append(weighed * (state.mean() / weighed.mean()) if bool((weight != 1).any()) else state)
    return torch.cat(made, 1)


def test_with_a1111_a_weighted_state_is_multiplied_and_its_chunk_keeps_its_mean(fresh, micro, first):
    text = "ab (cde:1.3) [fg] h BREAK i ((jk)) BREAK l"
    held, told = encoded(fresh, micro, text, "(xy:0.5)", prompt_syntax="a1111")
    weights = weights_of([("ab", 1), ("cde", 1.3), ("fg", 1 / 1.1), ("h", 1)], [("i", 1), ("jk", 1.1 * 1.1)], [("l", 1)])
    assert torch.equal(held["positive"], by_mean(first.last("ab cde fg h", "i jk", "l"), weights))
    assert torch.equal(held["negative"], by_mean(first.last("xy", "", ""), weights_of([("xy", 0.5)], [], [])))
    assert told["prompt"]["parts"] == [
        {"text": "ab ", "weight": 1, "tokens": 2},
        {"text": "cde", "weight": 1.3, "tokens": 3},
        {"text": " ", "weight": 1, "tokens": 0},
        {"text": "fg", "weight": 0.909091, "tokens": 2},
        {"text": " h", "weight": 1, "tokens": 1},
        {"text": "i ", "weight": 1, "tokens": 1},
        {"text": "jk", "weight": 1.21, "tokens": 2},
        {"text": "l", "weight": 1, "tokens": 1},
    ]


def test_with_comfy_a_weighted_state_lies_so_far_from_the_empty_texts(fresh, micro, sdxl, first):
    held, _ = encoded(fresh, micro, "ab (cde:1.3) BREAK f", prompt_syntax="comfy")
    states, nothing = first.last("ab cde", "f"), first.last("", "")
    weights = weights_of([("ab", 1), ("cde", 1.3)], [("f", 1)])
    assert torch.equal(held["positive"], torch.where(weights == 1, states, (states - nothing) * weights + nothing))
    # Of several encoders each has its own empty text, and the vector of the whole is not weighed.
    held, _ = encoded(fresh, sdxl, "ab (cde:1.3)", prompt_syntax="comfy")
    states = torch.cat([each.layer(-2, "ab cde") for each in (Encoder(sdxl), Encoder(sdxl, "_2", projects=True))], -1)
    nothing = torch.cat([each.layer(-2, "") for each in (Encoder(sdxl), Encoder(sdxl, "_2", projects=True))], -1)
    weights = weights_of([("ab", 1), ("cde", 1.3)])
    assert torch.equal(held["positive"], torch.where(weights == 1, states, (states - nothing) * weights + nothing))
    assert torch.equal(held["positive_pooled"], Encoder(sdxl, "_2", projects=True).output("ab cde").text_embeds)


@pytest.mark.parametrize("syntax", ["plain", None])
def test_brackets_are_letters_where_nobody_asks_for_weights(fresh, micro, first, syntax):
    held, told = encoded(fresh, micro, "(ab:1.3) [c]", **({"prompt_syntax": syntax} if syntax else {}))
    assert torch.equal(held["positive"], first.last("(ab:1.3) [c]"))
    assert "parts" not in told["prompt"]
    held, _ = encoded(fresh, micro, r"\(ab:1.3\) \[c\]", prompt_syntax="a1111")
    assert torch.equal(held["positive"], first.last("(ab:1.3) [c]"))


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_of_sd1_counts_the_layers_from_the_end(fresh, micro, first, skip):
    held, _ = encoded(fresh, micro, "a star", clip_skip=skip)
    with torch.inference_mode():
        assert torch.equal(held["positive"], first.network.final_layer_norm(first.layer(-skip, "a star")))
    assert torch.equal(held["positive"], first.last("a star")) == (skip == 1)


def test_clip_skip_of_sd2_begins_at_the_layer_that_its_encoder_ends_with(fresh, sd2):
    encoder = Encoder(sd2)
    for skip in (2, 3, 4):
        held, _ = encoded(fresh, sd2, "a star", clip_skip=skip)
        with torch.inference_mode():
            assert torch.equal(held["positive"], encoder.network.final_layer_norm(encoder.layer(1 - skip, "a star")))
    assert torch.equal(encoded(fresh, sd2, "a star", clip_skip=2)[0]["positive"], encoder.last("a star"))


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_of_sdxl_is_that_of_both_encoders(fresh, sdxl, skip):
    held, _ = encoded(fresh, sdxl, "a star", clip_skip=skip)
    encoders = Encoder(sdxl), Encoder(sdxl, "_2", projects=True)
    assert torch.equal(held["positive"], torch.cat([each.layer(-skip, "a star") for each in encoders], -1))
    assert torch.equal(held["positive_pooled"], encoders[1].output("a star").text_embeds)
    assert torch.equal(held["positive"], encoded(fresh, sdxl, "a star")[0]["positive"]) == (skip == 2)


@pytest.mark.parametrize(
    ("kind", "changes", "field", "words"),
    [
        ("micro", {"prompt": "a " * 2395}, "input.prompt", "the text has 172 chunks of 14 tokens; at most 171 are read"),
        ("micro", {"negative_prompt": "a " * 2395}, "input.negativePrompt", "at most 171 are read"),
        ("micro", {"prompt": "a BREAK " * 300}, "input.prompt", "take out some BREAK"),
        ("micro", {"prompt": "(a:10.5)"}, "input.prompt", "'a' has the weight 10.5; it must be from -10 to 10"),
        ("micro", {"negative_prompt": "((a:4):4)"}, "input.negativePrompt", "'a' has the weight 16"),
        ("micro", {"prompt": "(" * 40 + "a"}, "input.prompt", "'a' has the weight 45.2593"),
        ("micro", {"clip_skip": 3}, "input.clipSkip", "has the layers 1 to 2 from the end; clipSkip must be one of them, not 3"),
        ("sd2", {"clip_skip": 1}, "input.clipSkip", "has the layers 2 to 4 from the end"),
        ("sdxl", {"clip_skip": 3}, "input.clipSkip", "has the layers 1 to 2 from the end"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(fresh, request, kind, changes, field, words):
    answer = fresh.run("encode", model=request.getfixturevalue(kind), **{"prompt_syntax": "a1111", **changes})
    assert (answer["code"], answer["class"], answer["field"]) == ("inference.request_unfit", "permanent", field)
    assert words in answer["message"]


def test_conditioning_of_another_reading_is_made_again(fresh):
    file = fresh.run("encode", prompt="a (red) star", prompt_syntax="a1111")["files"]["conditioning"]
    given = {"prompt": "a (red) star", "files": {"conditioning": file}, "steps": 1}
    assert fresh.run("denoise", prompt_syntax="a1111", **given)["stats"]["remade"] == []
    for more in ({}, {"prompt_syntax": "comfy"}, {"prompt_syntax": "a1111", "clip_skip": 2}):
        assert fresh.run("denoise", **more, **given)["stats"]["remade"] == ["conditioning"]


# --- what is drawn of it, on texts and seeds that nobody tuned to ---


def drawn(child, prompt, seed, **more):
    """[128, 128, 3] uint8."""
    request = {"prompt": prompt, "seed": seed, "steps": 12, "sampler": "DPM++ 2M Karras", "width": 128, "height": 128, **more}
    denoised = child.run("denoise", **request)
    assert denoised["type"] == "result", denoised
    decoded = child.run("decode", files=denoised["files"], width=128, height=128)
    return numpy.frombuffer(Path(decoded["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(128, 128, 3)


def scenes(count, seed):
    """(background, colour, shape), both colours differing."""
    from training.world import COLOURS, SHAPES

    chance = random.Random(seed)
    return [(*chance.sample(list(COLOURS), 2), chance.choice(list(SHAPES))) for _ in range(count)]


@pytest.mark.judge
def test_the_colour_at_the_end_of_300_tokens_is_drawn(fresh, pytestconfig):
    """Of the background, whose last words stand far behind what one window holds; without them it is any."""
    from training.judge import look
    from training.world import COLOURS

    whole, cut = [], []
    for index, (background, colour, shape) in enumerate(scenes(pytestconfig.getoption("--judged"), 20270)):
        text = "a large shape, " * 73 + f"a large {colour} {shape} on {background}"
        whole.append(COLOURS[look(drawn(fresh, text, 93_000 + index)).background] == background)
        cut.append(COLOURS[look(drawn(fresh, text[: text.index(f"a large {colour}")], 93_000 + index)).background] == background)
    print(json.dumps({"last_colour": numpy.mean(whole), "cut_off": numpy.mean(cut), "pictures": len(whole)}))
    assert numpy.mean(whole) >= 0.8
    assert numpy.mean(cut) <= 0.5


@pytest.mark.judge
@pytest.mark.parametrize("syntax", ["a1111", "comfy"])
def test_of_two_chunks_the_heavier_one_says_the_colour(fresh, pytestconfig, syntax):
    """Chunks without padding: what the encoder makes of that says the whole text once more, and has no weight."""
    from training.judge import look
    from training.world import COLOURS

    def share(first, second):
        """Of pictures whose largest thing has the colour of the first chunk."""
        seen = []
        for index, (one, other, shape) in enumerate(scenes(pytestconfig.getoption("--judged"), 20271)):
            text = f"({f'a large {one} {shape}, ' * 6}:{first}) BREAK ({f'a large {other} {shape}, ' * 6}:{second})"
            things = look(drawn(fresh, text, 94_000 + index, prompt_syntax=syntax)).things
            seen.append([COLOURS[thing.colour] for thing in things[:1]] == [one])
        return float(numpy.mean(seen))

    heavier, lighter = share(1.4, 0.6), share(0.6, 1.4)
    count = pytestconfig.getoption("--judged")
    print(json.dumps({"syntax": syntax, "heavier": heavier, "lighter": lighter, "pictures": count}))
    assert heavier - lighter >= 0.3
