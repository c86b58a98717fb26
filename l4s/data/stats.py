"""Statistics of a domain or of its sub-domains.

Separated normalisation (Zhao 2022, 2.1): source and target are each standardised by their own mean and standard
deviation per band, x_s = (x - mu_S) / sd_S and x_t = (x - mu_T) / sd_T, over all pixels of the domain.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2

from l4s.data.bands import L4S_BANDS
from l4s.errors import DataError, RecipeError
from l4s.recipe import Normalise, SubDomains

OFFICIAL_MEAN = (
    -0.4914,
    -0.3074,
    -0.1277,
    -0.0625,
    0.0439,
    0.0803,
    0.0644,
    0.0802,
    0.3000,
    0.4082,
    0.0823,
    0.0516,
    0.3338,
    0.7819,
)
OFFICIAL_STD = (
    0.9325,
    0.8775,
    0.8860,
    0.8869,
    0.8857,
    0.8418,
    0.8354,
    0.8491,
    0.9061,
    1.6072,
    0.8848,
    0.9232,
    0.9018,
    1.2913,
)
"""The organisers' loader constants by band of `L4S_BANDS`. They do not describe the released files."""
IMAGENET = {"b4": (0.485 * 255, 0.229 * 255), "b3": (0.456 * 255, 0.224 * 255), "b2": (0.406 * 255, 0.225 * 255)}
CONSTANT = 1e-6  # a standard deviation below this is a constant band: it is centred, not scaled


@dataclass(frozen=True)
class Stats:
    """Mean and standard deviation per band of the sub-domains of a domain, and which patch belongs to which.

    `mean`, `std`: (K, C) float64 in file units. `member`: (N,) int64 in [0, K).
    """

    mean: np.ndarray
    std: np.ndarray
    member: np.ndarray

    @property
    def digest(self) -> str:
        """16 hex digits that name these numbers."""
        arrays = (self.mean, self.std, self.member)
        return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]


def patch_moments(image: np.ndarray) -> np.ndarray:
    """Count, mean and variance per band of one patch, NaN left out.

    Args:
        image: (C, H, W) float.

    Returns:
        (3, C) float64; mean and variance are 0 where a band has no valid pixel.
    """
    pixels = image.reshape(len(image), -1).astype(np.float64)
    valid = ~np.isnan(pixels)
    count = valid.sum(1)
    pixels = np.where(valid, pixels, 0.0)
    mean = pixels.sum(1) / np.maximum(count, 1)
    variance = (np.where(valid, pixels - mean[:, None], 0.0) ** 2).sum(1) / np.maximum(count, 1)
    return np.stack([count.astype(np.float64), mean, variance])


def merge(moments: np.ndarray) -> np.ndarray:
    """Count, mean and variance per band over the pixels of several patches: (3, N, C) -> (3, C) float64.

    Raises:
        DataError: a band has no valid pixel.
    """
    count, mean, variance = moments
    total = count.sum(0)
    if (total == 0).any():
        raise DataError(f"band {int(np.argmin(total))} has no valid pixel in {count.shape[0]} patches")
    first = (count * mean).sum(0) / total
    second = (count * (variance + (mean - first) ** 2)).sum(0) / total
    return np.stack([total, first, second])


