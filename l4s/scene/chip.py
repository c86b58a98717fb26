"""A labelled scene cut into patches of the Landslide4Sense layout, with a manifest that leads back to the map."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from l4s import log, rundir
from l4s.data.labels import LABELS, write_labels
from l4s.data.patch import IGNORED
from l4s.errors import DataError
from l4s.files import appear, unfinished
from l4s.scene.labels import Burnt, Points, Stored, label_identity, reading_labels
from l4s.scene.manifest import NAME, Chip, Manifest, read_manifest, write_manifest
from l4s.scene.raster import Scene, open_scene, reading
from l4s.scene.split import SPLITS, TEST, TRAIN, borders, part_of
from l4s.tiles import starts

BLOCK_WINDOWS = 8  # windows along a side of a block, unless told


@dataclass(frozen=True)
class Cut:
    """How a scene is cut.

    `window` and `stride` in pixels; `bands` by name, in order (none: all of the file). `empty`: share of the chips
    without landslide that is kept, drawn by `seed`; those to test on all stay. `max_nodata`: a chip with a larger share of
    pixels that are not valid is dropped, and so is one of which no pixel's label is known. `split`: `none`, `halves` or
    `blocks` of `block` pixels (None: 8 windows); chips nearer than `gap` pixels to a border between train and test are
    dropped.
    """

    window: int = 128
    stride: int = 128
    bands: tuple[str, ...] = ()
    empty: float = 1.0
    max_nodata: float = 0.5
    split: str = "none"
    block: int | None = None
    gap: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window < 1 or not 1 <= self.stride <= self.window:
            raise DataError(
                f"windows of {self.window} pixels, {self.stride} apart, leave gaps: take 1 to {self.window}"
            )
        for what, share in (("empty", self.empty), ("max_nodata", self.max_nodata)):
            if not 0 <= share <= 1:
                raise DataError(f"{what} is {share:g}: take a share from 0 to 1")
        if self.seed and self.empty == 1:
            raise DataError(
                "the seed draws the chips without landslide that stay, and all stay: lower empty, or drop it"
            )
        if self.split not in SPLITS:
            raise DataError(f"split is {self.split!r}: take {', '.join(SPLITS)}")
        if self.block is not None and (self.split != "blocks" or self.block < self.window):
            raise DataError(f"blocks of {self.block} pixels: give them with split blocks, at least a window wide")
        if self.gap < 0 or (self.gap and self.split == "none"):
            raise DataError(
                f"a gap of {self.gap} pixels means nothing with split {self.split!r}: take 0 or more, and split"
            )


@dataclass(frozen=True)
class Chips:
    """What was cut: the manifest, and how many windows were left out for which reason; None where nothing was to do."""

    manifest: Manifest
    dropped: Mapping[str, int] | None

    def parts(self) -> dict[str, dict[str, float]]:
        """For train and test: the number of chips, of those without landslide, and the share of landslide pixels."""
        told = {}
        for part in (TRAIN, TEST):
            chips = [chip for chip in self.manifest.chips.values() if chip.split == part]
            landslide = sum(chip.landslide * chip.valid for chip in chips)
            share = landslide / max(sum(chip.valid for chip in chips), 1e-9)
            told[part] = {"chips": len(chips), "empty": sum(not chip.landslide for chip in chips), "landslide": share}
        return {part: about for part, about in told.items() if about["chips"]}


@dataclass(frozen=True, eq=False)
class Window:
    """One square of a scene.

    `image` (C, S, S); `valid` (S, S) bool; `mask` (S, S) uint8 {0, 1, 255}, None for points and without labels; `points`
    (M, 2) float64 in the scene's CRS, None for other labels; `draw` in [0, 1) decides whether it stays if it is empty.
    """

    chip: Chip
    image: np.ndarray
    valid: np.ndarray
    mask: np.ndarray | None
    points: np.ndarray | None
    draw: float


def cut_chips(scene: Path, labels: Path | None, out: Path, cut: Cut, layer: str | None = None) -> Chips:
    """Write the chips of a scene: `out`/TrainData (and TestData) with `img` and `mask`, and `out`/manifest.json.

    `img` is (S, S, C) in the file's dtype (float32 for float64), or float32 with NaN where pixels are not valid; `mask`
    is (S, S) uint8, 1 landslide, 0 background, 255 where image or label is not known. Ids count the chips kept, from 1,
    row by row over the whole scene. Points give no masks but `labels.csv` with a line for every chip: its id, its label
    (1: it holds a point), and the x and y of the middle of its points, or of the chip where it has none. Without labels
    there are images alone. The folder appears when it is whole; one made of the same files with the same options stays.

    Args:
        labels: polygons, points, or a mask raster (see `l4s.scene.labels`).
        layer: the layer of `labels`, where there are several.

    Raises:
        DataError: files that cannot be read or do not fit, a scene smaller than a window, labels of which no landslide
            lies in a chip, a split without chips on one side, or something else at `out`.
    """
    if labels is None and (cut.empty != 1 or layer is not None):
        raise DataError("without labels no chip is known to be empty and there is no layer: leave both out")
    opened = open_scene(scene, cut.bands or None)
    grid = opened.grid
    if min(grid.height, grid.width) < cut.window:
        raise DataError(
            f"{scene} has {grid.height} x {grid.width} pixels, less than a window of {cut.window}: take a smaller window"
        )
    out = out.resolve()  # `.` has neither a name nor a folder to lie in
    fingerprint = _fingerprint(opened, labels, layer, cut)
    if (there := _there(out, fingerprint)) is not None:
        return Chips(there, None)
    chips: dict[str, Chip] = {}
    with unfinished(out) as part:
        manifest = Manifest(part, scene.name, grid, cut.window, cut.stride, opened.bands, chips, fingerprint)
        dropped = _fill(manifest, chips, opened, labels, layer, cut)
        _refuse_useless(chips, dropped, labels, cut)
        write_manifest(manifest)
        rundir.reached("chip.manifest")
        try:
            appear(part, out)
        except OSError:
            if (there := _there(out, fingerprint)) is None:
                raise
            return Chips(there, None)  # another process was faster
    return Chips(replace(manifest, folder=out), dropped)


def _fill(
    manifest: Manifest, chips: dict[str, Chip], scene: Scene, labels: Path | None, layer: str | None, cut: Cut
) -> Counter[str]:
    """Write the chips that are wanted and enter them in `chips`; count the others."""
    dropped: Counter[str] = Counter()
    lines: list[tuple[str, int, float, float]] = []
    with reading_labels(labels, scene.grid, layer) if labels else nullcontext() as truth:
        for window in _windows(scene, truth, cut):
            if reason := _unwanted(window, cut, labelled=labels is not None):
                dropped[reason] += 1
                continue
            id = str(len(chips) + 1)
            chips[id] = window.chip
            _write(manifest, id, window)
            if window.points is not None:
                lines.append((id, int(len(window.points) > 0), *_middle(window, manifest)))
    if lines:
        write_labels(manifest.folder / LABELS, lines)
    return dropped


def _windows(scene: Scene, truth: Burnt | Points | Stored | None, cut: Cut) -> Iterator[Window]:
    """Every window, row by row; the scene is read a strip at a time."""
    height, width, size = scene.grid.height, scene.grid.width, cut.window
    edges = borders(cut.split, height, width, cut.stride, cut.block or BLOCK_WINDOWS * size)
    down, across = starts(height, size, cut.stride), starts(width, size, cut.stride)
    rng = np.random.default_rng(cut.seed)
    with reading(scene) as reader:
        for row in log.track(down, f"chips of {scene.path.name}", len(down)):
            image, valid = reader.stored(row, 0, size, width)
            mask = None if truth is None or isinstance(truth, Points) else truth.window(row, 0, size, width)
            known = valid if mask is None else valid & (mask != IGNORED)
            for column, draw in zip(across, rng.random(len(across)).tolist(), strict=True):
                there = np.s_[:, column : column + size]
                points = truth.inside(row, column, size) if isinstance(truth, Points) else None
                landslide = _share(known[there], None if mask is None else mask[there], points)
                part = part_of(row, column, size, *edges, cut.gap) or ""
                chip = Chip(part, row, column, float(known[there].mean()), landslide)
                label = None if mask is None else np.where(known[there], mask[there], IGNORED).astype(np.uint8)
                yield Window(chip, image[:, *there], valid[there], label, points, draw)


def _share(known: np.ndarray, mask: np.ndarray | None, points: np.ndarray | None) -> float:
    if mask is None:
        return float(points is not None and len(points) > 0)
    return float((mask[known] == 1).sum() / max(int(known.sum()), 1))


def _unwanted(window: Window, cut: Cut, *, labelled: bool) -> str:
    """Why a window is left out; nothing where it is not."""
    chip = window.chip
    if not chip.split:
        return "border"
    if not window.valid.any() or 1 - float(window.valid.mean()) > cut.max_nodata:
        return "nodata"
    if chip.valid == 0:
        return "no label"
    thinned = labelled and chip.split == TRAIN and not chip.landslide  # what is tested on keeps its background
    return "empty" if thinned and window.draw >= cut.empty else ""


def _write(manifest: Manifest, id: str, window: Window) -> None:
    image = window.image
    if not window.valid.all():
        image = np.where(window.valid, image, np.nan).astype(np.float32)
    _write_array(manifest.image(id), "img", np.moveaxis(image, 0, -1))
    if window.mask is not None:
        _write_array(manifest.mask(id), "mask", window.mask)


def _write_array(path: Path, key: str, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=np.ascontiguousarray(array), track_times=False)


def _middle(window: Window, manifest: Manifest) -> tuple[float, float]:
    """Where on the map the mean of a window's points lies, or its own middle: x and y."""
    if window.points is not None and len(window.points):
        x, y = window.points.mean(0).tolist()
        return x, y
    half = manifest.window / 2
    a, b, c, d, e, f = manifest.grid.transform
    column, row = window.chip.column + half, window.chip.row + half
    return a * column + b * row + c, d * column + e * row + f


