"""From land cover to what Sentinel-2 delivers: 12 bands of top-of-atmosphere reflectance times 10,000 (Level-1C).

Surface reflectances are rounded values for common materials, tuned so that vegetation and scars look as in the release's
files. The atmosphere is path radiance plus transmission, the sun comes over the hillshade, and bands of 20 and 60 m
are blocks of equal pixels, as they are in the release.
"""

import numpy as np

from l4s.data.landcover import MATERIALS
from l4s.data.scale import ORGANISERS_MEAN
from l4s.data.synth_domain import HAZE, SynthDomain
from l4s.data.terrain import Terrain, power_field, sunlight

IMG_MEAN = np.array(list(ORGANISERS_MEAN.values()))
"""(14,) float64: what the organisers divided each band by: reflectance x 10,000, degrees, metres."""

#                 b1   b2   b3   b4   b5   b6   b7   b8   b9  b10  b11  b12   surface reflectance in per mille
GREEN = {
    "forest": [18, 19, 35, 20, 58, 165, 205, 220, 225, 200, 120, 48],
    "shrub": [21, 24, 48, 26, 76, 215, 270, 285, 290, 250, 165, 70],
    "grass": [30, 36, 68, 48, 104, 225, 265, 280, 285, 250, 200, 105],
    "crop": [30, 36, 72, 38, 98, 285, 360, 380, 380, 300, 195, 88],
}
DORMANT = {
    "forest": [24, 27, 44, 46, 72, 110, 128, 140, 150, 140, 135, 75],
    "shrub": [32, 38, 62, 72, 100, 140, 160, 175, 185, 170, 200, 120],
    "grass": [44, 54, 84, 102, 132, 172, 192, 208, 215, 200, 270, 175],
    "crop": [42, 50, 82, 88, 122, 190, 220, 238, 245, 220, 240, 140],
}
GREY = {"soil": [85, 100, 124, 146, 156, 166, 174, 180, 186, 180, 235, 195]}
RED = {"soil": [78, 88, 126, 192, 218, 236, 250, 262, 270, 260, 345, 285]}
FIXED = {
    "stubble": [52, 64, 98, 128, 158, 194, 212, 228, 235, 220, 310, 210],
    "rock": [98, 114, 134, 150, 156, 160, 164, 168, 172, 165, 222, 196],
    "water": [58, 64, 72, 56, 40, 20, 18, 15, 10, 8, 6, 4],
}
CLOUD = np.array([560, 560, 570, 590, 600, 610, 620, 620, 260, 12, 480, 380]) / 1e3
PATH = np.array([86, 58, 34, 19, 15, 11, 9, 8, 4, 0.9, 3, 2]) / 1e3
THROUGH = np.array([0.80, 0.84, 0.88, 0.91, 0.93, 0.94, 0.95, 0.95, 1.0, 0.001, 0.97, 0.97])  # b9: SynthDomain.vapour
DIFFUSE = np.array([0.50, 0.40, 0.30, 0.24, 0.21, 0.18, 0.16, 0.15, 0.15, 0.15, 0.10, 0.09])  # of level ground's light
NOISE = np.array([5, 7, 8, 8, 8, 10, 12, 16, 6, 0.8, 9, 8])  # reflectance x 10,000, standard deviation
METRES = (60, 10, 10, 10, 20, 20, 20, 10, 60, 60, 20, 20)  # ground sampling of each band
#                         b1    b2    b3    b4    b5    b6    b7    b8    b9   b10   b11   b12
CROWNS = np.array([0.010, 0.030, 0.045, 0.050, 0.050, 0.060, 0.065, 0.090, 0.060, 0.0, 0.060, 0.060])
DENSITY = np.array([-0.01, -0.03, -0.01, -0.06, -0.01, 0.060, 0.080, 0.080, 0.080, 0.0, -0.02, -0.05])
WETNESS = np.array([0.00, -0.02, -0.02, -0.03, -0.04, -0.04, -0.04, -0.04, -0.05, 0.0, -0.10, -0.14])
STONES = np.full(12, 0.13)


