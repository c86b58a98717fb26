"""Cubes of radar passes cut into chips: which windows passes cover, which of them are taken, and how they are written."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l4s import log
from l4s.data.labels import LABELS, write_labels
from l4s.errors import RecipeError
from l4s.sar.balance import HALF, balanced
from l4s.sar.cube import Cube, open_cube
from l4s.sar.layout import SIDES, VALID, band_names, covers, known, middle, write_image, write_mask
from l4s.sar.manifest import Converted, identity, write_once
from l4s.sar.passes import Event, Passes, choose_passes
from l4s.sar.store import check_store

BLOCK = 4  # windows along the side of what is read at a time


@dataclass(frozen=True)
class Cutting:
    """How a cube is cut.

    `size` of the chips in pixels; `positive_share` of them hold landslides, chips without are drawn by `seed`; None keeps
    all. `orbit`: `a` (ascending) or `d`, None: either, even both in a chip. `points`: `landslides` marks points, not
    outlines.
    """

    size: int = 128
    positive_share: float | None = HALF
    seed: int = 0
    orbit: str | None = None
    points: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"size = {self.size}: take chips of 1 pixel or more")
        if self.orbit not in (None, "a", "d"):
            raise RecipeError(f"orbit = {self.orbit!r}: take a (ascending) or d (descending), or leave it out")


@dataclass(frozen=True)
class Square:
    """A part of a cube, in pixels: a window, or a block of windows that are read together."""

    row: int
    column: int
    height: int
    width: int

    @property
    def corner(self) -> tuple[int, int]:
        return self.row, self.column

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.column, self.column + self.width)

    def of(self, values: np.ndarray, corner: tuple[int, int] = (0, 0)) -> np.ndarray:
        """What values (..., H, W) have here, whose first row and column are `corner` of the cube."""
        row, column = self.row - corner[0], self.column - corner[1]
        return values[..., row : row + self.height, column : column + self.width]


@dataclass(frozen=True)
class Window:
    """A chip to be: where it lies, its passes, and how much of it is known to be landslide."""

    place: Square
    passes: Passes
    landslide: float


def convert_cube(cube: Path, out: Path, event: Event, cutting: Cutting) -> Converted:
    """Cut a cube into chips side by side from its upper left corner: `out`/img, `out`/mask and `out`/sar.json.

    All chips with landslides stay, and as many without as `positive_share` asks for. Windows that no pass before, or none
    after, covers by half are left out; so is what remains on the right and below. Masks are 255 where no pass before, or
    none after, saw a pixel. Ids count from 1, row by row. A warning counts the chips whose passes are of different orbits.

    Raises:
        DataError: a store that cannot be read, or names filters that are not known to be harmless; variables or passes that
            it lacks; no landslide in any chip. RecipeError: a setting that cannot mean anything.
    """
    files = check_store(cube)
    about = {
        "bands": list(band_names(event.visits)),
        "labels": "points" if cutting.points else "masks",
        "event": event.day.isoformat(),
        "visits": event.visits,
        "fewer": event.fewer,
        "valid": VALID,
        **{key: value for key, value in vars(cutting).items() if key != "points"},
    }

    def fill(part: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, int]]:
        opened = open_cube(cube, cutting.orbit)
        windows, dropped = _survey(opened, event, cutting)
        chosen = _chosen(windows, cutting, str(cube))
        _warn_of_orbits(opened, chosen)
        dropped["balance"] = len(windows) - len(chosen)
        return _write(part, opened, chosen, event, cutting), +dropped

    return write_once(out, about, identity(files, cube), fill)


def _chosen(windows: Sequence[Window], cutting: Cutting, where: str) -> list[Window]:
    if cutting.positive_share is None:
        return list(windows)
    some = [window.landslide > 0 for window in windows]
    return [windows[k] for k in balanced(some, cutting.positive_share, cutting.seed, where)]


def _warn_of_orbits(cube: Cube, windows: Sequence[Window]) -> None:
    """From another orbit unchanged ground looks changed: slopes that faced the sensor face away from it."""
    letters = [{state[:1] for side in _orbits(cube, window).values() for state in side} for window in windows]
    mixed = sum(len(each) > 1 for each in letters)
    if mixed:
        log.warn(
            f"{cube.path}: {mixed} of {len(windows)} chips compare passes of different orbits, which see slopes from other "
            "sides: take those of one with --orbit a or --orbit d"
        )


def _orbits(cube: Cube, window: Window) -> dict[str, list[str]]:
    """The orbits of a window's passes before and after the event; nothing where the cube does not say."""
    if cube.orbits is None:
        return {}
    sides = zip(SIDES, (window.passes.pre, window.passes.post), strict=True)
    return {side: [cube.orbits[k] for k in chosen] for side, chosen in sides}


