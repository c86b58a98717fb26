"""How commands print results: tables for people, JSON for machines, both on stdout."""

import json
import sys
from collections.abc import Iterable, Sequence

import typer

WIDE = 400  # columns where nobody looks: a piped table is never cut


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> None:
    """Print a table; the first `names` columns hold text, the others numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for number, name in enumerate(header):
        shown.add_column(Text(name), justify="left" if number < names else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    typer.echo(title)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDE, highlight=False).print(shown)


def as_json(value: object) -> None:
    """Print one JSON value with sorted keys."""
    typer.echo(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))
