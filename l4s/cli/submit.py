"""`l4s submit`: pack a zip as the competition asks for it, and prove it before it is uploaded."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from l4s.cli import show
from l4s.cli.board import add, board

app = typer.Typer(no_args_is_help=True, help="Pack and check submissions, and keep their scores.")


def register(root: typer.Typer) -> None:
    """Add the commands about submissions."""
    for command in (add, board):
        app.command()(command)
    root.add_typer(app, name="submit")


@app.command()
def pack(
    probs: Annotated[Path, typer.Argument(metavar="PROBS", help="A ProbFile, or a run: its last ensemble is packed.")],
    out: Annotated[Path, typer.Option(help="The .zip to write; its card is written beside it.")],
    threshold: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="NUMBER|heldout|expected_f1",
            help="Landslide from here on; heldout: where a run's F1 on its held-out sources is highest; expected_f1: where F1 would "
            "be highest if the probabilities were true. Default: the run's own, else 0.5.",
        ),
    ] = None,
    min_area: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Drop landslides of fewer pixels; default the run's own, else 0."),
    ] = None,
    domain: Annotated[Optional[str], typer.Option(help="Of a run: which domain.")] = None,  # noqa: UP045
    tta: Annotated[Optional[str], typer.Option(help="Of a run: which test-time augmentation.")] = None,  # noqa: UP045
    round_: Annotated[int | None, typer.Option("--round", min=0, help="Of a run: default the last finished.")] = None,  # noqa: UP045
    group: Annotated[Optional[str], typer.Option(help="Of a run with several ensembles: which.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Cut masks from probabilities and pack them; equal probabilities give equal bytes."""
    from l4s.entry import pack_entry
    from l4s.plan import Choice

    card = pack_entry(probs, out, Choice(domain, tta, round_, group), show.threshold(threshold), min_area).as_dict()
    if json:
        show.as_json(card)
        return
    facts = card.pop("facts")
    show.table(str(out), ("", "card"), [(key, str(value)) for key, value in (card | facts).items()], names=2)


@app.command()
def check(
    zip_: Annotated[Path, typer.Argument(metavar="ZIP", help="The submission.")],
    ids_from: Annotated[Optional[Path], typer.Option(help="A ProbFile whose patches must all be there.")] = None,  # noqa: UP045
    images: Annotated[Optional[Path], typer.Option(help="A folder of image_N.h5, likewise.")] = None,  # noqa: UP045
    shape: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Height x width of every mask, or `any`; default that of the patches named, else 128x128."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove that a zip is a submission; exit code 1 where it is not."""
    if ids_from and images:
        raise typer.BadParameter("give --ids-from or --images, not both")
    from l4s.entry import check_entry

    report = check_entry(zip_, ids_from, images and show.there(images), shape)
    if json:
        show.as_json({**vars(report), "ok": report.ok})
    else:
        findings = [("error", text) for text in report.errors] + [("warning", text) for text in report.warnings]
        verdict = "sound" if report.ok else "not a submission"
        title = f"{zip_.name}: {verdict}, {report.patches} sound masks, {report.positive_share:.2%} of pixels landslide"
        show.table(title, ("", "finding"), findings or [("ok", "nothing to report")], names=2)
    raise typer.Exit(0 if report.ok else 1)
