"""`l4s recipes`: what comes with l4s."""

from typing import Annotated, Optional

import typer

from l4s.cli import show


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(recipes)


def recipes(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="NAME", help="Print this one as it is written: l4s recipes NAME > mine.toml."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: data, paper and its numbers.")] = False,
) -> None:
    """List the recipes that come with l4s, or print one of them."""
    from l4s.load import find_recipe, load_recipe, shipped

    if name is not None and not json:
        typer.echo(find_recipe(name).read_text(), nl=False)
        return
    listed = {each: load_recipe(each) for each in ([name] if name else shipped())}
    if json:
        show.as_json({each: recipe.about.model_dump(mode="json") for each, recipe in listed.items()})
        return
    show.table("recipes", ("name", "title"), [(each, r.about.title) for each, r in listed.items()], names=2)
    typer.echo("l4s recipes NAME prints one, l4s run NAME runs it")
