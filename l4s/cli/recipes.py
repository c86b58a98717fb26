"""`l4s recipes`: what comes with l4s."""

from typing import Annotated

import typer

from l4s.cli import show


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(recipes)


def recipes(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the recipes that come with l4s."""
    from l4s.load import load_recipe, shipped

    listed = {name: load_recipe(name) for name in shipped()}
    if json:
        show.as_json({name: recipe.about.model_dump(mode="json") for name, recipe in listed.items()})
        return
    show.table(
        "recipes",
        ("name", "what", "paper", "data", "printed"),
        [
            (
                name,
                r.about.title,
                r.about.paper,
                r.about.data,
                ", ".join(f"{k} {v:g}" for k, v in r.about.expected.items()),
            )
            for name, r in listed.items()
        ],
        names=5,
    )
