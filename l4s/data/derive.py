"""Bands made of other bands when a patch is read: means over passes, logarithms, changes, heights above the mean, slopes.

A new one is a function here and one line of `DERIVED`: (K, H, W) float32 with NaN where values are missing -> (H, W)
float32. Its options are positive numbers, keyword arguments, and keys of the recipe's `bands.make`.
"""

import inspect
import math
from collections.abc import Callable, Mapping

import numpy as np

from l4s.errors import did_you_mean


def mean(bands: np.ndarray) -> np.ndarray:
    """The mean over K bands of what is there: the paper's average over visits (Böhm 2022, 3); NaN where all are."""
    valid = ~np.isnan(bands)
    total = np.where(valid, bands, np.float32(0)).sum(0, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is there
        return np.asarray(total / valid.sum(0), np.float32)


def log10(bands: np.ndarray, *, floor: float = 1e-4) -> np.ndarray:
    """The mean over K bands, then log10 of at least `floor`, so that every patch has one scale.

    The released code adds |min| + 1e-4 instead, in patches alone whose smallest value is 0 or less.
    """
    return np.asarray(np.log10(np.maximum(mean(bands), np.float32(floor))))


def difference(bands: np.ndarray) -> np.ndarray:
    """The first band minus the second."""
    return np.asarray(bands[0] - bands[1])


def ratio(bands: np.ndarray, *, floor: float = 1e-4) -> np.ndarray:
    """The first band over the second, which counts as at least `floor`."""
    return np.asarray(bands[0] / np.maximum(bands[1], np.float32(floor)))


def relative(bands: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
    """One band minus its mean over the whole file: a DEM without its altitude.

    With a `scale` it is divided by that, and the network sees it as it is; without one it is standardised like any band, so
    that relief has the scale that its domain gives it.
    """
    band, valid = bands[0], ~np.isnan(bands[0])
    middle = band[valid].mean(dtype=np.float64) if valid.any() else 0.0
    return np.asarray((band - middle) / scale, np.float32)


def slope(bands: np.ndarray, *, spacing: float) -> np.ndarray:
    """Slope in degrees, [0, 90), of a DEM in metres whose pixels are `spacing` metres wide; NaN beside NaN."""
    from l4s.data.terrain import PIXEL, slope_degrees  # scipy's graphs take long to load

    return np.asarray(slope_degrees(bands[0].astype(np.float64) * (PIXEL / spacing)), np.float32)


Derive = Callable[..., np.ndarray]
DERIVED: dict[str, Derive] = {
    "mean": mean,
    "log10": log10,
    "difference": difference,
    "ratio": ratio,
    "relative": relative,
    "slope": slope,
}
"""Name -> function of (K, H, W) and its own options."""

AS_IT_IS = {"relative": "scale"}
"""Functions whose bands are not standardised where this option is given."""

TAKES = {"difference": 2, "ratio": 2, "relative": 1, "slope": 1}
"""How many bands a function takes; the others take one or more."""


def check_made(how: str, of: int, options: Mapping[str, object]) -> None:
    """Refuse what `derive` could not do, before any patch is read.

    Raises:
        ValueError: there is no such function or option, one is missing or no positive number, or the number of bands is
            wrong.
    """
    if how not in DERIVED:
        raise ValueError(f"how = {how!r} does not exist{did_you_mean(how, DERIVED)}")
    wanted = TAKES.get(how)
    fits = of == wanted if wanted else of > 0
    if not fits:
        raise ValueError(f"how = {how!r} takes {wanted or 'one or more'} band(s), but `of` names {of}")
    known = {p.name: p.default for p in inspect.signature(DERIVED[how]).parameters.values() if p.kind is p.KEYWORD_ONLY}
    if unknown := [name for name in options if name not in known]:
        raise ValueError(f"how = {how!r} has no option {unknown[0]!r}{did_you_mean(unknown[0], known)}")
    if missing := [
        name for name, default in known.items() if default is inspect.Parameter.empty and name not in options
    ]:
        raise ValueError(f"how = {how!r} needs {missing[0]!r}: a positive number")
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value < math.inf):
            raise ValueError(f"how = {how!r}: {name} = {value!r} must be a positive number")


def derive(how: str, bands: np.ndarray, options: Mapping[str, float]) -> np.ndarray:
    """One made band, (H, W) float32, of the bands it is made of, (K, H, W) float32."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which readers refuse
        return np.asarray(DERIVED[how](bands, **options), np.float32)
