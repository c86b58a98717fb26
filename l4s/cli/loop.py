"""The commands of the loop: run, train, predict, ensemble, pseudolabel."""

from pathlib import Path
from typing import Annotated, Optional

import typer

Recipe = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (see `l4s recipes`).")]
Data = Annotated[Path, typer.Option(envvar="L4S_DATA", help="Folder with the data.")]
Run = Annotated[Optional[Path], typer.Option(help="Run directory; default runs/<recipe name>.")]  # noqa: UP045
Sets = Annotated[Optional[list[str]], typer.Option("--set", help="Override a key: train.steps=200.")]  # noqa: UP045
Round = Annotated[int, typer.Option("--round", min=0, help="Which round.")]
Members = Annotated[Optional[list[str]], typer.Option("--member", help="Only these members.")]  # noqa: UP045
MACHINE = "Machine"
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=MACHINE)]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.", rich_help_panel=MACHINE)]
Workers = Annotated[int, typer.Option(min=0, help="Processes that make batches.", rich_help_panel=MACHINE)]
Cache = Annotated[Optional[Path], typer.Option(envvar="L4S_CACHE", help="Cache folder.", rich_help_panel=MACHINE)]  # noqa: UP045
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Same bytes again.", rich_help_panel=MACHINE)]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (run, train, predict, ensemble):
        app.command()(command)
    app.command("pseudolabel")(pseudolabel)


def run(
    recipe: Recipe = "zhao2022",
    data: Data = Path("data"),
    run: Run = None,
    sets: Sets = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    cache: Cache = None,
    deterministic: Deterministic = False,
) -> None:
    """All rounds of a recipe; the same command resumes."""
    from l4s.pipeline import run_recipe
    from l4s.session import Machine, open_session

    for x in open_session(recipe, sets or [], data, run, Machine(device, precision, workers, cache, deterministic)):
        run_recipe(x)


def train(
    recipe: Recipe = "zhao2022",
    data: Data = Path("data"),
    run: Run = None,
    round_: Round = 0,
    members: Members = None,
    sets: Sets = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    cache: Cache = None,
    deterministic: Deterministic = False,
) -> None:
    """Train the members of one round."""
    from l4s.pipeline import train_round
    from l4s.session import Machine, open_session

    for x in open_session(recipe, sets or [], data, run, Machine(device, precision, workers, cache, deterministic)):
        train_round(x, round_, members or ())


def predict(
    recipe: Recipe = "zhao2022",
    data: Data = Path("data"),
    run: Run = None,
    round_: Round = 0,
    members: Members = None,
    sets: Sets = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    cache: Cache = None,
    deterministic: Deterministic = False,
) -> None:
    """Predict every domain with the members of one round."""
    from l4s.pipeline import predict_round
    from l4s.session import Machine, open_session

    for x in open_session(recipe, sets or [], data, run, Machine(device, precision, workers, cache, deterministic)):
        predict_round(x, round_, members or ())


def ensemble(
    recipe: Recipe = "zhao2022",
    data: Data = Path("data"),
    run: Run = None,
    round_: Round = 0,
    sets: Sets = None,
    cache: Cache = None,
) -> None:
    """Average the members' predictions of one round."""
    from l4s.session import Machine, open_session
    from l4s.steps import run_ensemble

    for x in open_session(recipe, sets or [], data, run, Machine("cpu", cache=cache)):
        run_ensemble(x, round_)


def pseudolabel(
    recipe: Recipe = "zhao2022",
    data: Data = Path("data"),
    run: Run = None,
    round_: Annotated[int, typer.Option("--round", min=1, help="The round that will train on the labels.")] = 1,
    sets: Sets = None,
    cache: Cache = None,
) -> None:
    """Label the target patches for a round from the ensemble of the round before."""
    from l4s.session import Machine, open_session
    from l4s.steps import run_pseudo

    for x in open_session(recipe, sets or [], data, run, Machine("cpu", cache=cache)):
        run_pseudo(x, round_)
