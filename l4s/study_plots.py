"""Figures of a study of few labels (Böhm et al. 2022, Figures 2, 3 and A1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l4s.data.domain import Domain
from l4s.data.probs import ProbFile
from l4s.plots import painted, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "all": ("median_size", "all patches: |predicted - true|"),
    "empty": ("median", "without landslides: predicted - true"),
    "landslide": ("median", "with landslides: predicted - true"),
}
THRESHOLD = 0.5


def draw_study(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """AP by training size with its error bars (Figure 2), and median counting errors in three panels (Figure 3)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axis = figure.add_subplot()
    for line, points in _lines(rows).items():
        values, bars = ([row[key] for row in points] for key in ("average_precision", "error"))
        axis.errorbar(_places(rows, points), values, bars, marker="o", markersize=3, capsize=2, linewidth=1, label=line)
    axis.axhline(rows[0]["random"], color="grey", linewidth=0.8, linestyle="--", label="random")
    axis.set_ylabel("average precision", fontsize=8)
    _dress(axis, rows)
    axis.legend(fontsize=7, frameon=False)
    first = save_figure(figure, folder / "study-precision.png")
    figure = Figure(figsize=(9.6, 3.0), layout="constrained")
    for axis, (part, (key, title)) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for line, points in _lines(rows).items():
            values = [row["counts"]["threshold"][part][key] for row in points]
            axis.plot(_places(rows, points), values, marker="o", markersize=3, linewidth=1, label=line)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_title(title, fontsize=8)
        _dress(axis, rows)
    figure.axes[0].set_ylabel("median of landslide pixels", fontsize=8)
    figure.axes[0].legend(fontsize=7, frameon=False)
    return [first, save_figure(figure, folder / "study-counts.png")]


def draw_chips(out: Path, domain: Domain, probs: Mapping[str, ProbFile]) -> Path:
    """A patch without landslides and one with the most: first band of each group, truth, each line's mask (Figure A1)."""
    from matplotlib.figure import Figure

    masks = {int(row): domain.cache.mask(row) for row in domain.predicted}
    areas = {row: int((mask == 1).sum()) for row, mask in masks.items()}
    shown = [row for row in (min(areas, key=areas.__getitem__), max(areas, key=areas.__getitem__)) if row in areas]
    bands = [members[0] for members in domain.bands.groups.values()] or [domain.bands.names[0]]
    figure = Figure(figsize=(1.5 * (len(bands) + 1 + len(probs)), 3.2), layout="constrained")
    axes = figure.subplots(len(shown), len(bands) + 1 + len(probs), squeeze=False)
    for line, row in enumerate(shown):
        images = [np.asarray(domain.cache.images[row][domain.bands.names.index(band)], np.float32) for band in bands]
        limits = np.percentile(np.stack(images), (2, 98))
        tiles: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
            band: (image, {"cmap": "gray", "vmin": limits[0], "vmax": limits[1]})
            for band, image in zip(bands, images, strict=True)
        }
        tiles["truth"] = (painted((masks[row] == 1).astype(np.float16), None, THRESHOLD), {})
        for name, file in probs.items():
            value = file.patch(file.ids.index(domain.patches[row].id))
            tiles[name] = (painted(value, masks[row], THRESHOLD), {})
        for axis, (title, (tile, look)) in zip(axes[line], tiles.items(), strict=True):
            axis.imshow(tile, interpolation="nearest", **look)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(title if line == 0 else "", fontsize=8)
        axes[line][0].set_ylabel(domain.patches[row].id, fontsize=7)
    return save_figure(figure, out)


def _lines(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(row["line"], []).append(row)
    return lines


def _sizes(rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
    return sorted({row["size"] for row in rows}, key=lambda size: size or np.inf)


def _places(rows: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]]) -> list[int]:
    sizes = _sizes(rows)
    return [sizes.index(point["size"]) for point in points]


def _dress(axis: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    sizes = _sizes(rows)
    axis.set_xticks(range(len(sizes)), [str(size or "all") for size in sizes])
    axis.set_xlabel("training patches", fontsize=8)
    axis.tick_params(labelsize=8)
