"""`l4s submit add` and `l4s submit board`: the scores that came back, and what to learn from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from l4s.cli import show

if TYPE_CHECKING:
    from l4s.board import Standing

Folder = Annotated[Path, typer.Option(help="Where leaderboard.csv and the cards are kept.")]
HEADER = ("", "submission", "run", "recipe", "changed against the best", "note", "local", "public", "private")


def add(
    zip_: Annotated[Path, typer.Argument(metavar="ZIP", help="The submission; its card must lie beside it.")],
    public: Annotated[Optional[float], typer.Option(help="F1 on the public test set, in [0, 1].")] = None,  # noqa: UP045
    private: Annotated[Optional[float], typer.Option(help="F1 on the private test set, in [0, 1].")] = None,  # noqa: UP045
    note: Annotated[Optional[str], typer.Option(help="A word to remember it by.")] = None,  # noqa: UP045
    date: Annotated[Optional[str], typer.Option(help="YYYY-MM-DD; no date is kept otherwise.")] = None,  # noqa: UP045
    name: Annotated[Optional[str], typer.Option(help="Its name on the board; default that of the zip.")] = None,  # noqa: UP045
    folder: Folder = Path("submissions"),
) -> None:
    """Put a submission on the leaderboard, or update the scores of one that is there."""
    from l4s.board import add_submission

    row = add_submission(zip_, folder, public=public, private=private, note=note, date=date, name=name)
    scores = f"public {_score(row.public) or '-'}, private {_score(row.private) or '-'}"
    typer.echo(f"{row.submission}: {scores}, in {folder / 'leaderboard.csv'}")


def board(
    folder: Folder = Path("submissions"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the leaderboard, best first, and where local and board scores contradict each other."""
    from l4s.board import standings

    ranked = standings(folder)
    if json:
        show.as_json([_as_dict(each) for each in ranked])
        return
    if not ranked:
        typer.echo(f"no submissions in {folder}: add one with `l4s submit add ZIP --public F1`")
        return
    show.table(str(folder), HEADER, [_line(each) for each in ranked], names=6)
    for sentence in (sentence for each in ranked for sentence in each.flags):
        typer.echo(show.coloured(f"! {sentence}", "yellow"))


def _line(each: "Standing") -> tuple[str, ...]:
    row = each.row
    told = "" if each.changes is None else "; ".join(each.changes) or "nothing its card tells"
    changes = "best" if each.best else told
    scores = (_score(row.local_score), _score(row.public), _score(row.private))
    return ("!" if each.flags else "", row.submission, row.run, row.recipe, changes, row.note, *scores)


def _as_dict(each: "Standing") -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(each.row), "local_score": each.row.local_score, "changes": each.changes, "flags": each.flags}


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
