"""`l4s data synth`: generated data in the official layout, or a generated scene."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from l4s.cli import show

PATCHES, SCENE = "Patches", "Scene (--kind scene)"


class Kind(StrEnum):
    """What to generate."""

    patches = "patches"
    scene = "scene"


def synth(
    context: typer.Context,
    out: Annotated[
        Path, typer.Argument(help="Folder to write; TrainData, ValidData and TestData go there. A scene: OUT.tif.")
    ],
    kind: Annotated[
        Kind, typer.Option(help="Patches in the official layout, or one scene with labels.")
    ] = Kind.patches,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other data.")] = 0,
    train: Annotated[int, typer.Option(min=0, help="Patches.", rich_help_panel=PATCHES)] = 100,
    validation: Annotated[int, typer.Option(min=0, help="Patches.", rich_help_panel=PATCHES)] = 30,
    test: Annotated[int, typer.Option(min=0, help="Patches.", rich_help_panel=PATCHES)] = 30,
    size: Annotated[int, typer.Option(min=16, help="Pixels along each side.", rich_help_panel=PATCHES)] = 128,
    strength: Annotated[
        float, typer.Option(min=0, max=2, help="How far the targets lie from the source.", rich_help_panel=PATCHES)
    ] = 1.0,
    sensor: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, max=2, help="The same for the bands' gain and offset alone.", rich_help_panel=PATCHES),
    ] = None,
    label_noise: Annotated[
        float, typer.Option(min=0, max=1, help="Share of source labels that are wrong.", rich_help_panel=PATCHES)
    ] = 0.0,
    height: Annotated[int, typer.Option(min=16, help="Rows of pixels.", rich_help_panel=SCENE)] = 4096,
    width: Annotated[int, typer.Option(min=16, help="Columns of pixels.", rich_help_panel=SCENE)] = 4096,
    bands: Annotated[str, typer.Option(help="Some of b2,b3,b4,b8.", rich_help_panel=SCENE)] = "b2,b3,b4,b8",
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Polygons to write; default OUT-labels.gpkg.", rich_help_panel=SCENE),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Texture and blobs, no landscape: quick.", rich_help_panel=SCENE)
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes; for patches.", rich_help_panel="Machine")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Generate a source and two targets with 14 bands, landslides and what looks like them; or one whole scene of 4 bands.

    A scene comes with its mask, OUT-mask.tif, and its landslides as polygons.
    """
    own = ("height", "width", "bands", "labels", "plain")
    others = ("train", "validation", "test", "size", "strength", "sensor", "label_noise", "workers")
    _refuse(context, kind, others if kind is Kind.scene else own)
    if kind is Kind.scene:
        from l4s.scene.synth import write_scene_pair

        pair = write_scene_pair(out, labels, height=height, width=width, seed=seed, bands=bands.split(","), plain=plain)
        if json:
            show.as_json(pair.as_dict())
            return
        shares = f"{pair.valid:.1%} valid, {pair.landslide:.2%} of it landslide"
        typer.echo(
            f"{pair.scene}: {height} x {width} pixels, {shares}; mask {pair.mask}; {pair.count} polygons {pair.labels}"
        )
        return
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


def _refuse(context: typer.Context, kind: Kind, names: tuple[str, ...]) -> None:
    """Options of the other kind have no effect, so they are an error."""
    for name in names:
        given = context.get_parameter_source(name)
        if given is not None and given.name != "DEFAULT":
            option = name.replace("_", "-")
            raise typer.BadParameter(f"--{option} has no effect with --kind {kind}", ctx=context)
