"""A domain's patches as float16 memory maps, standardised by the domain's own statistics.

Reading a compressed HDF5 patch costs about 300 times what reading it from the memory map does. Values are stored after
standardising because float16 overflows at 65504. The folder is named by what it was made of, built under another name
and renamed, so that two processes that start at once cannot spoil it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from l4s.data.bands import Bands
from l4s.data.readers import PatchRef, in_square, read_image, read_mask
from l4s.data.stats import patch_moments, pool
from l4s.errors import DataError
from l4s.recipe import fingerprint

FORMAT = 1  # raised when cached bytes change their meaning
Track = Callable[[Iterable[int], str, int], Iterable[int]]


@dataclass(frozen=True)
class Cache:
    """Arrays of one domain.

    `images`: (N, C, H, W) float16, (x - mean) / std per band, 0 where the file has NaN. `masks`: (N, H, W) uint8 in
    {0, 1, 255}, 255 throughout where a patch has no mask. `labelled`: (N,) bool. `moments`: (3, N, C) float64 in file
    units. `mean`, `std`: (C,) float64. `digest` names the content, wherever the files lie.
    """

    images: np.ndarray
    masks: np.ndarray
    labelled: np.ndarray
    moments: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    digest: str


def open_cache(
    patches: Sequence[PatchRef],
    bands: Bands,
    folder: Path,
    *,
    positive: Sequence[int] = (1,),
    ignore: Sequence[int] = (255,),
    shared: Sequence[Sequence[int]] = (),
    track: Track | None = None,
) -> Cache:
    """The cache of these patches below `folder`, built first where it does not exist.

    Args:
        shared: groups of band positions with pooled statistics.
        track: wraps an iterable with a progress display (iterable, description, total).

    Raises:
        DataError: a file is broken, or the patches differ in size.
    """
    key = fingerprint(
        [FORMAT, bands.model_dump(mode="json"), positive, ignore, shared, [_identity(f) for f in _files(patches)]]
    )
    place = folder / key
    if not (place / "meta.json").is_file():
        _build(place, patches, bands, (positive, ignore, shared), track or (lambda items, _text, _total: items))
    meta = json.loads((place / "meta.json").read_text())
    images, masks, moments = (np.load(place / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in ARRAYS)
    labelled, mean, std = np.array(meta["labelled"], bool), *map(np.array, meta["stats"])
    return Cache(images, masks, labelled, np.array(moments), mean, std, meta["digest"])


ARRAYS = ("images", "masks", "moments")


def _files(patches: Sequence[PatchRef]) -> list[list[PatchRef]]:
    """The patches by the file they lie in: one each, or the squares that it is cut into."""
    return [list(squares) for _, squares in groupby(patches, key=lambda patch: patch.image)]


def _whole(squares: Sequence[PatchRef]) -> PatchRef:
    """A file as one patch, so that it is read once for all its squares."""
    return replace(squares[0], square=None)


def _identity(squares: Sequence[PatchRef]) -> list[object]:
    files = [path for path in (squares[0].image, squares[0].mask) if path]
    side = [squares[0].square[0]] if squares[0].square else []
    return [
        *(patch.id for patch in squares),
        *side,
        *([str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files),
    ]


def _build(
    place: Path,
    patches: Sequence[PatchRef],
    bands: Bands,
    rules: tuple[Sequence[int], Sequence[int], Sequence[Sequence[int]]],
    track: Track,
) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{place.name}.part-", dir=place.parent))
    try:
        _fill(part, patches, bands, rules, track)
        try:
            part.rename(place)
        except OSError:  # another process was faster: its bytes are the same
            if not (place / "meta.json").is_file():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fill(
    part: Path,
    patches: Sequence[PatchRef],
    bands: Bands,
    rules: tuple[Sequence[int], Sequence[int], Sequence[Sequence[int]]],
    track: Track,
) -> None:
    positive, ignore, shared = rules
    files = _files(patches)
    whole = read_image(_whole(files[0]), bands).shape
    shape = in_square(np.empty(whole), patches[0]).shape
    starts = np.cumsum([0, *map(len, files)])
    moments = np.empty((3, len(patches), shape[0]))
    masks = np.lib.format.open_memmap(part / "masks.npy", "w+", np.uint8, (len(patches), *shape[1:]))
    for k in track(range(len(files)), "statistics", len(files)):
        patch, rows = _whole(files[k]), slice(starts[k], starts[k + 1])
        image = read_image(patch, bands)
        if image.shape != whole:
            raise DataError(
                f"{patch.image} has shape {image.shape}, but {patches[0].image} has {whole}: one domain, one size"
            )
        moments[:, rows] = np.stack([patch_moments(in_square(image, each)) for each in files[k]], axis=1)
        mask = np.full(whole[1:], 255) if patch.mask is None else _mask(patch, whole[1:], positive, ignore)
        masks[rows] = [in_square(mask, each) for each in files[k]]
    mean, std = pool(moments, shared)
    images = np.lib.format.open_memmap(part / "images.npy", "w+", np.float16, (len(patches), *shape))
    for k in track(range(len(files)), "cache", len(files)):
        image = _standardise(_whole(files[k]), bands, mean, std)
        images[starts[k] : starts[k + 1]] = [in_square(image, each) for each in files[k]]
    np.save(part / "moments.npy", moments, allow_pickle=False)
    digest = hashlib.sha256("\n".join(patch.id for patch in patches).encode())
    for array in (images, masks, moments):
        digest.update(np.ascontiguousarray(array).data)
        if isinstance(array, np.memmap):
            array.flush()
    meta = {
        "labelled": [patch.mask is not None for patch in patches],
        "stats": [mean.tolist(), std.tolist()],
        "digest": digest.hexdigest()[:16],
    }
    with (part / "meta.json").open("w") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())


def _mask(patch: PatchRef, size: tuple[int, ...], positive: Sequence[int], ignore: Sequence[int]) -> np.ndarray:
    mask = read_mask(patch, positive, ignore)
    if mask.shape != size:
        raise DataError(
            f"{patch.mask} has shape {mask.shape}, but its image {patch.image} is {size}: make it on the same pixels"
        )
    return mask


def _standardise(patch: PatchRef, bands: Bands, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    image = (read_image(patch, bands) - mean[:, None, None]) / std[:, None, None]
    if np.nanmax(np.abs(image), initial=0) > 6e4:
        raise DataError(
            f"{patch.image} has values over 60,000 standard deviations from the mean: is a nodata value left?"
        )
    return np.asarray(np.nan_to_num(image, nan=0.0), np.float16)
