"""The chip files that Böhm 2022 works on (see `l4s.sar.upstream`), as chips that l4s reads."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from l4s import log
from l4s.data.labels import LABELS, write_labels
from l4s.errors import DataError
from l4s.sar.balance import HALF, balanced
from l4s.sar.layout import (
    POLARISATIONS,
    SIDES,
    VALID,
    amplitudes,
    band_names,
    covers,
    known,
    middle,
    write_image,
    write_mask,
)
from l4s.sar.manifest import Converted, identity, write_once
from l4s.sar.passes import Event, Passes, choose_passes, read_day
from l4s.sar.upstream import SUFFIX, Source, read_chip

LANDSLIDES = "ST::landslides"


@dataclass(frozen=True, eq=False)
class Pair:
    """An upstream chip as it is written.

    `image`: (4 visits, H, W) float32, bands in file order, NaN where nothing was measured. `mask`: (H, W) uint8
    {0, 1, 255}, 255 where no pass saw a pixel; where landslides are points, {0, 1}, because one says something of a whole
    chip.
    """

    source: Source
    image: np.ndarray
    passes: Passes
    mask: np.ndarray

    @property
    def landslide(self) -> float:
        """Share of the pixels that are landslide, in [0, 1]."""
        return float((self.mask == 1).mean())


def convert_chips(
    folder: Path, out: Path, event: Event, *, points: bool = False, positive_share: float | None = HALF, seed: int = 0
) -> Converted:
    """Write the chips of a folder as `out`/img, `out`/mask and `out`/sar.json, numbered from 1 in order of their names.

    Args:
        positive_share: keep all chips with landslides and as many without, drawn by `seed`, as make up this share (half in
            Böhm 2022, 2); None: keep all.
        points: `landslides` marks points, not outlines: `out`/labels.csv instead of masks.

    Raises:
        DataError: there are no chips, a chip lacks its metadata, is broken, differs in shape from the first, is covered by
            no pass, or lacks passes or landslides.
    """
    names = _names(folder)
    about = {
        "bands": list(band_names(event.visits)),
        "labels": "points" if points else "masks",
        "event": event.day.isoformat(),
        "visits": event.visits,
        "fewer": event.fewer,
        "valid": VALID,
        "positive_share": positive_share,
        "seed": seed,
    }
    files = [folder / f"{name}{suffix}" for name in names for suffix in (".npz", SUFFIX)]

    def fill(part: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, int]]:
        # what each chip holds is read once more to choose them
        every = (read_pair(folder, name, event, points) for name in _tracked(names, "landslides"))
        some = [True] * len(names) if positive_share is None else [pair.landslide > 0 for pair in every]
        kept = range(len(names)) if positive_share is None else balanced(some, positive_share, seed, str(folder))
        left = len(names) - len(kept)
        return _fill(part, folder, [names[k] for k in kept], event, points), {"balance": left} if left else {}

    return write_once(out, about, identity(files, folder), fill)


def _names(folder: Path) -> list[str]:
    """Names of the chips, in natural order."""
    if not folder.is_dir():
        raise DataError(f"the folder of chips {folder} does not exist")
    arrays = {path.name.removesuffix(".npz") for path in folder.glob("*.npz")}
    described = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")}
    if not arrays:
        raise DataError(f"{folder} holds no <id>.npz: give the folder chips_128x128 of a region")
    if alone := sorted(arrays ^ described):
        have, lack = (".npz", SUFFIX) if alone[0] in arrays else (SUFFIX, ".npz")
        raise DataError(f"{folder / alone[0]}{have} has no {alone[0]}{lack} beside it: unpack the chips again")
    return sorted(arrays, key=lambda name: (int(name) if name.isascii() and name.isdigit() else math.inf, name))


def _tracked(names: Sequence[str], text: str) -> Iterator[str]:
    return (names[k] for k in log.track(range(len(names)), text, len(names)))


def _fill(part: Path, folder: Path, names: Sequence[str], event: Event, points: bool) -> list[Mapping[str, Any]]:
    told: list[Mapping[str, Any]] = []
    rows: list[tuple[str, int, float, float]] = []
    shape: tuple[int, ...] | None = None
    for number, name in enumerate(_tracked(names, f"chips of {folder.name}"), 1):
        pair = read_pair(folder, name, event, points)
        shape = shape or pair.mask.shape
        if pair.mask.shape != shape:
            raise DataError(f"{folder / name}.npz has planes of {pair.mask.shape}, but {names[0]} of {shape}")
        write_image(part, number, pair.image)
        if points:
            rows.append((str(number), int(pair.mask.any()), *middle(pair.mask, pair.source.bounds)))
        else:
            write_mask(part, number, pair.mask)
        told.append(_told(number, pair))
    if points:
        write_labels(part / LABELS, rows)
    return told


def read_pair(folder: Path, name: str, event: Event, points: bool) -> Pair:
    """Read one upstream chip, and what of it is written.

    Raises:
        DataError: as in `read_chip`, `stack_passes` and `landslide_mask`.
    """
    chip, where = read_chip(folder, name), str(folder / name)
    image, passes = stack_passes(chip, event, where)
    mask = landslide_mask(chip, where)
    return Pair(chip, image, passes, mask if points else known(mask, image))


def _told(number: int, pair: Pair) -> Mapping[str, Any]:
    """What the manifest says of a chip."""
    dates = dict(zip(SIDES, map(list, pair.passes.dates), strict=True))
    place = {"bounds": list(pair.source.bounds)} if pair.source.bounds else {}
    crs = {"crs": pair.source.crs} if pair.source.crs else {}
    return {"id": number, "chip": pair.source.name, **dates, "landslide": pair.landslide, **place, **crs}


def stack_passes(chip: Source, event: Event, where: str) -> tuple[np.ndarray, Passes]:
    """The passes of a chip before and after an event, as bands in file order; NaN where there are fewer.

    A pass counts where it covers half of the chip (`covers`).

    Returns:
        (4 visits, H, W) float32, and which passes.

    Raises:
        DataError: a pass lacks a polarisation, none covers half of the chip, passes are missing, or a value is no amplitude.
    """
    days = _days(chip, where)
    seen = [day for day, at in days.items() if covers(np.isfinite(chip.planes[list(at.values())]).all(0))]
    if days and not seen:
        raise DataError(
            f"{where}: none of its {len(days)} passes has values of {' and '.join(POLARISATIONS)} in half of the pixels: "
            "take the chip away"
        )
    left = len(days) - len(seen)
    told = f"{where} (passes left out that cover less than half of it: {left})" if left else where
    passes = choose_passes(seen, event, told)
    image = np.full((4 * event.visits, *chip.planes.shape[1:]), np.nan, np.float32)
    for first, chosen in ((0, passes.pre), (2 * event.visits, passes.post)):
        for visit, k in enumerate(chosen):
            for channel, name in enumerate(POLARISATIONS):
                image[first + 2 * visit + channel] = amplitudes(chip.planes[days[seen[k]][name]], where)
    return image, passes


def _days(chip: Source, where: str) -> dict[date, dict[str, int]]:
    """Where VV and VH of each pass are among the planes."""
    found: dict[date, dict[str, int]] = {}
    for variable, k in chip.place.items():
        kind, *words = variable.split("::")
        if kind == "TS" and len(words) == 2 and words[0] in POLARISATIONS:
            found.setdefault(read_day(words[1], where), {})[words[0]] = k
    for day, planes in found.items():
        if missing := [name for name in POLARISATIONS if name not in planes]:
            raise DataError(f"{where} has no {missing[0]} for its pass of {day.isoformat()}, only {', '.join(planes)}")
    return found


def landslide_mask(chip: Source, where: str) -> np.ndarray:
    """Landslides of a chip, (H, W) uint8 {0, 1}: whatever is above 0, old ones that moved again with them.

    Raises:
        DataError: the chip has no such plane.
    """
    if LANDSLIDES not in chip.place:
        raise DataError(f"{where} has no {LANDSLIDES!r} among its {len(chip.place)} variables")
    return np.asarray(np.nan_to_num(chip.planes[chip.place[LANDSLIDES]]) > 0, np.uint8)
