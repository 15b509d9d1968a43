"""Writes GGUF files, and says what packed weights stand for: block by block and weight by weight, as the loops of
`dequantize_row_*` in ggml-quants.c go, in single precision.

`python gguf_writer.py FILE.safetensors PACKED.gguf MEANT.safetensors` packs a file for tests in other languages.
"""

import struct
import sys
from pathlib import Path

import numpy as np
from numpy import float32 as f32

NUMBERS = {"F32": 0, "F16": 1, "BF16": 30, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8}
NUMBERS |= {"Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "IQ4_XS": 23, "IQ2_XXS": 16}
SIZES = {"Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "IQ4_NL": (32, 18)}
SIZES |= {"Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ4_XS": (256, 136)}
# Where a block's fp16 numbers are.
HALVES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "IQ4_NL": (0,), "IQ4_XS": (0,)}
HALVES |= {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def half(block, at):
    return f32(np.frombuffer(bytes(block[at : at + 2]), np.float16)[0])


def signed(byte):
    return int(byte) - 256 if byte > 127 else int(byte)


def q4_0(x):
    d = half(x, 0)
    return [d * f32((x[2 + j % 16] >> 4 * (j // 16) & 15) - 8) for j in range(32)]


def q4_1(x):
    d, m = half(x, 0), half(x, 2)
    return [d * f32(x[4 + j % 16] >> 4 * (j // 16) & 15) + m for j in range(32)]


def q5_0(x):
    d, (qh,) = half(x, 0), struct.unpack("<I", bytes(x[2:6]))
    return [d * f32(((x[6 + j % 16] >> 4 * (j // 16) & 15) | (qh >> j & 1) << 4) - 16) for j in range(32)]


def q5_1(x):
    d, m, (qh,) = half(x, 0), half(x, 2), struct.unpack("<I", bytes(x[4:8]))
    return [d * f32((x[8 + j % 16] >> 4 * (j // 16) & 15) | (qh >> j & 1) << 4) + m for j in range(32)]


def q8_0(x):
    d = half(x, 0)
    return [d * f32(signed(x[2 + j])) for j in range(32)]


def q2_k(x):
    d, least, made = half(x, 80), half(x, 82), []
    for i in range(256):
        # Two halves of 128, each of four layers of two bits over 32 bytes.
        n, layer, place = i // 128, i % 128 // 32, i % 32
        scale = x[i // 16]
        made.append(d * f32(scale & 15) * f32(x[16 + 32 * n + place] >> 2 * layer & 3) - least * f32(scale >> 4))
    return made


def q3_k(x):
    d, packed = half(x, 108), x[96:108]
    scales = [((packed[i % 8] >> 4 * (i // 8) & 15) | (packed[8 + i % 4] >> 2 * (i // 4) & 3) << 4) - 32 for i in range(16)]
    made = []
    for i in range(256):
        n, layer, place = i // 128, i % 128 // 32, i % 32
        number = (x[32 + 32 * n + place] >> 2 * layer & 3) - (0 if x[place] >> (4 * n + layer) & 1 else 4)
        made.append(d * f32(scales[i // 16]) * f32(number))
    return made


def scale_min_k4(j, q):
    """`get_scale_min_k4`."""
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return (q[j + 4] & 15) | (q[j - 4] >> 6) << 4, (q[j + 4] >> 4) | (q[j] >> 6) << 4


def q4_k(x):
    d, least, made = half(x, 0), half(x, 2), []
    for i in range(256):
        scale, low = scale_min_k4(i // 32, x[4:16])
        made.append(d * f32(scale) * f32(x[16 + 32 * (i // 64) + i % 32] >> 4 * (i // 32 % 2) & 15) - least * f32(low))
    return made


def q5_k(x):
    d, least, made = half(x, 0), half(x, 2), []
    for i in range(256):
        scale, low = scale_min_k4(i // 32, x[4:16])
        number = (x[48 + 32 * (i // 64) + i % 32] >> 4 * (i // 32 % 2) & 15) + (16 if x[16 + i % 32] >> (i // 32) & 1 else 0)
        made.append(d * f32(scale) * f32(number) - least * f32(low))
    return made


def q6_k(x):
    d, made = half(x, 208), []
    for i in range(256):
        n, quarter, place = i // 128, i % 128 // 32, i % 32
        low = x[64 * n + place + 32 * (quarter % 2)] >> 4 * (quarter // 2) & 15
        number = (low | (x[128 + 32 * n + place] >> 2 * quarter & 3) << 4) - 32
        made.append(d * f32(signed(x[192 + i // 16])) * f32(number))
    return made


def iq4_nl(x):
    d = half(x, 0)
    return [d * f32(LEVELS[x[2 + j % 16] >> 4 * (j // 16) & 15]) for j in range(32)]


def iq4_xs(x):
    d, made = half(x, 0), []
    (high,) = struct.unpack("<H", bytes(x[2:4]))
    for i in range(256):
        block = i // 32
        scale = ((x[4 + block // 2] >> 4 * (block % 2) & 15) | (high >> 2 * block & 3) << 4) - 32
        made.append(d * f32(scale) * f32(LEVELS[x[8 + 16 * block + i % 16] >> 4 * (i % 32 // 16) & 15]))
    return made


REFERENCE = {"Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "IQ4_NL": iq4_nl, "IQ4_XS": iq4_xs}
REFERENCE |= {"Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k}


def random_blocks(name, count, generator):
    """Blocks of random bytes whose fp16 numbers are small, so that what they stand for is like weights: [count,
    bytes]."""
    blocks = generator.integers(0, 256, (count, SIZES[name][1]), dtype=np.uint8)
    for at in HALVES[name]:
        blocks[:, at : at + 2] = (generator.standard_normal((count, 1)) * 0.003).astype(np.float16).view(np.uint8)
    return blocks


def stands_for(name, blocks):
    """[blocks, weights] fp32."""
    return np.array([REFERENCE[name]([int(byte) for byte in block]) for block in blocks], dtype=np.float32)


def text(words):
    return struct.pack("<Q", len(words.encode())) + words.encode()


def write(path, tensors, metadata=(), version=3):
    """`tensors`: name → (type, shape as torch has it, bytes). `metadata`: (name, list of whole numbers)."""
    rows, body = b"", b""
    for name, (kind, shape, content) in tensors.items():
        number = NUMBERS.get(kind, kind)
        rows += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), number, len(body))
        body += content + bytes(-len(content) % 32)
    entries = text("general.architecture") + struct.pack("<I", 8) + text("test")
    for name, numbers in metadata:
        entries += text(name) + struct.pack(f"<IIQ{len(numbers)}i", 9, 5, len(numbers), *numbers)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), 1 + len(metadata)) + entries + rows
    path.write_bytes(head + bytes(-len(head) % 32) + body)
    return path


def pack(tensors, types, generator):
    """(name → (type, shape, bytes), name → the weight that this stands for): those that divide into blocks of one of
    `types`, one after another, in them, of random numbers; the others as they are."""
    import torch

    made, meant, kinds = {}, {}, [*types]
    for name, tensor in tensors.items():
        kind = next((kind for kind in kinds if tensor.ndim == 2 and tensor.shape[1] % SIZES[kind][0] == 0), None)
        if kind is None:
            made[name], meant[name] = ("F32", tensor.shape, tensor.float().numpy().tobytes()), tensor
            continue
        kinds = [*kinds[1:], kinds[0]] if kinds[0] == kind else kinds
        blocks = random_blocks(kind, tensor.numel() // SIZES[kind][0], generator)
        made[name] = (kind, tensor.shape, blocks.tobytes())
        meant[name] = torch.from_numpy(stands_for(kind, blocks)).view(tensor.shape)
    return made, meant


if __name__ == "__main__":
    from safetensors.torch import load_file, save_file

    given, packed_file, meant_file = map(Path, sys.argv[1:])
    made, meant = pack(load_file(given), ("Q8_0",), np.random.default_rng(1))
    write(packed_file, made)
    save_file({name: tensor.float().contiguous() for name, tensor in meant.items()}, meant_file)
