"""A study of few labels, from a run's files: precision and counting errors by training size and kind of network.

Böhm et al. 2022, 3.1 and 4: members differ in their ensemble (the lines of a figure), in `train.subset` (its x axis) and
in their seed. The paper averages predictions over checkpoints and seeds before it scores them, and draws the error of a
mean over runs; the two belong to different numbers, so that both are told: the score of the averaged prediction, and the
mean and standard error of the members' own scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l4s import log
from l4s.counts import FIGURES, PARTS, count_errors, paired_mean, sd_over_n, split_patches, standard_error, summary
from l4s.data.domain import Domain
from l4s.data.probs import ProbFile
from l4s.errors import RunError, did_you_mean
from l4s.experiment import Experiment
from l4s.files import write_atomic, write_json
from l4s.metrics import average_precision, positive_share
from l4s.plan import cells
from l4s.report import reopen
from l4s.rundir import command
from l4s.score import Truth, value_counts
from l4s.study_plots import draw_chips, draw_study
from l4s.study_points import Point, find_points
from l4s.study_table import markdown
from l4s.thresholds import PROBABLE
from l4s.truth import truth_of

Row = dict[str, Any]
RULES: dict[str, float | None] = {"threshold": PROBABLE, "sum": None}
SEED = 0


@dataclass(frozen=True, eq=False)
class Score:
    """Scores of one file: `counts` (2, CODES) of `value_counts`, and by rule the errors of each patch, (N,) float64."""

    counts: np.ndarray
    errors: Mapping[str, np.ndarray]

    @property
    def precision(self) -> float:
        """Average precision."""
        return average_precision(self.counts)


@dataclass(frozen=True, eq=False)
class Scored:
    """A point with the scores of its averaged prediction and of each member."""

    point: Point
    averaged: Score
    members: Sequence[Score]


def study_run(root: Path, data: Path, domain: str, cache: Path | None = None) -> dict[str, list[Row]]:
    """Score a finished study on one domain; writes `study-<domain>.json`, `.md` and the paper's three figures into the run.

    Returns:
        By cell of a sweep, a row for each line and training size; see `_row` for what it holds.

    Raises:
        RunError: there is no run, no such domain, its masks are withheld, no ensemble has been made, files or data are not
            those of the run as it is now, or its ensembles are no points of a study.
    """
    studies = {}
    for name, run in cells(root).items():
        x = reopen(run, data, cache)
        truth = _truth(x, domain)
        scored = [_score(point, truth) for point in find_points(x, x.domains[domain])]
        if not scored:
            first = command(run.root, "run")
            raise RunError(f"{run.root} holds no ensemble of {domain} whose members learn pixels: run {first} first")
        studies[name] = rows = _rows(scored, truth)
        chose = _chose(x, domain)
        about = {"recipe": x.recipe.name, "domain": domain, "chose_checkpoints": chose}
        write_json(run.root / f"study-{domain}.json", {**about, "rows": rows})
        write_atomic(text_of(run.root, domain), markdown(rows, domain, chose).encode())
        draw_study(run.pictures, rows, domain)
        _draw_chips(run.pictures / f"study-{domain}-chips.png", x.domains[domain], [each.point for each in scored])
    return studies


def text_of(root: Path, domain: str) -> Path:
    """Where the tables of a study are written, in a run or a cell of one."""
    return root / f"study-{domain}.md"


def _chose(x: Experiment, domain: str) -> bool:
    """Were checkpoints of the last round chosen with this domain's labels? It is then a source that some are judged on."""
    judged = [member for member in x.trained(x.plan.last_round()) if member.config.train.evaluate_every]
    return any(domain in x.recipe.sources(member.config) for member in judged)


def _draw_chips(out: Path, domain: Domain, points: Sequence[Point]) -> None:
    """The masks of all lines from equally many patches: the most that every line has been trained on so far."""
    shared = set.intersection(*({point.size for point in points if point.line == line} for line in _names(points)))
    if not shared:
        out.unlink(missing_ok=True)  # an earlier study may have had it
        log.warn(f"{out.name} is not drawn: no number of training patches is common to {', '.join(_names(points))}")
        return
    size = max(shared, key=lambda size: size or np.inf)
    draw_chips(out, domain, {point.line: point.probs for point in points if point.size == size}, size)


