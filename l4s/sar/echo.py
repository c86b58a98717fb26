"""What the radar gets back from generated ground: backscatter by land cover, slopes that face the sensor, speckle."""

from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv, ndtr

from l4s.data.landcover import MATERIALS
from l4s.data.terrain import Terrain, power_field

BACKSCATTER = {
    "forest": (-7.5, -13.0),
    "shrub": (-8.5, -14.5),
    "grass": (-11.0, -18.0),
    "crop": (-10.0, -17.0),
    "stubble": (-11.5, -19.5),
    "soil": (-10.5, -20.0),
    "rock": (-8.5, -17.5),
    "water": (-20.0, -27.0),
}
"""Typical VV and VH of C band at middle incidence, decibels of power. The order is our choice, the values are round."""

NOISE = 10 ** (-2.4)  # power that the sensor adds; its data sheet promises at most -22 dB
LAYOVER, SHADOW = 8.0, 86.0  # degrees of local incidence beyond which the ratio is held
NEIGHBOUR = 0.25  # of the filter [n, 1, n] along both axes: speckle of pixels side by side is correlated by 0.44
KNOTS = np.linspace(-6.0, 6.0, 1201)


def backscatter(rng: np.random.Generator, share: np.ndarray, level: tuple[float, float]) -> np.ndarray:
    """Decibels of what covers the ground, with the texture that its biomass and moisture give it.

    Args:
        share: (8, H, W) of `MATERIALS`, sums to 1.

    Returns:
        (2, H, W) float32, VV and VH.
    """
    table = 10 ** (np.array([BACKSCATTER[name] for name in MATERIALS], np.float32) / 10)
    decibels = 10 * np.log10(np.tensordot(table.T, share, 1))
    texture = 0.5 * power_field(rng, share.shape[1], 2.0, 25.0)
    return np.asarray(decibels + texture + np.array(level, np.float32)[:, None, None], np.float32)


def facing(terrain: Terrain, incidence: float, heading: float, relief: float) -> np.ndarray:
    """How many decibels brighter or darker slopes are for their tilt towards the sensor: (H, W) float32.

    A slope that rises away from the sensor is met more steeply and holds more ground in a pixel: sin(incidence) /
    sin(local incidence) in the range plane. `relief` is the share that the product's terrain correction leaves.
    """
    south, east = terrain.gradient
    rise = east * np.sin(np.radians(heading)) - south * np.cos(np.radians(heading))
    local = np.clip(incidence - np.degrees(np.arctan(rise)), LAYOVER, SHADOW)
    ratio = np.sin(np.radians(incidence)) / np.sin(np.radians(local))
    return np.asarray(relief * 10 * np.log10(ratio), np.float32)


def measure(rng: np.random.Generator, decibels: np.ndarray, looks: float) -> np.ndarray:
    """What a pass measures of true backscatter: amplitudes on a linear scale, (P, H, W) float32 > 0.

    The intensity is (power + noise) x gamma(looks, 1 / looks), the amplitude its square root.

    Args:
        decibels: (P, H, W) of power.
    """
    amplitude = np.sqrt(np.float32(10) ** (decibels / 10) + np.float32(NOISE))
    return np.asarray(amplitude * speckle(rng, decibels.shape, looks), np.float32)


def speckle(rng: np.random.Generator, shape: tuple[int, ...], looks: float) -> np.ndarray:
    """Multiplicative speckle of an amplitude, (P, H, W) float32: the root of gamma(looks, 1 / looks), mean square 1.

    Neighbours are correlated, as in multi-looked products whose pixels lie closer than their resolution.
    """
    planes, height, width = shape
    normal = rng.standard_normal((planes, height + 2, width + 2), np.float32)
    normal = normal[:, 1:-1] + NEIGHBOUR * (normal[:, :-2] + normal[:, 2:])
    normal = normal[:, :, 1:-1] + NEIGHBOUR * (normal[:, :, :-2] + normal[:, :, 2:])
    normal /= np.float32(1 + 2 * NEIGHBOUR**2)
    # the same quantile of both distributions: the correlation hardly changes, the looks may be any number
    return np.asarray(np.interp(normal, KNOTS, _amplitudes(looks)), np.float32)


@lru_cache(maxsize=8)
def _amplitudes(looks: float) -> np.ndarray:
    """The amplitude that lies as high in its distribution as each of `KNOTS` in the normal one."""
    return np.asarray(np.sqrt(gammaincinv(looks, ndtr(KNOTS)) / looks))
