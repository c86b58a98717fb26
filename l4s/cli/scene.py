"""`l4s scene`: whole GeoTIFFs."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from l4s.cli import show
from l4s.cli.loop import MACHINE, Deterministic, Device, Precision
from l4s.cli.scene_vector import picture, place, polygons, score

WINDOWS = "Windows"

app = typer.Typer(no_args_is_help=True, help="Whole scenes: GeoTIFFs of any size, predicted by windows.")


def register(root: typer.Typer) -> None:
    """Add the commands about scenes."""
    for command in (polygons, place, score, picture):
        app.command()(command)
    root.add_typer(app, name="scene")


@app.command()
def predict(
    scene: Annotated[
        Path, typer.Argument(metavar="SCENE", help="A GeoTIFF (or any raster GDAL reads) with the run's bands.")
    ],
    run: Annotated[Path, typer.Option(help="The run that predicts it, such as runs/demo.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(
            metavar="OUT", help="The GeoTIFF to write; default <SCENE>-landslides.tif here.", show_default=False
        ),
    ] = None,
    round_: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--round", min=0, help="Which round of the run; default the last that is finished."),
    ] = None,
    group: Annotated[Optional[str], typer.Option(help="Which ensemble, of a run with several.")] = None,  # noqa: UP045
    normalise: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="separated: by the scene's own statistics; source: by those of the run's source patches; official or "
            "imagenet: by published ones. Default: as each member was trained."
        ),
    ] = None,
    tta: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="none, flip or d4; default: that of the run's ensembles."),
    ] = None,
    bands: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Names of the file's bands in file order, b4,b3,b2, where the file does not tell."),
    ] = None,
    threshold: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="NUMBER|heldout|expected_f1",
            help="Landslide from here on, for the mask; heldout: where the run's F1 on its held-out sources is highest; "
            "expected_f1: where F1 would be highest if the probabilities were true. Default: that of the run's submissions, else "
            "0.5.",
        ),
    ] = None,
    window: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1,
            help="Side in pixels; default that of the run's patches.",
            rich_help_panel=WINDOWS,
            show_default=False,
        ),
    ] = None,
    stride: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1,
            help="Pixels from one to the next; default half a window, or all of it where members answer once a window: their "
            "answer is written to the stride x stride pixels at its upper left corner.",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Windows at a time; default the run's predict.batch.", rich_help_panel=MACHINE),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            help="i/n: only the i-th of n parts of the rows; the last to finish joins.", rich_help_panel=MACHINE
        ),
    ] = "1/1",
    device: Device = "auto",
    precision: Precision = "auto",
    deterministic: Deterministic = False,
) -> None:
    """Predict a scene with a run's ensemble: a probability GeoTIFF, and beside it <OUT>-mask.tif.

    Of members whose scores are only ordered there is a mask with --threshold alone.

    Finished rows are kept in <OUT>.parts: the same command goes on where it stopped.
    """
    to = show.named(out or Path(f"{scene.stem}-landslides.tif"), *show.GEOTIFF)
    from l4s.scene.job import SceneUse, read_shard
    from l4s.scene.predict import predict_scene
    from l4s.session import Machine

    names = tuple(bands.split(",")) if bands else ()
    at = show.threshold(threshold)
    use = SceneUse(round_, group, normalise, tta, window, stride, batch, at, read_shard(shard), names)
    machine = Machine(device, precision, deterministic=deterministic)
    if made := predict_scene(run, scene, to, machine, use):
        typer.echo(made)


@app.command()
def mosaic(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The GeoTIFF whose parts lie in <OUT>.parts.")],
) -> None:
    """Join the parts that several shards have predicted."""
    from l4s.scene.parts import mosaic

    typer.echo(mosaic(out))