def _survey(cube: Cube, event: Event, cutting: Cutting) -> tuple[list[Window], Counter[str]]:
    """The windows that passes cover, row by row, and how many others there are."""
    windows: list[Window] = []
    dropped: Counter[str] = Counter()
    for block in _blocks(cube.mask.shape, cutting.size, "what passes cover"):
        covered = np.isfinite(cube.read(range(len(cube.days)), block.rows, block.columns)).all(1)
        for place in _windows(block, cutting.size):
            if (found := _window(cube, place, place.of(covered, block.corner), event, cutting.points)) is None:
                dropped["no pass"] += 1
            else:
                windows.append(found)
    return sorted(windows, key=lambda window: window.place.corner), dropped


def _window(cube: Cube, place: Square, covered: np.ndarray, event: Event, points: bool) -> Window | None:
    """A window of which it is known what each pass covers, (T, H, W) bool; None where a side has no pass."""
    seen = [k for k in range(len(covered)) if covers(covered[k])]
    days = [cube.days[k] for k in seen]
    if not any(day < event.day for day in days) or not any(day > event.day for day in days):
        return None
    row, column = place.corner
    found = choose_passes(days, event, f"{cube.path}, chip at row {row}, column {column},")
    pre, post = ([seen[k] for k in chosen] for chosen in (found.pre, found.post))
    valid = covered[pre].any(0) & covered[post].any(0)
    if not valid.any():
        return None
    # a point says something of the whole chip, an outline of the pixels that were seen
    landslide = float((place.of(cube.mask) & (valid | points)).mean())
    return Window(place, Passes(tuple(pre), tuple(post), found.dates), landslide)


def _blocks(shape: tuple[int, ...], size: int, text: str) -> Iterator[Square]:
    """Blocks of whole windows, row by row; what remains on the right and below is in none."""
    height, width = (side // size * size for side in shape)
    step = BLOCK * size
    blocks = [
        Square(row, column, min(step, height - row), min(step, width - column))
        for row, column in itertools.product(range(0, height, step), range(0, width, step))
    ]
    yield from (blocks[k] for k in log.track(range(len(blocks)), text, len(blocks)))


def _windows(block: Square, size: int) -> Iterator[Square]:
    """The windows of a block, row by row."""
    rows, columns = (range(side.start, side.stop, size) for side in (block.rows, block.columns))
    return (Square(row, column, size, size) for row, column in itertools.product(rows, columns))


def _write(
    part: Path, cube: Cube, windows: Sequence[Window], event: Event, cutting: Cutting
) -> list[Mapping[str, Any]]:
    numbers = {window.place: number for number, window in enumerate(windows, 1)}
    chosen = {window.place: window for window in windows}
    labels: dict[int, tuple[str, int, float, float]] = {}
    for block in _blocks(cube.mask.shape, cutting.size, "chips"):
        here = [chosen[place] for place in _windows(block, cutting.size) if place in chosen]
        steps = sorted({k for window in here for k in (*window.passes.pre, *window.passes.post)})
        values = cube.read(steps, block.rows, block.columns) if here else np.zeros(0)
        for window in here:
            number, mask = numbers[window.place], window.place.of(cube.mask)
            image = _stack(window.place.of(values, block.corner), steps, window.passes, event.visits)
            write_image(part, number, image)
            if cutting.points:
                labels[number] = (str(number), int(mask.any()), *middle(mask, _bounds(cube, window.place)))
            else:
                write_mask(part, number, known(mask, image))
    if cutting.points:
        write_labels(part / LABELS, [labels[number] for number in sorted(labels)])
    return [_told(cube, window, number) for number, window in enumerate(windows, 1)]


def _stack(square: np.ndarray, steps: Sequence[int], passes: Passes, visits: int) -> np.ndarray:
    """(4 visits, H, W) float32 of a window's (T, 2, H, W); NaN where there are fewer passes."""
    image = np.full((len(SIDES), visits, *square.shape[1:]), np.nan, np.float32)
    for side, chosen in enumerate((passes.pre, passes.post)):
        for visit, step in enumerate(chosen):
            image[side, visit] = square[steps.index(step)]
    return image.reshape(-1, *square.shape[2:])


def _bounds(cube: Cube, place: Square) -> tuple[float, float, float, float] | None:
    """Left, bottom, right and top of a window on the map."""
    if cube.x is None or cube.y is None or min(len(cube.x), len(cube.y)) < 2:
        return None
    x, y = cube.x[place.columns], cube.y[place.rows]
    half = abs(float(cube.x[1] - cube.x[0])) / 2, abs(float(cube.y[1] - cube.y[0])) / 2
    return float(x[0]) - half[0], float(y[-1]) - half[1], float(x[-1]) + half[0], float(y[0]) + half[1]


def _told(cube: Cube, window: Window, number: int) -> Mapping[str, Any]:
    """What the manifest says of a chip."""
    row, column = window.place.corner
    dates = dict(zip(SIDES, map(list, window.passes.dates), strict=True))
    bounds = _bounds(cube, window.place)
    told = {"id": number, "row": row, "column": column, "landslide": window.landslide, **dates}
    orbits = _orbits(cube, window)
    return told | ({"orbits": orbits} if orbits else {}) | ({"bounds": bounds} if bounds else {})
