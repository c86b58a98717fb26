"""A scene and what was made of it, side by side in one picture (Kimura 2019, Figures 2 and 3)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from l4s import plots
from l4s.data.bands import Bands
from l4s.data.patch import IGNORED
from l4s.errors import DataError
from l4s.scene.labels import reading_masks
from l4s.scene.raster import Scene, open_scene, reading
from l4s.scene.result import LEVELS, open_result
from l4s.scene.score import span

SIDE = 800  # pixels of the longest side of a panel
COLOURS = (Bands().rgb, ("red", "green", "blue"))
Box = tuple[int, int, int, int]


def draw_scene(
    out: Path,
    scene: Path,
    maps: Sequence[Path],
    *,
    truth: Path | None = None,
    rows: str = "",
    columns: str = "",
    layer: str | None = None,
) -> Path:
    """Draw the image, the truth where there is one, and each map, from the same ground.

    Args:
        out: a .png to write.
        maps: rasters of probabilities, scores or masks of this scene, at any step; titles are the files' names.
        truth: polygons or a mask raster on the scene's grid.
        rows, columns: the part to draw, `a:b` in pixels of the scene; all of it when empty.

    Raises:
        DataError: a file cannot be read, or a map is not of this scene.
    """
    opened = open_scene(scene)
    top, bottom = span(rows, opened.grid.height, "rows")
    left, right = span(columns, opened.grid.width, "columns")
    box = top, left, bottom - top, right - left
    panels = {scene.stem: _image(opened, box)}
    if truth is not None:
        panels["truth"] = _truth(truth, opened, box, layer)
    for path in maps:
        if path.stem in panels:
            raise DataError(f"{path.stem} is the name of two panels: rename {path}")
        panels[path.stem] = _map(path, opened, box)
    return plots.draw_panels(out, panels)


def _shape(height: int, width: int) -> tuple[int, int]:
    """Height and width of a panel: no side above `SIDE`, none enlarged."""
    factor = max(1.0, max(height, width) / SIDE)
    return max(1, round(height / factor)), max(1, round(width / factor))


def _image(scene: Scene, box: Box) -> np.ndarray:
    """(h, w, 3) float32 in [0, 1]: the bands b4, b3 and b2, or red, green and blue, else the first in grey."""
    colours = next((names for names in COLOURS if set(names) <= set(scene.bands)), ())
    chosen = open_scene(scene.path, colours or scene.bands[:1], scene.bands)
    with reading(chosen) as reader:
        image, valid = reader.small(*box, _shape(*box[2:]))
    image = np.where(valid, image, np.median(image[:, valid], axis=1)[:, None, None] if valid.any() else 0.0)
    picture: np.ndarray = plots.displayed(image[None], range(len(colours)))[0][0]
    return np.where(valid[..., None], picture, 1.0)


def _truth(path: Path, scene: Scene, box: Box, layer: str | None) -> np.ndarray:
    """(h, w) float32: 1 where any pixel under a dot is landslide; NaN where none is known."""
    top, left, height, width = box
    lines, dots = _shape(height, width)
    down, across = (np.linspace(0, length, count + 1).astype(int) for length, count in ((height, lines), (width, dots)))
    picture = np.empty((lines, dots), np.float32)
    with reading_masks(path, scene.grid, layer) as masks:
        for line in range(lines):
            mask = masks.window(top + down[line], left, down[line + 1] - down[line], width)
            found, known = ((seen.any(0)) for seen in (mask == 1, mask != IGNORED))
            found, known = (np.maximum.reduceat(seen, across[:-1]) for seen in (found, known))
            picture[line] = np.where(known, found, np.nan)
    return picture


def _map(path: Path, scene: Scene, box: Box) -> np.ndarray:
    """(h, w) float32 in [0, 1], NaN where nothing is known."""
    result = open_result(path)
    grid, step = result.scene.grid, result.step
    if (grid.height, grid.width) != tuple(-(-side // step) for side in (scene.grid.height, scene.grid.width)):
        raise DataError(f"{path} has {grid.height} x {grid.width} pixels of {step}: it is no map of {scene.path}")
    if result.kind == "mask" and step == 1:
        return _truth(path, scene, box, None)
    shape = _shape(*box[2:])
    with reading(result.scene) as reader:
        if step == 1:
            values, valid = reader.small(*box, shape)
        else:
            # each dot shows the cell that its middle lies in: cells reach beyond the part that is drawn
            down, across = (
                (first + (np.arange(count) + 0.5) * length / count).astype(int) // step
                for first, length, count in zip(box[:2], box[2:], shape, strict=True)
            )
            size = down[-1] - down[0] + 1, across[-1] - across[0] + 1
            cells, known = reader.window(int(down[0]), int(across[0]), *map(int, size))
            here = np.ix_(down - down[0], across - across[0])
            values, valid = cells[:, *here], known[here]
    return np.where(valid, values[0] / (1 if result.kind == "mask" else LEVELS), np.nan).astype(np.float32)
