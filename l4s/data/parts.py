"""One split's patches dealt out to parts, of which domains take some (Böhm 2022, 2 and Table A1)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from l4s import log
from l4s.data.patch import PatchRef
from l4s.data.readers import read_mask
from l4s.errors import DataError
from l4s.files import read_json, write_json
from l4s.recipe import Parts, fingerprint

FAR = 0.1  # share of patches with landslides by which a part may differ from the whole without a word


def take_parts(
    patches: Sequence[PatchRef],
    config: Parts,
    *,
    positive: Sequence[int] | None = None,
    ignore: Sequence[int] | None = None,
    cache: Path | None = None,
) -> tuple[PatchRef, ...]:
    """The patches of the parts that are taken, in the order given, each with its part as its region.

    A part ends where its shares and those before it do, rounded down: 552 chips by 60, 20, 10 and 10 % are the paper's 331,
    110, 55 and 56. Drawn parts have the whole's share of patches with landslides ("each of these datasets are also
    balanced"), to within a patch; where no label is known, all are drawn alike. This reads masks of targets, too, so
    that all domains of a split agree; nothing else is chosen by them.

    Args:
        positive, ignore: values of masks, as in `read_mask`.
        cache: a folder to keep what masks say in, so that they are read once.

    Raises:
        DataError: a part that is taken gets no patch, or a mask is broken.
    """
    labels = with_landslides(patches, positive, ignore, cache)
    part = [""] * len(patches)
    for name, rows in _dealt(_order(labels, config), config).items():
        if name in config.take and not len(rows):
            raise DataError(f"part {name!r} gets none of {len(patches)} patches: enlarge its share, or reduce the gap")
        for row in rows:
            part[row] = name
    if config.by == "blocks":
        _warn_of_imbalance(labels, part)
    return tuple(replace(ref, region=part[row]) for row, ref in enumerate(patches) if part[row] in config.take)


def with_landslides(
    patches: Sequence[PatchRef], positive: Sequence[int] | None, ignore: Sequence[int] | None, cache: Path | None
) -> list[bool | None]:
    """Does each patch hold a landslide? From its label, else from its mask; None where neither is known."""
    found = [bool(ref.label) if ref.background or ref.label is not None else None for ref in patches]
    rows = [row for row, ref in enumerate(patches) if found[row] is None and ref.mask]
    for row, some in zip(rows, _read([patches[row] for row in rows], positive, ignore, cache), strict=True):
        found[row] = some
    return found


def _read(
    refs: Sequence[PatchRef], positive: Sequence[int] | None, ignore: Sequence[int] | None, cache: Path | None
) -> list[bool]:
    """What masks say; kept in the cache, because several domains ask about the same thousands at every command."""
    files = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for ref in refs if (path := ref.mask)]
    known = cache / f"landslides-{fingerprint([files, positive, ignore])}.json" if cache and refs else None
    if known and known.is_file():
        return list(read_json(known)["landslides"])
    found = [bool((read_mask(ref, positive, ignore) == 1).any()) for ref in refs]
    if known:
        write_json(known, {"landslides": found})
    return found


def _order(labels: Sequence[bool | None], config: Parts) -> np.ndarray:
    """The rows in the order they are dealt out in: drawn, but any stretch has the labels' shares; or as they are."""
    if config.by == "blocks":
        return np.arange(len(labels))
    drawn = np.random.default_rng(config.seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in set(labels):
        own = [row for row in drawn.tolist() if labels[row] == label]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)  # each label's patches, evenly over the whole
    return np.asarray(drawn[np.argsort(place[drawn], kind="stable")])


def _dealt(order: np.ndarray, config: Parts) -> dict[str, list[int]]:
    """Rows by part."""
    rows: dict[str, list[int]] = {}
    first, share = 0, 0.0
    for name, own in config.shares.items():
        share += own
        last = min(int(share * len(order) + 1e-6), len(order))
        rows[name] = order[first + (config.gap if first else 0) : last].tolist()
        first = last
    return rows


def _warn_of_imbalance(labels: Sequence[bool | None], part: Sequence[str]) -> None:
    known = [(name, label) for name, label in zip(part, labels, strict=True) if name and label is not None]
    if not known:
        return
    whole = float(np.mean([label for _, label in known]))
    shares = {
        name: float(np.mean([label for own, label in known if own == name])) for name in dict.fromkeys(part) if name
    }
    if any(abs(share - whole) > FAR for share in shares.values()):
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        log.warn(
            f"parts by blocks differ in their share of patches with landslides: {told}; by = 'random' balances them"
        )
