"""`l4s data`: what lies in a folder of patches."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from l4s.cli import convert, show
from l4s.cli.check import check
from l4s.cli.chip import chip
from l4s.cli.split import split
from l4s.cli.synth import synth

if TYPE_CHECKING:
    from l4s.data.survey import Survey

Splits = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--split", help="train, validation, test or a folder below DIR; repeated. Default: what is there."),
]
BandNames = Annotated[Optional[str], typer.Option(help="Names of the bands in file order: b4,b3,b2.")]  # noqa: UP045
CLASSES = ("split", "patches", "empty", "landslide : background", "landslides", "area, 10 / 50 / 90 %")

app = typer.Typer(no_args_is_help=True, help="Look at data, or generate some.")


def register(root: typer.Typer) -> None:
    """Add the commands about data."""
    for command in (check, split, synth, chip):
        app.command()(command)
    app.add_typer(convert.app, name="convert")
    root.add_typer(app, name="data")


@app.command()
def stats(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder, or a folder of image_N.h5.")],
    splits: Splits = None,
    bands: BandNames = None,
    picture: Annotated[Optional[Path], typer.Option(help="Draw them: a .png to write.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Mean and standard deviation of each band, domains side by side.

    Shift: how far a domain's mean lies from the first domain's, in the first domain's standard deviations.
    """
    from l4s.data.survey import survey

    if picture:
        show.named(picture, ".png")
    named = show.bands(bands)
    surveys = survey(show.there(folder), splits or (), named)
    if picture:
        from l4s.plots import draw_statistics

        draw_statistics(picture, surveys)
    if json:
        show.as_json([each.as_dict(surveys[0]) for each in surveys])
        return
    show.table(str(folder), _header(surveys), [_line(surveys, band) for band in range(len(surveys[0].bands))])
    for each in surveys:
        typer.echo(f"{each.name}: {each.patches} patches, {each.labelled} with masks, statistics {each.hash}")


@app.command()
def classes(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder, or a folder of image_N.h5.")],
    splits: Splits = None,
    bands: BandNames = None,
    picture: Annotated[Optional[Path], typer.Option(help="Draw those of the first split: a .png to write.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How rare and how small landslides are: pixels of both classes, patches without any, areas in pixels."""
    from l4s.data.classes import count_classes
    from l4s.data.survey import detect_bands

    if bands and not picture:
        raise typer.BadParameter("--bands names what --picture draws: leave it out, or give --picture")
    if picture:
        show.named(picture, ".png")
    named = show.bands(bands)
    counted = count_classes(show.there(folder), splits or ())
    if picture:
        from l4s.plots import draw_classes

        draw_classes(picture, counted[0], named or detect_bands(counted[0].patches[0].image))
    if json:
        show.as_json([each.as_dict() for each in counted])
        return
    show.table(str(folder), CLASSES, [_classes(each.as_dict()) for each in counted])


def _classes(row: "dict[str, object]") -> list[str]:
    ratio, areas = row["ratio"], [row.get(f"area_p{share}") for share in (10, 50, 90)]
    cells = [
        row["name"],
        row["patches"],
        row["empty"],
        "none" if ratio is None else f"1 : {ratio:.1f}",
        row["landslides"],
    ]
    return [*map(str, cells), " / ".join(f"{area:.0f}" for area in areas if area is not None)]


def _header(surveys: "list[Survey]") -> list[str]:
    header = ["band"]
    for number, each in enumerate(surveys):
        header += [f"{each.name}\nmean ± sd"] + (["\nshift", "\nsd ratio"] if number else [])
        header += ["\nNaN"] if each.nan.any() else []
    return header


def _line(surveys: "list[Survey]", band: int) -> list[str]:
    first, cells = surveys[0], [surveys[0].bands[band]]
    for number, each in enumerate(surveys):
        cells.append(f"{each.mean[band]:.5g} ± {each.std[band]:.4g}")
        cells += [f"{each.shift(first)[band]:+.2f}", f"{each.ratio(first)[band]:.2f}"] if number else []
        cells += [f"{each.nan[band]:.2%}"] if each.nan.any() else []
    return cells
