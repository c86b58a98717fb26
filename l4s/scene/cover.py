"""What covers the ground of a generated scene, and what the sensor sees of it, window by window without seams.

Materials, spectra and their texture are those of generated patches (`l4s.data.landcover`, `l4s.data.spectra`). As there,
roads, river banks, bare fields, rock faces and grown-over scars share the soil and rock of slides.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from l4s.data.bands import L4S_BANDS
from l4s.data.landcover import MATERIALS, Mixture, lay, sigmoid
from l4s.data.runout import Runouts, coverage, depth
from l4s.data.spectra import CROWNS, DENSITY, DIFFUSE, PATH, STONES, THROUGH, WETNESS, endmembers
from l4s.data.synth_domain import SynthDomain
from l4s.data.terrain import Terrain, sunlight
from l4s.scene.world import Window, World, smooth_heights

LOOK = SynthDomain()  # sun, season and soil: those of the release's training patches
APRON = 16  # pixels around a window that smoothing and gradients need
RIVER = 0.5  # least span of a stream that shows: the root of its area over 2000 cells of 20 m
FIELDS = 4093  # kinds of field


def draw_cover(
    world: World, window: Window, terrain: Terrain, scars: Runouts, slides: Runouts
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the land cover of a window, from vegetation up to the slides.

    Args:
        scars, slides: all that reach into the window, in pixels of the scene.

    Returns:
        shares of `MATERIALS` (8, size, size) float32 that sum to 1; what a mask shows (size, size) bool: pixels covered
        by half. Both are right at least `APRON` pixels inside the window.
    """
    speckle = world.noise.over("speckle", 1.2, 8.0, *window.axes())
    ragged = 0.25 * world.noise.over("ragged", 1.6, 6.0, *window.axes())
    height = ((smooth_heights(world, window) - world.mean) / world.sd).astype(np.float32)
    share = _vegetation(world, window, height)
    _rock_faces(world, window, share, terrain)
    _fields(world, window, share, terrain)
    _rivers(world, window, share, speckle)
    _roads(world, window, share, terrain, height)
    grown = coverage(_depth(scars.points, scars.radius, window), ragged)
    lay(share, 0.9 * grown, {"shrub": 0.46, "grass": 0.31, "soil": 0.23})
    covered = coverage(_depth(slides.points, slides.radius, window), ragged)
    rocky = np.clip(0.45 + 0.15 * speckle + 0.12 * world.noise.over("rocky", 4.0, 300.0, *window.axes()), 0.0, 1.0)
    lay(share, covered * np.clip(0.88 + 0.12 * speckle, 0.55, 1.0), {"soil": 1 - rocky, "rock": rocky})
    return share, covered >= 0.5


def observe(world: World, window: Window, share: np.ndarray, terrain: Terrain, bands: Sequence[str]) -> np.ndarray:
    """What reaches the sensor, without its noise: (bands, size, size) float32, top-of-atmosphere reflectance x 10,000."""
    index = [L4S_BANDS.index(band) for band in bands]
    reflected = (endmembers(LOOK.vigour, LOOK.soil) * THROUGH)[:, index].T.astype(np.float32)
    seen = np.tensordot(reflected, share, 1)
    bare = share[MATERIALS.index("soil")] + share[MATERIALS.index("rock")]
    over = world.noise.over
    fields = np.stack(
        [
            (1 - bare) * over("crowns", 0.8, 6.0, *window.axes()),
            (1 - bare) * over("density", 2.2, 40.0, *window.axes()),
            over("wetness", 2.6, 40.0, *window.axes()),
            bare * over("stones", 1.8, 12.0, *window.axes()),
        ]
    )
    mixing = np.stack([CROWNS, DENSITY, WETNESS, STONES], 1)[index].astype(np.float32)
    seen *= (1 + np.tensordot(mixing, fields, 1)).clip(0.2)
    light = sunlight(terrain.gradient, LOOK.sun_azimuth, LOOK.sun_elevation) ** 0.9
    seen *= 1 + _per_band(1 - DIFFUSE[index]) * (light.astype(np.float32) - 1)
    seen += _per_band(PATH[index]) * (1 + 0.05 * over("haze", 4.0, 600.0, *window.axes()))
    return np.asarray(1e4 * seen)


def _per_band(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]


def _depth(points: np.ndarray, radius: np.ndarray, window: Window) -> np.ndarray:
    reach = radius.max(initial=0.0) + 2.0
    here = points - (window.top, window.left)
    near = ((here > -reach) & (here < window.size + reach)).all(1)
    return depth(here[near], radius[near], window.size)


