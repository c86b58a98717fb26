"""A domain: patches treated as one source or one target, with their statistics and their hold-out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from l4s.data.bands import Bands
from l4s.data.cache import Cache, Track, open_cache
from l4s.data.fitting import Fitting
from l4s.data.labels import with_labels
from l4s.data.parts import take_parts
from l4s.data.patch import PatchRef, cut_of
from l4s.data.readers import cut_patches, find_patches, image_shape
from l4s.data.stats import CONSTANT, Stats, constants, pool, share_moments, subdomain_stats
from l4s.errors import DataError, RecipeError
from l4s.recipe import DomainConfig, HoldOut, Normalise


@dataclass(frozen=True)
class Domain:
    """Patches in natural order of id, and what is known of them. `train` and `heldout` are row numbers, int64."""

    name: str
    config: DomainConfig
    bands: Bands
    patches: tuple[PatchRef, ...]
    cache: Cache
    stats: Stats
    train: np.ndarray
    heldout: np.ndarray

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the patches in pixels, as they are trained on: where they are fitted, after that."""
        height, width = self.cache.images.shape[2:]
        return height, width

    @property
    def fitting(self) -> Fitting | None:
        """How patches were brought to one size; None where they have one."""
        return Fitting(self.config.fit.by, self.size[0]) if self.config.fit else None

    @property
    def shapes(self) -> np.ndarray:
        """(N, 2) int64, height and width of each patch at its own size, which is that of its prediction."""
        return np.tile(self.size, (len(self), 1)) if self.cache.shapes is None else self.cache.shapes

    @property
    def shared(self) -> list[list[int]]:
        """Positions of the bands that share their statistics, group by group."""
        return _shared(self.bands, self.config)

    @property
    def predicted(self) -> np.ndarray:
        """Rows that members predict: the hold-out of a source, every patch of another domain."""
        return self.heldout if self.config.role == "source" else np.arange(len(self))

    @property
    def by_patch(self) -> bool:
        """Are patches labelled as a whole, so that no pixel is? Their masks are 0 or 1 throughout."""
        return any(patch.label is not None for patch in self.patches)

    def ids(self, rows: np.ndarray) -> tuple[str, ...]:
        """Ids of these rows."""
        return tuple(self.patches[row].id for row in rows)


def open_domain(
    name: str, config: DomainConfig, bands: Bands, root: Path, cache: Path, track: Track | None = None
) -> Domain:
    """Find a domain's patches below `root`, open (or build) their cache below `cache`, and compute its statistics.

    Raises:
        DataError: patches are missing or broken, a source patch has no mask, or the hold-out leaves nothing.
    """
    bands = own_bands(name, config, bands)
    seed = config.split_seed or None  # a recipe that says nothing says 0: lists that lie there win over it
    patches = find_patches(root, config.split, layout=config.layout, regions=config.regions, seed=seed)
    _refuse_other_bands(name, patches[0], bands)
    patches = with_labels(patches)
    if config.positives_only:
        patches = tuple(patch for patch in patches if not patch.background)
        if not patches:
            raise DataError(f"domain {name}: positives_only leaves no patch: leave it out, or add those of landslides")
    if config.parts:
        patches = take_parts(patches, config.parts, positive=config.positive, ignore=config.ignore, cache=cache)
    if config.cut:
        if any(patch.label is not None for patch in patches):
            raise DataError(f"domain {name}: cut makes squares of patches that are labelled as a whole: leave it out")
        patches = cut_patches(patches, config.cut, image_shape(patches[0], bands))
    if config.role == "source" and config.labelled:
        _refuse_unlabelled(name, patches)
    train, heldout = split(name, patches, config.holdout)  # before hours of caching
    if not len(train):
        raise DataError(f"domain {name}: the hold-out leaves none of {len(patches)} patches to train on")
    shared = _shared(bands, config)
    opened = open_cache(
        patches,
        bands,
        cache,
        positive=config.positive,
        ignore=config.ignore,
        shared=shared,
        fit=config.fit,
        track=track,
    )
    stats = subdomain_stats(opened.moments, [patch.region for patch in patches], config.subdomains, shared)
    return Domain(name, config, bands, patches, opened, stats, train, heldout)


def _refuse_unlabelled(name: str, patches: Sequence[PatchRef]) -> None:
    for patch in patches:
        if not patch.labelled and patch.label is None:
            raise DataError(
                f"domain {name}: source patch {patch.image} has no mask: add it, or move the patch to a target"
            )


def _refuse_other_bands(name: str, patch: PatchRef, bands: Bands) -> None:
    """Chips know the names of their scene's bands; a scene is predicted by these, and would be read in another order."""
    held = cut_of(patch).get("bands", [])
    for band in bands.file:
        if band in held and held.index(band) != bands.file.index(band):
            raise DataError(
                f"domain {name}: {patch.image} was cut from a scene with the bands {', '.join(held)}, in this order, and the "
                f"recipe takes them for {', '.join(bands.file)}: say so in domain.{name}.bands"
            )


def _shared(bands: Bands, config: DomainConfig) -> list[list[int]]:
    return [[bands.names.index(band) for band in group] for group in config.share_stats]