def endmembers(vigour: float, soil: float) -> np.ndarray:
    """Surface reflectance of `MATERIALS` in the bands b1 to b12, in a season and with a colour of soil: (8, 12)."""
    mixed = {name: np.array(FIXED[name], np.float64) for name in FIXED}
    for name in GREEN:
        mixed[name] = vigour * np.array(GREEN[name]) + (1 - vigour) * np.array(DORMANT[name])
    mixed["soil"] = soil * np.array(RED["soil"]) + (1 - soil) * np.array(GREY["soil"])
    return np.stack([mixed[name] for name in MATERIALS]) / 1e3


def _per_band(values: np.ndarray | tuple[float, ...]) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None, None]


def observe(rng: np.random.Generator, share: np.ndarray, terrain: Terrain, domain: SynthDomain) -> np.ndarray:
    """What the sensor delivers of a patch.

    Args:
        share: (8, H, W) float32, parts of `MATERIALS` in each pixel.

    Returns:
        (12, H, W) float32, reflectance x 10,000 as whole numbers, at least 1.
    """
    size = share.shape[-1]
    through = THROUGH.copy()
    through[8] = domain.vapour
    reflected = (endmembers(domain.vigour, domain.soil) * through).T.astype(np.float32)
    seen = np.tensordot(reflected, share, 1)
    seen *= _texture(rng, share)
    light = sunlight(terrain.gradient, domain.sun_azimuth, domain.sun_elevation) ** 0.9
    seen *= 1 + _per_band(1 - DIFFUSE) * (light.astype(np.float32) - 1)
    seen += _per_band(PATH) * (1 + 0.03 * power_field(rng, size, 3.5) + 0.05 * rng.standard_normal(dtype=np.float32))
    _cloud(rng, seen, domain.clouds)
    seen += _per_band(domain.offset)
    seen *= 1e4 * _per_band(domain.gain)
    counts: np.ndarray = np.rint(_sample(rng, seen))
    return counts.clip(1.0)


def _texture(rng: np.random.Generator, share: np.ndarray) -> np.ndarray:
    """Factor (12, H, W) on reflectance: crowns and their shadows, density of stands, moisture, stones."""
    size = share.shape[-1]
    bare = share[MATERIALS.index("soil")] + share[MATERIALS.index("rock")]
    fields = np.stack(
        [
            (1 - bare) * power_field(rng, size, 0.8, 6.0),
            (1 - bare) * power_field(rng, size, 2.2, 40.0),
            power_field(rng, size, 2.6, 40.0),
            bare * power_field(rng, size, 1.8, 12.0),
        ]
    )
    texture = np.tensordot(np.stack([CROWNS, DENSITY, WETNESS, STONES], 1).astype(np.float32), fields, 1)
    return (1 + texture).clip(0.2)


def _cloud(rng: np.random.Generator, seen: np.ndarray, chance: float) -> None:
    """In some patches a cloud with soft borders, in as many thin cirrus that hardly any band but b10 sees."""
    size = seen.shape[-1]
    cloudy, cirrus = rng.random(2) < chance
    if cloudy:
        thick = np.clip(1.1 * (power_field(rng, size, 3.2) - rng.uniform(0.9, 2.0)), 0.0, 0.6)
        seen += thick * (_per_band(CLOUD) - seen)
    if cirrus:
        thin = np.exp(0.8 * power_field(rng, size, 3.5))
        seen += 0.0006 * thin * _per_band(HAZE / HAZE.max())
        seen[9] += 0.002 * thin


def _sample(rng: np.random.Generator, raw: np.ndarray) -> np.ndarray:
    """Bands at their own ground sampling, repeated to 10 m from a random corner, with the sensor's noise."""
    size = raw.shape[-1]
    sampled = np.empty_like(raw)
    for metres in sorted(set(METRES)):
        bands = [band for band, its in enumerate(METRES) if its == metres]
        factor = metres // 10
        top, left = rng.integers(factor, size=2)
        low, high = -(size + top) % factor, -(size + left) % factor
        padded = np.pad(raw[bands], ((0, 0), (top, low), (left, high)), mode="edge")
        rows = np.add.reduce([padded[:, row::factor] for row in range(factor)]) / factor
        blocks = np.add.reduce([rows[:, :, column::factor] for column in range(factor)]) / factor
        blocks += _per_band(NOISE[bands]) * rng.standard_normal(blocks.shape, np.float32)
        sampled[bands] = blocks.repeat(factor, 1).repeat(factor, 2)[:, top : top + size, left : left + size]
    return sampled
