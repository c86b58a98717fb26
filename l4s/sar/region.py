"""What makes one generated radar region differ from another: levels, looks, relief, geometry, and what is labelled."""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class SarRegion(BaseModel):
    """One generated region. The defaults resemble forested hills seen by Sentinel-1.

    Attributes:
        name: of its folder.
        seed, number: with the index of a chip, all that its content depends on besides the settings below.
        chips, size, visits: how many, pixels along each side, and passes before and after the event.
        strength: factor on how much landslides change backscatter, in decibels; 0 is not at all.
        level: added to the backscatter of all land cover, in decibels, for VV and VH.
        looks: equivalent number of looks; the intensity of a pixel is gamma distributed with this shape.
        incidence, heading: of the beam: degrees from the vertical, and where it looks to, from north over east.
        relief: how much of the brightening of slopes that face the sensor is left in the product, 0 to 1.
        slope, roughness: mean slope in degrees, factor on the fine relief.
        landslides: share of the chips that have any. positive: mean share of slide pixels in those.
        runout: median length of a slide in pixels.
        season: standard deviation of the change between before and after that a chip's land cover has in common, decibels.
        missing: chance that one of a chip's passes ends within it.
        points: landslides are known as points alone.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    seed: int = Field(default=0, ge=0)
    number: int = Field(default=0, ge=0)
    chips: int = Field(default=552, ge=0)
    size: int = Field(default=128, ge=16)
    visits: int = Field(default=5, ge=1)
    strength: float = Field(default=1.0, ge=0)
    level: tuple[float, float] = (0.0, 0.0)
    looks: float = Field(default=4.4, ge=0.5, le=100)
    incidence: float = Field(default=38.0, gt=15, lt=60)
    heading: float = 100.0
    relief: Share = 0.5
    slope: float = Field(default=20.0, gt=5, lt=60)
    roughness: float = Field(default=1.0, ge=0)
    landslides: Share = 0.5
    positive: Share = 0.064
    runout: float = Field(default=12.0, gt=0)
    season: float = Field(default=0.8, ge=0)
    missing: Share = 0.04
    points: bool = False


def two_regions(
    *, seed: int, chips: tuple[int, int], size: int, visits: int, strength: float
) -> tuple[SarRegion, SarRegion]:
    """Two regions as far from each other as the paper's in level and relief (Böhm 2022, 2; statistics of its released code).

    They have the names of the paper's, so that one recipe reads either. The second is darker, steeper, seen from the
    other side, smoother by its resampling, and its landslides are points.
    """
    first = SarRegion(
        name="hokkaido",
        number=0,
        chips=chips[0],
        level=(0.8, 0.6),
        seed=seed,
        size=size,
        visits=visits,
        strength=strength,
    )
    second = SarRegion(
        name="kaikoura",
        number=1,
        chips=chips[1],
        level=(-2.4, -3.2),
        looks=6.5,
        incidence=34.0,
        heading=280.0,
        relief=0.7,
        slope=27.0,
        roughness=1.4,
        runout=15.0,
        season=1.1,
        points=True,
        seed=seed,
        size=size,
        visits=visits,
        strength=strength,
    )
    return first, second


def with_landslides(region: SarRegion) -> np.ndarray:
    """Which chips have landslides, (chips,) bool: their share to the nearest chip, in an order that ids do not tell."""
    order = np.random.default_rng((region.seed, region.number, 2**20)).permutation(region.chips)
    return np.asarray(order < round(region.landslides * region.chips))
