"""Where a run stands, read from its small files alone: for a person in another terminal while it runs elsewhere."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from l4s.errors import RecipeError
from l4s.files import read_json
from l4s.load import Member, load_cells
from l4s.plan import Plan, cells, read_plan
from l4s.rundir import COPY, METRICS, RunDir, begun, command, finished, started

Row = dict[str, Any]
STEPS = ("pseudo", "members", "ensembles")  # of a round


def run_status(root: Path, now: float) -> list[Row]:
    """The state of every cell of a run: JSON-able; what is not known (yet) is None.

    `goes_on_with` is the command that carries an unfinished cell to its end, with the options last given,
    and None for one that is finished.

    Args:
        now: seconds since the epoch, against which the age of a training's last line is told.

    Raises:
        RunError: there is no run at `root`.
    """
    found = cells(root)
    started = [{"cell": name, **cell_status(read_plan(run), now)} for name, run in found.items()]
    first = command(next(iter(found.values())).root, "run")  # a sweep is run as a whole
    nothing = {"recipe": "", "rounds": [], "submissions": [], "goes_on_with": first}
    return started + [{"cell": name, **nothing} for name in _not_started(found)]


def cell_status(plan: Plan, now: float) -> Row:
    """The state of one run: its rounds, and the submissions it ended in."""
    rounds = [_round(plan, number, now) for number in range(plan.last_round() + 1)]
    submissions = [_submission(path) for path in sorted(plan.run.submission.glob("*.json"))]
    steps = [step for entry in rounds for kind in STEPS for step in entry[kind]]
    whole = all(map(_is_whole, steps)) and bool(submissions or not plan.recipe.submit)
    return {
        "recipe": plan.recipe.name,
        "rounds": rounds,
        "submissions": submissions,
        "goes_on_with": None if whole else command(plan.run.root, "run"),
    }


def _is_whole(step: Row) -> bool:
    """A finished step, with all files that it predicts."""
    return step["state"] == "done" and step.get("predicted") == step.get("files")


def outcome(run: RunDir) -> Row:
    """What a run came to in its last round, from its small files.

    Returns:
        `round`; `scores`: domain, name, tta and F1 of each ensemble, where there is truth; `submissions`: zip and its share
        of landslide, and the ProbFile it was cut from, as far as they are packed.

    Raises:
        RunError: there is no run, or it is not scored yet.
    """
    plan = read_plan(run)
    last, keys = plan.last_round(), ("domain", "name", "tta", "f1")
    rows = [row for row in read_json(run.table)["rows"] if (row["round"], row["kind"]) == (last, "ensemble")]
    packed = [_packed(plan, last, group) for group in plan.groups(last)] if plan.recipe.submit else []
    scores = [{key: row[key] for key in keys} for row in rows]
    return {"round": last, "scores": scores, "submissions": [entry for entry in packed if entry]}


def _packed(plan: Plan, number: int, group: str) -> Row | None:
    """The submission of one ensemble of the last round; None where it is not packed."""
    submit = plan.recipe.submit
    if submit is None:
        return None
    entry = plan.run.entry(plan.recipe.name, submit.domain, group)
    card = entry.with_suffix(".json")
    if not card.is_file():
        return None
    probs = plan.run.probs(plan.run.ensemble(number, group), submit.domain, plan.recipe.ensemble_tta)
    share = read_json(card)["positive_share"]
    return {"zip": str(entry), "positive_share": share, "probs": str(probs)}


def _round(plan: Plan, number: int, now: float) -> Row:
    groups = plan.groups(number)
    return {
        "round": number,
        "pseudo": [_pseudo(plan, number, group) for group in groups] if number else [],
        "members": [_member(plan, number, member, now) for member in plan.trained(number)],
        "ensembles": [_ensemble(plan, number, *entry) for entry in groups.items()],
    }


def _pseudo(plan: Plan, number: int, group: str) -> Row:
    """Pseudo labels of one ensemble: per target domain the shares of pixels kept and, of these, of landslide."""
    folder = plan.run.pseudo(number, group)
    done = finished(folder)
    return {
        "name": folder.name,
        "state": _state(done),
        "domains": read_json(plan.run.kept(number, group)) if done else {},
    }


def _member(plan: Plan, number: int, member: Member, now: float) -> Row:
    folder = plan.run.member(number, member.name)
    done = finished(folder)
    row: Row = {"name": member.name, "state": _state(done, begun(folder)), "steps": member.config.train.steps}
    return row | _progress(folder / METRICS, member, done, now) | _made(plan.probs(folder, member).values())


def _progress(metrics: Path, member: Member, done: bool, now: float) -> Row:
    """The last line of `metrics.jsonl`, and the seconds that training still takes at its speed."""
    lines = _lines(metrics)
    last = lines[-1] if lines else {}
    step, rate = last.get("step", 0), last.get("patches_per_s")
    left = (member.config.train.steps - step) * member.config.train.batch
    return {
        "step": step,
        "loss": last.get("loss"),
        "heldout_f1": next((line["heldout_f1"] for line in reversed(lines) if "heldout_f1" in line), None),
        "patches_per_s": rate,
        "eta_s": None if done or not rate else round(left / rate),
        "age_s": None if done or not lines else round(now - metrics.stat().st_mtime),
    }


def _lines(path: Path) -> list[Row]:
    """The finished lines of `metrics.jsonl`; the last may be half written at this moment."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _ensemble(plan: Plan, number: int, group: str, members: Sequence[Member]) -> Row:
    folder = plan.run.ensemble(number, group)
    made = _made(plan.probs(folder, *members).values())
    return {"name": folder.name, "state": _state(finished(folder))} | made


def _made(paths: Iterable[Path]) -> Row:
    """How many of these files are there; a ProbFile has its name once it is finished."""
    there = [path.is_file() for path in paths]
    return {"predicted": sum(there), "files": len(there)}


def _submission(path: Path) -> Row:
    """What a card says; it is written after its zip."""
    card = read_json(path)
    return {key: card[key] for key in ("name", "patches", "positive_share", "threshold", "min_area")}


def _state(done: bool, training: bool = False) -> str:
    return "done" if done else "training" if training else "missing"


def _not_started(found: dict[str, RunDir]) -> list[str]:
    """Cells of the sweep that have no folder yet, as far as the recipe beside a started one tells."""
    sample = next(iter(found.values())).root / COPY
    if "" in found or not sample.is_file():
        return []
    try:
        sweep = load_cells(sample, started(sample.parent).get("set", []))
    except RecipeError:  # an older run does not tell its overrides, without which its recipe may mean nothing
        return []
    return [name for name in sweep if name and name not in found]
