"""What changes between the passes before and after an event: landslides, seasons, fellings and harvests, weather."""

from dataclasses import dataclass

import numpy as np

from l4s.data.landcover import MATERIALS
from l4s.data.runout import coverage, depth, draw_runouts
from l4s.data.terrain import Terrain, power_field

BRIGHTER, DARKER = 0.35, 0.4  # of the slides; the others do not show
MEDIAN = 3.0  # decibels by which a slide that shows changes VV, at strength 1
SWING = {
    "forest": 0.5,
    "shrub": 0.7,
    "grass": 1.5,
    "crop": 3.0,
    "stubble": 2.5,
    "soil": 1.5,
    "rock": 0.6,
    "water": 2.0,
}
"""How far a land cover of a chip moves between two seasons, as a multiple of the region's `season`. Our choice."""


@dataclass(frozen=True)
class Slides:
    """Landslides of a chip.

    `mask`: (H, W) uint8 in {0, 1}. `change`: (2, H, W) float32, decibels that VV and VH change by. `point`: row and
    column of the pixel that lies deepest in a slide; (-1, -1) without slides.
    """

    mask: np.ndarray
    change: np.ndarray
    point: tuple[int, int]


def draw_slides(rng: np.random.Generator, terrain: Terrain, pixels: float, runout: float, strength: float) -> Slides:
    """Slides on the steep parts of a chip until they cover about `pixels`, some brighter, some darker, some invisible.

    Fresh debris is rough, which brightens VV; the trees that scattered VH are gone, so VH falls further and rises less.
    """
    size = len(terrain.dem)
    runouts = draw_runouts(rng, terrain, pixels, runout)
    ragged = 0.28 * power_field(rng, size, 1.6, 6.0)
    kind = rng.random(int(runouts.slide.max(initial=-1)) + 1)[runouts.slide]
    plain = np.clip(0.7 + 0.5 * power_field(rng, size, 2.5, 20.0), 0.0, 1.5)  # a slide shows in parts
    amount = MEDIAN * strength * float(rng.lognormal(0.0, 0.35))
    change = np.zeros((2, size, size), np.float32)
    for chosen, by in (
        (kind < BRIGHTER, (amount, 0.5 * amount - 0.5 * strength)),
        ((kind >= BRIGHTER) & (kind < BRIGHTER + DARKER), (-0.8 * amount, -1.1 * amount)),
    ):
        covered = coverage(depth(runouts.points[chosen], runouts.radius[chosen], size), ragged)
        change += np.array(by, np.float32)[:, None, None] * (covered * plain)
    inside = depth(runouts.points, runouts.radius, size) + ragged
    mask = (inside >= 0).astype(np.uint8)
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return Slides(mask, change, (int(row), int(column)) if mask.any() else (-1, -1))


def draw_season(rng: np.random.Generator, share: np.ndarray, season: float) -> np.ndarray:
    """Decibels by which land cover differs after the event for the season's sake: (2, H, W) float32.

    Each cover moves as a whole within a chip, VV and VH mostly together, and moisture changes smoothly on top.
    """
    size = share.shape[1]
    swing = season * np.array([SWING[name] for name in MATERIALS])
    together, apart = rng.standard_normal(len(MATERIALS)), 0.5 * rng.standard_normal((2, len(MATERIALS)))
    by_cover = swing * (together + apart) + 0.5 * season * rng.standard_normal((2, 1))
    moisture = 0.6 * season * power_field(rng, size, 4.0)
    return np.asarray(np.tensordot(by_cover, share, 1) + moisture, np.float32)


def draw_others(rng: np.random.Generator, size: int, season: float) -> np.ndarray:
    """Patches of change that are no landslides, in most chips: fellings, harvests, floods. (2, H, W) float32 decibels."""
    if rng.random() < 0.3:
        return np.zeros((2, size, size), np.float32)
    field = power_field(rng, size, 3.5, 25.0)
    edge = np.quantile(field, 1 - rng.uniform(0.004, 0.03))
    inside = np.clip(0.5 + 4 * (field - edge), 0.0, 1.0)
    amount = 2.5 * season * float(rng.lognormal(0.0, 0.35)) * rng.choice((-1.0, 1.0))
    by = amount * np.array([1.0, rng.uniform(0.3, 1.3)], np.float32)
    return np.asarray(by[:, None, None] * inside, np.float32)


def draw_weather(rng: np.random.Generator, size: int) -> np.ndarray:
    """Decibels by which one pass differs from others of its season: (2, H, W) float32."""
    common = 0.25 * rng.standard_normal((2, 1, 1))
    return np.asarray(common + 0.35 * power_field(rng, size, 4.0), np.float32)
