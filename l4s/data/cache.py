"""A domain's patches as float16 memory maps, standardised by the domain's own statistics.

Reading a compressed HDF5 patch costs about 300 times what reading it from the memory map does. Values are stored after
standardising because float16 overflows at 65504. The folder is named by what it was made of, built under another name
and renamed, so that two processes that start at once cannot spoil it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from l4s.data.bands import Bands
from l4s.data.fitting import Fitting, fit_image, fit_mask, fitting
from l4s.data.patch import IGNORED, PatchRef
from l4s.data.pictures import reads_dem
from l4s.data.readers import image_shape, in_square, read_image, read_mask
from l4s.data.stats import patch_moments, pool
from l4s.errors import DataError
from l4s.files import appear, unfinished
from l4s.recipe import Fit, fingerprint

FORMAT = 3  # raised when cached bytes change their meaning
Track = Callable[[Iterable[int], str, int], Iterable[int]]


@dataclass(frozen=True)
class Cache:
    """Arrays of one domain.

    `images`: (N, C, H, W) float16, (x - mean) / std per band, NaN where nothing is known. `masks`: (N, H, W) uint8 in
    {0, 1, 255}, 255 throughout where a patch has no mask. `labelled`: (N,) bool. `moments`: (3, N, C) float64 in file
    units; mean 0 and variance 1 of bands that are seen as they are made. `mean`, `std`: (C,) float64. `digest` names the
    content, wherever the files lie, `images_digest` the same without masks: both are equal where there are none.

    Where patches of varying size were fitted to one, `images` and `masks` are of that size, padding is NaN and 255, and
    `own_masks` holds the masks at their own size: (P,) uint8, patch after patch, of the heights and widths `shapes`, (N, 2)
    int64. Both are None elsewhere.
    """

    images: np.ndarray
    masks: np.ndarray
    labelled: np.ndarray
    moments: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    digest: str
    images_digest: str
    shapes: np.ndarray | None = None
    own_masks: np.ndarray | None = None

    def mask(self, row: int) -> np.ndarray:
        """The mask of a patch at its own size, (H, W) uint8."""
        if self.shapes is None or self.own_masks is None:
            return np.asarray(self.masks[row])
        first = int(self.shapes[:row].prod(axis=1).sum())
        height, width = self.shapes[row].tolist()
        return np.asarray(self.own_masks[first : first + height * width]).reshape(height, width)


@dataclass(frozen=True)
class Rules:
    """What turns files into arrays: as in `open_cache`."""

    positive: Sequence[int] | None
    ignore: Sequence[int] | None
    shared: Sequence[Sequence[int]]
    fit: Fit | None


def open_cache(
    patches: Sequence[PatchRef],
    bands: Bands,
    folder: Path,
    *,
    positive: Sequence[int] | None = None,
    ignore: Sequence[int] | None = None,
    shared: Sequence[Sequence[int]] = (),
    fit: Fit | None = None,
    track: Track | None = None,
) -> Cache:
    """The cache of these patches below `folder`, built first where it does not exist.

    Args:
        shared: groups of band positions with pooled statistics.
        fit: how patches of varying size get one; None where they have one.
        track: wraps an iterable with a progress display (iterable, description, total).

    Raises:
        DataError: a file is broken, or the patches differ in size.
    """
    files = [_identity(squares, bands) for squares in _files(patches)]
    fitted = fit.model_dump(mode="json") if fit else None
    place = folder / fingerprint([FORMAT, bands.model_dump(mode="json"), positive, ignore, shared, files, fitted])
    if not (place / "meta.json").is_file():
        rules = Rules(positive, ignore, shared, fit)
        _build(place, patches, bands, rules, track or (lambda items, _text, _total: items))
    meta = json.loads((place / "meta.json").read_text())
    images, masks, moments = (_load(place, name) for name in ARRAYS)
    labelled, mean, std = np.array(meta["labelled"], bool), *map(np.array, meta["stats"])
    sizes = (np.array(_load(place, "shapes")), _load(place, "own_masks")) if fit else (None, None)
    return Cache(images, masks, labelled, np.array(moments), mean, std, *meta["digests"], *sizes)


ARRAYS = ("images", "masks", "moments")


def _load(place: Path, name: str) -> np.ndarray:
    loaded: np.ndarray = np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return loaded


def _files(patches: Sequence[PatchRef]) -> list[list[PatchRef]]:
    """The patches by the file they lie in: one each, or the squares that it is cut into."""
    return [list(squares) for _, squares in groupby(patches, key=lambda patch: patch.image)]


def _whole(squares: Sequence[PatchRef]) -> PatchRef:
    """A file as one patch, so that it is read once for all its squares."""
    return replace(squares[0], square=None)


def _identity(squares: Sequence[PatchRef], bands: Bands) -> list[object]:
    first = squares[0]
    dem = first.dem if reads_dem(bands) else None
    files = [path for path in (first.image, first.mask, dem) if path]
    side = [first.square[0]] if first.square else []
    return [
        *(patch.id for patch in squares),
        *side,
        *(["background"] if first.background else []),
        *([f"label {first.label}"] if first.label is not None else []),
        *([str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files),
    ]


def _build(
    place: Path,
    patches: Sequence[PatchRef],
    bands: Bands,
    rules: Rules,
    track: Track,
) -> None:
    with unfinished(place) as part:
        _fill(part, patches, bands, rules, track)
        try:
            appear(part, place)
        except OSError:  # another process was faster: its bytes are the same
            if not (place / "meta.json").is_file():
                raise


@dataclass(frozen=True)
class _Plan:
    """What is read of which files: one patch a file, the squares it is cut into, and how it is fitted.

    `starts` (F + 1,) int64 are the rows that the files' patches begin at. `shapes` (F, 2) int64 are the heights and widths
    of the files, where they are fitted.
    """

    files: Sequence[Sequence[PatchRef]]
    starts: np.ndarray
    bands: Bands
    rules: Rules
    shapes: np.ndarray | None
    to: Fitting | None

    def image(self, k: int) -> np.ndarray:
        """A file's image as the cache holds it, (C, H, W) float32 in file units, NaN where nothing is known."""
        image = read_image(_whole(self.files[k]), self.bands)
        return image if self.to is None else fit_image(image, self.to)

    def rows(self, k: int) -> slice:
        """The rows of a file's patches."""
        return slice(self.starts[k], self.starts[k + 1])


