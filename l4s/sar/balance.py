"""Chips without landslide thinned out, so that those with some make up a given share (Böhm 2022, 2: half)."""

from collections.abc import Sequence

import numpy as np

from l4s import log
from l4s.errors import DataError, RecipeError

HALF = 0.5


def balanced(landslide: Sequence[bool], share: float, seed: int, where: str) -> list[int]:
    """Positions of all chips with landslides, and of as many drawn without as make up the share; in order.

    Raises:
        DataError: no chip has a landslide. RecipeError: the share is not above 0, or above 1.
    """
    if not 0 < share <= 1:
        raise RecipeError(f"positive_share = {share:g}: take a share above 0, up to 1 for chips with landslides alone")
    empty = [k for k, some in enumerate(landslide) if not some]
    positive = len(landslide) - len(empty)
    if not positive:
        raise DataError(f"{where}: none of {len(landslide)} chips holds a landslide")
    wanted = round(positive * (1 - share) / share)
    if wanted > len(empty):
        found = positive / len(landslide)
        log.warn(f"{where} has {len(empty)} chips without landslide, not {wanted}: {found:.0%} of its chips have some")
    drawn = {empty[k] for k in np.random.default_rng(seed).permutation(len(empty))[:wanted].tolist()}
    return [k for k, some in enumerate(landslide) if some or k in drawn]
