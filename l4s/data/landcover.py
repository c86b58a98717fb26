"""What covers the ground of a generated patch: shares of materials in each pixel.

Slides share their soil and rock with river banks, roads, bare fields, rock faces and old scars; where they lie and what
shape they have tells them apart, their spectrum alone does not.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from l4s.data.runout import Runouts, coverage, depth, draw_runouts
from l4s.data.synth_domain import SynthDomain
from l4s.data.terrain import Terrain, power_field

MATERIALS = ("forest", "shrub", "grass", "crop", "stubble", "soil", "rock", "water")
Mixture = dict[str, float | np.ndarray]


@dataclass(frozen=True)
class Cover:
    """`share`: (8, H, W) float32, of `MATERIALS`, sums to 1. `ragged`: (H, W), outline of the slides. `runouts`: they."""

    share: np.ndarray
    ragged: np.ndarray
    runouts: Runouts


def draw_cover(rng: np.random.Generator, terrain: Terrain, domain: SynthDomain) -> Cover:
    """Draw the land cover of one patch, from vegetation up to the slides."""
    size = len(terrain.dem)
    speckle = power_field(rng, size, 1.2, 8.0)
    ragged = 0.28 * power_field(rng, size, 1.6, 6.0)
    share = _vegetation(rng, terrain)
    _rock_faces(rng, share, terrain)
    if rng.random() < domain.farmland:
        _fields(rng, share, terrain, domain.vigour)
    if rng.random() < domain.rivers:
        _river(rng, share, terrain, speckle)
    if rng.random() < domain.roads:
        _road(rng, share, terrain)
    _old_scars(rng, share, terrain, domain, ragged)
    pixels = domain.positive * size**2 * rng.lognormal(-0.32, 0.8) * (rng.random() >= domain.empty)
    runouts = draw_runouts(rng, terrain, pixels, domain.runout) if pixels else _no_runouts()
    covered = coverage(depth(runouts.points, runouts.radius, size), ragged)
    rocky = np.clip(rng.uniform(0.2, 0.7) + 0.15 * speckle, 0.0, 1.0)
    lay(share, covered * np.clip(0.88 + 0.12 * speckle, 0.55, 1.0), {"soil": 1 - rocky, "rock": rocky})
    return Cover(share, ragged, runouts)


def _no_runouts() -> Runouts:
    return Runouts(np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64))


def lay(share: np.ndarray, opaque: np.ndarray, mixture: Mixture) -> None:
    """Lay a mixture of materials over what is there, as opaque as `opaque` (H, W) says."""
    opaque = opaque.astype(np.float32)
    share *= 1 - opaque
    for name, part in mixture.items():
        share[MATERIALS.index(name)] += opaque * part


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function."""
    share: np.ndarray = 1 / (1 + np.exp(-x))
    return share


def _standard(dem: np.ndarray) -> np.ndarray:
    """Height above the patch's mean in standard deviations: (H, W) float32."""
    standard: np.ndarray = ((dem - dem.mean()) / (dem.std() + 1e-9)).astype(np.float32)
    return standard


def _vegetation(rng: np.random.Generator, terrain: Terrain) -> np.ndarray:
    """Stands of forest and shrub with sharp borders, grass higher up, and bare soil between plants."""
    size = len(terrain.dem)
    share = np.zeros((len(MATERIALS), size, size), np.float32)
    share[0] = 1.0
    height = _standard(terrain.dem)
    stands = power_field(rng, size, 3.0, 70.0) + 0.5 * height
    lay(share, 0.7 * sigmoid(3 * (stands - rng.normal(0.7, 0.8))), {"shrub": 1.0})
    open_ = power_field(rng, size, 3.0, 50.0) + 0.5 * height
    lay(share, 0.8 * sigmoid(7 * (open_ - rng.normal(2.3, 0.6))), {"grass": 0.8, "soil": 0.2})
    thin = 0.04 + 0.03 * power_field(rng, size, 2.0, 20.0)
    lay(share, np.clip(thin, 0.0, 0.35), {"soil": 0.7, "stubble": 0.3})
    return share


def _rock_faces(rng: np.random.Generator, share: np.ndarray, terrain: Terrain) -> None:
    """Rock that has always been bare: small faces on the steepest ground, in some patches many."""
    size = len(terrain.dem)
    steep = (terrain.slope.astype(np.float32) - 42.0) / 8.0
    bare = sigmoid(4 * (steep + power_field(rng, size, 1.8, 15.0) - rng.uniform(1.2, 3.0)))
    lay(share, 0.65 * bare, {"rock": 0.8, "soil": 0.2})


