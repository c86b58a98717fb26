"""`l4s data split`."""

from pathlib import Path
from typing import Annotated

import typer

from l4s.cli import show


def split(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder in Bijie's layout.")],
    shares: Annotated[str, typer.Option(help="Per cent of train, validation and test.")] = "70,10,20",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another draw.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: the ids of each split.")] = False,
) -> None:
    """Draw train, validation and test of a data set that has no split, by class, and save them as splits/*.txt.

    Runs draw the same split by themselves where no lists lie there. Lists with other contents are not overwritten.
    """
    from l4s.data.folders import save_splits

    numbers = shares.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"--shares {shares} is no list of whole numbers such as 70,10,20")
    place, made = save_splits(show.there(folder), shares=[int(number) for number in numbers], seed=seed)
    if json:
        show.as_json(made)
        return
    show.table(str(place), ("split", "patches"), [(name, str(len(ids))) for name, ids in made.items()])
