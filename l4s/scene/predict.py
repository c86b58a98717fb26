"""A finished run on a whole scene: windows, probabilities, a GeoTIFF of them and one of the mask."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from l4s import log, tiles
from l4s.data.stats import constants, pool
from l4s.engine import Engine, start_engine
from l4s.errors import RunError
from l4s.experiment import weights
from l4s.load import Member
from l4s.member import norm_row, trained_member
from l4s.scene import parts
from l4s.scene.job import Job, SceneUse, decide
from l4s.scene.network import Network, Voice, says_one_value
from l4s.scene.statistics import load_moments, scene_moments, store_moments
from l4s.scene.windows import Layout, Strip, predict_rows
from l4s.session import Machine
from l4s.tasks import build_task
from l4s.use import stored_moments


def predict_scene(run: Path, scene: Path, out: Path, machine: Machine, use: SceneUse) -> Path | None:
    """Predict a scene with a run's ensemble; nothing is written into the run.

    Finished rows are kept beside `out` until all are there. The same command goes on where it stopped.

    Args:
        out: a GeoTIFF to write, uint8 round(p * 254), 255 = nodata; its mask is written beside it. Made already, with
            the same run, scene and options: kept.

    Returns:
        `out`, or None where rows of other shards are still missing.

    Raises:
        DataError: the scene cannot be read, or has other bands than the run's.
        RunError: no round of the run is finished, an option cannot be used, or `out` was made with something else.
        RecipeError: `use` names a normalisation or augmentation that does not exist.
    """
    job = decide(run, scene, machine, use)
    if parts.is_made(out, job.key):
        log.info(f"{out} is made already")
        parts.complete(out, job.key, job.threshold)
        return out
    engine = start_engine(machine.device, job.precision, machine.workers, machine.deterministic)
    voices = [_voice(engine, job, member) for member in job.members]
    layout = _layout(engine, job, voices)
    grid = job.scene.grid.coarser(layout.step, *layout.shape)
    plan = parts.Plan(job.key, grid, layout.firsts, job.kind, layout.step, job.threshold, use.shard[1])
    if engine.main:
        parts.begin(out, plan)
    engine.wait()
    network = Network(engine, voices, _affines(engine, job, out), job.tta, job.batch)
    index, shards = (use.shard[0] - 1) * engine.world + engine.rank, use.shard[1] * engine.world
    lacking = parts.missing(out, plan, tiles.shard(len(layout.rows), index, shards))
    _make(job, layout, network, lacking, lambda place, rows: parts.put(out, plan, place, rows))
    engine.wait()
    if engine.main:
        lacking = parts.missing(out, plan, range(len(plan.firsts)))
        if lacking and not parts.is_made(out, job.key):  # else another shard has just joined them
            log.info(parts.told_missing(out, plan, lacking))
        else:
            parts.join(out, plan)
    engine.wait()
    return out if out.is_file() else None


def _voice(engine: Engine, job: Job, member: Member) -> Voice:
    plan, number = job.plan, job.number
    files = weights(plan.run.member(number, member.name))
    every = plan.weights(job.members) or {other.name: 1.0 for other in job.members}
    share = every[member.name] / sum(every.values())
    return Voice(
        build_task(member.config),
        trained_member(plan.recipe, member, number, files, engine),
        norm_row(plan.recipe, member, number, ""),  # a scene is like a target that did not take part in training
        share,
    )


def _layout(engine: Engine, job: Job, voices: Sequence[Voice]) -> Layout:
    bands, grid = len(job.scene.bands), job.scene.grid
    kinds = {says_one_value(engine, voice, bands, job.window) for voice in voices}
    if len(kinds) > 1:
        names = ", ".join(member.name for member in job.members)
        raise RunError(
            f"of members {names} some say one value of a window and some one of each pixel: choose a --group"
        )
    return Layout(grid.height, grid.width, job.window, job.stride, kinds.pop())


def _affines(engine: Engine, job: Job, out: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation, (C,) each, that every member standardises the scene by."""
    own = _own_moments(engine, job, out) if "separated" in job.modes.values() else None
    return [_affine(job, member, own) for member in job.members]


def _affine(job: Job, member: Member, own: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    recipe, mode = job.plan.recipe, job.modes[member.name]
    if mode in ("official", "imagenet"):
        return constants(mode, recipe.bands.names)
    names = recipe.sources(member.config)
    shared = [[recipe.bands.names.index(band) for band in group] for group in recipe.domain[names[0]].share_stats]
    moments = [stored_moments(job.plan, name) for name in names] if own is None or mode == "source" else [own]
    return pool(np.stack(moments, axis=1), shared)


def _own_moments(engine: Engine, job: Job, out: Path) -> np.ndarray:
    """The scene's moments, from the folder of parts where an earlier process or another shard has left them."""
    path = parts.folder_of(out) / "statistics.json"
    if engine.main and load_moments(path) is None:
        store_moments(path, job.scene, scene_moments(job.scene))
    engine.wait()
    found = load_moments(path)
    assert found is not None
    return found


def _make(
    job: Job, layout: Layout, network: Network, lacking: Sequence[int], put: Callable[[int, np.ndarray], None]
) -> None:
    """Predict the rows of windows `lacking`, and hand on what they finish."""
    across = len(layout.columns)
    stretches = list(_stretches(lacking))
    total = across * sum(stretch.stop - layout.before(stretch.start) for stretch in stretches)
    done = asked = 0
    started = time.monotonic()
    with log.live(f"windows of {job.scene.path.name}", total) as update:

        def answer(strip: Strip, places: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
            nonlocal done, asked
            for count, said in enumerate(network.answers(layout, strip, places), 1):
                update(done + count * across // len(places))
                yield said
            done, asked = done + across, asked + len(places)
            update(done)

        for stretch in stretches:
            for place, rows in predict_rows(job.scene, layout, stretch, answer):
                put(place, rows)
    if asked:
        seconds = time.monotonic() - started
        log.info(
            f"{asked} windows in {seconds:.1f} s, {asked / seconds:.1f} a second; {done - asked} hold no valid pixel"
        )


def _stretches(places: Sequence[int]) -> Iterator[range]:
    """Ascending places as ranges without gaps."""
    first = 0
    for end in range(1, len(places) + 1):
        if end == len(places) or places[end] != places[end - 1] + 1:
            yield range(places[first], places[end - 1] + 1)
            first = end