def _names(points: Sequence[Point]) -> list[str]:
    return sorted({point.line for point in points})


def _truth(x: Experiment, name: str) -> Truth:
    if name not in x.plan.predicted():
        raise RunError(f"{x.run.root} predicts no domain {name!r}{did_you_mean(name, x.plan.predicted())}")
    truth = truth_of(x.domains[name])
    if truth is None or x.domains[name].by_patch:
        raise RunError(f"domain {name!r} has no masks to count landslide pixels in")
    if (tta := x.recipe.ensemble_tta) not in x.plan.tta(name):
        raise RunError(f"domain {name!r} is not predicted under {tta!r}, which ensembles are made of: see predict.tta")
    return truth


def _score(point: Point, truth: Truth) -> Scored:
    return Scored(point, score_of(point.probs, truth), [score_of(probs, truth) for probs in point.members])


def score_of(probs: ProbFile, truth: Truth) -> Score:
    """Scores of a file; its errors stand in the order of the truth, whatever that of the file, so that they can be paired.

    Raises:
        DataError: the file is of other patches, or of another size.
    """
    counts = value_counts(probs, truth)
    place = {name: row for row, name in enumerate(truth.ids)}
    rows = [place[name] for name in probs.ids]
    masks, order = [truth.mask(row) for row in rows], np.argsort(rows)
    return Score(counts, {rule: count_errors(probs.patches(), masks, at)[order] for rule, at in RULES.items()})


def _rows(scored: Sequence[Scored], truth: Truth) -> list[Row]:
    parts = split_patches(truth.mask(row) for row in range(len(truth.ids)))
    return [_row(each, [other for other in scored if other is not each], parts) for each in scored]


def _row(scored: Scored, others: Sequence[Scored], parts: Mapping[str, np.ndarray]) -> Row:
    """A point's scores.

    `average_precision` of the averaged prediction, `random` that of a random answer, `over_seeds` that of the members: of
    each, their mean, its standard error `error` (None for one), and `sd_over_n`. `counts`: by rule ("threshold", "sum")
    and part of the patches ("all", "empty", "landslide") what `l4s.counts.summary` says of the averaged prediction, None
    where there are no such patches; `counts_over_seeds`: mean and error of the same over the members. `against`: of the
    sizes of the errors at the threshold, the difference from each other line with as many training patches, by part, with
    its paired interval.
    """
    point = scored.point
    each = np.array([score.precision for score in scored.members])
    same = [other for other in others if other.point.size == point.size]
    own = scored.averaged.errors
    return {
        "line": point.line,
        "size": point.size,
        "seeds": point.seeds,
        "checkpoints": point.checkpoints,
        "average_precision": scored.averaged.precision,
        "random": positive_share(scored.averaged.counts),
        "over_seeds": _mean(each) | {"each": each.tolist(), "sd_over_n": sd_over_n(each)},
        "counts": {rule: {part: summary(own[rule][parts[part]]) for part in PARTS} for rule in RULES},
        "counts_over_seeds": {
            rule: {part: _over_seeds(scored.members, rule, parts[part]) for part in PARTS} for rule in RULES
        },
        "against": {other.point.line: _against(scored, other, parts) for other in same},
    }


def _over_seeds(members: Sequence[Score], rule: str, chosen: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Mean and standard error of each figure of `summary` over the members; None where there are no such patches."""
    if not chosen.any():
        return {figure: {"mean": None, "error": None} for figure in FIGURES}
    each = [summary(score.errors[rule][chosen]) for score in members]
    return {figure: _mean(np.array([one[figure] for one in each], np.float64)) for figure in FIGURES}


def _mean(values: np.ndarray) -> dict[str, float | None]:
    return {"mean": float(values.mean()), "error": standard_error(values)}


def _against(own: Scored, other: Scored, parts: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """By part, as far as it has patches: the mean difference of the sizes of two lines' errors, over the same patches."""
    ours, theirs = (np.abs(each.averaged.errors["threshold"]) for each in (own, other))
    return {part: paired_mean(ours[rows], theirs[rows], SEED) for part, rows in parts.items() if rows.any()}
