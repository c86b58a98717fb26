"""The ground of a generated scene, window by window: a function of where a pixel lies, so that windows have no seams.

Large relief is one drained square under the whole scene, on cells that grow with it. Small relief and all texture are
sums of two periodic random fields of different periods, read where the window lies: memory does not grow with the scene.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft2
from scipy.ndimage import gaussian_filter, spline_filter

from l4s.data.landcover import sigmoid
from l4s.data.terrain import MARGIN, PIXEL, Terrain, find_streams, flat_floors, fluvial, power_field

CELLS = 1024  # along the longer side of a scene, at most; a cell is at least 2 pixels
LARGEST = 1024  # pixels, the longer period of texture
SLOPE = 27.0  # degrees, mean of the mountains
VALLEY = 110.0  # metres, half width of the largest valley floors
LOWLAND = 25.0  # cells; relief of longer waves stays where the mountains end
SMOOTH = 0.8  # cells; drainage runs in eight directions, which this hides, as diffusion does on hillslopes
SAMPLES, SAMPLE = 16, 32  # windows along each side, and pixels of one, that tell how steep a scene is


class Window(NamedTuple):
    """A square of `size` pixels whose first one is (`top`, `left`) of the scene; it may reach beyond it."""

    top: int
    left: int
    size: int

    def inside(self, apron: int) -> tuple[slice, slice]:
        """What is left of a window without `apron` pixels on each side."""
        return (slice(apron, self.size - apron),) * 2

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the scene."""
        return np.arange(self.top, self.top + self.size), np.arange(self.left, self.left + self.size)


@dataclass(frozen=True)
class Noise:
    """Gaussian random fields with mean 0 and standard deviation 1 over the endless plane, by name."""

    seed: int
    period: int = LARGEST
    kept: dict[tuple[str, float, float], list[np.ndarray]] = field(default_factory=dict, repr=False)

    def over(self, name: str, beta: float, longest: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(rows, columns) float32 with the power spectrum |k|^-beta, flat above the wavelength `longest` (pixels)."""
        parts = (
            part.take(rows % len(part), 0).take(columns % len(part), 1) for part in self._pair(name, beta, longest)
        )
        return np.asarray(sum(parts) * np.float32(0.5**0.5))

    def at(self, name: str, beta: float, longest: float, points: np.ndarray) -> np.ndarray:
        """The same at the pixels nearest to `points` (P, 2) of row and column."""
        row, column = np.rint(points).astype(int).T
        pair = self._pair(name, beta, longest)
        return np.asarray(sum(part[row % len(part), column % len(part)] for part in pair) * np.float32(0.5**0.5))

    def _pair(self, name: str, beta: float, longest: float) -> list[np.ndarray]:
        key = (name, beta, longest)
        if key not in self.kept:
            rng = np.random.default_rng((self.seed, *name.encode()))
            periods = (self.period, self.period * 405 // 512)  # both have small factors, and nearly no common ones
            self.kept[key] = [_periodic(rng, period, beta, longest) for period in periods]
        return self.kept[key]


@dataclass(frozen=True)
class World:
    """A scene's ground: `heights`, metres, as coefficients of a cubic spline on cells, and where its streams are.

    `step`: pixels along a cell. `mean`, `sd`: of heights, metres. `streams`: as `Terrain.streams`, in pixels of the
    scene. `steep`: mean of `steepness` over the scene.
    """

    height: int
    width: int
    noise: Noise
    step: int
    heights: np.ndarray
    mean: float
    sd: float
    streams: np.ndarray
    steep: float = 0.0


def make_world(seed: int, height: int, width: int) -> World:
    """Draw the large relief of a scene of `height` x `width` pixels."""
    rng = np.random.default_rng((seed, 0))
    longer = max(height, width)
    step = max(2, -(-longer // CELLS))
    cells = max(-(-longer // step) + 2 * MARGIN, 64)
    raw, receiver, area = fluvial(rng, cells)
    raw = flat_floors(raw, area.reshape(raw.shape), VALLEY)
    wild = 0.06 + 0.94 * sigmoid(2.5 * (power_field(rng, cells, 4.0) + 0.5))
    low = gaussian_filter(raw, LOWLAND)
    heights = low + (gaussian_filter(raw, SMOOTH) - low) * wild
    gradient = np.hypot(*np.gradient(heights, step * PIXEL))
    heights *= np.tan(np.radians(SLOPE)) / np.average(gradient, weights=wild**2)
    streams = find_streams(receiver, area, MARGIN, step)
    streams[:, 4] *= (step / 2) ** 2  # drained cells of 20 m
    noise = Noise(seed, LARGEST if longer > LARGEST // 2 else LARGEST // 2)
    mean, sd = float(heights.mean()), float(heights.std())
    coefficients = spline_filter(heights).astype(np.float32)
    return _with_steepness(World(height, width, noise, step, coefficients, mean, sd, streams))


def _with_steepness(world: World) -> World:
    tops, lefts = (np.linspace(0, max(side - SAMPLE, 0), SAMPLES).astype(int) for side in (world.height, world.width))
    windows = [Window(int(top), int(left), SAMPLE) for top in tops for left in lefts]
    steep = np.mean([steepness(make_ground(world, window)).mean() for window in windows])
    return replace(world, steep=float(steep))


def smooth_heights(world: World, window: Window) -> np.ndarray:
    """The large relief of a window, (size, size) float32 metres; cells beyond the border repeat the last."""
    values = world.heights
    for axis, pixels in enumerate(window.axes()):
        place = (pixels + 0.5) / world.step - 0.5 + MARGIN
        low = np.floor(place).astype(int)
        t = (place - low).astype(np.float32)
        taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        shape = (-1, 1) if axis == 0 else (1, -1)
        parts = (tap.reshape(shape) * values.take(low - 1 + k, axis, mode="clip") for k, tap in enumerate(taps))
        values = np.asarray(sum(parts) / np.float32(6))
    return values


def make_ground(world: World, window: Window) -> Terrain:
    """The ground of a window, large relief and small. The streams are those of the scene."""
    wider = Window(window.top - 2, window.left - 2, window.size + 4)  # a pixel for each of the two gradients
    large = smooth_heights(world, wider)
    steep = np.minimum(np.hypot(*np.gradient(large, PIXEL)), 1.0)
    dem = (large + 5.0 * world.noise.over("relief", 3.4, 30.0, *wider.axes()) * steep)[1:-1, 1:-1]
    gradient = np.stack(np.gradient(dem, PIXEL))[:, 1:-1, 1:-1].astype(np.float64)
    slope = np.degrees(np.arctan(np.hypot(*gradient)))
    return Terrain(dem[1:-1, 1:-1].astype(np.float64), slope, gradient, world.streams)


def steepness(terrain: Terrain) -> np.ndarray:
    """How likely slides start for the slope's sake, as `l4s.data.runout` has it: (H, W) in [0, 1]."""
    likely: np.ndarray = np.clip((terrain.slope - 21.0) / 14.0, 0.0, 1.0) ** 2
    return likely


def _periodic(rng: np.random.Generator, period: int, beta: float, longest: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(period)[:, None], np.fft.rfftfreq(period))
    frequency[0, 0] = np.inf  # no mean
    amplitude = np.maximum(frequency, 1 / longest) ** (-beta / 2)
    normal = rng.standard_normal((period, period // 2 + 1, 2), np.float32).view(np.complex64)[..., 0]
    values = irfft2(normal * amplitude.astype(np.float32), (period, period))
    return np.asarray(values / values.std(), np.float32)
