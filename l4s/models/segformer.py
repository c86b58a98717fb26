"""SegFormer (Xie 2021): Mix Transformer encoders with an all-MLP decoder, after SMP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4s.data.bands import Bands
from l4s.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

ENCODERS = ("mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5")


def segformer(
    bands: Bands, *, size: int, encoder: str = "mit_b2", decoder: int = 256, weights: str = "none"
) -> nn.Module:
    """Build a SegFormer with one logit a pixel; logits are computed at a quarter of the size and upsampled.

    Zhao 2022 does not print the variant: B2 is our choice, and 256 the decoder width of its authors' related code and
    of mmseg (the original repository has 768 from B2 on).

    Args:
        bands: any number of bands.
        size: side of the training images in pixels; the architecture does not depend on it.
        encoder: `mit_b0` to `mit_b5`.
        decoder: width of the MLP decoder.
        weights: "none", "imagenet" (downloaded) or a safetensors file, see `l4s.models.weights`.

    Raises:
        RecipeError: an encoder that is not a Mix Transformer, or an unusable width.
        DataError: weights that cannot be had or do not fit.
    """
    from l4s.models.encoders import build_segmenter

    check_segformer(encoder, decoder)
    options = {"decoder_segmentation_channels": decoder}
    return build_segmenter("Segformer", encoder, bands, size=size, depth=5, weights=weights, options=options)


def check_segformer(encoder: str, decoder: int) -> None:
    """Refuse what no SegFormer has.

    Raises:
        RecipeError: an encoder that is not a Mix Transformer, or an unusable width.
    """
    if encoder not in ENCODERS:
        raise RecipeError(
            f"model.encoder = {encoder!r} is not one of {', '.join(ENCODERS)}, which SegFormer is made of"
        )
    if decoder < 1:
        raise RecipeError(f"model.decoder = {decoder}: give a positive width")
