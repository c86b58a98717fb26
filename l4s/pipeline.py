"""Rounds x members x steps in order, and nothing else."""

from collections.abc import Sequence

from l4s import log, rundir
from l4s.errors import RunError, did_you_mean
from l4s.experiment import Experiment
from l4s.load import Member
from l4s.report import score_run
from l4s.steps import run_ensemble, run_fit, run_predict, run_pseudo, run_submit


def run_recipe(x: Experiment) -> None:
    """Everything a recipe asks for; finished steps are skipped, so the same command resumes."""
    for number in range(x.recipe.rounds + 1):
        if number:
            run_pseudo(x, number)
        if number > x.engine.agree(x.plan.last_round()):
            log.info(
                f"the labels for round {number} hardly differ from those of round {number - 1}: the rounds end here"
            )
            break
        _tell_finished(x, number)
        for member in x.trained(number):
            run_fit(x, member, number)
            run_predict(x, member, number)
        run_ensemble(x, number)
    score_run(x)
    run_submit(x)


def _tell_finished(x: Experiment, number: int) -> None:
    """A round whose steps are there takes no time and says nothing by itself."""
    members = x.trained(number)
    there = sum(rundir.finished(x.run.member(number, member.name)) for member in members)
    if there:
        log.info(f"round {number}: {there} of {len(members)} members are trained already")


def train_round(x: Experiment, number: int, names: Sequence[str] = ()) -> None:
    """Train the members of one round, or those named."""
    for member in chosen(x, number, names):
        run_fit(x, member, number)


def predict_round(x: Experiment, number: int, names: Sequence[str] = ()) -> None:
    """Predict with the members of one round, or those named."""
    for member in chosen(x, number, names):
        run_predict(x, member, number)


def chosen(x: Experiment, number: int, names: Sequence[str]) -> list[Member]:
    """Members of a round by name, or by the name of their table in the recipe; all where none is named.

    Raises:
        RunError: the recipe has no such round, or the round no such member.
    """
    members = x.trained(number)
    for name in names:
        if not any(member.named([name]) for member in members):
            raise RunError(f"round {number} trains no member {name!r}{did_you_mean(name, [m.name for m in members])}")
    return [member for member in members if not names or member.named(names)]
