"""Where the noise of a picture begins."""

import pytest
import torch
from test_inference import latents_of

EDGE = 2**53 - 1


def noise(seed):
    """Whole numbers of the generator that draws the noise: no instruction set of a CPU rounds them."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randint(0, 2**31 - 1, (3,), generator=generator).tolist()


@pytest.mark.parametrize(
    ("seed", "numbers"),
    [
        (0, [818069386, 1179589038, 272611717]),
        (7, [1631897122, 1626975787, 1524890972]),
        (2**32 - 1, [1317999720, 1664124003, 448359852]),
    ],
)
def test_a_seed_below_two_to_the_32_draws_what_it_always_drew(seed, numbers):
    assert noise(seed) == numbers


def test_seeds_up_to_two_to_the_53_are_drawn_as_pytorch_takes_them(fresh):
    """Its generator starts from the low 32 bits: the high ones draw no other picture, here as in diffusers."""

    def draw(seed):
        return latents_of(fresh.run("denoise", seed=seed, steps=2)).numpy().tobytes()

    assert draw(7) == draw(2**32 + 7) == draw(2**53 - 2**32 + 7)
    assert draw(EDGE) == draw(2**32 - 1) != draw(7)
    assert noise(EDGE) == noise(2**32 - 1)
