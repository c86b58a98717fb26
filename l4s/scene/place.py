"""Predictions of chips back on the map they were cut from."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from l4s import log
from l4s.data.probs import CUT, ProbFile, open_probs
from l4s.data.readers import read_array
from l4s.errors import DataError
from l4s.scene.manifest import Manifest, read_manifest
from l4s.scene.raster import write_cog
from l4s.scene.result import KIND, NODATA, PROBABILITY, RUN, SCALE, STEP, encode


def place(probs: Path, manifest: Path, out: Path) -> Path:
    """Write the probabilities of chips as a raster of their scene, as `l4s scene predict` would.

    Where chips overlap, their mean; nodata where no chip was predicted or the image has no value. One value a chip makes a
    raster of a pixel for each multiple of the stride, that of the chip that begins there; a last chip that was moved back
    to the edge stands for the multiple it was moved from. Memory holds one row of chips.

    Args:
        probs: a ProbFile whose ids are in the manifest; not all of the manifest need be there.
        manifest: `manifest.json` of `l4s data chip`, or its folder.
        out: a GeoTIFF; replaced when the new one is whole.

    Raises:
        DataError: files that cannot be read, ids or sizes that do not fit.
    """
    found, chips = open_probs(probs), read_manifest(manifest)
    if found.extra.get(CUT, chips.fingerprint) != chips.fingerprint:
        raise DataError(
            f"{probs} was predicted on chips of another cut than {manifest} tells of: give the manifest of those"
        )
    if unknown := [id for id in found.ids if id not in chips.chips]:
        raise DataError(f"{probs} holds patch {unknown[0]!r}, which {manifest} does not: they belong to different cuts")
    scalar = not found.shapes[0]
    wanted = () if scalar else (chips.window, chips.window)
    if wrong := [shape for shape in found.shapes if shape != wanted]:
        raise DataError(f"{probs} holds patches of {wrong[0]}, where the chips of {manifest} are {wanted}")
    step = chips.stride if scalar else 1
    grid = chips.grid
    if scalar:
        grid = grid.coarser(step, -(-grid.height // step), -(-grid.width // step))
    rows = [_cells(found, chips, grid.height, grid.width)] if scalar else _strips(found, chips)
    write_cog(
        out,
        grid,
        (strip[None] for strip in rows),
        dtype="uint8",
        nodata=NODATA,
        bands=(PROBABILITY,),
        scale=SCALE,
        tags={RUN: found.fingerprint, KIND: found.kind, STEP: str(step)},
    )
    return out


def _cells(found: ProbFile, chips: Manifest, height: int, width: int) -> np.ndarray:
    """(height, width) uint8 codes: one value a chip."""
    values, valid = np.zeros((height, width)), np.zeros((height, width), bool)
    for id, value in zip(found.ids, found.patches(), strict=True):
        at = (-(-chips.chips[id].row // chips.stride), -(-chips.chips[id].column // chips.stride))
        values[at], valid[at] = value, True
    return encode(values, valid)


def _strips(found: ProbFile, chips: Manifest) -> Iterator[np.ndarray]:
    """The whole raster as strips (h, W) uint8 of codes, each as soon as no later chip reaches into it."""
    rows: dict[int, list[int]] = defaultdict(list)
    for index, id in enumerate(found.ids):
        rows[chips.chips[id].row].append(index)
    size, width = chips.window, chips.grid.width
    total, count = np.zeros((size, width), np.float32), np.zeros((size, width), np.uint16)
    top = 0
    for row in log.track(sorted(rows), f"chips of {found.path.name}", len(rows)):
        yield from _finished(total, count, row - top)
        total, count = _moved_up(total, row - top), _moved_up(count, row - top)
        top = row
        for index in rows[row]:
            _add(total, count, found.patch(index), chips, found.ids[index])
    yield from _finished(total, count, chips.grid.height - top)


def _finished(total: np.ndarray, count: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """The first `rows` rows; those beyond the window hold nothing."""
    near = min(rows, len(total))
    if near:
        yield encode(total[:near] / np.maximum(count[:near], 1), count[:near] > 0)
    for start in range(near, rows, len(total)):
        yield np.full((min(len(total), rows - start), total.shape[1]), NODATA, np.uint8)


def _moved_up(values: np.ndarray, rows: int) -> np.ndarray:
    moved = np.zeros_like(values)
    if rows < len(values):
        moved[: len(values) - rows] = values[rows:]
    return moved


def _add(total: np.ndarray, count: np.ndarray, probs: np.ndarray, chips: Manifest, id: str) -> None:
    chip = chips.chips[id]
    there = np.s_[:, chip.column : chip.column + chips.window]
    valid = _valid(chips, id) if chip.valid < 1 else np.ones(probs.shape, bool)
    total[there] += np.where(valid, probs, 0).astype(np.float32)
    count[there] += valid


def _valid(chips: Manifest, id: str) -> np.ndarray:
    """Where the image of a chip has values: chips that are not valid everywhere hold NaN."""
    image = chips.image(id)
    if not image.is_file():
        raise DataError(
            f"chip {id} is partly nodata, and {image}, which says where, is missing: keep chips and manifest together"
        )
    found = ~np.isnan(np.asarray(read_array(image, "img"), np.float32)).any(-1)
    if found.shape != (chips.window, chips.window):
        raise DataError(f"{image} is {found.shape}, where the manifest has windows of {chips.window}")
    return found
