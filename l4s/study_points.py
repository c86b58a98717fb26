"""The points of a study of few labels: which of a run's files are scored, by line and number of training patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l4s.data.domain import Domain
from l4s.data.probs import ProbFile, open_probs
from l4s.errors import RunError
from l4s.experiment import Experiment
from l4s.load import Member
from l4s.rundir import command, facts_of

APART = "set ensemble.group_by = ['train.subset'], and member.x.ensemble to the name of each line"


@dataclass(frozen=True)
class Point:
    """One point of a study: an ensemble's file, and those of its members."""

    line: str
    size: int | None
    probs: ProbFile
    members: Sequence[ProbFile]
    seeds: int
    checkpoints: int


def find_points(x: Experiment, domain: Domain) -> list[Point]:
    """The last round's ensembles that answer for pixels of this domain, as far as they are made, by line and size.

    Raises:
        RunError: one averages members of several training sizes, two are the same point, or a file is missing or was made
            with other settings or other data than the run has now.
    """
    found: dict[tuple[str, int | None], Point] = {}
    for group, members in x.plan.grouped(x.trained(x.plan.last_round())).items():
        if (point := _point(x, domain, group, members)) is None:
            continue
        if (point.line, point.size) in found:
            size = point.size or "all"
            raise RunError(f"{x.run.root} has two ensembles of line {point.line!r} from {size} patches: {APART}")
        found[point.line, point.size] = point
    return sorted(found.values(), key=lambda point: (point.line, point.size or np.inf))


def _point(x: Experiment, domain: Domain, group: str, members: Sequence[Member]) -> Point | None:
    last, tta = x.plan.last_round(), x.recipe.ensemble_tta
    path = x.run.probs(x.run.ensemble(last, group), domain.name, tta)
    if not path.is_file() or not open_probs(path).shapes[0]:
        return None
    size = _size(path, members)
    probs = _opened(path, x.ensemble_key(members, last, domain, tta), command(x.run.root, "ensemble", "--round", last))
    folders = [x.run.member(last, member.name) for member in members]
    files = [x.run.probs(folder, domain.name, tta) for folder in folders]
    keys = [x.predict_key(member, last, domain, tta) for member in members]
    before = command(x.run.root, "predict", "--round", last)
    each = [_opened(*pair, before) for pair in zip(files, keys, strict=True)]
    kept = sum(len(facts_of(folder)["weights"]) for folder in folders)
    return Point(_line(group, members), size, probs, each, len({member.config.seed for member in members}), kept)


def _size(path: Path, members: Sequence[Member]) -> int | None:
    """On how many patches all of these were trained; None for all there are."""
    sizes = sorted({member.config.train.subset for member in members}, key=lambda size: size or np.inf)
    if len(sizes) > 1:
        told = ", ".join(str(size or "all") for size in sizes)
        raise RunError(f"{path} averages members trained on {told} patches, which is no point of a study: {APART}")
    return sizes[0]


def _line(group: str, members: Sequence[Member]) -> str:
    names = {member.config.ensemble or member.base for member in members}
    return names.pop() if len(names) == 1 else group or "ensemble"


def _opened(path: Path, key: str, first: str) -> ProbFile:
    """A file of probabilities that was made with the settings and the data that the run has now."""
    if not path.is_file():
        raise RunError(f"{path} is missing: run {first} first")
    probs = open_probs(path)
    if probs.fingerprint != key:
        raise RunError(
            f"{path} was made with other settings or inputs (fingerprint {probs.fingerprint}, now {key}): delete it and run "
            f"{first}, or give --data the folder that the run was made with"
        )
    return probs
