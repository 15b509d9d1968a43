"""Contact sheets: pictures in a grid with their prompts beneath."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from .captions import sheet_texts
from .diffusion import Family, draw
from .render import to_numpy

SEED = 64
COLUMNS, CELL, LINE, LETTERS = 8, 140, 10, 23


def compose(pictures: torch.Tensor, texts: list[str], path: Path, colours: int = 128) -> None:
    """Write uint8 pictures [N, 3, H, W] and their texts as a PNG with a palette, which keeps it small."""
    height, width = pictures.shape[-2:]
    cell, row = max(CELL, width + 12), height + 5 * LINE
    rows = -(-len(texts) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(texts)) * cell, rows * row), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for index, (picture, text) in enumerate(zip(to_numpy(pictures), texts, strict=True)):
        x, y = index % COLUMNS * cell + 6, index // COLUMNS * row + 6
        sheet.paste(Image.fromarray(picture), (x, y))
        for number, line in enumerate(_wrapped(text)):
            pen.text((x, y + height + 1 + LINE * number), line, fill=(40, 40, 40))
    # Refined by k-means: the median cut alone gives a page of flat colours too few shades of each.
    sheet.quantize(colours, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LETTERS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def make(folder: Path, path: Path, device: str = "cpu") -> None:
    """The sheet of 64 fixed prompts: DDIM, 20 steps, guidance 3, seeds 64 and up."""
    texts = sheet_texts()
    compose(draw(Family.open(folder, device), texts, seed=SEED, chunk=16), texts, path)