def pool(moments: np.ndarray, shared: Sequence[Sequence[int]] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per band over the pixels of several patches.

    Args:
        moments: (3, N, C) as `patch_moments` gives them for N patches.
        shared: groups of band positions that get one pooled mean and standard deviation.

    Returns:
        mean and standard deviation, each (C,) float64; a constant band has standard deviation 1.

    Raises:
        DataError: a band has no valid pixel.
    """
    _, mean, variance = share_moments(merge(moments), shared)
    std = np.sqrt(variance)
    return mean, np.where(std < CONSTANT, 1.0, std)


def share_moments(moments: np.ndarray, shared: Sequence[Sequence[int]]) -> np.ndarray:
    """Moments whose bands of a group all have those of the group's pixels together; the others stay as they are.

    Args:
        moments: (3, ..., C) count, mean and variance.
        shared: groups of band positions.
    """
    made = np.array(moments)
    for group in shared:
        count, mean, variance = moments[..., list(group)]
        total = count.sum(-1, keepdims=True)
        weight = count / np.maximum(total, 1)
        centre = (weight * mean).sum(-1, keepdims=True)
        spread = (weight * (variance + (mean - centre) ** 2)).sum(-1, keepdims=True)
        made[..., list(group)] = np.stack([np.broadcast_to(value, mean.shape) for value in (total, centre, spread)])
    return made


def subdomain_stats(
    moments: np.ndarray, regions: Sequence[str], config: SubDomains, shared: Sequence[Sequence[int]] = ()
) -> Stats:
    """Statistics of each sub-domain, pulled towards the whole domain's by `1 - config.blend`.

    Args:
        moments: (3, N, C) of the domain's patches.
        regions: the N patches' regions.

    Raises:
        DataError: there are fewer patches than clusters, or the domain has no regions to split by.
    """
    member = _membership(moments, regions, config)
    whole = pool(moments, shared)
    parts = [pool(moments[:, member == k], shared) for k in range(int(member.max()) + 1)]
    blend = config.blend if config.by != "none" else 0.0
    mean, std = (blend * np.stack([part[i] for part in parts]) + (1 - blend) * whole[i] for i in (0, 1))
    return Stats(mean, std, member)


def _membership(moments: np.ndarray, regions: Sequence[str], config: SubDomains) -> np.ndarray:
    patches = moments.shape[1]
    if config.by == "region":
        names = sorted(set(regions))
        if names == [""]:
            raise DataError("subdomains by region: the domain has no regions; give it regions = {name = [first, last]}")
        return np.array([names.index(region) for region in regions])
    if config.by == "none":
        return np.zeros(patches, np.int64)
    if patches < config.k:
        raise DataError(f"subdomains: {patches} patches cannot make k = {config.k} clusters")
    return _cluster(descriptors(moments), config.k, config.seed)


def descriptors(moments: np.ndarray) -> np.ndarray:
    """What clusters see of a patch: mean and standard deviation of each band, whitened over the domain.

    Returns:
        (N, 2 C) float64.
    """
    _, mean, variance = moments
    table = np.concatenate([mean, np.sqrt(variance)], axis=1)
    return np.asarray((table - table.mean(0)) / np.maximum(table.std(0), CONSTANT))


def _cluster(table: np.ndarray, k: int, seed: int, restarts: int = 10) -> np.ndarray:
    """k-means with k-means++ starts, the best of several; clusters are numbered by their first patch."""
    best, best_cost = np.zeros(len(table), np.int64), np.inf
    for restart in range(restarts):
        rng = np.random.default_rng((seed, restart))
        centres, member = kmeans2(table, k, minit="++", seed=rng, missing="warn")
        cost = float(((table - centres[member]) ** 2).sum())
        if cost < best_cost and len(np.unique(member)) == k:
            best, best_cost = member, cost
    if not np.isfinite(best_cost):
        raise DataError(f"subdomains: {len(table)} patches do not fall into k = {k} clusters; choose a smaller k")
    order = {old: new for new, old in enumerate(dict.fromkeys(best.tolist()))}
    return np.array([order[value] for value in best.tolist()])


def constants(mode: Normalise, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Published mean and standard deviation, (C,) each, of the bands named.

    Raises:
        RecipeError: a band has no published constant.
    """
    official = {b: (m, s) for b, m, s in zip(L4S_BANDS, OFFICIAL_MEAN, OFFICIAL_STD, strict=True)}
    table = official if mode == "official" else IMAGENET
    if unknown := [name for name in names if name not in table]:
        raise RecipeError(f"normalise = {mode!r} has no constants for band {unknown[0]!r}, only for {', '.join(table)}")
    mean, std = np.array([table[name] for name in names], np.float64).T
    return mean, std
