"""Test-time augmentation: views of a patch and their exact inverses."""

from collections.abc import Callable

import torch
from torch import Tensor

from l4s.recipe import Tta

TURNS: dict[Tta, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flip": ((0, False), (2, False), (0, True), (2, True)),  # identity, half turn, both mirrors
    "d4": tuple((turns, mirror) for mirror in (False, True) for turns in range(4)),
}
"""Quarter turns, then a mirror of the last axis, for each view."""


def average(probs: Callable[[Tensor], Tensor], image: Tensor, tta: Tta) -> Tensor:
    """Mean over the views of `probs(view)`, each turned back.

    Args:
        probs: (B, C, H, W) -> (B, H, W), or (B,) for patch models.
        image: (B, C, H, W) float32.

    Returns:
        (B, H, W) or (B,) float32.
    """
    views = []
    for turns, mirror in TURNS[tta]:
        view = torch.rot90(image, turns, (-2, -1))
        answer = probs(view.flip(-1) if mirror else view)
        if answer.ndim == 3:
            answer = torch.rot90(answer.flip(-1) if mirror else answer, -turns, (-2, -1))
        views.append(answer)
    return torch.stack(views).mean(0)
