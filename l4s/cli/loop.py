"""The commands of the loop: run, train, predict, ensemble, pseudolabel."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from l4s.cli import show

if TYPE_CHECKING:
    from l4s.rundir import RunDir

Recipe = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, the name of a shipped one (see `l4s recipes`), or a run's folder, which goes on as it is; default "
        "zhao2022.",
        show_default=False,
    ),
]
Data = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(envvar="L4S_DATA", help="Folder with the data; default data, or that of the run's folder."),
]
Run = Annotated[Optional[Path], typer.Option(help="Run directory; default runs/<recipe name>.")]  # noqa: UP045
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: train.steps=200."),
]
Round = Annotated[int, typer.Option("--round", min=0, help="Which round.")]
LastRound = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--round", min=0, help="Which round; default 0, with --images or --runs the last that is finished."),
]
Members = Annotated[Optional[list[str]], typer.Option("--member", metavar="MEMBER", help="Only these members.")]  # noqa: UP045
DEFAULT = "zhao2022"
PROBFILE = ".h5"
SCORES = ("domain", "ensemble", "tta", "F1")
MACHINE, IMAGES, RUNS = "Machine", "New images", "Several runs"
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
    recipe: Recipe = None,
    data: Data = None,
    run: Run = None,
    sets: Sets = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    cache: Cache = None,
    deterministic: Deterministic = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe and show its steps; reads no data, writes nothing.")
    ] = False,
) -> None:
    """All rounds of a recipe; the same command resumes."""
    if dry_run:
        name, overrides, _, place = asked(recipe, sets, data or Path("data"), run)  # no data are read
        _foreseen(name, overrides, place)
        return
    from l4s.pipeline import run_recipe
    from l4s.session import Machine, open_session

    machine = Machine(device, precision, workers, cache, deterministic)
    for x in open_session(*asked(recipe, sets, data, run), machine):
        run_recipe(x)
        if x.engine.main:
            _reached(x.run)


def train(
    recipe: Recipe = None,
    data: Data = None,
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

    machine = Machine(device, precision, workers, cache, deterministic)
    for x in open_session(*asked(recipe, sets, data, run), machine):
        train_round(x, round_, members or ())


def predict(
    ctx: typer.Context,
    recipe: Recipe = None,
    data: Data = None,
    run: Run = None,
    round_: LastRound = None,
    members: Members = None,
    sets: Sets = None,
    images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A folder of image_N.h5 that no recipe knows; needs --run.", rich_help_panel=IMAGES),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="The ProbFile to write.", rich_help_panel=IMAGES)] = None,  # noqa: UP045
    normalise: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="separated: by the new images' own statistics; source: by those of the run's source patches. "
            "Default: as each member was trained.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    tta: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="none, flip or d4; default: that of the run's ensembles.", rich_help_panel=IMAGES),
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, validation, test or a folder below --images.", rich_help_panel=IMAGES)
    ] = ".",
    group: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Which ensemble, of a run with several.", rich_help_panel=IMAGES),
    ] = None,
    like: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="The run's domain that they are read, standardised and adapted like; default: read like its source.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    cache: Cache = None,
    deterministic: Deterministic = False,
) -> None:
    """Predict every domain with the members of one round; or new images (--images) with a run's ensemble."""
    if images is None:
        _refuse(ctx, "only new images read this, give --images", "out", "normalise", "tta", "split", "group", "like")
        from l4s.pipeline import predict_round
        from l4s.session import Machine, open_session

        machine = Machine(device, precision, workers, cache, deterministic)
        for x in open_session(*asked(recipe, sets, data, run), machine):
            predict_round(x, round_ or 0, members or ())
        return
    if run is None or out is None:
        raise typer.BadParameter("--images needs --run, the run that predicts them, and --out, the file to write")
    _refuse(ctx, "not read with --images, where --run says what predicts", "recipe", "data", "members", "sets")
    show.named(out, PROBFILE)
    from l4s.apply import Use, predict_images
    from l4s.session import Machine

    machine = Machine(device, precision, workers, cache, deterministic)
    predict_images(run, show.there(images), out, machine, Use(round_, group, normalise, tta, split, like))
    typer.echo(out)


