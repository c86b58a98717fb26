"""Pictures of a run and of its data, as small PNG files. Equal content makes equal bytes with one matplotlib."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l4s.data.bands import Bands
from l4s.data.classes import Classes
from l4s.data.domain import Domain
from l4s.data.fitting import restore
from l4s.data.labels import patch_label
from l4s.data.probs import ProbFile
from l4s.data.readers import read_image, read_mask
from l4s.data.survey import Survey
from l4s.files import write_atomic
from l4s.metrics import predicted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STRETCH = (2.0, 98.0)  # percentiles of a band shown as black and white
FEATURE = "feature"  # how the head of a column of values in [0, 1] begins
HIT, FALSE, MISSED, IGNORED, BACKGROUND = (
    (255, 255, 255),
    (230, 97, 1),
    (33, 150, 243),
    (120, 120, 120),
    (20, 20, 20),
)
INCHES, DPI = 1.45, 96  # side of one patch in a picture, and dots in an inch


def draw_patches(
    out: Path, domain: Domain, probs: ProbFile, rows: Sequence[int], *, threshold: float, notes: Sequence[str] = ()
) -> Path:
    """One line of pictures for each patch: image, truth where there is one, probability (or score), prediction.

    The prediction is coloured by its errors where the truth is known; that of a whole patch by its label.

    Args:
        probs: (N, H, W) values of patches of `domain`, or (N,), or each at its own size.
        rows: which patches, as positions in `probs`.
        notes: a text beside each patch's id.
    """
    place = {patch.id: row for row, patch in enumerate(domain.patches)}
    where = [place[probs.ids[row]] for row in rows]
    fitted, band = displayed(np.asarray(domain.cache.images[where], np.float32), domain.bands.rgb_index)
    images = [own_size(image, domain, row) for image, row in zip(fitted, where, strict=True)]
    values = [
        np.broadcast_to(probs.patch(row), image.shape[:2])  # one value a patch, or a map
        for image, row in zip(images, rows, strict=True)
    ]
    truths = [domain.cache.mask(row) if domain.cache.labelled[row] else None for row in where]
    columns: dict[str, list[np.ndarray]] = {
        "image" if band is None else domain.bands.names[band]: images,
        "truth": [truth_picture(mask) for mask in truths],
        probs.kind: values,
        f"prediction ({threshold:.3g})": [
            judged(value, probs, mask, threshold) for value, mask in zip(values, truths, strict=True)
        ],
    }
    labelled = any(mask is not None for mask in truths)
    if not labelled:
        del columns["truth"]
    names = ["\n".join((probs.ids[row], *notes[line : line + 1])) for line, row in enumerate(rows)]
    return draw_tiles(out, columns, names, legend=labelled)


def draw_tiles(
    out: Path, columns: Mapping[str, Sequence[np.ndarray]], names: Sequence[str], *, legend: bool = False
) -> Path:
    """A table of pictures: columns under their titles, lines with their names.

    Args:
        columns: (H, W, 3) colours, or (H, W) values; of the columns "probability" and "score" on a scale of colours.
        legend: explain the colours of `painted`.
    """
    figure, axes = _grid(len(names), len(columns))
    for column, (head, tiles) in enumerate(columns.items()):
        for line, tile in enumerate(tiles):
            axes[line][column].imshow(tile, **_look(head, tiles), interpolation="nearest")
        axes[0][column].set_title(head, fontsize=8)
    for line, name in enumerate(names):
        axes[line][0].set_ylabel(name, fontsize=7)
    if legend:
        _legend(figure)
    return save_figure(figure, out)


def own_size(image: np.ndarray, domain: Domain, row: int) -> np.ndarray:
    """A picture (side, side, 3) of a patch at the patch's own size, (H, W, 3)."""
    if domain.fitting is None:
        return image
    height, width = domain.shapes[row].tolist()
    bands = [restore(np.ascontiguousarray(image[..., k]), (height, width), domain.fitting) for k in range(3)]
    return np.asarray(np.clip(np.stack(bands, axis=-1), 0, 1))


