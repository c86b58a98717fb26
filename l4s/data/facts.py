"""What one file of a data folder holds, read leniently: whatever is wrong with it is a fact, not an exception."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from l4s.data.patch import PatchRef
from l4s.data.pictures import dem_of_picture, read_colours
from l4s.data.readers import band_axis, read_array, read_mask, read_plane
from l4s.data.stats import patch_moments
from l4s.errors import DataError

VALUES_KEPT = 20  # different values of a mask that are counted one by one
REASONS = {"has no array": "wrong key", "has shape": "wrong shape", "holds": "wrong type"}
"""How the readers' errors begin, after the path, and what kind of fault each is."""
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Facts:
    """One file. `fault` is (kind, detail) where it could not be read as what its name says, and the rest is empty.

    `size` is (H, W) and `bands` the number of bands. Images have `digest` (of their float32 pixels, in the release's
    order (H, W, C), so that copies in another type or order are seen), `moments` (3, C) as `patch_moments` gives them,
    `low`, `high` (C,) over finite pixels (NaN where there is none), `whole` (C,) bool, and `nan`, `infinite` (C,) shares
    of the pixels. Masks have `values`: pixels of each value stored. Pictures have the facts of three bands but no `dtype`,
    their masks values as read, on their pixels, and DEMs a size alone.
    """

    path: Path
    fault: tuple[str, str] | None = None
    size: tuple[int, ...] = ()
    bands: int = 0
    dtype: str = ""
    digest: str = ""
    moments: np.ndarray = field(default_factory=lambda: np.zeros((3, 0)))
    low: np.ndarray = field(default_factory=lambda: np.zeros(0))
    high: np.ndarray = field(default_factory=lambda: np.zeros(0))
    whole: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    nan: np.ndarray = field(default_factory=lambda: np.zeros(0))
    infinite: np.ndarray = field(default_factory=lambda: np.zeros(0))
    values: Mapping[float, int] = field(default_factory=dict)

    @property
    def constant(self) -> np.ndarray:
        """(C,) bool: bands whose valid pixels all have one value."""
        return np.asarray(self.low == self.high)


def image_facts(path: Path, count: int | None = None) -> Facts:
    """The facts of an image file; `count` is the number of bands expected, where that is known."""
    try:
        values = read_array(path, "img")
    except DataError as error:
        return Facts(path, _unreadable(path, error))
    if values.dtype.kind not in "fiu":
        return Facts(path, ("wrong type", f"holds {values.dtype}"))
    axis = band_axis(values.shape, count)
    if axis is None or values.size == 0:
        return Facts(path, ("wrong shape", f"has shape {values.shape}"))
    return _measure(path, np.moveaxis(values, axis, -1))


def mask_facts(path: Path, _: int | None = None) -> Facts:
    """The facts of a mask file; it has one band, whatever its image has."""
    try:
        values = read_plane(path)
    except DataError as error:
        return Facts(path, _unreadable(path, error))
    return _counted(path, values)


def _counted(path: Path, values: np.ndarray) -> Facts:
    found, pixels = np.unique(values, return_counts=True)
    kept = dict(zip(found[:VALUES_KEPT].astype(float).tolist(), pixels[:VALUES_KEPT].tolist(), strict=True))
    return Facts(path, size=values.shape, dtype=str(values.dtype), values=kept)


def picture_facts(ref: PatchRef) -> tuple[Facts, ...]:
    """The facts of a picture, and of its mask and its DEM where it has them; faults are in the words of their reader."""
    colours = _told(ref.image, partial(_colours_of, ref.image))
    readers = ((ref.mask, _mask_of), (ref.dem, _dem_of))
    if colours.fault:  # which has the size of the others
        beside = ("refused by the reader", "its picture cannot be read")
        return colours, *(Facts(path, beside) for path, _ in readers if path)
    return colours, *(_told(path, partial(read, ref, path)) for path, read in readers if path)


def _told(path: Path, read: Callable[[], Facts]) -> Facts:
    try:
        return read()
    except DataError as error:
        return Facts(path, ("refused by the reader", str(error).removeprefix(f"{path} ")))


def _colours_of(path: Path) -> Facts:
    return replace(_measure(path, np.moveaxis(read_colours(path), 0, -1)), dtype="")


def _mask_of(ref: PatchRef, path: Path) -> Facts:
    return _counted(path, read_mask(ref))


def _dem_of(ref: PatchRef, path: Path) -> Facts:
    heights = dem_of_picture(path, ref.image)
    fault = ("infinite values", f"in {np.isinf(heights).mean():.1%} of pixels") if np.isinf(heights).any() else None
    return Facts(path, fault, heights.shape)


def _unreadable(path: Path, error: DataError) -> tuple[str, str]:
    reason = str(error).removeprefix(f"{path} ").rsplit(": ", 1)[0]
    return next((kind for begin, kind in REASONS.items() if reason.startswith(begin)), "broken file"), reason


def _measure(path: Path, stored: np.ndarray) -> Facts:
    """Facts of an image (H, W, C)."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite to every reader here
        pixels = np.ascontiguousarray(stored, np.float32)
    image = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    flat = image.reshape(len(image), -1)
    nan, infinite = np.isnan(flat), np.isinf(flat)
    invalid = nan | infinite
    if invalid.any():
        flat = np.where(invalid, np.nan, flat)
    empty = invalid.all(1)
    low = np.where(invalid, FLOAT32_MAX, flat).min(1).astype(np.float64)
    high = np.where(invalid, -FLOAT32_MAX, flat).max(1).astype(np.float64)
    return Facts(
        path,
        size=pixels.shape[:2],
        bands=len(image),
        dtype=str(stored.dtype),
        digest=hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest(),
        moments=patch_moments(flat.reshape(image.shape)),
        low=np.where(empty, np.nan, low),
        high=np.where(empty, np.nan, high),
        whole=(np.rint(flat) == flat).all(1, where=~invalid),
        nan=nan.mean(1),
        infinite=infinite.mean(1),
    )
