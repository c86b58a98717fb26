"""From a run or a ProbFile to a packed submission, and from a zip and a list of ids to its proof."""

from dataclasses import replace
from pathlib import Path

from l4s import log
from l4s.data.probs import open_probs
from l4s.data.readers import find_patches, patch_sides
from l4s.errors import DataError
from l4s.plan import Choice, find_ensemble, find_group, known_threshold, one_cell, read_plan, submission_facts
from l4s.recipe import Threshold
from l4s.score import threshold_of
from l4s.submit import CheckReport, SubmissionCard, check, submit

OFFICIAL_SIZE = (128, 128)
UNKNOWN_IDS = "whether every image has its mask is not proven: give --ids-from or --images"


def pack_entry(
    source: Path, out: Path, choice: Choice, threshold: Threshold | None = None, min_area: int | None = None
) -> SubmissionCard:
    """Pack a ProbFile, or the ensemble of a run that `choice` means, as a checked zip with its card.

    Args:
        source: a ProbFile, or a run directory.
        threshold: a number, "expected_f1" or "heldout"; None for that of the run's `[submit]`, or 0.5, or what scores are cut at.
            `min_area` likewise, or 0 pixels.

    Raises:
        RunError: the run has no such ensemble.
        DataError: the probabilities make no valid zip, or `choice` is given for a file.
    """
    if not source.is_dir():
        if choice != Choice():
            raise DataError(f"{source} is one ProbFile: a domain, tta, round or group can be chosen of a run only")
        probs = open_probs(source)
        at = threshold_of(probs, threshold)
        log.info(f"{source} knows no [submit]: cut at {at:.3g}, areas of {min_area or 0} pixels and more")
        return submit(probs, out, threshold=at, min_area=min_area or 0, facts={})
    plan = read_plan(one_cell(source))
    number, path = find_ensemble(plan, choice)
    probs, configured = open_probs(path), plan.recipe.submit
    if configured:
        threshold = configured.threshold if threshold is None else threshold
        min_area = configured.min_area if min_area is None else min_area
    group, tta = find_group(plan, number, choice.group), choice.tta or plan.recipe.ensemble_tta
    at, area = threshold_of(probs, known_threshold(plan, threshold, number, group, tta)), min_area or 0
    facts = submission_facts(plan, number, group, threshold=at, min_area=area, tta=choice.tta)
    if number < plan.last_round() and choice.round is None:
        log.warn(f"round {number} is packed: the run has not reached its last round {plan.last_round()} yet")
    return submit(probs, out, threshold=at, min_area=area, facts=facts)


def check_entry(zip_: Path, ids_from: Path | None, images: Path | None, shape: str | None) -> CheckReport:
    """Check a zip against the patches of a ProbFile or of a folder of images; without either, say what is not proven.

    Args:
        shape: of every mask, `128x128` for example, or `any`; None for that of the patches, or 128x128 without them.

    Raises:
        DataError: there is no zip, the ids cannot be read, or `shape` means nothing.
    """
    ids: tuple[str, ...] | None = None
    sizes: set[tuple[int, ...]] = {OFFICIAL_SIZE}
    if ids_from:
        probs = open_probs(ids_from)
        ids, sizes = probs.ids, set(probs.shapes)
    elif images:
        patches = find_patches(images, ".")
        ids, sizes = tuple(patch.id for patch in patches), {patch_sides(patch) for patch in patches}
    size = next(iter(sizes)) if len(sizes) == 1 else None
    wanted = size if shape is None else _shape(shape)
    if not zip_.is_file():
        raise DataError(f"there is no file {zip_}: give the submission's .zip")
    report = check(zip_, ids, wanted)
    return report if ids else replace(report, warnings=[*report.warnings, UNKNOWN_IDS])


def _shape(text: str) -> tuple[int, int] | None:
    if text == "any":
        return None
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise DataError(f"shape {text!r} is not height x width, such as 128x128, nor `any`")
    return int(height), int(width)