def draw_panels(out: Path, panels: Mapping[str, np.ndarray], longest: float = 3.4) -> Path:
    """Pictures side by side under their titles.

    Args:
        panels: (h, w, 3) colours in [0, 1], or (h, w) values in [0, 1], NaN where there are none.
        longest: inches of the longest side of a panel.
    """
    from matplotlib.figure import Figure

    height, width = next(iter(panels.values())).shape[:2]
    inches = longest / max(height, width)
    size = (len(panels) * (width * inches + 0.1), height * inches + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    for axis, (title, picture) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        low, high = (np.nanmin(picture), np.nanmax(picture)) if np.isfinite(picture).any() else (0.0, 1.0)
        axis.imshow(picture, cmap="magma", vmin=min(float(low), 0.0), vmax=float(high), interpolation="antialiased")
        axis.set_title(title, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    return save_figure(figure, out)


def draw_statistics(out: Path, surveys: Sequence[Survey]) -> Path:
    """Mean of each band as a bar, its standard deviation as an error bar, domains side by side (Zhao 2022, Figure 2)."""
    from matplotlib.figure import Figure

    names = surveys[0].bands
    figure = Figure(figsize=(max(4.0, 1.5 + 0.55 * len(names)), 3.0), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(surveys)
    for number, survey in enumerate(surveys):
        place = np.arange(len(names)) + (number - (len(surveys) - 1) / 2) * width
        label = f"{survey.name} ({survey.patches} patches)"
        axes.bar(place, survey.mean, width, yerr=survey.std, capsize=2, error_kw={"linewidth": 0.8}, label=label)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel("mean and standard deviation, file units", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.legend(fontsize=7, frameon=False)
    return save_figure(figure, out)


def draw_classes(out: Path, classes: Classes, bands: Bands, count: int = 4) -> Path:
    """Patches with their landslides outlined, from few to many, and the pixels of both classes (Zhao 2022, Figure 1)."""
    from matplotlib.figure import Figure

    rows = np.flatnonzero(classes.landslide_pixels)
    rows = rows[np.argsort(classes.landslide_pixels[rows], kind="stable")]
    chosen = [
        classes.patches[rows[place]] for place in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    ]
    figure = Figure(figsize=((len(chosen) + 1) * INCHES + 0.6, INCHES + 0.5), layout="constrained")
    axes = figure.subplots(1, len(chosen) + 1, squeeze=False)[0]
    for axis, patch in zip(axes, chosen, strict=False):
        image, mask = read_image(patch, bands), read_mask(patch)
        axis.imshow(displayed(image[None], bands.rgb_index)[0][0], interpolation="nearest")
        axis.contour(mask == 1, levels=[0.5], colors="#e66101", linewidths=0.8)
        axis.set_title(f"{patch.id}: {(mask == 1).mean():.2%}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    bars = axes[-1].bar(("background", "landslide"), (classes.background, classes.landslide), color=("grey", "#e66101"))
    axes[-1].bar_label(bars, (f"{classes.ratio:.0f}", "1"), fontsize=8)
    axes[-1].set_title(f"pixels of {classes.name}", fontsize=8)
    axes[-1].tick_params(labelsize=7)
    axes[-1].set_yticks([])
    axes[-1].margins(y=0.15)  # room for the numbers
    return save_figure(figure, out)


def displayed(images: np.ndarray, rgb: Sequence[int]) -> tuple[np.ndarray, int | None]:
    """Images as a screen shows them: (N, C, H, W) float -> (N, H, W, 3) float32 in [0, 1], each band stretched over all N.

    Returns:
        The images, and the band shown in grey where `rgb` is empty (the first); None for colours.
    """
    chosen = images[:, list(rgb) or [0, 0, 0]]
    known = [band[np.isfinite(band)] for band in np.moveaxis(chosen, 1, 0)]
    bounds = [np.percentile(values, STRETCH) if values.size else np.array([0.0, 1.0]) for values in known]
    low, high = np.array(bounds).T[:, None, :, None, None]
    stretched = np.nan_to_num(np.clip((chosen - low) / np.maximum(high - low, 1e-6), 0, 1))  # what is missing is black
    return np.moveaxis(stretched, 1, -1).astype(np.float32), None if rgb else 0


def painted(values: np.ndarray, mask: np.ndarray | None, threshold: float) -> np.ndarray:
    """The mask cut from probabilities, in colours; where the truth is known, hits, false alarms and misses apart.

    Args:
        values: (H, W) float16 in [0, 1].
        mask: (H, W) uint8 in {0, 1, 255 = ignored}; None where it is not known.

    Returns:
        (H, W, 3) uint8.
    """
    found = predicted(values, threshold)
    if mask is None:
        return _painted(found.shape, {BACKGROUND: ~found, HIT: found})
    true = mask == 1
    colours = {BACKGROUND: ~found & ~true, HIT: found & true, FALSE: found & ~true, MISSED: ~found & true}
    return _painted(found.shape, colours | {IGNORED: mask == 255})


def judged(values: np.ndarray, probs: ProbFile, mask: np.ndarray | None, threshold: float) -> np.ndarray:
    """`painted` of values (H, W) from a file: where these are one for each patch, against its label on all of its pixels."""
    if mask is not None and not probs.shapes[0]:
        mask = np.broadcast_to(patch_label(mask, float(probs.extra.get("positive_share", 0.0))), mask.shape)
    return painted(values, mask, threshold)


def truth_picture(mask: np.ndarray | None) -> np.ndarray:
    """A mask in colours, (H, W, 3) uint8; one grey pixel where it is not known."""
    if mask is None:
        return np.full((1, 1, 3), IGNORED, np.uint8)
    return _painted(mask.shape, {BACKGROUND: mask == 0, HIT: mask == 1, IGNORED: mask == 255})


def _painted(shape: tuple[int, ...], colours: dict[tuple[int, int, int], np.ndarray]) -> np.ndarray:
    picture = np.zeros((*shape, 3), np.uint8)
    for colour, where in colours.items():
        picture[where] = colour
    return picture


def _look(head: str, tiles: Sequence[np.ndarray]) -> dict[str, Any]:
    """Colours of values; those of scores, which are only ordered, from the lowest shown to the highest."""
    if head == "score":
        return {"cmap": "magma", "vmin": min(map(np.min, tiles)), "vmax": max(map(np.max, tiles))}
    if head == "probability":
        return {"cmap": "magma", "vmin": 0.0, "vmax": 1.0}
    return {"vmin": 0.0, "vmax": 1.0} if head.startswith(FEATURE) else {}


def _grid(lines: int, columns: int) -> "tuple[Figure, list[list[Axes]]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * INCHES + 0.3, lines * INCHES + 0.45), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes.tolist()


def _legend(figure: "Figure") -> None:
    from matplotlib.patches import Patch

    entries = {"hit": HIT, "false alarm": FALSE, "missed": MISSED, "not labelled": IGNORED}
    handles = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*colour), edgecolor="black", linewidth=0.5, label=name)
        for name, colour in entries.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7, frameon=False)


def save_figure(figure: "Figure", out: Path) -> Path:
    """Write a figure as PNG, without the name of the program that drew it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomic(out, buffer.getvalue())
    return out
