"""`l4s score`: a prediction against the truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from l4s.cli import show

if TYPE_CHECKING:
    from l4s.score import ScoreRow

HEADER = (
    *("", "patches", "F1", "95 %", "P", "R", "IoU", "mean IoU", "accuracy"),
    *("AP", "label-free F1", "oracle F1", "found", "true"),
)
CUT = ("threshold", "f1", "iou", "mean_iou")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(score)


def score(
    pred: Annotated[
        Path, typer.Argument(metavar="PRED", help="Prediction: a zip, a folder of mask_N.h5, or a ProbFile.")
    ],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Truth: likewise.")],
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Values of a ProbFile from here on are landslide; default 0.5, or the quantile of scores that are only ordered."
        ),
    ] = None,
    regions: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="NAME=FIRST-LAST", help="A region to score apart: name=first-last, by id. May be repeated."
        ),
    ] = None,
    subset: Annotated[bool, typer.Option("--subset", help="Patches of the truth may be missing in PRED.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a prediction: F1, precision, recall, IoU of the landslide class over all pixels.

    Mean IoU is the mean of landslide and background. AP and other thresholds need probabilities: the label-free one is
    where F1 would be highest if the probabilities were true (expected_f1); the oracle is chosen with the truth, so it is a
    bound, not a result. Scores that are only ordered get thresholds of their own.
    """
    from l4s.compare import score_files
    from l4s.data.regions import read_regions
    from l4s.thresholds import EXPECTED_F1

    found = score_files(pred, truth, threshold=threshold, regions=read_regions(regions or []), allow_subset=subset)
    if json:
        show.as_json(found.as_dict())
        return
    at = "" if found.threshold is None else f" at threshold {found.threshold:g}"
    apart = found.regions if len(found.regions) > 1 else {}
    body = [line("all", found.pooled), *(line(name, row) for name, row in apart.items())]
    title = f"{pred.name} against {truth.name}{at}"
    if apart:
        show.table(title, HEADER, body)
    else:
        show.facts(title, zip(HEADER[1:], body[0][1:], strict=True))
    if found.pooled.cuts and EXPECTED_F1 not in found.pooled.cuts:
        sign = "" if found.pooled.auroc is None else f", AUROC {found.pooled.auroc:.4f}"
        rows = [[name, *(f"{row[key]:.4f}" for key in CUT)] for name, row in found.pooled.cuts.items()]
        show.table(f"scores by threshold{sign}", ("", *CUT), rows)


def line(name: str, row: "ScoreRow") -> list[str]:
    """One row of scores as text; what masks do not tell is left blank."""
    ap = "" if row.average_precision is None else f"{row.average_precision:.4f}"
    oracle = "" if row.oracle_f1 is None else f"{row.oracle_f1:.4f} at {row.oracle_threshold:.2f}"
    free = (row.cuts or {}).get("expected_f1")
    expected = "" if free is None else f"{free['f1']:.4f} at {free['threshold']:.2f}"
    interval = f"{row.f1_low:.4f} - {row.f1_high:.4f}"
    numbers = [f"{value:.4f}" for value in (row.precision, row.recall, row.iou, row.mean_iou, row.accuracy)]
    shares = [f"{share:.2%}" for share in (row.predicted_share, row.true_share)]
    return [name, str(row.patches), f"{row.f1:.4f}", interval, *numbers, ap, expected, oracle, *shares]
