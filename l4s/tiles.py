"""Windows over a scene, one axis at a time: where they start, how their answers blend, which pixels are final. Pure arithmetic."""

from collections.abc import Sequence

import numpy as np


def starts(length: int, size: int, stride: int) -> tuple[int, ...]:
    """First pixels of windows of `size` pixels that cover an axis, `stride` (at most `size`) apart.

    The last is snapped to the edge. An axis no longer than a window has one, at 0; what lies beyond it is padding.
    """
    last = length - size
    return (0,) if last <= 0 else (*range(0, last, stride), last)


def cells(length: int, stride: int) -> tuple[int, ...]:
    """First pixels of windows that start at every multiple of `stride`; the last may reach beyond the edge."""
    return tuple(range(0, length, stride))


def ends(first: Sequence[int], length: int) -> tuple[int, ...]:
    """For each window in turn, the end of the pixels that no later window touches."""
    return (*first[1:], length)


def lead(first: Sequence[int], size: int, place: int) -> int:
    """The earliest window that has a share in the pixels that are final after window `place` and not before."""
    return next(earlier for earlier in range(place + 1) if first[earlier] + size > first[place])


def bell(size: int) -> np.ndarray:
    """Raised-cosine weights of a window's pixels, (size,) float64 in (0, 1]: (1 - cos(2 pi (i + 1/2) / size)) / 2."""
    return np.asarray(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2)


def blend(first: Sequence[int], size: int, length: int) -> np.ndarray:
    """Each window's share in the pixels under it: raised cosines that add up to one at every pixel.

    A pixel of a scene takes the product of both axes' shares.

    Returns:
        (N, size) float32, above zero everywhere.
    """
    weights, total = bell(size), np.zeros(max(length, size))
    for start in first:
        total[start : start + size] += weights
    return np.stack([weights / total[start : start + size] for start in first]).astype(np.float32)


def reflected(length: int, size: int) -> np.ndarray:
    """Which of `length` pixels stands at each of `size` places: those there are, then mirrored at the last and the first.

    One pixel is repeated. Returns (size,) int64.
    """
    period = max(2 * (length - 1), 1)
    place = np.arange(size) % period
    return np.minimum(place, period - place)


def shard(count: int, index: int, shards: int) -> range:
    """The places from 0 to `count` that shard `index` (from 0) of `shards` takes: contiguous, equal but for one."""
    return range(count * index // shards, count * (index + 1) // shards)
