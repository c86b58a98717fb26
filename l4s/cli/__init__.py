"""The command line: parse, call one function, print. Nothing heavy is imported before a command runs."""

from typing import Any

import typer
from typer.core import TyperGroup

from l4s import __version__
from l4s.cli import bench, data, demo, loop, recipes, scene, score, status, submit
from l4s.errors import L4SError


class Commands(TyperGroup):
    """The commands of l4s: a user's error is one message and exit code 2, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run what was typed."""
        try:
            return super().invoke(ctx)
        except L4SError as error:
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    name="l4s",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="Map landslides where no labels exist: train, pseudo-label, ensemble and submit as in Landslide4Sense.",
)
for noun in (demo, loop, status, score, submit, data, scene, recipes, bench):
    noun.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"l4s {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show it.")) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app()
