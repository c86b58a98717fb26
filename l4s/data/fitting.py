"""Patches of varying size brought to one size and back: resized, or padded on the right and below."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from l4s.data.patch import IGNORED
from l4s.recipe import Fit


@dataclass(frozen=True)
class Fitting:
    """How the patches of one domain are brought to squares of `side` pixels."""

    by: Literal["resize", "pad"]
    side: int


def fitting(config: Fit, shapes: Iterable[tuple[int, int]]) -> Fitting:
    """The size that patches of these heights and widths get.

    Padding goes to one square for all, whose side is the least multiple of `config.multiple` that holds every patch:
    quarter turns need squares.
    """
    if config.by == "resize":
        assert config.side is not None
        return Fitting("resize", config.side)
    assert config.multiple is not None
    longest = max(max(shape) for shape in shapes)
    return Fitting("pad", -(-longest // config.multiple) * config.multiple)


def fit_image(image: np.ndarray, to: Fitting) -> np.ndarray:
    """(C, H, W) float32 -> (C, side, side) float32; padding is NaN, which the domain's statistics leave out.

    The cache makes it the mean, and networks see it: the statistics of their batches count it (`l4s.recipe.Fit`).
    """
    if to.by == "resize":
        return np.stack([resize(band, (to.side, to.side)) for band in image])
    return _padded(image, to.side, np.nan)


def fit_mask(mask: np.ndarray, to: Fitting, fill: int = IGNORED) -> np.ndarray:
    """(H, W) -> (side, side) of the same dtype, the nearest pixels; padding is `fill`."""
    return nearest(mask, (to.side, to.side)) if to.by == "resize" else _padded(mask, to.side, fill)


def restore(values: np.ndarray, shape: tuple[int, int], to: Fitting) -> np.ndarray:
    """Values of a fitted patch at its own size: (side, side) float32 -> (H, W) float32, bilinear, or cut from the padding."""
    if to.by == "resize":
        return resize(values, shape)
    return values[: shape[0], : shape[1]]


def resize(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 at another size, bilinear with anti-aliasing; NaN counts for nothing, and stays where there is only NaN.

    Pillow's filter is a triangle as wide as the pixels that a new one covers, normalised at the borders, and summed up in
    float64 by one thread: no pixel is skipped, a constant stays constant, bytes do not depend on the machine. skimage
    blurs by a Gaussian and picks points; torch's sums depend on vector units and threads.
    """
    if plane.shape == tuple(shape):
        return plane
    missing = np.isnan(plane)
    if not missing.any():
        return _resized(plane, shape)
    known = _resized(np.where(missing, 0, 1), shape)
    some = known > 1e-6  # the triangle ends in weights that are rounding
    total = _resized(np.where(missing, 0, plane), shape)
    return np.where(some, total / np.where(some, known, 1), np.nan).astype(np.float32)


def _resized(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def nearest(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) at another size: each pixel is the one that its centre falls into, so that a slide without any is lost."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(plane.shape, shape, strict=True))
    return plane[np.ix_(rows, columns)]


def _padded(values: np.ndarray, side: int, fill: float) -> np.ndarray:
    below, right = side - values.shape[-2], side - values.shape[-1]
    around = [(0, 0)] * (values.ndim - 2) + [(0, below), (0, right)]
    return np.pad(values, around, constant_values=fill)