def _vegetation(world: World, window: Window, height: np.ndarray) -> np.ndarray:
    """Stands of forest and shrub with sharp borders, grass higher up, and bare soil between plants; regions differ."""
    over, axes = world.noise.over, window.axes()
    share = np.zeros((len(MATERIALS), window.size, window.size), np.float32)
    share[0] = 1.0
    stands = over("stands", 3.0, 70.0, *axes) + 0.5 * height + 0.8 * over("shrubland", 4.0, 500.0, *axes)
    lay(share, 0.7 * sigmoid(3 * (stands - 0.7)), {"shrub": 1.0})
    meadows = over("meadows", 3.0, 50.0, *axes) + 0.5 * height + 0.6 * over("pasture", 4.0, 500.0, *axes)
    lay(share, 0.8 * sigmoid(7 * (meadows - 2.1)), {"grass": 0.8, "soil": 0.2})
    thin = np.clip(0.04 + 0.03 * over("thin", 2.0, 20.0, *axes), 0.0, 0.35)
    lay(share, thin, {"soil": 0.7, "stubble": 0.3})
    return share


def _rock_faces(world: World, window: Window, share: np.ndarray, terrain: Terrain) -> None:
    steep = (terrain.slope.astype(np.float32) - 42.0) / 8.0
    bare = sigmoid(4 * (steep + world.noise.over("rocks", 1.8, 15.0, *window.axes()) - 1.8))
    lay(share, 0.65 * bare, {"rock": 0.8, "soil": 0.2})


def _fields(world: World, window: Window, share: np.ndarray, terrain: Terrain) -> None:
    """Farmland on level ground: a turned and bent grid of fields, each bare, stubble or crop."""
    rng = np.random.default_rng((world.noise.seed, 1))
    over, axes = world.noise.over, window.axes()
    level = sigmoid(1.2 * (9.0 - gaussian_filter(terrain.slope, 2.0)))
    row, column = np.meshgrid(*axes, indexing="ij")
    row = row + 20.0 * over("bent", 4.0, 500.0, *axes) + 1.0 * over("crooked", 4.0, 60.0, *axes)
    column = column + 20.0 * over("skewed", 4.0, 500.0, *axes)
    turn = rng.uniform(0, np.pi)
    along = (row * np.cos(turn) + column * np.sin(turn)) / rng.uniform(8, 14)
    across = (column * np.cos(turn) - row * np.sin(turn)) / rng.uniform(5, 8)
    kind = (np.floor(along).astype(int) * 7349 + np.floor(across).astype(int) * 9151) % FIELDS
    state, green = rng.random((2, FIELDS))
    bare = (state < 0.22)[kind]
    dry = (state > 0.8)[kind]
    hedge = np.minimum(np.abs(along % 1 - 0.5), np.abs(across % 1 - 0.5)) > 0.42
    crop = np.where(dry, 0.0, 0.5 + 0.5 * green[kind])
    soil = 0.82 * bare
    grown: Mixture = {"soil": soil, "stubble": (1 - soil) * (1 - crop), "crop": (1 - soil) * crop}
    lay(share, level * np.where(hedge, 0.5, 0.92), grown)


def _rivers(world: World, window: Window, share: np.ndarray, speckle: np.ndarray) -> None:
    """Bare gravel along the streams, with a thread of water in it."""
    row, column, down, right, area = world.streams.T
    span = np.sqrt(area / 2000.0)
    near = (span > RIVER) & (np.abs(row - window.top - window.size / 2) < window.size / 2 + 40)
    near &= np.abs(column - window.left - window.size / 2) < window.size / 2 + 40
    shares = np.arange(2 * world.step) / (2 * world.step)
    start, end = np.stack([row, column], 1)[near], np.stack([down, right], 1)[near]
    points = np.concatenate([start + t * (end - start) for t in shares])
    span = np.tile(span[near], len(shares))
    at = world.noise.at
    wide = np.clip(2.3 * span * (1 + 0.35 * at("banks", 3.5, 40.0, points)) - 0.9, 0.1, 8.0)
    gravel = coverage(_depth(points, wide, window), 0.3 * speckle)
    rock = np.clip(0.55 + 0.1 * speckle, 0, 1)
    lay(share, gravel * np.clip(0.8 + 0.1 * speckle, 0.3, 1.0), {"rock": rock, "soil": 1 - rock})
    shift = np.stack([at("thread", 3.0, 30.0, points), at("braid", 3.0, 30.0, points)], 1)
    width = np.minimum(span, 3.0)
    thread = points + width[:, None] * shift
    water = coverage(_depth(thread, np.clip(0.6 * span, 0.2, 4.0), window))
    lay(share, 0.9 * water, {"water": 0.85, "rock": 0.15})


def _roads(world: World, window: Window, share: np.ndarray, terrain: Terrain, height: np.ndarray) -> None:
    """Narrow bright lines that keep their height: contours of a smooth surface, in parts."""
    over, axes = world.noise.over, window.axes()
    for number, spacing in enumerate((0.9, 1.3)):
        surface = (height + 0.25 * over(f"road {number}", 4.5, 400.0, *axes)) / spacing
        distance = np.abs(surface - np.rint(surface)) / np.maximum(np.hypot(*np.gradient(surface)), 1e-3)
        line = np.clip(1.05 - distance, 0.0, 1.0)
        part = sigmoid(12 * (over(f"part {number}", 4.0, 300.0, *axes) - 0.4))
        part = part * sigmoid((33.0 - gaussian_filter(terrain.slope, 2.0)) / 2)
        lay(share, 0.85 * line * part, {"rock": 0.55, "soil": 0.45})
