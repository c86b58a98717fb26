"""The command line: parse, call one function, print. Nothing heavy is imported before a command runs."""

from typing import Any

import typer
from typer.core import TyperGroup

from l4s import __version__
from l4s.cli import bench, data, demo, loop, recipes, scene, score, show, status, submit
from l4s.errors import L4SError

INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended
TYPED = "l4s.typed"
RESUMES = {"demo", "run", "train", "predict", "ensemble", "pseudolabel", "scene predict"}


class Commands(TyperGroup):
    """The commands of l4s: what a user can put right is one message and exit code 2, never a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep what was typed."""
        ctx.meta[TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run what was typed."""
        try:
            return super().invoke(ctx)
        except L4SError as error:
            show.error(str(error))
            raise typer.Exit(2) from error
        except BrokenPipeError:  # who reads has read enough: Typer ends quietly
            raise
        except OSError as error:
            show.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            resumes = RESUMES & {" ".join(ctx.meta[TYPED][:words]) for words in (1, 2)}
            typer.echo("interrupted" + (": the same command goes on where it stopped" if resumes else ""), err=True)
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="l4s",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
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
