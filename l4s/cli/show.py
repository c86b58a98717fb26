"""How commands print: tables for people and JSON for machines on stdout, what went wrong on stderr; and what they refuse."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from l4s.errors import DataError

if TYPE_CHECKING:
    from l4s.data.bands import Bands
    from l4s.recipe import Threshold

WIDE = 400  # columns where nobody looks and COLUMNS says nothing: a piped table is never cut
WHOLE = 24  # characters up to which a cell is never wrapped; longer ones are, between words
GEOTIFF = (".tif", ".tiff")
FRAME = 3  # characters that a column takes beside its text


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> None:
    """Print a table; the first `names` columns hold text, the others numbers, of which empty ones are left out.

    No word and no number is broken: where the terminal is too narrow for that, lines are longer than it is wide.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = _columns(header, [tuple(row) for row in rows], names)
    console = Console(
        file=sys.stdout, width=None if sys.stdout.isatty() or _told_width() else WIDE, highlight=False, soft_wrap=False
    )
    widths = _widths(columns, console.width)
    console.width = max(console.width, _taken(widths))
    shown = Table()
    for number, ((name, *_), width) in enumerate(zip(columns, widths, strict=True)):
        shown.add_column(Text(name), justify="left" if number < names else "right", width=width, overflow="fold")
    for cells in zip(*(column[1:] for column in columns), strict=True):
        shown.add_row(*(Text(cell) for cell in cells))
    typer.echo(title)
    console.print(shown)


def facts(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Print what would be a table of one row as lines of label and value; empty values are left out."""
    there = [(label, value) for label, value in pairs if value]
    width = max((len(label) for label, _ in there), default=0)
    typer.echo(title)
    for label, value in there:
        typer.echo(f"  {label:<{width}}  {value}")


def as_json(value: object) -> None:
    """Print one JSON value with sorted keys."""
    typer.echo(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


def coloured(text: str, colour: str) -> str:
    """The text in a colour, unless NO_COLOR asks for none."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, fg=colour)


def error(text: str) -> None:
    """One line about what went wrong."""
    typer.echo(coloured(f"error: {text}", "red"), err=True)


def named(out: Path, *endings: str) -> Path:
    """A file to write whose name ends as its content wants it.

    Raises:
        DataError: it ends in something else.
    """
    if out.suffix.lower() not in endings:
        raise DataError(f"{out} does not end in {' or '.join(endings)}, which is what is written there: rename it")
    return out


def there(path: Path) -> Path:
    """A file or folder to read that was named on the command line.

    Raises:
        DataError: there is none.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: give the path of what is to be read")
    return path


def bands(names: str | None) -> "Bands | None":
    """Bands as they were typed, `b4,b3,b2`.

    Raises:
        RecipeError: one is named twice, or what they are called cannot be.
    """
    from l4s.data.bands import Bands
    from l4s.load import validate

    return validate(Bands, {"file": names.split(",")}, "--bands") if names else None


def threshold(text: str | None) -> "Threshold | None":
    """A threshold as it was typed: a number, or the rule that chooses one.

    Raises:
        DataError: it is neither.
    """
    from l4s.thresholds import EXPECTED_F1, HELDOUT

    rules: dict[str | None, Threshold | None] = {None: None, EXPECTED_F1: EXPECTED_F1, HELDOUT: HELDOUT}
    try:
        return rules[text] if text in rules else float(str(text))
    except ValueError as error:
        raise DataError(f"threshold {text!r} is neither a number nor {EXPECTED_F1} nor {HELDOUT}") from error


def _told_width() -> bool:
    return os.environ.get("COLUMNS", "").isdigit()


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> list[tuple[str, ...]]:
    """Columns with their heads, without those of numbers that no row has."""
    columns = [(name, *(row[place] for row in rows)) for place, name in enumerate(header)]
    return [column for place, column in enumerate(columns) if place < names or not rows or any(column[1:])]


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Characters of each column: what its words need, and from left to right what more its lines could use."""
    widths = [max(map(_needed, cells), default=0) for cells in ((*_words(name), *cells) for name, *cells in columns)]
    left = max(room - _taken(widths), 0)
    for place, column in enumerate(columns):
        more = min(max(_longest(cell.splitlines()) for cell in column) - widths[place], left)
        widths[place] += max(more, 0)
        left -= max(more, 0)
    return widths


def _needed(cell: str) -> int:
    lines = cell.splitlines()
    whole = _longest(lines)
    return whole if whole <= WHOLE else _longest(_words(cell))


def _words(text: str) -> list[str]:
    return text.split()


def _longest(texts: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _taken(widths: Sequence[int]) -> int:
    return sum(widths) + FRAME * len(widths) + 1
