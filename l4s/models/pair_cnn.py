"""Landslides in a pair of images, with the embeddings of a network that was trained before: Böhm et al. 2022, stage 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from l4s.data.bands import Bands
from l4s.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn


def pair_cnn(
    bands: Bands,
    *,
    size: int,
    embedding: int = 0,
    widths: Sequence[int] = (8, 16, 64),
    hidden: int = 0,
    kernel: int = 8,
) -> nn.Module:
    """Build the second stage: a CNN of the pair, joined with frozen embeddings, and a CNN of two layers; one logit a pixel.

    With 64 channels of embeddings and four bands it has 1,133,193 parameters, without them 342,473: the
    paper's baseline is a third of the network it is compared with. `hidden` and `widths` match one.

    Args:
        bands: any number, before and after together.
        size: not read; images of any size are accepted.
        embedding: channels of the embeddings that follow the bands in each image: those of the member in `features`.
        widths: of the convolutions of the pair.
        hidden: width between the two convolutions of both; 0: as many as they receive.
        kernel: side of all convolutions; the released code's is 8.

    Raises:
        RecipeError: a width or kernel that is not positive.
    """
    from l4s.models.pairs import PairNetwork

    if not widths or min(*widths, kernel) < 1 or min(embedding, hidden) < 0:
        raise RecipeError(
            f"model.widths = {list(widths)}, kernel = {kernel}, embedding = {embedding}, hidden = {hidden}: widths and "
            "kernel must be positive"
        )
    return PairNetwork(len(bands.names), embedding, widths, hidden, kernel)