def _plan(patches: Sequence[PatchRef], bands: Bands, rules: Rules) -> _Plan:
    files = _files(patches)
    starts = np.cumsum([0, *map(len, files)])
    if rules.fit is None:
        return _Plan(files, starts, bands, rules, None, None)
    shapes = [image_shape(_whole(squares), bands) for squares in files]
    return _Plan(files, starts, bands, rules, np.array(shapes, np.int64), fitting(rules.fit, shapes))


def _fill(part: Path, patches: Sequence[PatchRef], bands: Bands, rules: Rules, track: Track) -> None:
    plan = _plan(patches, bands, rules)
    whole = plan.image(0).shape
    shape = in_square(np.empty(whole), patches[0]).shape
    masks = np.lib.format.open_memmap(part / "masks.npy", "w+", np.uint8, (len(patches), *shape[1:]))
    moments = _measure(part, plan, whole, masks, track)
    mean, std = pool(moments, rules.shared)
    images = np.lib.format.open_memmap(part / "images.npy", "w+", np.float16, (len(patches), *shape))
    for k in track(range(len(plan.files)), "cache", len(plan.files)):
        image = _standardise(_whole(plan.files[k]), plan.image(k), mean, std)
        images[plan.rows(k)] = [in_square(image, each) for each in plan.files[k]]
    np.save(part / "moments.npy", moments, allow_pickle=False)
    own = [] if plan.shapes is None else [_load(part, "own_masks")]
    sizes = [] if plan.shapes is None else [plan.shapes]
    meta = {
        "labelled": [patch.labelled or patch.label is not None for patch in patches],
        "stats": [mean.tolist(), std.tolist()],
        "digests": [
            _digest(patches, [images, masks, moments, *sizes, *own]),
            _digest(patches, [images, _unlabelled(masks), moments, *sizes, *map(_unlabelled, own)]),
        ],
    }
    with (part / "meta.json").open("w") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())


