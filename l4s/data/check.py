"""Everything wrong with a folder of patches, in one go: what `l4s data check` prints.

Files are inspected in parallel and none of them stops the check; `l4s.data.faults` holds the rules.
"""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from l4s.data.bands import Bands, unnamed_bands
from l4s.data.cache import Track
from l4s.data.facts import Facts, image_facts, mask_facts, picture_facts
from l4s.data.faults import KINDS, SEVERITIES, Fault, Severity, duplicates, split_faults
from l4s.data.patch import IGNORED, PatchRef
from l4s.data.pictures import CHANNELS, reads_dem
from l4s.data.readers import find_patches
from l4s.data.scale import CONSTANT, Scale, Values, guess_scales
from l4s.data.scan import Scan, Split, scan
from l4s.data.stats import pool
from l4s.errors import DataError

COLOURS = ("r", "g", "b")  # what the channels of pictures are called where nobody names them
FEW = 200  # files: starting processes would take longer than reading them


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one split: `files` are the faulty files below the data folder, each with its detail."""

    severity: Severity
    kind: str
    where: str
    details: tuple[str, ...]
    files: Mapping[str, str]
    remedy: str


@dataclass(frozen=True)
class BandSummary:
    """One band over all sound patches of a split, in file units, and the scale it looks like."""

    values: Values
    scale: Scale


@dataclass(frozen=True)
class SplitSummary:
    """Counts of a split (or of a region in it); `landslide` is the share of labelled pixels, None without masks."""

    where: str
    named: str
    images: int
    masks: int
    landslide: float | None
    without_landslide: int
    size: tuple[int, ...] = ()
    channels: int = 0
    dtypes: tuple[str, ...] = ()
    bands: tuple[BandSummary, ...] = ()
    regions: Mapping[str, "SplitSummary"] | None = None


@dataclass(frozen=True)
class FolderReport:
    """What `check_folder` found: an error makes it not ok. `looked` counts the files that it read, by what they are."""

    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]
    looked: Mapping[str, int]

    @property
    def ok(self) -> bool:
        return all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {"ok": self.ok, **asdict(self)}


def check_folder(
    root: Path,
    *,
    bands: Bands | None = None,
    workers: int = 0,
    track: Track | None = None,
    regions: Mapping[str, tuple[int, int]] = {},
) -> FolderReport:
    """Inspect every patch below `root`, HDF5 or picture, whatever its layout, and report everything that is wrong.

    Pictures are read by their reader, and its errors are collected; where their split is drawn, it is that of seed 0.

    Args:
        bands: the bands of the files; None takes the number that most files of a split have.
        workers: processes that read files; up to 1 reads in this one.
        track: wraps an iterable with a progress display (iterable, description, total).
        regions: name -> inclusive range of ids, for shares by region.

    Raises:
        DataError: `root` is not a folder.
    """
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist; name the folder of the unpacked data")
    found = scan(root)
    facts = _inspect(found, bands, workers, track)
    faults = [Fault(*fault) for fault in found.faults]
    summaries = []
    for split in found.splits.values():
        names = _names(split, facts, bands)
        faults += split_faults(split, facts, names, len(names))
        faults += _outside(split, regions)
        faults += _without_dem(split, bands)
        summaries.append(_summary(split, facts, names, regions))
    faults += duplicates(tuple(found.splits.values()), facts, root)
    faults += _across(summaries)
    faults += _refused(root, found, faults)
    return FolderReport(tuple(summaries), _grouped(root, faults), _looked(tuple(found.splits.values())))


def _looked(splits: Sequence[Split]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for split in splits:
        kinds = ("pictures", "masks of pictures") if split.pictures else ("image_N.h5", "mask_N.h5")
        counts.update(dict(zip((*kinds, "DEMs"), map(len, (split.images, split.masks, split.dems)), strict=True)))
    return {kind: number for kind, number in counts.items() if number}


Job = tuple[Callable[[Path, int | None], Facts], Path] | PatchRef
"""An HDF5 file and what is made of it, or a picture with what lies beside it."""


def _inspect(found: Scan, bands: Bands | None, workers: int, track: Track | None) -> dict[Path, Facts]:
    splits = found.splits.values()
    jobs: list[Job] = [(image_facts, path) for s in splits if not s.pictures for path in s.images.values()]
    jobs += [(mask_facts, path) for s in splits if not s.pictures for path in s.masks.values()]
    jobs += [ref for s in splits for ref in s.pictures]
    steps = (track or (lambda items, _text, _total: items))(range(len(jobs)), "check", len(jobs))
    if workers <= 1 or len(jobs) < FEW:
        results = (_facts(job, bands) for job in jobs)
        return {fact.path: fact for _, facts in zip(steps, results, strict=True) for fact in facts}
    # HDF5 is one thread at a time, so processes; spawned, because HDF5 does not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool_:
        made = pool_.map(_facts, jobs, repeat(bands), chunksize=16)
        return {fact.path: fact for _, facts in zip(steps, made, strict=True) for fact in facts}


def _facts(job: Job, bands: Bands | None) -> tuple[Facts, ...]:
    if isinstance(job, PatchRef):
        return picture_facts(job)
    read, path = job
    return (read(path, len(bands.file) if bands else None),)


def _usual_bands(split: Split, facts: Mapping[Path, Facts]) -> int:
    counts = Counter(facts[path].bands for path in split.images.values() if not facts[path].fault)
    return counts.most_common(1)[0][0] if counts else 0


def _names(split: Split, facts: Mapping[Path, Facts], bands: Bands | None) -> tuple[str, ...]:
    """The bands that the files of a split should have; what pictures have behind their colours is the DEM."""
    if split.pictures:
        file = bands.file if bands else COLOURS
        return file[:CHANNELS] if len(file) == CHANNELS + 1 else file
    if bands:
        return bands.file
    return unnamed_bands(_usual_bands(split, facts))


def _summary(
    split: Split, facts: Mapping[Path, Facts], names: Sequence[str], regions: Mapping[str, tuple[int, int]]
) -> SplitSummary:
    images = [facts[path] for path in split.images.values() if not facts[path].fault]
    sound = [fact for fact in images if fact.bands == len(names)]
    sizes = Counter(fact.size for fact in images).most_common()
    vary = split.pictures and len(sizes) > 1
    return SplitSummary(
        where=split.where,
        named=split.named,
        **_counts(split, facts),
        size=sizes[0][0] if sizes and not vary else (),
        channels=len(names),
        dtypes=tuple(sorted({fact.dtype for fact in images} - {""})),
        bands=_bands(sound, names),
        regions={
            name: SplitSummary(part.where, part.named, **_counts(part, facts))
            for name, part in ((name, _within(split, ids)) for name, ids in regions.items())
            if part.images or part.masks
        },
    )


def _counts(split: Split, facts: Mapping[Path, Facts]) -> dict[str, Any]:
    masks = [facts[path] for path in split.masks.values() if not facts[path].fault]
    empty = [facts[split.images[number]] for number in split.background]
    labelled = sum(number for mask in masks for value, number in mask.values.items() if value != IGNORED)
    labelled += sum(prod(fact.size) for fact in empty if not fact.fault)
    landslide = sum(mask.values.get(1, 0) for mask in masks)
    return {
        "images": len(split.images),
        "masks": len(split.masks),
        "landslide": landslide / labelled if labelled else None,
        "without_landslide": len(empty) + sum(set(mask.values) == {0} for mask in masks),
    }


def _within(split: Split, ids: tuple[int, int]) -> Split:
    inside = range(ids[0], ids[1] + 1)
    images, masks = ({k: p for k, p in side.items() if k in inside} for side in (split.images, split.masks))
    return Split(split.where, images, masks, tuple(ref for ref in split.pictures if ref.number in inside))


def _bands(images: Sequence[Facts], names: Sequence[str]) -> tuple[BandSummary, ...]:
    """Pooled values of each band; a band without a valid pixel in any patch is left out."""
    if not images:
        return ()
    moments = np.stack([fact.moments for fact in images], axis=1)
    there = [k for k in range(len(names)) if moments[0, :, k].any()]
    mean, std = pool(moments[:, :, there])
    low = np.nanmin([fact.low[there] for fact in images], axis=0)
    high = np.nanmax([fact.high[there] for fact in images], axis=0)
    whole = np.all([fact.whole[there] for fact in images], axis=0)
    values = [
        Values(names[k], float(mean[row]), float(std[row]), float(low[row]), float(high[row]), bool(whole[row]))
        for row, k in enumerate(there)
    ]
    return tuple(map(BandSummary, values, guess_scales(values)))


def _outside(split: Split, regions: Mapping[str, tuple[int, int]]) -> Iterator[Fault]:
    for number, path in split.images.items() if regions else ():
        if not any(first <= number <= last for first, last in regions.values()):
            yield Fault("outside all regions", split.where, path)


def _without_dem(split: Split, bands: Bands | None) -> Iterator[Fault]:
    """Pictures whose DEM the bands name and is not there, or that have none where others have one."""
    wanted = bands is not None and len(bands.file) == CHANNELS + 1 and reads_dem(bands)
    for number in sorted(split.images.keys() - split.dems.keys()) if split.pictures and (wanted or split.dems) else ():
        yield Fault("missing DEM" if wanted else "image without DEM", split.where, split.images[number])


def _across(splits: Sequence[SplitSummary]) -> Iterator[Fault]:
    """Splits of one data set (folders side by side) that do not go together."""
    firsts: dict[Path, SplitSummary] = {}
    for other in (split for split in splits if split.bands):
        first = firsts.setdefault(Path(other.where).parent, other)
        if other.channels != first.channels:
            detail = f"{other.channels} bands, {first.where} has {first.channels}"
            yield Fault("band counts differ", other.where, None, detail)
            continue
        known = {band.values.name: band.scale.name for band in first.bands if band.scale.name != CONSTANT}
        for band in other.bands:
            name, scale = band.values.name, band.scale.name
            if scale not in (CONSTANT, known.get(name, scale)):
                yield Fault("scale differs", other.where, None, f"{name} looks {scale}, in {first.where} {known[name]}")


def _refused(root: Path, found: Scan, faults: Sequence[Fault]) -> Iterator[Fault]:
    """Where the rules found no error, the reader has the last word: it must find the same patches."""
    unread = any(fault.kind == "refused by the reader" for fault in faults)
    if not unread and not any(split.images for split in found.splits.values()):
        zips = ", ".join(path.name for path in sorted(root.rglob("*.zip"))[:4])
        packed = f"; there is {zips}, still packed" if zips else ""
        yield Fault("empty", ".", None, f"{root} holds no image_N.h5 and no pictures{packed}")
    faulty = {fault.where for fault in faults if KINDS[fault.kind][0] == "error"}
    for where, split in found.splits.items():
        if where in faulty or not split.images or split.pictures:  # which their reader has found
            continue
        folder = Path(where)
        try:
            refs = find_patches(root / folder.parent, folder.name or ".")
        except DataError as error:
            yield Fault("refused by the reader", where, None, str(error))
            continue
        if len(refs) != len(split.images) or sum(ref.mask is not None for ref in refs) != len(split.masks):
            yield Fault("refused by the reader", where, None, f"it finds {len(refs)} patches, not {len(split.images)}")


def _grouped(root: Path, faults: Sequence[Fault]) -> tuple[Finding, ...]:
    """Faults of one kind in one split together; errors first, then in the order of `KINDS`."""
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((fault.kind, fault.where), []).append(fault)
    kinds = list(KINDS)
    order = sorted(groups, key=lambda key: (SEVERITIES.index(KINDS[key[0]][0]), kinds.index(key[0]), key[1]))
    return tuple(_finding(root, kind, where, groups[kind, where]) for kind, where in order)


def _finding(root: Path, kind: str, where: str, faults: Sequence[Fault]) -> Finding:
    severity, remedy = KINDS[kind]
    files = {_below(root, fault.path): fault.detail for fault in faults if fault.path}
    details = tuple(fault.detail for fault in faults if not fault.path and fault.detail)
    return Finding(severity, kind, where, details, files, remedy)


def _below(root: Path, path: Path) -> str:
    """A file as seen from the data folder; the masks of one that is called `image` lie beside it."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
