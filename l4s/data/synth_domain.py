"""What makes one generated domain differ from another: terrain, sun, season, soil, haze, sensor, kind of event."""

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from l4s.errors import RecipeError

SPECTRAL = 12  # bands of Sentinel-2 in the release
HAZE = np.array([9.0, 7.5, 5.5, 4.2, 3.6, 2.8, 2.4, 2.2, 1.0, 0.0, 0.8, 0.5])  # shape of a haze offset over the bands
Share = Annotated[float, Field(ge=0, le=1)]
PerBand = Annotated[tuple[float, ...], Field(min_length=SPECTRAL, max_length=SPECTRAL)]


class SynthDomain(BaseModel):
    """One generated domain. The defaults resemble the released training patches.

    Attributes:
        seed: with the index of a patch, all that its content depends on besides the settings below.
        patches, size: how many, and pixels along each side.
        gain, offset: per band of b1 to b12, the affine part of a domain's shift: gain x (reflectance + offset).
        slope, elevation, roughness: mean slope in degrees, valley floors in metres, factor on the fine relief.
        sun_azimuth, sun_elevation: degrees, from north over east and above the horizon.
        vigour: of the vegetation, 0 (dormant) to 1.
        soil: colour of soil and fresh scars, 0 (grey) to 1 (red brown).
        vapour: share of b9's light that the water vapour lets through.
        empty: share of patches without a slide. positive: mean share of slide pixels in the others.
        runout: median length of a slide in pixels.
        farmland, rivers, roads, clouds: chance that a patch has them (rivers: where the terrain has a stream).
        label_noise: share of slides that the mask misses, and share of masks that lie one pixel off.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    seed: int = Field(default=0, ge=0)
    patches: int = Field(default=100, ge=0)
    size: int = Field(default=128, ge=16)
    gain: PerBand = (1.0,) * SPECTRAL
    offset: PerBand = (0.0,) * SPECTRAL
    slope: float = Field(default=23.0, gt=0, lt=60)
    elevation: float = Field(default=700.0, ge=0)
    roughness: float = Field(default=1.0, ge=0)
    sun_azimuth: float = 145.0
    sun_elevation: float = Field(default=46.0, gt=10, le=90)
    vigour: Share = 0.8
    soil: Share = 0.5
    vapour: Share = 0.45
    empty: Share = 0.42
    positive: Share = 0.046
    runout: float = Field(default=14.0, gt=0)
    farmland: Share = 0.5
    rivers: Share = 0.7
    roads: Share = 0.45
    clouds: Share = 0.03
    label_noise: Share = 0.0


def draw_domain(seed: int, strength: float, sensor: float | None = None, **fixed: Any) -> SynthDomain:
    """A domain that lies `strength` away from the default one in every respect; 0 is the default one.

    Most of the shift is affine per band (gain, offset); sun, season, soil and terrain are the rest. Deviations have a
    random sign and at least 60 % of their full size, so that no seed gives a target that is a source.

    Args:
        strength: 1 is about the distance between the release's regions; at most 2, where values stay physical.
        sensor: the same for gain and offset alone; None is `strength`.
        fixed: settings to take as they are.

    Raises:
        RecipeError: `strength` or `sensor` is outside [0, 2].
    """
    sensor = strength if sensor is None else sensor
    for name, value in (("strength", strength), ("sensor", sensor)):
        if not 0 <= value <= 2:
            raise RecipeError(f"{name} = {value:g} is outside [0, 2]: 0 is no shift, 1 one like between real regions")
    rng = np.random.default_rng((seed, 77))

    def away(size: float, strength: float = strength) -> float:
        return float(strength * size * rng.uniform(0.6, 1.0) * rng.choice((-1.0, 1.0)))

    base = SynthDomain()
    bright = away(0.2, sensor)
    gain = np.exp(bright + sensor * 0.08 * np.clip(rng.standard_normal(SPECTRAL), -2, 2))
    # Haze goes with brightness, so that the two do not cancel; there is not much of it to take away.
    haze = abs(away(0.0025, sensor)) * (1.0 if bright > 0 else -0.4)
    offset = HAZE * (haze + sensor * 0.0005 * np.clip(rng.standard_normal(SPECTRAL), -2, 2))
    drawn = {
        "seed": seed,
        "gain": tuple(np.round(gain, 4).tolist()),
        "offset": tuple(np.round(offset, 5).tolist()),
        "slope": base.slope + away(4.0),
        "elevation": base.elevation * float(np.exp(away(0.6))),
        "roughness": base.roughness * float(np.exp(away(0.3))),
        "sun_azimuth": base.sun_azimuth + away(20.0),
        "sun_elevation": base.sun_elevation + away(12.0),
        "vigour": float(np.clip(base.vigour + away(0.12), 0.1, 1.0)),
        "soil": float(np.clip(base.soil + away(0.3), 0.0, 1.0)),
        "vapour": float(np.clip(base.vapour + away(0.12), 0.05, 0.95)),
        "runout": base.runout * float(np.exp(away(0.35))),
    }
    return SynthDomain(**{**drawn, **fixed})
