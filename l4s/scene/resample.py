"""Arithmetic of pixels beside pixels: coarser bands between their centres, and the slope of a DEM."""

import numpy as np

from l4s.data.terrain import PIXEL


def horn(dem: np.ndarray, pixel: float = PIXEL) -> np.ndarray:
    """Slope after Horn (1981), as GDAL computes it: (H + 2, W + 2) metres -> (H, W) degrees in [0, 90).

    Args:
        dem: with one pixel around; NaN makes its neighbours NaN.
        pixel: metres along each side.
    """
    down, right = dem[2:] - dem[:-2], dem[:, 2:] - dem[:, :-2]
    south = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    east = right[:-2] + 2 * right[1:-1] + right[2:]
    slope: np.ndarray = np.degrees(np.arctan(np.hypot(south, east) / (8 * pixel)))
    return slope


def enlarge(image: np.ndarray, valid: np.ndarray, factor: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate bilinearly between the centres of pixels that are `factor` times as large; edges are repeated.

    Args:
        image: (C, h, w) float32. valid: (h, w) bool; other pixels have no weight.
        first, rows: which rows of the h * factor to make.

    Returns:
        (C, rows, w * factor) float32, and which of them lie in a valid pixel.
    """
    row, column = np.arange(first, first + rows), np.arange(image.shape[2] * factor)
    inside = valid[(row // factor)[:, None], column // factor]

    def mixed(values: np.ndarray) -> np.ndarray:
        return _between(_between(values, row, factor, 1), column, factor, 2)

    if valid.all():
        return mixed(image), inside
    weight = mixed(valid[None].astype(np.float32))
    return mixed(image * valid) / np.where(inside, weight, 1.0), inside


def _between(values: np.ndarray, at: np.ndarray, factor: int, axis: int) -> np.ndarray:
    place = (at + 0.5) / factor - 0.5
    low = np.floor(place).astype(int)
    shape = [1, 1, 1]
    shape[axis] = -1
    share = (place - low).astype(np.float32).reshape(shape)
    last = values.shape[axis] - 1
    before, after = (values.take(np.clip(index, 0, last), axis) for index in (low, low + 1))
    return np.asarray(before + share * (after - before))
