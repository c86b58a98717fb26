"""One split's patches dealt out to parts, of which domains take some (Böhm 2022, 2 and Table A1)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from l4s.data.patch import PatchRef
from l4s.errors import DataError
from l4s.recipe import Parts


def take_parts(patches: Sequence[PatchRef], config: Parts) -> tuple[PatchRef, ...]:
    """The patches of the parts that are taken, in the order given, each with its part as its region.

    A part ends where its shares and those before it do, rounded down: 552 chips by 60, 20, 10 and 10 % are the paper's 331,
    110, 55 and 56.

    Raises:
        DataError: a part that is taken gets no patch.
    """
    order = np.arange(len(patches))
    if config.by == "random":
        order = np.random.default_rng(config.seed).permutation(len(patches))
    part = [""] * len(patches)
    first, share = 0, 0.0
    for name, own in config.shares.items():
        share += own
        last = min(int(share * len(patches) + 1e-6), len(patches))
        inner = order[first + (config.gap if first else 0) : last]
        if name in config.take and not len(inner):
            raise DataError(f"part {name!r} gets none of {len(patches)} patches: enlarge its share, or reduce the gap")
        for row in inner:
            part[row] = name
        first = last
    return tuple(replace(ref, region=part[row]) for row, ref in enumerate(patches) if part[row] in config.take)
