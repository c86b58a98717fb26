"""`l4s demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from l4s.cli import loop, show

if TYPE_CHECKING:
    from l4s.demo import Demo


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed: other data, other members.")] = 0,
    device: loop.Device = "auto",
    precision: loop.Precision = "auto",
    workers: loop.Workers = 0,
    cache: loop.Cache = None,
    deterministic: loop.Deterministic = False,
) -> None:
    """The whole loop on generated data, in minutes on two cores; ends with a table, pictures and a checked zip."""
    from l4s.demo import run_demo
    from l4s.session import Machine

    made = run_demo(out, Machine(device, precision, workers, cache, deterministic), seed)
    _print(made, out)
    raise typer.Exit(0 if made.check.ok else 1)


def _print(made: "Demo", out: Path) -> None:
    rows = [row for row in made.rows if row["kind"] != "seeds" and row["role"] != "source"]
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    scores = {(row["round"], row["name"], row["domain"]): row["f1"] for row in rows}
    places = list(dict.fromkeys((row["round"], row["name"]) for row in rows))
    body = [(str(r), name, *(f"{scores[r, name, domain]:.3f}" for domain in domains)) for r, name in places]
    show.table("F1 of landslides at 0.5", ("round", "member", *domains), body, names=2)
    verdict = "accepted" if made.check.ok else "refused: " + "; ".join(made.check.errors)
    typer.echo(f"table       {made.table}")
    for picture in made.pictures:
        typer.echo(f"picture     {picture}")
    typer.echo(f"submission  {made.zip}: {verdict}")
    typer.echo(f"""
Next:
  l4s status {out}/run                       what was done
  l4s submit check {made.zip} --images {out}/data/ValidData/img
  l4s score {made.zip} {out}/data/ValidData/mask
  l4s data stats {out}/data                  why separated statistics matter
  l4s data check DATA                        your own Landslide4Sense folder
  l4s recipes                                what can be run on it""")
