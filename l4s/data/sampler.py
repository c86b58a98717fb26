"""Which patches make up step s: a pure function of (seed, step), so that resuming, workers and ranks change nothing."""

from functools import lru_cache

import numpy as np


def draw(step: int, count: int, size: int, seed: int, stream: int) -> np.ndarray:
    """Rows of one step out of a pool: passes over shuffled rows, without replacement within a pass.

    Args:
        step: from 0.
        count: rows a step.
        size: rows in the pool.
        stream: tells pools with one seed apart.

    Returns:
        (count,) int64 in [0, size).
    """
    place = step * count + np.arange(count)
    return np.array([_shuffled(size, seed, stream, int(p) // size)[int(p) % size] for p in place], np.int64)


@lru_cache(maxsize=8)
def _shuffled(size: int, seed: int, stream: int, turn: int) -> np.ndarray:
    return np.random.default_rng((seed, stream, turn)).permutation(size)


def share_rows(batch: int, target_share: float | None) -> tuple[int, int]:
    """Source and target rows of a batch; at least one of each once there is a target."""
    if target_share is None:
        return batch, 0
    target = min(max(round(batch * target_share), 1), batch - 1)
    return batch - target, target
