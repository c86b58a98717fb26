"""`l4s scene polygons | place | score | picture`: what comes of a scene's probabilities."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from l4s.cli import show

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Threshold = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        help="Values from here on are landslide; default 0.5 of probabilities, none of scores that are only ordered."
    ),
]
LABELS = ("pixels", "F1", "P", "R", "IoU", "mean IoU", "accuracy", "AP", "AUROC", "oracle F1", "found", "true")


def polygons(
    probs: Annotated[Path, typer.Argument(metavar="PROB.tif", help="What `l4s scene predict` wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .gpkg or .geojson to write.")],
    threshold: Threshold = None,
    min_area: Annotated[float, typer.Option(min=0, help="Leave smaller landslides out; square metres.")] = 0.0,
    simplify: Annotated[float, typer.Option(min=0, help="Move outlines by up to this many metres.")] = 0.0,
    mask: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A mask raster that says what is landslide, in place of the threshold: <PROB>-mask.tif."),
    ] = None,
    json: Json = False,
) -> None:
    """Landslides as polygons with area, mean and maximum probability, in the CRS of the raster.

    A landslide is a set of pixels that share edges. Areas are those of the pixels, also where outlines are simplified.
    """
    from l4s.scene.polygons import write_polygons

    found = write_polygons(probs, out, threshold=threshold, min_area=min_area, simplify=simplify, mask=mask)
    if json:
        area = {"area_m2" if found.metric else "area": found.area}
        show.as_json({"landslides": found.landslides, "pixels": found.pixels} | area)
        return
    area_told = _area(found.area) if found.metric else f"area {found.area:.10g} in squared units of the file"
    typer.echo(f"{out}: {found.landslides} landslides, {found.pixels} pixels, {area_told}")


def _area(square_metres: float) -> str:
    """The same in the units that such areas are spoken of in."""
    return f"{square_metres / 1e6:.3g} km² ({square_metres / 1e4:.4g} ha)"


def place(
    probs: Annotated[Path, typer.Argument(metavar="PROBS.h5", help="A ProbFile of chips.")],
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="manifest.json of `l4s data chip`, or its folder.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.tif", help="A .tif to write.")],
) -> None:
    """Put the predictions of chips back on the map: a raster as `l4s scene predict` writes it."""
    show.named(out, *show.GEOTIFF)
    from l4s.scene.place import place as place_chips

    typer.echo(place_chips(probs, manifest, out))


def score(
    pred: Annotated[Path, typer.Argument(metavar="PRED.tif", help="Probabilities or a mask, as predict wrote them.")],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="A mask raster of the same grid, or polygons in any CRS.")
    ],
    threshold: Threshold = None,
    rows: Annotated[str, typer.Option(help="Score these rows alone, first:end.")] = "",
    columns: Annotated[str, typer.Option(help="Score these columns alone, first:end.")] = "",
    layer: Annotated[Optional[str], typer.Option(help="Layer of TRUTH, where it has several.")] = None,  # noqa: UP045
    json: Json = False,
) -> None:
    """Score a map over all pixels that it and the truth know.

    AP and the oracle threshold need probabilities; the oracle is chosen with the truth, so it is a bound, not a result.
    """
    from dataclasses import asdict

    from l4s.scene.score import score_scene

    found = score_scene(pred, truth, threshold=threshold, rows=rows, columns=columns, layer=layer)
    if json:
        show.as_json({key: value for key, value in asdict(found).items() if value is not None})
        return
    numbers = (found.f1, found.precision, found.recall, found.iou, found.mean_iou, found.accuracy)
    ranking = ["" if value is None else f"{value:.4f}" for value in (found.average_precision, found.auroc)]
    oracle = "" if found.oracle_f1 is None else f"{found.oracle_f1:.4f} at {found.oracle_threshold:.2f}"
    shares = [f"{share:.2%}" for share in (found.predicted_share, found.true_share)]
    at = "" if found.threshold is None else f" at threshold {found.threshold:g}"
    values = [str(found.pixels), *(f"{number:.4f}" for number in numbers), *ranking, oracle, *shares]
    show.facts(f"{pred.name} against {truth.name}{at}", zip(LABELS, values, strict=True))


def picture(
    scene: Annotated[Path, typer.Argument(metavar="SCENE", help="The scene.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="The picture to write.")],
    maps: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--map", help="A map of the scene to show beside it. May be repeated."),
    ] = None,
    truth: Annotated[Optional[Path], typer.Option(help="Polygons or a mask raster to show beside it.")] = None,  # noqa: UP045
    rows: Annotated[str, typer.Option(help="Only these rows of pixels: first:end.")] = "",
    columns: Annotated[str, typer.Option(help="Only these columns of pixels: first:end.")] = "",
    layer: Annotated[Optional[str], typer.Option(help="Layer of the truth, where it has several.")] = None,  # noqa: UP045
) -> None:
    """A scene, its truth and maps of it, side by side."""
    show.named(out, ".png")
    from l4s.scene.picture import draw_scene

    typer.echo(draw_scene(out, scene, maps or (), truth=truth, rows=rows, columns=columns, layer=layer))
