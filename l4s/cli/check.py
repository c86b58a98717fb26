"""`l4s data check`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from l4s.cli import show

if TYPE_CHECKING:
    from l4s.data.bands import Bands
    from l4s.data.check import Finding, FolderReport, SplitSummary

FILES_SHOWN = 4
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder, in any layout.")],
    bands: Annotated[Optional[str], typer.Option(help="Names of the bands in file order: b4,b3,b2.")] = None,  # noqa: UP045
    recipe: Annotated[Optional[str], typer.Option(help="Take the bands from this recipe.")] = None,  # noqa: UP045
    regions: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="NAME=FIRST-LAST", help="A region to count apart: name=first-last, by id. May be repeated."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read files; 0: one for each core.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: every file, not the first few.")] = False,
) -> None:
    """Find everything that is wrong with a folder of patches, HDF5 or pictures; exit code 1 where there is an error."""
    import os

    from l4s import log
    from l4s.data.check import check_folder
    from l4s.data.regions import read_regions

    report = check_folder(
        show.there(folder),
        bands=_bands(bands, recipe),
        workers=workers or os.cpu_count() or 1,
        track=log.track,
        regions=read_regions(regions or []),
    )
    if json:
        show.as_json(report.as_dict())
    else:
        _print(folder, report)
    raise typer.Exit(0 if report.ok else 1)


def _bands(names: str | None, recipe: str | None) -> "Bands | None":
    from l4s.load import load_recipe

    if names and recipe:
        raise typer.BadParameter("--bands and --recipe both name bands: give one of them")
    if recipe:
        return load_recipe(recipe).bands
    return show.bands(names)


def _print(folder: Path, report: "FolderReport") -> None:
    rows = []
    for split in report.splits:
        rows.append(_row(split, f"{split.where} ({split.named})" if split.named else split.where))
        rows += [_row(region, f"  {name}") for name, region in (split.regions or {}).items()]
    header = ("split", "size", "type", "images", "masks", "landslide", "masks without")
    show.table(str(folder), header, rows, names=3)
    for line in (line for split in report.splits for line in _scales(split)):
        typer.echo(line)
    for finding in report.findings:
        typer.echo(f"{show.coloured(finding.severity, COLOURS[finding.severity])} {_sentence(finding)}")
    looked = ", ".join(f"{number} {kind}" for kind, number in report.looked.items()) or "nothing"
    typer.echo(f"looked at {looked}")
    counts = {name: sum(each.severity == name for each in report.findings) for name in COLOURS}
    typer.echo(", ".join(f"{number} {name}{'s' * (number != 1)}" for name, number in counts.items()))


def _row(split: "SplitSummary", label: str) -> tuple[str, ...]:
    share = "" if split.landslide is None else f"{split.landslide:.2%}"
    size = " x ".join(map(str, (*split.size, split.channels))) if split.size else ""
    without = str(split.without_landslide) if split.masks else ""
    return label, size, ", ".join(split.dtypes), str(split.images), str(split.masks), share, without


def _scales(split: "SplitSummary") -> list[str]:
    """One line for each scale that bands of a split look like, with the reason for the first of them."""
    groups: dict[str, list[str]] = {}
    why: dict[str, str] = {}
    for band in split.bands:
        groups.setdefault(band.scale.name, []).append(band.values.name)
        why.setdefault(band.scale.name, f"{band.values.name}: {band.scale.why}")
    return [f"{split.where}: {', '.join(names)} look {scale} ({why[scale]})" for scale, names in groups.items()]


def _sentence(finding: "Finding") -> str:
    """Where, what, which files (the first few), and what to do."""
    files = [f"{name} ({detail})" if detail else name for name, detail in finding.files.items()]
    more = f" and {len(files) - FILES_SHOWN} more" if files[FILES_SHOWN:] else ""
    parts = [*finding.details, *([", ".join(files[:FILES_SHOWN]) + more] if files else [])]
    count = f" ({len(files)})" if len(files) > 1 else ""
    what = f": {'; '.join(parts)}" if parts else ""
    return f"{finding.where}: {finding.kind}{count}{what}. {finding.remedy[0].upper()}{finding.remedy[1:]}."
