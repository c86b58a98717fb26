"""A raster on its way: rows that are finished lie as files beside it until all are there and are joined into one GeoTIFF.

`<out>.parts/` holds `plan.json`, `statistics.json` where the scene's own are used, and `rows-<first>.npy` with the rows
from `first` on as they will be stored. Each file is written whole or not at all, so that any process may stop at any time.
"""

import fcntl
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from l4s import log, rundir, tiles
from l4s.errors import DataError, RunError
from l4s.files import read_json, write_atomic, write_json
from l4s.recipe import Threshold, fingerprint
from l4s.scene.raster import Grid, open_scene, read_tags, reading, write_cog
from l4s.scene.result import KIND, MASK, NODATA, PROBABILITY, RUN, SCALE, STEP, VALUES, first_code
from l4s.thresholds import EXPECTED_F1, expected_f1

BLOCK_ROWS = 512  # rows of the finished raster that are cut into a mask at a time
THRESHOLD = "L4S_THRESHOLD"  # the tag of a mask that says where it was cut


@dataclass(frozen=True)
class Plan:
    """What the parts will become.

    `firsts` are the first rows of the parts. `kind` says what the values are: "probability" or "score". `step` is the
    side of a pixel in pixels of the scene. `threshold` cuts the mask, at a number or where the expected F1 is highest; None:
    none is made. `shards` are those that work on it, for messages.
    """

    fingerprint: str
    grid: Grid
    firsts: tuple[int, ...]
    kind: str
    step: int
    threshold: Threshold | None
    shards: int


def folder_of(out: Path) -> Path:
    """Where the parts of a raster lie."""
    return out.with_name(f"{out.name}.parts")


def mask_of(out: Path) -> Path:
    """The mask beside a raster of probabilities."""
    return out.with_name(f"{out.stem}-mask.tif")


def begin(out: Path, plan: Plan) -> None:
    """Make the folder of parts, or go on with the one that is there.

    Raises:
        RunError: it holds the parts of something else.
    """
    path = folder_of(out) / "plan.json"
    if path.is_file() and (found := read_plan(path)).fingerprint != plan.fingerprint:
        raise RunError(
            f"{path.parent} holds parts made with another run, scene or options (fingerprint {found.fingerprint}, "
            f"now {plan.fingerprint}): delete the folder, or choose another OUT"
        )
    write_json(path, asdict(plan))


