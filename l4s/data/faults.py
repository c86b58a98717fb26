"""What can be wrong with a data folder: the kinds of findings, and the rules that find them.

Rules never stop at the first fault. Errors are what the readers, the cache or a fair score cannot live with; warnings
are worth a look; notes are facts that a person may want to know.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from l4s.data.facts import Facts
from l4s.data.scan import Split

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
RANGES_SHOWN = 4

KINDS: dict[str, tuple[Severity, str]] = {
    "empty": ("error", "unpack the images there, or name the folder that holds them"),
    "broken file": ("error", "download or unpack it again"),
    "wrong key": ("error", "store images under `img` and masks under `mask`"),
    "wrong type": ("error", "store images as integers or floats, masks as integers"),
    "wrong shape": ("error", "store images as (H, W, bands) and masks as (H, W)"),
    "wrong band count": ("error", "name the bands of the files (bands.file of the recipe), or make the file again"),
    "other size": ("error", "all patches of a domain have one size: cut or pad it, or move it to a folder of its own"),
    "mask of another size": ("error", "make the mask on the pixels of its image"),
    "infinite values": ("error", "write NaN for missing values"),
    "no valid pixel": ("error", "remove the patch"),
    "band without values": ("error", "leave the band out (bands.use), or write its values"),
    "stray mask value": ("error", "masks hold 0, 1 and 255 = ignore: convert it, or set `positive` or `ignore`"),
    "landslide as 255": ("error", "255 means ignore: set positive = [255] and ignore = [] for this domain"),
    "mask without image": ("error", "add the image or remove the mask"),
    "training image without mask": ("error", "add the mask, or use the patch as an unlabelled target"),
    "same id": ("error", "keep one of them"),
    "foreign file": ("error", "move it away: folders of patches hold image_N.h5 and mask_N.h5 only"),
    "two folders for one split": ("error", "keep one of them, or name the folder itself as `split`"),
    "duplicate across splits": ("error", "remove one: a score on the one is a score on what was trained on"),
    "refused by the reader": ("error", "put this right first"),
    "missing DEM": ("error", "add it, or leave the DEM out (bands.use)"),
    "in no list": ("warning", "they are in no split: list them in splits/*.txt, unless they are to be left out"),
    "image without DEM": ("warning", "a recipe that reads the DEM refuses it: add it"),
    "image without mask": ("warning", "it is used as unlabelled, and not scored"),
    "duplicate": ("warning", "remove one, unless it is meant to count twice"),
    "missing values": ("warning", "NaN is left out of the statistics and becomes the mean"),
    "blank image": ("warning", "every band is constant: probably no data"),
    "constant band": ("warning", "look whether the band is missing there"),
    "no landslide at all": ("warning", "no mask of this split marks a pixel: are these the right masks?"),
    "scale differs": ("warning", "train and predict on one scale, or normalise each domain by its own statistics"),
    "band counts differ": ("warning", "one recipe reads one list of bands"),
    "no masks": ("note", "the split can be a target, not a source"),
    "labels of patches": (
        "note",
        "a source for tasks that read one label a patch, a target for those that learn pixels",
    ),
    "patches without landslide": ("note", "their masks are all background"),
    "ignored pixels": ("note", "255 is left out of losses and scores"),
    "drawn split": ("note", "runs draw the same one; `l4s data split` saves it, or another"),
    "varying sizes": (
        "note",
        'a domain of them needs fit = { by = "resize", side = 256 } or { by = "pad", multiple = 32 }',
    ),
    "mixed types": ("note", "values are read as float32 all the same"),
    "gaps in ids": ("note", "nothing is missing if the release numbers its patches like that"),
    "outside all regions": ("note", "counted in no region"),
    "other file": ("note", "nothing reads it"),
}
"""Kind -> how bad it is, and what to do about it."""


class Fault(NamedTuple):
    """One fault of one file, or of a split where `path` is None."""

    kind: str
    where: str
    path: Path | None
    detail: str = ""


def split_faults(split: Split, facts: Mapping[Path, Facts], names: Sequence[str], count: int) -> Iterator[Fault]:
    """All faults of a split that has `count` bands, called `names`."""
    images = {number: facts[path] for number, path in split.images.items()}
    masks = {number: facts[path] for number, path in split.masks.items()}
    for fact in chain(images.values(), masks.values(), (facts[path] for path in split.dems.values())):
        if fact.fault:
            yield Fault(fact.fault[0], split.where, fact.path, fact.fault[1])
    sound = [fact for fact in images.values() if not fact.fault]
    sizes = Counter(fact.size for fact in sound).most_common()
    for fact in sound:
        usual = fact.size if split.pictures else sizes[0][0]  # pictures vary in size
        for kind, detail in _image_faults(fact, names, count, usual):
            yield Fault(kind, split.where, fact.path, detail)
    for number, fact in masks.items():
        if not fact.fault:
            for kind, detail in _mask_faults(fact, images.get(number)):
                yield Fault(kind, split.where, fact.path, detail)
    if split.pictures and len(sizes) > 1:
        yield Fault("varying sizes", split.where, None, _sides([fact.size for fact in sound]))
    yield from _pairing(split)
    full = [fact for fact in sound if fact.bands == count]
    if lost := _true(np.all([np.isnan(fact.low) for fact in full], axis=0)) if full else []:
        yield Fault("band without values", split.where, None, ", ".join(names[k] for k in lost))
    yield from _of_the_split(split, sound, [fact for fact in masks.values() if not fact.fault])


def _image_faults(fact: Facts, names: Sequence[str], count: int, usual: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    if fact.bands != count:
        yield "wrong band count", f"has {fact.bands} bands, not {count}"
        return
    if fact.size != usual:
        yield "other size", f"is {_size(fact.size)}, most are {_size(usual)}"
    if fact.infinite.any():
        yield "infinite values", f"infinite in {_listed(names, fact.infinite)}"
    if np.isnan(fact.low).all():
        yield "no valid pixel", "NaN or infinite everywhere"
        return
    if fact.nan.any():
        yield "missing values", f"NaN in {_listed(names, fact.nan)}"
    valid = ~np.isnan(fact.low)
    if fact.constant[valid].all():
        values = sorted(set(fact.low[valid].tolist()))
        yield "blank image", "all zero" if values == [0] else f"constant, {values[0]:g} to {values[-1]:g}"
    elif fact.constant.any():
        yield "constant band", ", ".join(f"{names[k]} is {fact.low[k]:g}" for k in _true(fact.constant))


def _mask_faults(mask: Facts, image: Facts | None) -> Iterator[tuple[str, str]]:
    if image is not None and not image.fault and mask.size != image.size:
        yield "mask of another size", f"is {_size(mask.size)}, its image {_size(image.size)}"
    if stray := [value for value in mask.values if value not in (0, 1, 255)]:
        yield "stray mask value", f"holds {', '.join(f'{value:g}' for value in stray[:8])}"
    elif set(mask.values) <= {0}:
        yield "patches without landslide", ""
    elif 255 in mask.values and 1 in mask.values:
        yield "ignored pixels", f"{mask.values[255] / sum(mask.values.values()):.1%}"


def _pairing(split: Split) -> Iterator[Fault]:
    for number in sorted(split.masks.keys() - split.images.keys()):
        yield Fault("mask without image", split.where, split.masks[number])
    lonely = sorted(split.images.keys() - split.masks.keys() - split.background) if split.masks else []
    kind = "training image without mask" if split.named == "train" else "image without mask"
    for number in lonely:
        yield Fault(kind, split.where, split.images[number])
    if split.labels:
        yield Fault("labels of patches", split.where, None, _labelled(split))
    elif split.images and not split.masks and not split.background:
        yield Fault("no masks", split.where, None)
    if not split.pictures and (gaps := _gaps(sorted(split.images))):
        yield Fault("gaps in ids", split.where, None, gaps)


def _of_the_split(split: Split, images: Sequence[Facts], masks: Sequence[Facts]) -> Iterator[Fault]:
    types = Counter(fact.dtype for fact in images)
    if len(types) > 1:
        counts = ", ".join(f"{number} {name}" for name, number in types.most_common())
        yield Fault("mixed types", split.where, None, counts)
    total: Counter[float] = Counter()
    for mask in masks:
        total.update(mask.values)
    if set(total) == {0, 255} or set(total) == {255}:
        yield Fault("landslide as 255", split.where, None, f"{len(masks)} masks hold 0 and 255, and none holds 1")
    elif masks and set(total) == {0}:
        yield Fault("no landslide at all", split.where, None, f"{len(masks)} masks hold 0 only")


def duplicates(splits: Sequence[Split], facts: Mapping[Path, Facts], root: Path) -> Iterator[Fault]:
    """Images with the pixels of another one; blank images are alike without being copies."""
    seen: dict[str, tuple[str, Path]] = {}
    for split in splits:
        for path in (split.images[number] for number in sorted(split.images)):
            fact = facts[path]
            if fact.fault or fact.constant.all() or np.isnan(fact.low).all():
                continue
            where, first = seen.setdefault(fact.digest, (split.where, path))
            if first != path:
                kind = "duplicate" if where == split.where else "duplicate across splits"
                yield Fault(kind, split.where, path, f"has the pixels of {first.relative_to(root)}")


def _labelled(split: Split) -> str:
    """How many patches a table labels, and how."""
    some = sum(split.labels.values())
    return f"labels.csv labels {len(split.labels)} of {len(split.images)} patches, {some} of them with landslides"


def _gaps(numbers: Sequence[int]) -> str:
    """Ids that are left out between the first and the last one."""
    ranges = [(a + 1, b - 1) for a, b in pairwise(numbers) if b - a > 1]
    missing = sum(last - first + 1 for first, last in ranges)
    shown = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:RANGES_SHOWN]]
    more = f" and {len(ranges) - RANGES_SHOWN} more ranges" if ranges[RANGES_SHOWN:] else ""
    return f"{missing} of ids {numbers[0]} to {numbers[-1]} do not exist: {', '.join(shown)}{more}" if ranges else ""


def _listed(names: Sequence[str], share: np.ndarray) -> str:
    by_share: dict[str, list[str]] = defaultdict(list)
    for k in _true(share > 0):
        by_share[f"{share[k]:.1%}"].append(names[k])
    alike = by_share.items()
    return ", ".join(f"{'all bands' if len(b) == len(names) else ' '.join(b)} ({s} of pixels)" for s, b in alike)


def _true(flags: np.ndarray) -> list[int]:
    """Positions that are true."""
    return [int(k) for k in np.flatnonzero(flags)]


def _sides(sizes: Sequence[tuple[int, ...]]) -> str:
    """From the least height and width to the greatest."""
    low, high = np.min(sizes, axis=0).tolist(), np.max(sizes, axis=0).tolist()
    return f"{_size(low)} to {_size(high)} pixels"


def _size(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