def _measure(part: Path, plan: _Plan, whole: tuple[int, ...], masks: np.ndarray, track: Track) -> np.ndarray:
    """Fill the masks, write those at their own size where they are fitted, and return the moments (3, N, C)."""
    moments = np.empty((3, len(masks), whole[0]))
    own, done = None if plan.shapes is None else _own_masks(part, plan.shapes), 0
    for k in track(range(len(plan.files)), "statistics", len(plan.files)):
        squares, patch = plan.files[k], _whole(plan.files[k])
        image = plan.image(k)
        if image.shape != whole:
            raise DataError(_other_size(patch, image.shape, plan.files[0][0], whole))
        moments[:, plan.rows(k)] = np.stack([patch_moments(in_square(image, each)) for each in squares], axis=1)
        moments[1:, plan.rows(k), np.array(plan.bands.fixed)] = [
            [[0.0]],
            [[1.0]],
        ]  # whatever standardises leaves them alone
        mask = _mask(patch, whole[1:] if plan.shapes is None else tuple(plan.shapes[k].tolist()), plan.rules)
        if own is not None and plan.to is not None and plan.shapes is not None:
            own[done : done + mask.size] = mask.ravel()
            mask, done = fit_mask(mask, plan.to), done + mask.size
        masks[plan.rows(k)] = [in_square(mask, each) for each in squares]
    if own is not None:
        own.flush()
    return moments


def _own_masks(part: Path, shapes: np.ndarray) -> np.memmap:
    """Room for the masks at their own size, patch after patch."""
    np.save(part / "shapes.npy", shapes, allow_pickle=False)
    size = (int(shapes.prod(axis=1).sum()),)
    return np.lib.format.open_memmap(part / "own_masks.npy", "w+", np.uint8, size)


def _unlabelled(masks: np.ndarray) -> np.ndarray:
    """What the masks would be if there were none."""
    return np.full_like(masks, IGNORED)


def _digest(patches: Sequence[PatchRef], arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256("\n".join(patch.id for patch in patches).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
        if isinstance(array, np.memmap):
            array.flush()
    return digest.hexdigest()[:16]


def _other_size(patch: PatchRef, shape: tuple[int, ...], first: PatchRef, whole: tuple[int, ...]) -> str:
    return (
        f"{patch.image} has shape {shape}, but {first.image} has {whole}: one domain, one size. Where patches vary in size, "
        'give the domain fit = { by = "resize", side = 256 } or fit = { by = "pad", multiple = 32 }'
    )


def _mask(patch: PatchRef, size: tuple[int, ...], rules: Rules) -> np.ndarray:
    if not patch.labelled:
        return np.full(size, IGNORED if patch.label is None else patch.label, np.uint8)
    mask = read_mask(patch, rules.positive, rules.ignore)
    if mask.shape != size:
        raise DataError(
            f"{patch.mask} has shape {mask.shape}, but its image {patch.image} is {size}: make it on the same pixels"
        )
    return mask


def _standardise(patch: PatchRef, image: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    image = (image - mean[:, None, None]) / std[:, None, None]
    if np.nanmax(np.abs(image), initial=0) > 6e4:
        raise DataError(
            f"{patch.image} has values over 60,000 standard deviations from the mean: is a nodata value left?"
        )
    image[np.isnan(image)] = np.nan  # of all that mean it the same bytes, so that equal data have equal digests
    return np.asarray(image, np.float16)
