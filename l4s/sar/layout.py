"""How radar chips lie on disk: the layout of Landslide4Sense, with a band for each polarisation of each pass.

`FOLDER/img/image_N.h5` holds `img` (H, W, C) float32, amplitudes on a linear scale, NaN where nothing was measured;
`FOLDER/mask/mask_N.h5` holds `mask` (H, W) uint8 {0, 1, 255}. A folder of chips whose landslides are points has a
`labels.csv` instead of masks (see `l4s.data.labels`).
"""

import os
from pathlib import Path

import h5py
import numpy as np

from l4s.data.patch import IGNORED
from l4s.errors import DataError

POLARISATIONS = ("vv", "vh")
SIDES = ("pre", "post")
MANTISSA = 23  # bits of a float32
VALID = 0.5  # a pass counts in a chip from this share of pixels with values on


def band_names(visits: int) -> tuple[str, ...]:
    """The bands in file order: vv_pre_1, vh_pre_1, vv_pre_2, ..., vh_post_<visits>; 1 is nearest to the event in time."""
    passes = [(side, visit) for side in SIDES for visit in range(1, visits + 1)]
    return tuple(f"{polarisation}_{side}_{visit}" for side, visit in passes for polarisation in POLARISATIONS)


def write_image(folder: Path, number: int, image: np.ndarray, bits: int | None = None) -> Path:
    """Write (C, H, W) amplitudes as `img/image_<number>.h5`, whole or not at all.

    Args:
        bits: keep so many bits of the mantissa and pack the file; None: all of them, as they are. A pass is known to a
            few per cent; 11 bits are 0.02 % and make files about half as large.
    """
    values = np.ascontiguousarray(np.moveaxis(image, 0, -1), np.float32)
    if bits is None:
        return _write(folder / "img" / f"image_{number}.h5", "img", values)
    packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "chunks": values.shape}
    return _write(folder / "img" / f"image_{number}.h5", "img", rounded(values, bits), **packed)


def write_mask(folder: Path, number: int, mask: np.ndarray) -> Path:
    """Write an (H, W) uint8 mask as `mask/mask_<number>.h5`, whole or not at all."""
    return _write(folder / "mask" / f"mask_{number}.h5", "mask", np.ascontiguousarray(mask, np.uint8))


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 values to the nearest with so many bits of mantissa (1 to 22); NaN stays NaN."""
    dropped = MANTISSA - bits
    codes = values.view(np.uint32) + np.uint32(1 << (dropped - 1))
    kept = (codes & ~np.uint32((1 << dropped) - 1)).view(np.float32)
    return np.where(np.isnan(values), np.float32(np.nan), kept)


def amplitudes(values: np.ndarray, where: str) -> np.ndarray:
    """Amplitudes as float32, NaN where a value is not finite.

    Raises:
        DataError: a value is negative, as a logarithm is.
    """
    found = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
    if (found < 0).any():
        raise DataError(
            f"{where} has amplitudes down to {np.nanmin(found):g}: they are wanted on a linear scale, at least 0; are these "
            "decibels or logarithms?"
        )
    return found


def covers(values: np.ndarray) -> bool:
    """Does a pass count in a chip: do half of its pixels or more have a value in both polarisations?

    Args:
        values: (H, W) bool, where it has both.
    """
    return bool(values.mean() >= VALID)


def seen(image: np.ndarray) -> np.ndarray:
    """Where a pair shows anything of the ground, before the event and after: (H, W) bool of (4 visits, H, W) amplitudes.

    A pass shows a pixel that has a value in both polarisations.
    """
    passes = np.isfinite(image).reshape(len(SIDES), -1, len(POLARISATIONS), *image.shape[1:])
    return np.asarray(passes.all(2).any(1).all(0))


def known(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The mask of a pair, (H, W) uint8 {0, 1, 255}: 255 where no pass before, or none after, saw a pixel."""
    return np.where(seen(image), mask, IGNORED).astype(np.uint8)


def middle(mask: np.ndarray, bounds: tuple[float, float, float, float] | None) -> tuple[float, float]:
    """The mean of a chip's points, or its own middle: x and y on the map, or pixels from the upper left corner."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    down, right = (float(rows.mean()) + 0.5, float(columns.mean()) + 0.5) if len(rows) else (height / 2, width / 2)
    if bounds is None:
        return right, down
    return bounds[0] + right / width * (bounds[2] - bounds[0]), bounds[3] - down / height * (bounds[3] - bounds[1])


def _write(path: Path, key: str, values: np.ndarray, **packed: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # hidden files are no patches to the readers
    with h5py.File(part, "w") as file:
        file.create_dataset(key, data=values, track_times=False, **packed)
    os.replace(part, path)
    return path
