"""`l4s data chip`: a labelled scene into patches."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from l4s.cli import show


def chip(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCENE LABELS OUT",
            help="A GeoTIFF; polygons or points (.gpkg, .geojson, .shp) or a mask raster; the folder to write.",
        ),
    ],
    window: Annotated[int, typer.Option(min=1, help="Side of a chip, pixels.")] = 128,
    stride: Annotated[Optional[int], typer.Option(min=1, help="From chip to chip; default the window.")] = None,  # noqa: UP045
    bands: Annotated[Optional[str], typer.Option(help="Bands to take, by name and in order: b4,b3,b2.")] = None,  # noqa: UP045
    empty: Annotated[
        float, typer.Option(min=0, max=1, help="Share of chips without landslide to keep, of those to train on.")
    ] = 1.0,
    max_nodata: Annotated[float, typer.Option(min=0, max=1, help="Drop chips with a larger share of nodata.")] = 0.5,
    split: Annotated[
        str,
        typer.Option(help="none, halves of the longer side (west or north trains) or blocks (checkerboard)."),
    ] = "none",
    block: Annotated[Optional[int], typer.Option(min=1, help="Side of a block, pixels; default 8 windows.")] = None,  # noqa: UP045
    gap: Annotated[int, typer.Option(min=0, help="Drop chips nearer than this to a border of the split.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Draws the empty chips that stay.")] = 0,
    layer: Annotated[Optional[str], typer.Option(help="Layer of LABELS, where it has several.")] = None,  # noqa: UP045
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="No labels: give SCENE OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Cut a scene into patches as Landslide4Sense has them, and write where each lies (manifest.json).

    `l4s scene place` puts predictions of the patches back on the map.
    """
    from l4s.scene.chip import Cut, cut_chips

    if len(paths) != (2 if unlabelled else 3):
        wanted = "SCENE OUT" if unlabelled else "SCENE LABELS OUT (or --unlabelled SCENE OUT)"
        raise typer.BadParameter(f"got {len(paths)} path{'s' * (len(paths) != 1)}, where these are wanted: {wanted}")
    cut = Cut(
        window=window,
        stride=stride or window,
        bands=tuple(bands.split(",")) if bands else (),
        empty=empty,
        max_nodata=max_nodata,
        split=split,
        block=block,
        gap=gap,
        seed=seed,
    )
    made = cut_chips(paths[0], None if unlabelled else paths[1], paths[-1], cut, layer)
    parts = made.parts()
    if json:
        show.as_json({"parts": parts, "dropped": made.dropped})
        return
    rows = [(part, str(of["chips"]), str(of["empty"]), f"{of['landslide']:.2%}") for part, of in parts.items()]
    show.table(str(paths[-1]), ("part", "chips", "without landslide", "landslide"), rows)
    if made.dropped is None:
        typer.echo("nothing to do: these chips were there")
    elif made.dropped:
        typer.echo("left out: " + ", ".join(f"{count} for {reason}" for reason, count in sorted(made.dropped.items())))
