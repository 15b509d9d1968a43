"""Training, evaluation and packaging of the darkroom-tiny model family.

The family is a complete, very small latent diffusion model of a world of flat coloured shapes. It exists so
that every inference feature of Darkroom can be tested for what it does, by measuring the picture. This
package is not installed with the product; `python -m training --help` (run in `python/`) lists its commands.

`world`, `captions` and `judge` need numpy only; everything else needs PyTorch, diffusers and transformers.
"""
