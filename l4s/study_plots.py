"""Figures of a study of few labels (Böhm et al. 2022, Figures 2, 3 and A1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l4s.data.domain import Domain
from l4s.data.probs import ProbFile
from l4s.plots import painted, save_figure, truth_picture
from l4s.thresholds import PROBABLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
Tile = tuple[np.ndarray, dict[str, Any]]
PANELS = {
    "all": ("median_size", "all patches: |predicted - true|"),
    "empty": ("median", "without landslides: predicted - true"),
    "landslide": ("median", "with landslides: predicted - true"),
}


def draw_study(folder: Path, rows: Sequence[Row], domain: str) -> list[Path]:
    """AP by training size (Figure 2), and median counting errors in three panels (Figure 3).

    Lines are means over seeds with their standard error; dotted ones are of the averaged prediction.
    """
    precision, counts = (folder / f"study-{domain}-{name}.png" for name in ("precision", "counts"))
    return [_draw_precision(precision, rows), _draw_counts(counts, rows)]


def _draw_precision(out: Path, rows: Sequence[Row]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axis = figure.add_subplot()
    for line, points in _lines(rows).items():
        values = [row["average_precision"] for row in points]
        _draw_line(axis, _places(rows, points), [row["over_seeds"] for row in points], values, line)
    axis.axhline(rows[0]["random"], color="grey", linewidth=0.8, linestyle="--", label="random")
    axis.set_ylabel("average precision", fontsize=8)
    _dress(axis, rows)
    _legend(axis)
    return save_figure(figure, out)


def _draw_counts(out: Path, rows: Sequence[Row]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.0), layout="constrained")
    for axis, (part, (key, title)) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for line, points in _lines(rows).items():
            over = [row["counts_over_seeds"]["threshold"][part][key] for row in points]
            values = [row["counts"]["threshold"][part][key] for row in points]
            _draw_line(axis, _places(rows, points), over, values, line)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_title(title, fontsize=8)
        _dress(axis, rows)
    figure.axes[0].set_ylabel("median of landslide pixels", fontsize=8)
    _legend(figure.axes[0])
    return save_figure(figure, out)


def _draw_line(
    axis: "Axes", places: Sequence[int], over: Sequence[Row], averaged: Sequence[float | None], label: str
) -> None:
    """Means over seeds with their error bars, and dotted what the averaged prediction has; nothing where there is nothing."""
    means, bars = (np.array([each[key] for each in over], np.float64) for key in ("mean", "error"))
    drawn = axis.errorbar(places, means, bars, marker="o", markersize=3, capsize=2, linewidth=1, label=label)
    values = np.array(averaged, np.float64)
    axis.plot(places, values, linestyle=":", marker=".", markersize=3, linewidth=1, color=drawn.lines[0].get_color())


def draw_chips(out: Path, domain: Domain, probs: Mapping[str, ProbFile], size: int | None) -> Path:
    """The patches of the least and of the most landslide: first band of each group, truth, each line's mask (Figure A1).

    Args:
        size: how many patches the networks of all lines were trained on, which the title says; None: all.
    """
    from matplotlib.figure import Figure

    shown = _least_and_most(domain)
    lines = [_tiles(domain, row, probs) for row in shown]
    figure = Figure(figsize=(1.5 * len(lines[0]), 1.6 * len(shown)), layout="constrained")
    figure.suptitle(f"masks of networks trained on {size or 'all'} patches", fontsize=8)
    axes = figure.subplots(len(shown), len(lines[0]), squeeze=False)
    for place, (row, tiles) in enumerate(zip(shown, lines, strict=True)):
        for axis, (title, (tile, look)) in zip(axes[place], tiles.items(), strict=True):
            axis.imshow(tile, interpolation="nearest", **look)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(title if place == 0 else "", fontsize=8)
        axes[place][0].set_ylabel(domain.patches[row].id, fontsize=7)
    return save_figure(figure, out)


def _least_and_most(domain: Domain) -> list[int]:
    areas = {int(row): int((domain.cache.mask(row) == 1).sum()) for row in domain.predicted}
    return list(dict.fromkeys((min(areas, key=areas.__getitem__), max(areas, key=areas.__getitem__))))


def _tiles(domain: Domain, row: int, probs: Mapping[str, ProbFile]) -> dict[str, Tile]:
    """One line of pictures, by title."""
    bands = [members[0] for members in domain.bands.groups.values()] or [domain.bands.names[0]]
    images = [np.asarray(domain.cache.images[row][domain.bands.names.index(band)], np.float32) for band in bands]
    low, high = np.nanpercentile(np.stack(images), (2, 98))
    tiles: dict[str, Tile] = {
        band: (image, {"cmap": "gray", "vmin": low, "vmax": high}) for band, image in zip(bands, images, strict=True)
    }
    mask = domain.cache.mask(row)
    tiles["truth"] = (truth_picture(mask), {})
    for name, file in probs.items():
        value = file.patch(file.ids.index(domain.patches[row].id))
        tiles[name] = (painted(value, mask, PROBABLE), {})
    return tiles


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row["line"], []).append(row)
    return lines


def _sizes(rows: Sequence[Row]) -> list[int | None]:
    return sorted({row["size"] for row in rows}, key=lambda size: size or np.inf)


def _places(rows: Sequence[Row], points: Sequence[Row]) -> list[int]:
    sizes = _sizes(rows)
    return [sizes.index(point["size"]) for point in points]


def _legend(axis: "Axes") -> None:
    axis.plot([], [], linestyle=":", marker=".", markersize=3, color="black", label="averaged prediction")
    axis.legend(fontsize=7, frameon=False)


def _dress(axis: "Axes", rows: Sequence[Row]) -> None:
    sizes = _sizes(rows)
    axis.set_xticks(range(len(sizes)), [str(size or "all") for size in sizes])
    axis.set_xlabel("training patches", fontsize=8)
    axis.tick_params(labelsize=8)
