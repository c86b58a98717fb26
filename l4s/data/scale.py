"""Which value scale a band seems to be stored in, and why.

The official release holds digital numbers divided by one mean per band, which its documents do not say, and
mirrors hold other scales under the same names. A scale is told from a band's range; where a range fits several scales,
the one that most bands of the data set fit decides.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from l4s.data.bands import L4S_BANDS

# fmt: off
ORGANISERS_MEAN = dict(zip(L4S_BANDS, (
    1111.81236406, 824.63171476, 663.41636217, 445.17289745, 645.8582926, 1547.73508126, 1960.44401001, 1941.32229668,
    674.07572865, 9.04787384, 1113.98338755, 519.90397929, 20.29228266, 772.83144788,
), strict=True))
# fmt: on
"""What the organisers divided each band by (issues 2 and 4 of their repository): raw = stored * mean."""

OFFICIAL = "divided by the organisers' mean (official release)"
RAW = "raw digital numbers"
BYTES = "8-bit 0-255"
STANDARDISED = "already standardised"
UNIT = "reflectance 0-1, or scaled to it"
CONSTANT = "constant"
UNKNOWN = "unknown"

SMALL = 100.0  # bands whose raw mean is below this (cirrus, slope) can be raw without leaving 0-255
NEAR = 5.0  # a mean this many times smaller or larger than the expected one is still like it


@dataclass(frozen=True)
class Values:
    """What the pixels of one band are like, over all patches of a split: `whole` says that no value has decimals."""

    name: str
    mean: float
    std: float
    low: float
    high: float
    whole: bool


@dataclass(frozen=True)
class Scale:
    """The scale that a band looks like, and what makes it look so."""

    name: str
    why: str


def guess_scales(bands: Sequence[Values]) -> tuple[Scale, ...]:
    """The scale of each band; a band that fits several takes the one that most bands fit."""
    fits = [_fits(band) for band in bands]
    votes = Counter(name for each in fits for name in each)
    return tuple(_choose(band, each, votes) for band, each in zip(bands, fits, strict=True))


def _choose(band: Values, fits: dict[str, str], votes: Counter[str]) -> Scale:
    decimals = "whole numbers" if band.whole else "decimals"
    seen = f"mean {band.mean:.4g}, std {band.std:.3g}, {band.low:.4g} to {band.high:.4g}, {decimals}"
    if band.low == band.high:
        return Scale(CONSTANT, f"every pixel is {band.low:.4g}")
    if not fits:
        return Scale(UNKNOWN, f"{seen}: fits no scale known here")
    name = max(fits, key=lambda each: votes[each])  # the first in the order of `_fits` where votes are equal
    return Scale(name, f"{seen}: {fits[name]}")


def _fits(band: Values) -> dict[str, str]:
    """Scales that this band could be stored in, each with its reason."""
    fits: dict[str, str] = {}
    expected = ORGANISERS_MEAN.get(band.name)
    if band.low == band.high:
        return fits
    if band.low < 0 and abs(band.mean) <= 1 and 0.1 <= band.std <= 3:
        fits[STANDARDISED] = "negative values, mean near 0 and standard deviation near 1"
    if band.whole and band.low >= 0 and 1 < band.high <= 255:
        fits[BYTES] = "whole numbers up to 255"
    if band.low >= 0 and (band.high <= 1 or (band.high <= 2 and band.mean <= 0.5)):
        fits[UNIT] = "not negative and not over 1, but for bright spots"
    if expected and not band.whole and band.low >= 0 and 1 / NEAR <= band.mean <= NEAR and band.high > 1:
        fits[OFFICIAL] = "a mean near 1, as division by a mean leaves it"
    if band.high > 255:
        fits[RAW] = "values over 255"
    elif expected and expected < SMALL and expected / NEAR <= band.mean <= expected * NEAR:
        fits[RAW] = f"a mean like the organisers' raw {expected:.3g}"
    return fits
