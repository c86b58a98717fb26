"""`l4s data convert`: other people's products as scenes."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from l4s.cli import show

app = typer.Typer(no_args_is_help=True, help="Turn satellite products into scenes that a model can map.")


@app.callback()
def _group() -> None:
    """A group, though it has one command."""


@app.command()
def sentinel2(
    bands: Annotated[
        list[Path],
        typer.Argument(help="The bands' files, a folder that holds them (a .SAFE), or one GeoTIFF of all bands."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.tif", help="Scene to write.")],
    dem: Annotated[Path, typer.Option(help="Elevation in metres, any grid and CRS, as large as the scene.")],
    order: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The bands of one GeoTIFF in file order, where it does not name them: B2,B3,B4,..."),
    ] = None,
    offset: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Added to every number, instead of what MTD_MSI*.xml says; -1000 since baseline 04.00."),
    ] = None,
    b10: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Fill B10, which Level-2A does not have, with this reflectance x 10,000: 9.05, or 0."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the 14-band scene of Landslide4Sense from a Sentinel-2 product and a DEM.

    Bands b1 to b12 without B8A on the 10 m grid of B02, slope in degrees, elevation in metres, each divided by the
    organisers' mean. Next: `l4s scene predict OUT.tif --run RUN --normalise separated`.
    """
    from l4s.scene.sentinel2 import convert

    made = convert(bands, dem, out, order=order.split(",") if order else (), offset=offset, b10=b10)
    if json:
        show.as_json(made.as_dict())
        return
    words = [f"{made.height} x {made.width} pixels, {made.valid:.1%} valid", made.level]
    words += [f"baseline {made.baseline}" if made.baseline else "", f"offset {made.offset} ({made.offset_from})"]
    words += ["" if made.b10 is None else f"B10 filled with {made.b10:g}"]
    typer.echo(f"{out}: {', '.join(filter(None, words))}")