def own_bands(name: str, config: DomainConfig, bands: Bands) -> Bands:
    """The bands of a domain: those the recipe's models see, at their places in the domain's own files.

    Raises:
        RecipeError: the domain's files lack one of them, or name one twice.
    """
    if not config.bands:
        return bands
    try:
        return Bands.model_validate(bands.model_dump() | {"file": config.bands, "use": bands.names})
    except ValidationError as error:
        raise RecipeError(f"domain.{name}.bands: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def split(name: str, patches: Sequence[PatchRef], config: HoldOut) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a domain to train on and rows held out; rows in a gap are in neither.

    Raises:
        DataError: nothing would be held out though the recipe asks for it.
    """
    held, near = HELD_OUT[config.by](patches, config)
    if config.by != "none" and not held.any():
        numbers = [patch.number for patch in patches]
        raise DataError(
            f"domain {name}: holdout by {config.by!r} holds out none of {len(patches)} patches, ids "
            f"{min(numbers)} to {max(numbers)}: change domain.{name}.holdout"
        )
    return np.flatnonzero(~(held | near)), np.flatnonzero(held)


def _nothing(patches: Sequence[PatchRef], config: HoldOut) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(patches), bool), np.zeros(len(patches), bool)


def _by_region(patches: Sequence[PatchRef], config: HoldOut) -> tuple[np.ndarray, np.ndarray]:
    held = np.array([patch.region in config.regions for patch in patches])
    return held, held


def _at_random(patches: Sequence[PatchRef], config: HoldOut) -> tuple[np.ndarray, np.ndarray]:
    assert config.share is not None
    number = np.array([patch.number for patch in patches])
    whole = np.array(list(dict.fromkeys(number.tolist())))  # the squares of a patch stay together
    drawn = np.random.default_rng(config.seed).permutation(len(whole))[: round(config.share * len(whole))]
    held = np.isin(number, whole[drawn])
    return held, held


def _by_number(patches: Sequence[PatchRef], config: HoldOut) -> tuple[np.ndarray, np.ndarray]:
    """Ranges of numbers, and what lies within `gap` of them in the same place."""
    number = np.array([patch.number for patch in patches])
    # Bijie's patches without landslides have the last ids: a block of both classes holds some of each
    place = np.array([f"{patch.region}/{patch.background}" for patch in patches])
    ranges = config.ranges if config.by == "ids" else _last_blocks(number, place, config.share or 0.0)
    held, near = _nothing(patches, config)
    for block in ranges:
        inside, around = _within(number, block, 0), _within(number, block, config.gap)
        # elsewhere the next number is no neighbour; of a range without patches it is not known where it lies
        near |= around & (np.isin(place, place[inside]) if inside.any() else True)
        held |= inside
    return held, near


HELD_OUT = {"none": _nothing, "region": _by_region, "random": _at_random, "ids": _by_number, "block": _by_number}
"""How patches are held out: which are, and which are too near to them to be trained on, two (N,) bool."""


def _last_blocks(number: np.ndarray, place: np.ndarray, share: float) -> list[tuple[int, int]]:
    """The id range of the last `share` of the patches of each place."""
    blocks = []
    for name in sorted(set(place.tolist())):
        ids = np.sort(number[place == name])
        count = round(share * len(ids))
        if count:
            blocks.append((int(ids[-count]), int(ids[-1])))
    return blocks


def _within(number: np.ndarray, block: tuple[int, int], gap: int) -> np.ndarray:
    first, last = block
    return (number >= first - gap) & (number <= last + gap)


def affine(
    domain: Domain, mode: Normalise, sources: Sequence[Domain], patch_blend: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """What turns cached values into those of a normalisation: x' = scale * x + shift, per patch and band.

    Args:
        mode: `separated` uses the (sub-)domain's own statistics, `source` those of the source patches pooled,
            `official` and `imagenet` published constants, `patch` a blend of the patch's own and the (sub-)domain's.
        patch_blend: share of the patch's own statistics under `patch`.

    Returns:
        scale and shift, each (N, C) float32.
    """
    own_mean, own_std = domain.stats.mean[domain.stats.member], domain.stats.std[domain.stats.member]
    if mode == "source":
        mean, std = pool(np.concatenate([source.cache.moments for source in sources], axis=1), sources[0].shared)
    elif mode in ("official", "imagenet"):
        mean, std = constants(mode, domain.bands.names)
    elif mode == "patch":
        count, patch_mean, patch_variance = share_moments(domain.cache.moments, domain.shared)
        share = np.where(count > 0, patch_blend, 0.0)  # a band without a valid pixel has no statistics of its own
        mean = share * patch_mean + (1 - share) * own_mean
        std = share * np.sqrt(patch_variance) + (1 - share) * own_std
        std = np.where(std < CONSTANT, 1.0, std)
    else:
        mean, std = own_mean, own_std
    scale = np.broadcast_to(domain.cache.std / std, own_mean.shape)
    shift = np.broadcast_to((domain.cache.mean - mean) / std, own_mean.shape)
    return scale.astype(np.float32), shift.astype(np.float32)


def standardised(
    domain: Domain, rows: int | np.ndarray, scale: np.ndarray, shift: np.ndarray, embeddings: np.ndarray | None = None
) -> np.ndarray:
    """Images of one row or of several as a member sees them: (..., C, H, W) float32, (..., C + E, H, W) with embeddings.

    Where nothing is known, padding too, they are 0: at the mean, whatever statistics they are standardised by.

    Args:
        scale: (N, C) float32 as `affine` gives it, and `shift` likewise.
        embeddings: (N, E, H, W) float16, which follow the bands.
    """
    cached = np.asarray(domain.cache.images[rows], np.float32)
    bands = np.asarray(cached * scale[rows][..., None, None] + shift[rows][..., None, None])
    bands[np.isnan(bands)] = 0.0
    if embeddings is None:
        return bands
    return np.concatenate([bands, np.asarray(embeddings[rows], np.float32)], axis=-3)
