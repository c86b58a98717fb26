"""`l4s data synth`: generated data in the official layout, a folder of pictures, or a generated scene."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from l4s.cli import show

if TYPE_CHECKING:
    from l4s.data.synth import Summary
    from l4s.data.synth_pictures import PictureSummary

PATCHES, SCENE, PICTURES = "Patches", "Scene (--kind scene)", "Pictures (--kind bijie)"
RADAR = "Radar chips (--kind sar)"


class Kind(StrEnum):
    """What to generate."""

    patches = "patches"
    scene = "scene"
    bijie = "bijie"
    hokkaido = "hokkaido"
    sar = "sar"


COUNTS = {Kind.patches: (100, 30, 30), Kind.hokkaido: (39, 14, 15)}  # what the Hokkaido release ships
SPLITS = ("train", "validation", "test")
READS: dict[Kind, tuple[str, ...]] = {
    Kind.patches: (*SPLITS, "size", "strength", "sensor", "label_noise", "workers"),
    Kind.scene: ("height", "width", "bands", "labels", "plain"),
    Kind.bijie: ("landslide", "non_landslide"),
    Kind.hokkaido: SPLITS,
    Kind.sar: ("first", "second", "visits", "size", "strength", "workers"),
}
"""Kind -> the options that it reads, beside those that all of them do."""


def synth(
    context: typer.Context,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Folder to write; TrainData, ValidData and TestData go there. A scene: OUT.tif."
        ),
    ],
    kind: Annotated[
        Kind,
        typer.Option(
            help="Patches in the official layout, one scene with labels, pictures with DEMs, of varying size, or radar chips."
        ),
    ] = Kind.patches,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other data.")] = 0,
    train: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Patches; 100, of hokkaido 39.", rich_help_panel=PATCHES),
    ] = None,
    validation: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Patches; 30, of hokkaido 14.", rich_help_panel=PATCHES),
    ] = None,
    test: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Patches; 30, of hokkaido 15.", rich_help_panel=PATCHES),
    ] = None,
    size: Annotated[int, typer.Option(min=16, help="Pixels along each side.", rich_help_panel=PATCHES)] = 128,
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            max=2,
            help="How far the targets lie from the source; of sar, how well slides show.",
            rich_help_panel=PATCHES,
        ),
    ] = 1.0,
    sensor: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, max=2, help="The same for the bands' gain and offset alone.", rich_help_panel=PATCHES),
    ] = None,
    label_noise: Annotated[
        float, typer.Option(min=0, max=1, help="Share of source labels that are wrong.", rich_help_panel=PATCHES)
    ] = 0.0,
    landslide: Annotated[int, typer.Option(min=0, help="Pictures with landslides.", rich_help_panel=PICTURES)] = 77,
    non_landslide: Annotated[int, typer.Option(min=0, help="Pictures without.", rich_help_panel=PICTURES)] = 200,
    first: Annotated[int, typer.Option(min=0, help="Chips of the region with masks.", rich_help_panel=RADAR)] = 552,
    second: Annotated[int, typer.Option(min=0, help="Chips of the one with points.", rich_help_panel=RADAR)] = 2174,
    visits: Annotated[
        int, typer.Option(min=1, help="Passes before the event, and as many after.", rich_help_panel=RADAR)
    ] = 5,
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
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; for patches and radar chips.", rich_help_panel="Machine")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Generate a source and two targets with 14 bands, landslides and what looks like them; or one whole scene of 4 bands.

    A scene comes with its mask, OUT-mask.tif, and its landslides as polygons. Pictures of red, green and blue with DEMs
    lie as in the Bijie and Hokkaido data sets, and differ in size. Radar chips are VV and VH before and after an event, of two
    regions: OUT/hokkaido with masks, OUT/kaikoura with points.
    """
    _refuse(context, kind)
    usual = COUNTS.get(kind, (0, 0, 0))
    counts = [own if own is not None else usual[k] for k, own in enumerate((train, validation, test))]
    if kind in (Kind.bijie, Kind.hokkaido):
        from l4s.data.synth_pictures import write_pictures

        classes = {"landslide": landslide, "non-landslide": non_landslide}
        named = classes if kind is Kind.bijie else dict(zip(SPLITS, counts, strict=True))
        made = write_pictures(out, kind.value, named, seed)
        _show(out, made, [f"{of['smallest']} to {of['largest']} px" for of in made.values()], json)
        return
    if kind is Kind.scene:
        show.named(out, *show.GEOTIFF)
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
    if kind is Kind.sar:
        from l4s.sar.synth import write_regions

        chips = write_regions(
            out, seed=seed, chips=(first, second), size=size, visits=visits, strength=strength, workers=workers
        )
        _show(out, chips, [f"{of['size']} px" for of in chips.values()], json)
        return
    from l4s.data.synth import write_dataset

    splits = write_dataset(
        out,
        seed=seed,
        patches=(counts[0], counts[1], counts[2]),
        size=size,
        strength=strength,
        sensor=sensor,
        label_noise=label_noise,
        workers=workers,
    )
    _show(out, splits, [f"{of['size']} px" for of in splits.values()], json)


def _show(out: Path, splits: "Mapping[str, Summary | PictureSummary]", sizes: list[str], json: bool) -> None:
    if json:
        show.as_json(splits)
        return
    rows = [
        (split, str(of["patches"]), size, f"{of['positive']:.2%}", f"{of['empty']:.0%}")
        for (split, of), size in zip(splits.items(), sizes, strict=True)
    ]
    show.table(str(out), ("split", "patches", "size", "landslide pixels", "patches without"), rows)


def _refuse(context: typer.Context, kind: Kind) -> None:
    """Options that only other kinds read have no effect, so they are an error."""
    for name in sorted({name for names in READS.values() for name in names} - {*READS[kind]}):
        given = context.get_parameter_source(name)
        if given is not None and given.name != "DEFAULT":
            option = name.replace("_", "-")
            raise typer.BadParameter(f"--{option} has no effect with --kind {kind}", ctx=context)