def ensemble(
    ctx: typer.Context,
    recipe: Recipe = None,
    more: Annotated[Optional[list[Path]], typer.Argument(hidden=True)] = None,  # noqa: UP045
    data: Data = None,
    run: Run = None,
    round_: LastRound = None,
    sets: Sets = None,
    runs: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Average the ensembles of these runs: --runs A B --out FILE.", rich_help_panel=RUNS),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="The ProbFile to write.", rich_help_panel=RUNS)] = None,  # noqa: UP045
    domain: Annotated[Optional[str], typer.Option(help="Default: the target.", rich_help_panel=RUNS)] = None,  # noqa: UP045
    tta: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="none, flip or d4; default: that of the runs' ensembles.", rich_help_panel=RUNS),
    ] = None,
    group: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only this ensemble, of a recipe with several; of runs, which one.", show_default=False),
    ] = None,
    cache: Cache = None,
) -> None:
    """Average the members' predictions of one round; or the ensembles of several runs (--runs)."""
    if runs:
        _refuse(ctx, "not read with --runs", "data", "run", "sets", "cache")
        if out is None:
            raise typer.BadParameter("--runs needs --out, the file to write")
        show.named(out, PROBFILE)
        from l4s.apply import ensemble_runs
        from l4s.plan import Choice

        # --runs A B C: what follows the first run arrives as arguments
        ensemble_runs(
            [*runs, *([Path(recipe)] if recipe else []), *(more or [])], out, Choice(domain, tta, round_, group)
        )
        typer.echo(out)
        return
    _refuse(ctx, "only several runs read this, give --runs", "out", "domain", "tta")
    if more:
        raise typer.BadParameter(f"one recipe at a time, got {recipe} and {', '.join(map(str, more))}")
    from l4s.session import Machine, open_session
    from l4s.steps import run_ensemble

    for x in open_session(*asked(recipe, sets, data, run), Machine("cpu", cache=cache)):
        run_ensemble(x, round_ or 0, group)


def pseudolabel(
    recipe: Recipe = None,
    data: Data = None,
    run: Run = None,
    round_: Annotated[int, typer.Option("--round", min=1, help="The round that will train on the labels.")] = 1,
    sets: Sets = None,
    cache: Cache = None,
) -> None:
    """Label the target patches for a round from the ensemble of the round before."""
    from l4s.session import Machine, open_session
    from l4s.steps import run_pseudo

    for x in open_session(*asked(recipe, sets, data, run), Machine("cpu", cache=cache)):
        run_pseudo(x, round_)


def _foreseen(recipe: str, sets: list[str], run: Path | None) -> None:
    """The steps of a recipe, and how many trainings are not there yet."""
    import time

    from l4s import log
    from l4s.cli.status import show_rounds
    from l4s.session import check_networks, preview
    from l4s.status import cell_status

    left = []
    plans = preview(recipe, sets, run)[1]
    check_networks(plans)
    for plan in plans:
        rounds = cell_status(plan, time.time())["rounds"]
        show_rounds(plan.run.root, rounds)
        left += [step for each in rounds for step in each["members"] if step["state"] != "done"]
        for number, member in ((each["round"], member) for each in rounds for member in plan.trained(each["round"])):
            if keys := plan.changed(member, number):
                folder = plan.run.member(number, member.name)
                log.warn(f"{folder} was made with other values of {', '.join(keys)}, and the run will refuse it")
    steps = sum(step["steps"] - step["step"] for step in left)
    typer.echo(f"{len(left)} trainings with at most {steps:,} steps are left")
    typer.echo("Equal ones are made once, and taken over from the runs beside this one.")


def _reached(run: "RunDir") -> None:
    """What a finished run has come to, and what to do with it."""
    import shlex

    from l4s import log
    from l4s.status import outcome

    found = outcome(run)
    rows = [(row["domain"], row["name"], row["tta"], f"{row['f1']:.3f}") for row in found["scores"]]
    if rows:
        show.table(f"{run.root}: F1 of landslides in round {found['round']}", SCORES, rows, names=3)
    else:
        typer.echo(f"{run.root}: done; no domain has masks to score against")
    for entry in found["submissions"]:
        typer.echo(f"submission  {entry['zip']}: {entry['positive_share']:.2%} landslide")
        if not entry["positive_share"]:
            log.warn(f"{entry['zip']} marks no landslide at all: see whether the labels of a round collapsed")
    typer.echo("Next:")
    typer.echo(f"  {shlex.join(('l4s', 'report', str(run.root)))}")
    for entry in found["submissions"]:
        typer.echo(f"  {shlex.join(('l4s', 'submit', 'check', entry['zip'], '--ids-from', entry['probs']))}")


def asked(
    recipe: str | None, sets: list[str] | None, data: Path | None, run: Path | None
) -> tuple[str, list[str], Path, Path | None]:
    """What was typed, as `open_session` wants it; the default recipe takes days on a GPU and so is said aloud."""
    from l4s import log, plan

    if recipe is None:
        log.info(f"no recipe named: {DEFAULT}; `l4s recipes` lists the others")
    return plan.asked(recipe or DEFAULT, sets or [], data, run)


def _refuse(ctx: typer.Context, why: str, *names: str) -> None:
    """Wrong use: an option was typed that would have no effect."""
    options = {option.name: option.opts[0] for option in ctx.command.params}
    typed = [options[name] for name in names if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if typed:
        raise typer.BadParameter(f"{', '.join(typed)}: {why}")