def _fields(rng: np.random.Generator, share: np.ndarray, terrain: Terrain, vigour: float) -> None:
    """Farmland on level ground: a turned grid of fields, each bare, stubble or crop."""
    size = len(terrain.dem)
    level = sigmoid(1.2 * (rng.uniform(7.0, 13.0) - gaussian_filter(terrain.slope, 2.0)))
    turn = rng.uniform(0, np.pi)
    row, column = np.mgrid[:size, :size] + 3.0 * power_field(rng, size, 4.0)
    along = (row * np.cos(turn) + column * np.sin(turn)) / rng.uniform(6, 15)
    across = (column * np.cos(turn) - row * np.sin(turn)) / rng.uniform(4, 9)
    cell = (np.floor(along).astype(int) * 31 + np.floor(across).astype(int) * 17) % 61
    state, green = rng.random(61), rng.random(61)
    bare = (state < 0.5 - 0.35 * vigour)[cell]
    dry = (state > 1.0 - 0.3 * (1.3 - vigour))[cell] & ~bare
    hedge = np.minimum(np.abs(along % 1 - 0.5), np.abs(across % 1 - 0.5)) > 0.42
    crop = np.where(dry, 0.0, 0.5 + 0.5 * green[cell])
    bare_share = 0.82 * bare
    grown: Mixture = {"soil": bare_share, "stubble": (1 - bare_share) * (1 - crop), "crop": (1 - bare_share) * crop}
    lay(share, level * np.where(hedge, 0.5, 0.92), grown)


def _river(rng: np.random.Generator, share: np.ndarray, terrain: Terrain, speckle: np.ndarray) -> None:
    """Bare gravel along the streams, with a thread of water in it."""
    size = len(terrain.dem)
    row, column, down, right, area = terrain.streams.T
    thirds = (0.0, 1 / 3, 2 / 3)
    points = np.concatenate([np.stack([row + t * (down - row), column + t * (right - column)], 1) for t in thirds])
    span = np.sqrt(np.tile(area, len(thirds)) / 2000.0)
    near = ((points > -9) & (points < size + 8)).all(1) & (span > rng.uniform(0.3, 0.7))
    points, span = points[near], span[near]
    wander = rng.uniform(0.6, 1.4) * (1 + 0.35 * _at(power_field(rng, size, 3.5, 40.0), points))
    wide = np.clip(2.3 * span * wander - 0.9, 0.1, 8.0)
    gravel = coverage(depth(points, wide, size), 0.3 * speckle)
    rock = np.clip(rng.uniform(0.3, 0.8) + 0.1 * speckle, 0, 1)
    lay(share, gravel * np.clip(0.8 + 0.1 * speckle, 0.3, 1.0), {"rock": rock, "soil": 1 - rock})
    shift = rng.uniform(0.5, 1.6) * np.stack([_at(power_field(rng, size, 3.0, 30.0), points) for _ in range(2)], 1)
    thread = np.clip(span * rng.uniform(0.3, 1.3), 0.2, 4.0)
    water = coverage(depth(points + span[:, None] * shift, thread, size))
    lay(share, 0.9 * water, {"water": 0.85, "rock": 0.15})


def _at(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of a field at the nearest pixel of each point."""
    row, column = np.clip(np.rint(points), 0, len(field) - 1).astype(int).T
    values: np.ndarray = field[row, column]
    return values


def _road(rng: np.random.Generator, share: np.ndarray, terrain: Terrain) -> None:
    """One or two narrow bright lines that keep their height: contours of a smooth surface, in parts."""
    size = len(terrain.dem)
    ground = gaussian_filter(_standard(terrain.dem), 2.5)
    for _ in range(rng.integers(1, 3)):
        surface = ground + rng.uniform(0.2, 1.5) * power_field(rng, size, 4.5)
        distance = np.abs(surface - rng.choice(surface.ravel())) / np.maximum(np.hypot(*np.gradient(surface)), 1e-3)
        line = np.clip(rng.uniform(0.35, 0.8) + 0.5 - distance, 0.0, 1.0)
        part = sigmoid(12 * (power_field(rng, size, 4.0, 90.0) + rng.uniform(-0.8, 0.8)))
        paved = rng.uniform(0.2, 0.9)
        lay(share, 0.85 * line * part, {"rock": paved, "soil": 1 - paved})


def _old_scars(
    rng: np.random.Generator, share: np.ndarray, terrain: Terrain, domain: SynthDomain, ragged: np.ndarray
) -> None:
    """Slides of years ago, grown over: the shape of a slide with a fraction of its soil. No mask holds them."""
    size = len(terrain.dem)
    old = draw_runouts(rng, terrain, 0.012 * size**2 * rng.lognormal(0, 0.7), domain.runout)
    covered = coverage(depth(old.points, old.radius, size), ragged)
    bare = rng.uniform(0.1, 0.35)
    lay(share, 0.9 * covered, {"shrub": 0.6 * (1 - bare), "grass": 0.4 * (1 - bare), "soil": bare})