def _refuse_useless(chips: Mapping[str, Chip], dropped: Mapping[str, int], labels: Path | None, cut: Cut) -> None:
    left_out = ", ".join(f"{count} for {reason}" for reason, count in dropped.items()) or "none"
    missing = {TRAIN, TEST if cut.split != "none" else TRAIN} - {chip.split for chip in chips.values()}
    if missing:
        raise DataError(
            f"no chip to {' or '.join(sorted(missing))} with is left (left out: {left_out}): take a smaller window or gap, "
            "or allow more nodata"
        )
    if labels is not None and not any(chip.landslide for chip in chips.values()):
        raise DataError(
            f"no landslide of {labels} lies in a chip (left out: {left_out}): 1 is landslide in a mask, and a polygon must "
            "hold the centre of a pixel"
        )


def _fingerprint(scene: Scene, labels: Path | None, layer: str | None, cut: Cut) -> str:
    identity = [*label_identity(labels), layer] if labels else None
    text = json.dumps([scene.identity, identity, asdict(cut)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _there(out: Path, fingerprint: str) -> Manifest | None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    manifest = read_manifest(out) if (out / NAME).is_file() else None
    if manifest is None or manifest.fingerprint != fingerprint:
        raise DataError(
            f"{out} is there and was not made of these files with these options: delete it, or choose another folder"
        )
    return manifest
