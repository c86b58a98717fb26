"""A study of few labels, from a run's files: precision and counting errors by training size and kind of network.

Böhm et al. 2022, 3.1 and 4: members differ in their ensemble (the lines of a figure), in `train.subset` (its x axis) and
in their seed; predictions are averaged over checkpoints and seeds before anything is scored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l4s.counts import PARTS, count_errors, paired_mean, printed_error, split_patches, standard_error, summary
from l4s.data.domain import Domain
from l4s.data.probs import ProbFile, open_probs
from l4s.errors import RunError, did_you_mean
from l4s.experiment import Experiment
from l4s.load import Member
from l4s.metrics import average_precision, positive_share
from l4s.plan import cells
from l4s.report import reopen
from l4s.rundir import read_json, write_atomic, write_json
from l4s.score import value_counts
from l4s.study_plots import draw_chips, draw_study
from l4s.truth import truth_of

Row = dict[str, Any]
THRESHOLD = 0.5
RULES: dict[str, float | None] = {"threshold": THRESHOLD, "sum": None}
SEED = 0


@dataclass(frozen=True)
class Point:
    """One point of the study: an ensemble's file, and those of its members."""

    line: str
    size: int | None
    probs: ProbFile
    members: Sequence[ProbFile]
    checkpoints: int


def study_run(root: Path, data: Path, domain: str, cache: Path | None = None) -> dict[str, list[Row]]:
    """Score a finished study on one domain; writes `study.json`, `study.md` and the paper's three figures into the run.

    Returns:
        By cell of a sweep, a row for each line and training size; see `_row` for what it holds.

    Raises:
        RunError: there is no run, no such domain, its masks are withheld, or no ensemble has been made.
        DataError: the data are not those the run was made with.
    """
    studies = {}
    for name, run in cells(root).items():
        x = reopen(run, data, cache)
        chosen = _domain(x, domain)
        points = list(_points(x, chosen))
        if not points:
            raise RunError(f"{run.root} holds no ensemble of {domain} whose members learn pixels: run `l4s run` first")
        studies[name] = rows = _rows(chosen, points)
        write_json(run.root / "study.json", {"recipe": x.recipe.name, "domain": domain, "rows": rows})
        write_atomic(run.root / "study.md", markdown(rows).encode())
        pictures = run.root / "pictures"
        draw_study(pictures, rows)
        draw_chips(pictures / "study-chips.png", chosen, _largest(points))
    return studies


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table: AP with both error bars, and median counting errors."""
    head = ("network", "patches", "seeds", "AP", "miscount", "on empty patches", "on landslides", "sums: on empty")
    lines = [head, tuple("---" for _ in head)]
    for row in rows:
        at, sums = (row["counts"][rule] for rule in RULES)
        lines.append(
            (
                row["line"],
                str(row["size"] or "all"),
                str(row["seeds"]),
                f"{row['average_precision']:.3f} ± {row['error']:.3f} ({row['printed_error']:.3f})",
                f"{at['all']['median_size']:.0f}",
                f"{at['empty']['median']:.0f} (mean {at['empty']['mean']:.0f})",
                f"{at['landslide']['median']:.0f} (mean {at['landslide']['mean']:.0f})",
                f"{sums['empty']['median']:.0f}",
            )
        )
    note = (
        f"\nAP of a random answer: {rows[0]['random']:.3f}. AP is that of predictions averaged over checkpoints and seeds, ± the "
        "standard error over seeds, in brackets the error bar of the paper's code (sd / n). Miscount: median over patches of "
        f"|predicted - true| landslide pixels at {THRESHOLD}; then predicted - true; `sums` adds up probabilities.\n"
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + note


def _domain(x: Experiment, name: str) -> Domain:
    if name not in x.plan.predicted():
        raise RunError(f"{x.run.root} predicts no domain {name!r}{did_you_mean(name, x.plan.predicted())}")
    if truth_of(x.domains[name]) is None:
        raise RunError(f"domain {name!r} has no masks to count landslide pixels in")
    return x.domains[name]


def _points(x: Experiment, domain: Domain) -> Iterator[Point]:
    """The last round's ensembles that answer for pixels of this domain, as far as their files are there."""
    last, tta = x.plan.last_round(), x.tta(domain)[-1]
    for group, members in x.grouped(x.trained(last)).items():
        path = x.run.probs(x.run.ensemble(last, group), domain.name, tta)
        if not path.is_file() or not open_probs(path).shapes[0]:
            continue
        folders = [x.run.member(last, member.name) for member in members]
        files = [open_probs(x.run.probs(folder, domain.name, tta)) for folder in folders]
        kept = sum(len(read_json(folder / "done.json")["weights"]) for folder in folders)
        yield Point(_line(members[0], group), members[0].config.train.subset, open_probs(path), files, kept)


def _line(member: Member, group: str) -> str:
    return member.config.ensemble or group or member.base


def _rows(domain: Domain, points: Sequence[Point]) -> list[Row]:
    order = sorted(points, key=lambda point: (point.line, point.size or np.inf))
    errors = {(point.line, point.size): _errors(domain, point.probs) for point in order}
    return [_row(domain, point, errors) for point in order]


def _row(domain: Domain, point: Point, errors: Mapping[tuple[str, int | None], Mapping[str, np.ndarray]]) -> Row:
    """A point's scores.

    `average_precision` of the averaged prediction, `random` that of a random answer; `error` and `printed_error` are over
    the seeds. `counts`: by rule ("threshold", "sum") and part of the patches ("all", "empty", "landslide") what
    `l4s.counts.summary` says. `against`: of the sizes of the errors at the threshold on empty patches and on all, the
    difference from each other line with as many training patches, with its paired interval.
    """
    truth = truth_of(domain)
    assert truth is not None, "a domain without masks is refused"
    counts = value_counts(point.probs, truth)
    each = np.array([average_precision(value_counts(probs, truth)) for probs in point.members])
    own = errors[point.line, point.size]
    parts = split_patches(domain.cache.mask(row) for row in domain.predicted)
    others = {line: found for (line, size), found in errors.items() if size == point.size and line != point.line}
    return {
        "line": point.line,
        "size": point.size,
        "seeds": len(point.members),
        "checkpoints": point.checkpoints,
        "average_precision": average_precision(counts),
        "random": positive_share(counts),
        "by_seed": each.tolist(),
        "error": standard_error(each),
        "printed_error": printed_error(each),
        "counts": {rule: {part: summary(own[rule][parts[part]]) for part in PARTS} for rule in RULES},
        "against": {line: _against(own["threshold"], found["threshold"], parts) for line, found in others.items()},
    }


def _errors(domain: Domain, probs: ProbFile) -> dict[str, np.ndarray]:
    masks = [domain.cache.mask(row) for row in domain.predicted]
    return {rule: count_errors(probs.patches(), masks, threshold) for rule, threshold in RULES.items()}


def _against(own: np.ndarray, other: np.ndarray, parts: Mapping[str, np.ndarray]) -> Row:
    chosen = {part: parts[part] for part in ("all", "empty") if parts[part].any()}
    return {part: paired_mean(np.abs(own[rows]), np.abs(other[rows]), SEED) for part, rows in chosen.items()}


def _largest(points: Sequence[Point]) -> dict[str, ProbFile]:
    """Each line's file of the most training patches."""
    ordered = sorted(points, key=lambda point: point.size or np.inf)
    return {point.line: point.probs for point in ordered}
