"""What every model of `l4s` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # recipes are checked against the builders without importing torch
    from torch import Tensor


class Output(NamedTuple):
    """What `model(image)` returns for an image `(B, C, H, W) float32`, standardised, bands in recipe order.

    `logits` is `(B, 1, H, W)` at the size of the image, or `(B, 1)` for patch models; `extras` holds named tensors a
    task may ask for (auxiliary logits, attention maps, a reconstruction, embeddings) and is empty for plain models.
    """

    logits: Tensor
    extras: dict[str, Tensor]
