"""`l4s data synth`: generated data in the official layout."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from l4s.cli import show

Count = Annotated[int, typer.Option(min=0, help="Patches.")]


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write; TrainData, ValidData and TestData go there.")],
    train: Count = 100,
    validation: Count = 30,
    test: Count = 30,
    size: Annotated[int, typer.Option(min=16, help="Pixels along each side.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other data.")] = 0,
    strength: Annotated[float, typer.Option(min=0, max=2, help="How far the targets lie from the source.")] = 1.0,
    sensor: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, max=2, help="The same for the bands' gain and offset alone."),
    ] = None,
    label_noise: Annotated[float, typer.Option(min=0, max=1, help="Share of source labels that are wrong.")] = 0.0,
    workers: Annotated[int, typer.Option(min=0, help="Processes.", rich_help_panel="Machine")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Generate a source and two targets with 14 bands, landslides and what looks like them."""
    from l4s.data.synth import write_dataset

    splits = write_dataset(
        out,
        seed=seed,
        patches=(train, validation, test),
        size=size,
        strength=strength,
        sensor=sensor,
        label_noise=label_noise,
        workers=workers,
    )
    if json:
        show.as_json(splits)
        return
    rows = [
        (split, str(of["patches"]), f"{of['size']} px", f"{of['positive']:.2%}", f"{of['empty']:.0%}")
        for split, of in splits.items()
    ]
    show.table(str(out), ("split", "patches", "size", "landslide pixels", "patches without"), rows)