def read_plan(path: Path) -> Plan:
    """The plan in a folder of parts.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    found = read_json(path)
    try:
        grid = Grid(**{**found["grid"], "transform": tuple(found["grid"]["transform"])})
        return Plan(**{**found, "grid": grid, "firsts": tuple(found["firsts"])})
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is no plan of parts ({error}): delete the folder") from error


def missing(out: Path, plan: Plan, places: range) -> list[int]:
    """Which of these parts are not there."""
    return [place for place in places if not _path(out, plan, place).is_file()]


def put(out: Path, plan: Plan, place: int, rows: np.ndarray) -> None:
    """Store one part, (h, width) uint8."""
    data = io.BytesIO()
    np.save(data, rows, allow_pickle=False)
    write_atomic(_path(out, plan, place), data.getvalue())
    rundir.reached("scene.part")


def told_missing(out: Path, plan: Plan, places: Sequence[int]) -> str:
    """Which parts are missing, and how to make them."""
    shards, count = plan.shards, len(plan.firsts)
    lacking = [n for n in range(shards) if set(places) & set(tiles.shard(count, n, shards))]
    which = "" if shards == 1 else f", of shard {', '.join(f'{n + 1}/{shards}' for n in lacking)}"
    return (
        f"{out} lacks {len(places)} of {count} parts{which}: run what is missing, which goes on where it stopped; the last "
        f"to finish joins them, and so does `l4s scene mosaic {out}`"
    )


def mosaic(out: Path) -> Path:
    """Join the parts of a raster, once all are there.

    Raises:
        RunError: there are none, or some are missing.
    """
    path = folder_of(out) / "plan.json"
    if not path.is_file():
        if out.is_file() and RUN in read_tags(out):
            log.info(f"{out} is joined already")
            return out
        raise RunError(f"{out} has no parts in {path.parent}: `l4s scene predict` makes them")
    plan = read_plan(path)
    if lacking := missing(out, plan, range(len(plan.firsts))):
        raise RunError(told_missing(out, plan, lacking))
    join(out, plan)
    return out


def join(out: Path, plan: Plan) -> None:
    """Make the raster and its mask of all parts, and delete them; the first of several processes does it.

    Raises:
        RunError: a raster or a mask of something else is in the way.
        DataError: a part is damaged.
    """
    try:
        lock = (folder_of(out) / "joining").open("wb")
    except FileNotFoundError:  # another process has joined them meanwhile
        complete(out, plan.fingerprint, plan.threshold)
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when a process ends, however it does
        if not is_made(out, plan.fingerprint):
            log.info(f"joining {len(plan.firsts)} parts into {out}")
            tags = {RUN: plan.fingerprint, KIND: plan.kind, STEP: str(plan.step)}
            rows = (_load(out, plan, place)[None] for place in range(len(plan.firsts)))
            write_cog(
                out,
                plan.grid,
                rows,
                dtype="uint8",
                nodata=NODATA,
                bands=[PROBABILITY],
                scale=SCALE,
                tags=tags,
            )
            rundir.reached("scene.joined")
        complete(out, plan.fingerprint, plan.threshold)


def complete(out: Path, made: str, threshold: Threshold | None) -> None:
    """What follows a finished raster: its mask at `threshold`, and its parts deleted.

    Raises:
        RunError: there is a mask made with something else.
    """
    folder = folder_of(out)
    if threshold is not None:
        _write_mask(out, made, threshold)
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too


def is_made(path: Path, made: str) -> bool:
    """Is this raster finished, and made with exactly what the fingerprint `made` names?

    Raises:
        RunError: it was made with something else; nothing is overwritten.
    """
    if not path.exists():
        return False
    found = read_tags(path).get(RUN)
    if found != made:
        raise RunError(
            f"{path} was made with another run, scene or options (fingerprint {found}, now {made}): delete it, or "
            "choose another OUT"
        )
    return True


def _write_mask(out: Path, made: str, threshold: Threshold) -> None:
    """Landslide (1) where the stored value is at least the threshold, else 0; 255 where nothing is known."""
    path, key = mask_of(out), fingerprint({"step": "scene mask", "probability": made, "threshold": threshold})
    if is_made(path, key):
        return
    at = _expected_f1(out) if threshold == EXPECTED_F1 else float(threshold)
    tags = {RUN: key, KIND: "mask", STEP: read_tags(out)[STEP], THRESHOLD: str(at)}
    grid, rows = open_scene(out).grid, _masked(out, at)
    write_cog(path, grid, rows, dtype="uint8", nodata=NODATA, bands=[MASK], overviews="mode", tags=tags)
    rundir.reached("scene.mask")


def _expected_f1(out: Path) -> float:
    """Where the whole scene's expected F1 is highest."""
    counts = np.zeros(256, np.int64)
    for codes in _codes(out):
        counts += np.bincount(codes.ravel(), minlength=256)
    threshold = expected_f1(counts[:NODATA], VALUES)
    log.info(f"the mask is cut at {threshold:.3f}, where the expected F1 of the scene is highest")
    return threshold


def _masked(out: Path, threshold: float) -> Iterator[np.ndarray]:
    landslide = (np.arange(256) >= first_code(threshold)).astype(np.uint8)
    landslide[NODATA] = NODATA
    return (landslide[codes] for codes in _codes(out))


def _codes(out: Path) -> Iterator[np.ndarray]:
    """A finished raster's stored values, (1, rows, W) uint8, from the top down."""
    scene = open_scene(out)
    with reading(scene) as reader:
        for top in range(0, scene.grid.height, BLOCK_ROWS):
            rows = min(BLOCK_ROWS, scene.grid.height - top)
            yield reader.values(top, 0, rows, scene.grid.width)


def _load(out: Path, plan: Plan, place: int) -> np.ndarray:
    path = _path(out, plan, place)
    stop = (*plan.firsts[1:], plan.grid.height)[place]
    wanted = (stop - plan.firsts[place], plan.grid.width)
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and predict again, which makes only it") from error
    if rows.shape != wanted or rows.dtype != np.uint8:
        raise DataError(
            f"{path} holds {rows.dtype} of shape {rows.shape}, not uint8 of {wanted}: delete it and predict again"
        )
    return np.asarray(rows)


def _path(out: Path, plan: Plan, place: int) -> Path:
    return folder_of(out) / f"rows-{plan.firsts[place]}.npy"
