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
from l4s.sar.balance import balanced
from l4s.sar.cube import Cube, open_cube
from l4s.sar.layout import SIDES, band_names, middle, write_image, write_mask
from l4s.sar.manifest import Converted, identity, write_once
from l4s.sar.passes import Event, Passes, choose_passes
from l4s.sar.store import check_store

BLOCK = 4  # windows along the side of what is read at a time
VALID = 0.5  # a pass counts in a window from this share of pixels with values on


@dataclass(frozen=True)
class Cutting:
    """How a cube is cut.

    `size` of the chips in pixels; `positive_share` of them hold landslides, chips without are drawn by `seed`. `orbit`:
    `a` (ascending) or `d`, None: either. `points`: `landslides` marks points, not outlines.
    """

    size: int = 128
    positive_share: float = 0.5
    seed: int = 0
    orbit: str | None = None
    points: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"size = {self.size}: take chips of 1 pixel or more")
        if self.orbit not in (None, "a", "d"):
            raise RecipeError(f"orbit = {self.orbit!r}: take a (ascending) or d (descending), or leave it out")


@dataclass(frozen=True)
class Window:
    """A square of a cube: its first row and column, its passes, and how much of it is landslide."""

    row: int
    column: int
    passes: Passes
    landslide: float


def convert_cube(cube: Path, out: Path, event: Event, cutting: Cutting) -> Converted:
    """Cut a cube into chips side by side from its upper left corner: `out`/img, `out`/mask and `out`/sar.json.

    All chips with landslides stay, and as many without as `positive_share` asks for. Windows that no pass before, or none
    after, covers by half are left out; so is what remains on the right and below. Ids count from 1, row by row.

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
        **{key: value for key, value in vars(cutting).items() if key != "points"},
    }

    def fill(part: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, int]]:
        opened = open_cube(cube, cutting.orbit)
        windows, dropped = _survey(opened, event, cutting.size)
        kept = balanced([window.landslide > 0 for window in windows], cutting.positive_share, cutting.seed, str(cube))
        chosen = [windows[k] for k in kept]
        dropped["balance"] = len(windows) - len(chosen)
        return _write(part, opened, chosen, event, cutting), +dropped

    return write_once(out, about, identity(files, cube), fill)


def _survey(cube: Cube, event: Event, size: int) -> tuple[list[Window], Counter[str]]:
    """The windows that passes cover, row by row, and how many others there are."""
    windows: list[Window] = []
    dropped: Counter[str] = Counter()
    steps = range(len(cube.days))
    for rows, columns in _blocks(cube.mask.shape, size, "what passes cover"):
        covered = np.isfinite(cube.read(steps, rows, columns)).all(1)
        places = itertools.product(range(rows.start, rows.stop, size), range(columns.start, columns.stop, size))
        for row, column in places:
            inside = covered[:, row - rows.start :, column - columns.start :][:, :size, :size]
            seen = [k for k in steps if inside[k].mean() >= VALID]
            if (found := _window(cube, row, column, size, seen, event)) is None:
                dropped["no pass"] += 1
            else:
                windows.append(found)
    return sorted(windows, key=lambda window: (window.row, window.column)), dropped


def _window(cube: Cube, row: int, column: int, size: int, seen: Sequence[int], event: Event) -> Window | None:
    days = [cube.days[k] for k in seen]
    if not any(day < event.day for day in days) or not any(day > event.day for day in days):
        return None
    found = choose_passes(days, event, f"{cube.path}, chip at row {row}, column {column},")
    pre, post = (tuple(seen[k] for k in chosen) for chosen in (found.pre, found.post))
    landslide = float(cube.mask[row : row + size, column : column + size].mean())
    return Window(row, column, Passes(pre, post, found.dates), landslide)


def _blocks(shape: tuple[int, ...], size: int, text: str) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of blocks of whole windows."""
    edges = [range(0, side // size * size, BLOCK * size) for side in shape]
    places = [(row, column) for row in edges[0] for column in edges[1]]
    for k in log.track(range(len(places)), text, len(places)):
        first, last = places[k], [side // size * size for side in shape]
        rows, columns = (slice(a, min(a + BLOCK * size, b)) for a, b in zip(first, last, strict=True))
        yield rows, columns


def _write(
    part: Path, cube: Cube, windows: Sequence[Window], event: Event, cutting: Cutting
) -> list[Mapping[str, Any]]:
    size, numbers = cutting.size, {(window.row, window.column): k for k, window in enumerate(windows, 1)}
    rows_of_labels: dict[int, tuple[str, int, float, float]] = {}
    for rows, columns in _blocks(cube.mask.shape, size, "chips"):
        here = [w for w in windows if rows.start <= w.row < rows.stop and columns.start <= w.column < columns.stop]
        steps = sorted({k for window in here for k in (*window.passes.pre, *window.passes.post)})
        values = cube.read(steps, rows, columns) if here else np.zeros(0)
        for window in here:
            number = numbers[window.row, window.column]
            square = values[:, :, window.row - rows.start :, window.column - columns.start :][:, :, :size, :size]
            write_image(part, number, _stack(square, steps, window.passes, event.visits))
            mask = cube.mask[window.row : window.row + size, window.column : window.column + size]
            if cutting.points:
                x, y = middle(mask, _bounds(cube, window, size))
                rows_of_labels[number] = (str(number), int(mask.any()), x, y)
            else:
                write_mask(part, number, mask)
    if cutting.points:
        write_labels(part / LABELS, [rows_of_labels[number] for number in sorted(rows_of_labels)])
    return [_told(cube, window, number, size) for number, window in enumerate(windows, 1)]


def _stack(square: np.ndarray, steps: Sequence[int], passes: Passes, visits: int) -> np.ndarray:
    """(4 visits, H, W) float32 of a window's (T, 2, H, W); NaN where there are fewer passes."""
    image = np.full((len(SIDES), visits, *square.shape[1:]), np.nan, np.float32)
    for side, chosen in enumerate((passes.pre, passes.post)):
        for visit, step in enumerate(chosen):
            image[side, visit] = square[steps.index(step)]
    return image.reshape(-1, *square.shape[2:])


def _bounds(cube: Cube, window: Window, size: int) -> tuple[float, float, float, float] | None:
    """Left, bottom, right and top of a window on the map."""
    if cube.x is None or cube.y is None or min(len(cube.x), len(cube.y)) < 2:
        return None
    x, y = cube.x[window.column : window.column + size], cube.y[window.row : window.row + size]
    half = abs(float(cube.x[1] - cube.x[0])) / 2, abs(float(cube.y[1] - cube.y[0])) / 2
    return float(x[0]) - half[0], float(y[-1]) - half[1], float(x[-1]) + half[0], float(y[0]) + half[1]


def _told(cube: Cube, window: Window, number: int, size: int) -> Mapping[str, Any]:
    bounds = _bounds(cube, window, size)
    told = {"id": number, "row": window.row, "column": window.column, "landslide": window.landslide}
    return told | dict(zip(SIDES, map(list, window.passes.dates), strict=True)) | ({"bounds": bounds} if bounds else {})
