"""The networks' plumbing, with random weights: no training, no files but the tokenizer's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training import captions, diffusion, lora, models, package, safety, tokenizer  # noqa: E402


def test_own_text_forward_equals_the_library_s() -> None:
    torch.manual_seed(0)
    encoder = models.new_text_encoder().eval()
    ids = torch.randint(0, 1000, (3, tokenizer.LENGTH))
    with torch.no_grad():
        assert torch.allclose(encoder(ids).last_hidden_state, models.encode_text(encoder, ids), atol=1e-5)


def test_tokenizer_survives_the_disk(tmp_path: Path) -> None:
    trained = tokenizer.train()
    tokenizer.save(trained, tmp_path)
    read = tokenizer.load(tmp_path)
    texts = [*captions.sheet_texts(), "", "Ünknown wörds, 7 dogs 🐕"]
    ids = tokenizer.encode(trained, texts)
    assert np.array_equal(ids, tokenizer.encode(read, texts))
    assert ids.shape == (len(texts), tokenizer.LENGTH) and len(read) == tokenizer.VOCABULARY_SIZE
    assert (ids[:, 0] == tokenizer.START).all() and (ids == tokenizer.END).any(1).all()
    words = [word for words in captions.vocabulary().values() for phrase in words for word in phrase.split()]
    assert all((tokenizer.encode(read, [word])[0] == tokenizer.END).argmax() == 2 for word in words), "one token a word"


def test_kohya_layout_keeps_every_tensor() -> None:
    adapter = {
        "mid.attn1.to_out.0.lora_A.weight": torch.ones(4, 8),
        "mid.attn1.to_out.0.lora_B.weight": torch.ones(8, 4),
    }
    kohya = package.kohya_layout(adapter, 4)
    assert sorted(kohya) == [f"lora_unet_mid_attn1_to_out_0.{end}" for end in ("alpha", "lora_down.weight", "lora_up.weight")]
    assert float(kohya["lora_unet_mid_attn1_to_out_0.alpha"]) == 4


def test_fusing_equals_the_convolutions_in_a_row() -> None:
    torch.manual_seed(0)
    base = {"conv.weight": torch.randn(6, 5, 3, 3)}
    down, up = torch.randn(2, 5, 3, 3), torch.randn(6, 2, 1, 1)
    fused = lora.fused(base, {"conv.lora_A.weight": down, "conv.lora_B.weight": up}, 0.5)["conv.weight"]
    picture = torch.randn(1, 5, 8, 8)
    conv = torch.nn.functional.conv2d
    expected = conv(picture, base["conv.weight"], padding=1) + 0.5 * conv(conv(picture, down, padding=1), up)
    assert torch.allclose(conv(picture, fused, padding=1), expected, atol=1e-4)


def test_noise_and_target_agree() -> None:
    """From v and the noised latent the clean one follows: x = √ᾱ z - √(1 - ᾱ) v."""
    from training.run import Run

    torch.manual_seed(0)
    run = Run(Path(), torch.device("cpu"))
    clean = torch.randn(32, 4, 8, 8)
    noised = diffusion.noiser(run, 0.5)(clean)
    alphas = models.alphas_cumulative()[noised.steps][:, None, None, None]
    assert torch.allclose(alphas.sqrt() * noised.latents - (1 - alphas).sqrt() * noised.target, clean * 0.5, atol=1e-4)
    assert float(noised.loss(noised.target)) == 0


def test_contrasting_scenes_hold_all_labels() -> None:
    import random

    rng = random.Random(0)
    truth = np.array([safety.truth_of(s.background, s.things) for s in (safety.contrasting_scene(rng) for _ in range(500))])
    assert (truth.mean(0) > 0.05).all() and (truth.mean(0) < 0.5).all()
