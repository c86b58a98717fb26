"""`l4s status` and `l4s report`: where a run stands, and what it has reached."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from l4s.cli import show

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, such as runs/demo.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HEADER = ("round", "step", "state", "steps", "loss", "held-out F1", "patches / s", "ETA", "files")
SCORES = ("domain", "round", "name", "tta", "F1", "label-free F1", "oracle F1")
SILENT = 300  # seconds without a line after which a training may have stopped


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(status)
    app.command()(report)


def status(run: Run, json: Json = False) -> None:
    """Where a run stands; for another terminal, while it runs."""
    import time

    from l4s.status import run_status

    cells = run_status(run, time.time())
    if json:
        show.as_json(cells)
        return
    for cell in cells:
        show_rounds(run / cell["cell"], cell["rounds"])
        for card in cell["submissions"]:
            typer.echo(f"submission {card['name']}: {card['patches']} masks, {card['positive_share']:.2%} landslide")
    if unfinished := next((cell["goes_on_with"] for cell in cells if cell["goes_on_with"]), None):
        typer.echo(f"unfinished; once it has stopped, {unfinished} goes on with it")


def report(
    run: Run,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(envvar="L4S_DATA", help="Folder with the data; default the run's own."),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Draw some patches of each domain.")] = True,
    study: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="DOMAIN",
            help="Instead: AP and miscounted landslide pixels on this domain by training size (Böhm 2022).",
        ),
    ] = None,
    attention: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="MEMBER", help="Instead: draw what a fusion network attends to (Lissak 2024)."),
    ] = None,
    compare: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="MEMBERS", help="Instead: draw masks of members side by side: scratch,tuned."),
    ] = None,
    json: Json = False,
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(envvar="L4S_CACHE", help="Cache folder.", rich_help_panel="Machine"),
    ] = None,
) -> None:
    """Score all that a run has predicted so far; writes table.md, table.json and pictures into it."""
    drawn = attention is not None or compare is not None
    if study is not None and drawn:
        raise typer.BadParameter("--study, and --attention with --compare, are two commands: give one of them")
    if not pictures and (drawn or study is not None):
        raise typer.BadParameter("--no-pictures is for the table of scores: leave it out")
    from l4s.plan import data_folder

    data = data or data_folder(run)
    if drawn:
        from l4s.figures import draw_attention, draw_comparison

        files = draw_attention(run, data, attention, cache) if attention else []
        files += draw_comparison(run, data, compare.split(","), cache) if compare else []
        show.as_json([str(path) for path in files]) if json else typer.echo("\n".join(map(str, files)))
        return
    if study is not None:
        from l4s.study import study_run, text_of

        studies = study_run(run, data, study, cache)
        if json:
            show.as_json(studies)
        else:
            typer.echo("\n".join(text_of(run / cell, study).read_text() for cell in studies), nl=False)
        return
    from l4s.report import report_run

    tables = report_run(run, data, cache, pictures)
    if json:
        show.as_json(tables)
    else:
        for cell, rows in tables.items():
            _reported(run / cell, rows, pictures)
        if len(tables) > 1:
            typer.echo(f"all         {run / 'table.md'}")


def _reported(place: Path, rows: list[dict[str, Any]], pictures: bool) -> None:
    """F1 by domain, and where the rest stands."""
    from l4s.files import read_json

    if rows:
        body = sorted((_scores(row) for row in rows), key=lambda cells: cells[0])
        show.table(f"{place}: F1 of landslides", SCORES, body, names=4)
    else:
        typer.echo(f"{place}: nothing is scored yet")
    if unscored := read_json(place / "table.json")["unscored"]:
        typer.echo(f"not scored: {', '.join(unscored)}")
    typer.echo(f"table       {place / 'table.md'}")
    for picture in sorted((place / "pictures").glob("*.png")) if pictures else ():
        typer.echo(f"picture     {picture}")


def _scores(row: dict[str, Any]) -> tuple[str, ...]:
    f1 = f"{row['f1']:.3f}" + (" of patches" if row["of"] == "patches" else "")
    oracle = "" if row["oracle_f1"] is None else f"{row['oracle_f1']:.3f}"
    name = f"{row['name']}, mean of {row['n']}" if row["kind"] == "seeds" else row["name"]
    from l4s.table import label_free_scores

    free = label_free_scores(row)
    return row["domain"], str(row["round"]), name, row["tta"], f1, "" if free is None else f"{free['f1']:.3f}", oracle


def show_rounds(place: Path, rounds: list[dict[str, Any]]) -> None:
    """The steps of a run as a table."""
    show.table(str(place), HEADER, [line for each in rounds for line in lines(each)], names=3)


def lines(state: dict[str, Any]) -> Iterator[list[str]]:
    """One round as lines of the table: pseudo labels, members, ensembles."""
    number = str(state["round"])
    for step in state["pseudo"]:
        yield [
            number,
            step["name"],
            step["state"],
            *[""] * 5,
            ", ".join(_kept(*each) for each in step["domains"].items()),
        ]
    for step in state["members"]:
        yield [number, step["name"], _state(step), *_training(step), f"{step['predicted']}/{step['files']}"]
    for step in state["ensembles"]:
        yield [number, step["name"], step["state"], *[""] * 5, f"{step['predicted']}/{step['files']}"]


def _kept(domain: str, shares: dict[str, float]) -> str:
    told = f"{domain}: {shares['kept']:.1%} kept, {shares['positive']:.2%} of it landslide"
    return told + (f", {shares['changed']:.1%} changed" if "changed" in shares else "")


def _state(step: dict[str, Any]) -> str:
    silent = step["state"] == "training" and (step["age_s"] or 0) > SILENT
    return f"{step['state']}, silent for {_duration(step['age_s'])}" if silent else str(step["state"])


def _training(step: dict[str, Any]) -> list[str]:
    numbers = [
        "" if step[key] is None else form.format(step[key])
        for key, form in (("loss", "{:.4f}"), ("heldout_f1", "{:.3f}"), ("patches_per_s", "{:.0f}"))
    ]
    return [f"{step['step']}/{step['steps']}", *numbers, "" if step["eta_s"] is None else _duration(step["eta_s"])]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
