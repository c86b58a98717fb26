"""A few of the training patches, as in studies of how many labels a method needs (Böhm 2022, 3.1)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from l4s.data.dataset import Part
from l4s.data.labels import patch_label
from l4s.errors import DataError

STREAM = 7  # of random numbers, apart from those of the sampler, augmentation and Mixup


def subset(parts: Sequence[Part], count: int, seed: int, positive_share: float = 0.0) -> list[Part]:
    """The same sources with `count` patches in all, drawn anew for each seed.

    Patches with landslide have the share that they have in the whole, and there is at least one: a network learns nothing
    of two chips without any. The paper draws from sets that are balanced, and does not say whether it balances the draw.

    Args:
        positive_share: of a patch, from which on it is one with landslide, as `l4s.data.labels.patch_label` has it.

    Raises:
        DataError: there are fewer patches than that.
    """
    rows = [(place, int(row)) for place, part in enumerate(parts) for row in part.rows]
    if count > len(rows):
        raise DataError(f"train.subset = {count}, but the sources have {len(rows)} patches to train on: ask for fewer")
    with_landslide = [patch_label(parts[place].domain.cache.masks[row], positive_share) == 1 for place, row in rows]
    order = np.random.default_rng((seed, STREAM)).permutation(len(rows)).tolist()
    wanted = max(round(count * sum(with_landslide) / len(rows)), min(1, sum(with_landslide)))
    positive = [k for k in order if with_landslide[k]][:wanted]
    chosen = [rows[k] for k in (*positive, *[k for k in order if not with_landslide[k]][: count - len(positive)])]
    return [
        replace(part, rows=np.array(sorted(row for at, row in chosen if at == place), np.int64))
        for place, part in enumerate(parts)
        if any(at == place for at, _ in chosen)
    ]
