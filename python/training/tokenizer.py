"""The family's own CLIP byte-pair vocabulary of 1,024 entries.

512 byte tokens (each byte alone and at the end of a word, so that no text is unknown), 510 merges learned on
the captions, and the two special tokens last, as in CLIP.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from .captions import write, write_vague
from .world import random_scene

VOCABULARY_SIZE, MERGES, LENGTH = 1024, 510, 32
START, END = 1022, 1023
SUFFIX = "</w>"

# Words of ordinary prompts that mean nothing here: as whole tokens they cost one place of the 32 each instead
# of many.
COMMON_WORDS = (
    "photo picture image drawing painting sketch icon logo pastel outline style soft pale bright dark light "
    "flat simple plain clean sharp blurry noisy ugly bad good best worst low high quality detailed "
    "masterpiece artifact artifacts text watermark signature person people man woman child face hand eye "
    "hair dog cat bird fish horse tree flower grass mountain river sea sky cloud sun moon star stars house "
    "car boat road city street night day morning evening winter summer autumn spring rain snow fire water "
    "stone wood metal glass paper gold silver pink brown gray grey cyan magenta teal one two three four "
    "five six seven eight nine ten zero many few some none every each first second third last next to from "
    "with without near far behind front inside outside between around center centre middle corner edge side "
    "top bottom left right above below over under upper lower line lines dot dots stripe curve point round "
    "curved straight tilted rotated empty full tiny small medium large big huge little wide tall short long "
    "thin thick and or not no the a an of in on at by for is are it its this that these those there here "
    "where what which shape shapes object objects thing things background foreground color colour colors "
    "colours scene nothing only something disk disc circle square triangle cross plus ring donut box "
    "restricted test render rendered digital art cartoon minimal vector geometric abstract symmetric "
    "pattern texture shadow outlined border frame canvas"
)
CORPUS_SCENES = 20_000


def train() -> CLIPTokenizer:
    """Learn the merges on captions of random scenes (fixed seed) and assemble the tokenizer."""
    template = CLIPTokenizer()._tokenizer
    rng = random.Random(3)
    corpus = []
    for _ in range(CORPUS_SCENES):
        scene = random_scene(rng)
        corpus += [write(rng, scene).text, write_vague(rng, scene)]
    corpus += [COMMON_WORDS] * 3
    learner = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX, unk_token="<|endoftext|>"))
    learner.normalizer, learner.pre_tokenizer = template.normalizer, template.pre_tokenizer
    learner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=4000,
            min_frequency=1,
            end_of_word_suffix=SUFFIX,
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
            special_tokens=[],
        ),
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][:MERGES]
    if len(merges) != MERGES:
        raise ValueError(f"the corpus gave {len(merges)} merges, {MERGES} are needed")
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary: dict[str, int] = {}
    for token in [*alphabet, *(letter + SUFFIX for letter in alphabet), *("".join(pair) for pair in merges)]:
        vocabulary.setdefault(token, len(vocabulary))
    # Two merges can spell the same token; fill the gap so that the special tokens stay last.
    while len(vocabulary) < START:
        vocabulary[f"<|unused{len(vocabulary)}|>"] = len(vocabulary)
    vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"] = START, END
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
    tokenizer(["fix the padding"], padding="max_length", truncation=True)
    return tokenizer


def save(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, and beside them the historical vocab.json and
    merges.txt.
    """
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def load(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> np.ndarray:
    """Token ids, int16 [N, 32], padded and truncated."""
    ids = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True)["input_ids"]
    return np.array(ids, np.int16).reshape(-1, LENGTH)
