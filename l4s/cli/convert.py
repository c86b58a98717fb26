"""`l4s data convert`: other people's products as scenes and chips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from l4s.cli import show

if TYPE_CHECKING:
    from l4s.sar.manifest import Converted

app = typer.Typer(
    no_args_is_help=True,
    help="Turn satellite products into scenes that a model can map, and chips of others into patches.",
)

EventDay = Annotated[str, typer.Option("--event", help="Day of the event: 2018-09-06. Passes on the day are left out.")]
Visits = Annotated[int, typer.Option(min=1, help="Passes to take before and after the event, the nearest first.")]
Fewer = Annotated[
    bool, typer.Option("--fewer", help="Take what is there where a chip has fewer passes; the rest is NaN.")
]
PointLabels = Annotated[
    bool, typer.Option("--points", help="`landslides` marks points, not outlines: labels.csv, no masks.")
]
PositiveShare = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--positive-share",
        help="Share of chips with landslides; others are drawn to fit.",
        show_default="0.5",
    ),
]
KeepAll = Annotated[bool, typer.Option("--keep-all", help="Keep all chips, however few of them hold landslides.")]
Seed = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--seed", min=0, help="Draws the chips without landslides that stay.", show_default="0"),
]
SarOut = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write: img, mask or labels.csv, sar.json.")]


@app.command()
def sentinel2(
    bands: Annotated[
        list[Path],
        typer.Argument(
            metavar="BANDS", help="The bands' files, a folder that holds them (a .SAFE), or one GeoTIFF of all bands."
        ),
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
    show.named(out, *show.GEOTIFF)
    from l4s.scene.sentinel2 import convert

    made = convert(bands, dem, out, order=order.split(",") if order else (), offset=offset, b10=b10)
    if json:
        show.as_json(made.as_dict())
        return
    words = [f"{made.height} x {made.width} pixels, {made.valid:.1%} valid", made.level]
    words += [f"baseline {made.baseline}" if made.baseline else "", f"offset {made.offset} ({made.offset_from})"]
    words += ["" if made.b10 is None else f"B10 filled with {made.b10:g}"]
    typer.echo(f"{out}: {', '.join(filter(None, words))}")


@app.command("sar-chips")
def sar_chips(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Chip files of a region: <id>.npz and <id>.metadata.pkl.")
    ],
    out: SarOut,
    event: EventDay,
    visits: Visits = 1,
    fewer: Fewer = False,
    points: PointLabels = False,
    positive_share: PositiveShare = None,
    keep_all: KeepAll = False,
    seed: Seed = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Radar chips as Böhm 2022 publishes them, as patches of VV and VH before and after an event.

    Their metadata are pickled; they are read without running anything. Bands are vv_pre_1, vh_pre_1, ... in file order.
    """
    from l4s.sar.chips import convert_chips
    from l4s.sar.passes import Event, read_day

    share, drawn = _balance(positive_share, keep_all, seed)
    wanted = Event(read_day(event, "--event"), visits, fewer)
    made = convert_chips(folder, out, wanted, points=points, positive_share=share, seed=drawn)
    _tell(made, json)


@app.command("sar-cube")
def sar_cube(
    cube: Annotated[
        Path, typer.Argument(metavar="CUBE.zarr", help="vv and vh over timestep, y, x; landslides over y, x.")
    ],
    out: SarOut,
    event: EventDay,
    visits: Visits = 1,
    fewer: Fewer = False,
    points: PointLabels = False,
    orbit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="a (ascending) or d (descending); default either, and a warning counts chips of both."),
    ] = None,
    positive_share: PositiveShare = None,
    keep_all: KeepAll = False,
    size: Annotated[int, typer.Option(min=1, help="Side of a chip, pixels.")] = 128,
    seed: Seed = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Cut a Zarr cube of radar passes into patches of VV and VH before and after an event; needs the extra `sar`."""
    from l4s.sar.cutting import Cutting, convert_cube
    from l4s.sar.passes import Event, read_day

    cutting = Cutting(size, *_balance(positive_share, keep_all, seed), orbit, points)
    made = convert_cube(cube, out, Event(read_day(event, "--event"), visits, fewer), cutting)
    _tell(made, json)


def _balance(positive_share: float | None, keep_all: bool, seed: int | None) -> tuple[float | None, int]:
    """The share of chips with landslides, None for any, and the seed that draws the others."""
    from l4s.sar.balance import HALF

    if keep_all and (positive_share is not None or seed is not None):
        raise typer.BadParameter("--keep-all draws nothing: leave --positive-share and --seed out")
    share = HALF if positive_share is None else positive_share
    return None if keep_all else share, seed or 0


def _tell(made: "Converted", json: bool) -> None:
    if json:
        show.as_json(made.as_dict())
        return
    left = ", ".join(f"{count} for {reason}" for reason, count in sorted((made.dropped or {}).items()))
    words = f"{made.chips} chips, {made.landslides} with landslides, {made.labels}" + (
        f"; left out: {left}" if left else ""
    )
    typer.echo(f"{made.folder}: {words}" + ("; nothing to do: they were there" if made.dropped is None else ""))
    typer.echo(f"bands: {', '.join(made.bands)}")
