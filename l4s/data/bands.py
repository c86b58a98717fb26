"""Bands by name: which lie in the files, which are made of them, which the model sees, and which are spectral."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from l4s.data.derive import AS_IT_IS, check_made, derive

L4S_BANDS = ("b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9", "b10", "b11", "b12", "slope", "dem")
"""The 14 bands of the official release in file order; Sentinel-2's B8A is left out."""


def unnamed_bands(count: int) -> tuple[str, ...]:
    """What the bands of a file are called where nobody names them: as in the release for 14, else band1, band2, ..."""
    return L4S_BANDS if count == len(L4S_BANDS) else tuple(f"band{number}" for number in range(1, count + 1))


class Made(BaseModel):
    """A band that is computed of others when a patch is read: a function of `l4s.data.derive.DERIVED`, and its options."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    how: str
    of: tuple[str, ...]

    @property
    def options(self) -> dict[str, Any]:
        """The function's keyword options."""
        return dict(self.model_extra or {})

    @property
    def fixed(self) -> bool:
        """Does the model see the values as they are made, rather than standardised?"""
        return AS_IT_IS.get(self.how) in self.options

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_made(self.how, len(self.of), self.options)
        return self


class Bands(BaseModel):
    """The bands of a data set.

    `file` names every band on disk, in file order; `make` those that are made of bands of the file, or of made ones
    named before; `use` names those the model sees, in the order it sees them (all of `file`, then all of `make`, when
    left out). Colour augmentation leaves `terrain` bands alone. `rgb` are the bands shown as
    red, green and blue, and those that receive the RGB filters of pretrained weights.
    `groups` splits the channels of models with several inputs (`rgb`/`dem`, `pre`/`post`).
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    file: tuple[str, ...] = L4S_BANDS
    make: Mapping[str, Made] = {}
    use: tuple[str, ...] = ()
    terrain: tuple[str, ...] = ("slope", "dem")
    rgb: tuple[str, str, str] = ("b4", "b3", "b2")
    groups: Mapping[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _known(self) -> Self:
        self._check_made()
        if self.make and not self.use:
            # the order of a mapping is lost where keys are sorted, so that `use` is always spelt out beside `make`
            object.__setattr__(self, "use", (*self.file, *self.make))
        for what, names in (("file", self.file), ("use", self.use)):
            if len(set(names)) != len(names):
                raise ValueError(f"bands.{what} names a band twice: {', '.join(names)}")
        known = (*self.file, *self.make)
        for what, names in (("use", self.use), *((f"groups.{key}", value) for key, value in self.groups.items())):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"bands.{what} names {unknown[0]!r}, which is not one of {', '.join(known)}")
        return self

    def _check_made(self) -> None:
        known = list(self.file)
        for name, made in self.make.items():
            if name in known:
                raise ValueError(f"bands.make.{name} has the name of a band of the file: choose another")
            if unknown := [band for band in made.of if band not in known]:
                raise ValueError(
                    f"bands.make.{name} is made of {unknown[0]!r}, which is no band of the file and none made before it "
                    f"(there are: {', '.join(known)})"
                )
            known.append(name)
        if self.use and (idle := [name for name in self.make if name not in self._needed]):
            raise ValueError(f"bands.make.{idle[0]} is used by nothing: name it in bands.use, or leave it out")

    @model_serializer(mode="wrap")
    def _without_idle_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`make` is left out where nothing is made, so that what was cached and trained before it came stays good."""
        return {key: value for key, value in dump(self).items() if key != "make" or value}

    @property
    def names(self) -> tuple[str, ...]:
        """The bands the model sees, in order."""
        return self.use or self.file

    @property
    def _needed(self) -> set[str]:
        """The bands the model sees, and all that these are made of."""
        needed = set(self.names)
        for name, made in reversed(list(self.make.items())):
            needed |= set(made.of) if name in needed else set()
        return needed

    @property
    def stored(self) -> tuple[str, ...]:
        """The bands to read from a file: those of `names`, then those that made ones need beside them."""
        seen = [name for name in self.names if name in self.file]
        return (*seen, *(name for name in self.file if name in self._needed and name not in seen))

    @property
    def index(self) -> tuple[int, ...]:
        """Position on disk of each band of `stored`; without made bands, of each band of `names`."""
        return tuple(self.file.index(name) for name in self.stored)

    @property
    def spectral(self) -> tuple[bool, ...]:
        """For each band of `names`: is it spectral, so that its colour may be changed?"""
        return tuple(name not in self.terrain for name in self.names)

    @property
    def fixed(self) -> tuple[bool, ...]:
        """For each band of `names`: is it seen as it is made, rather than standardised?"""
        return tuple(name in self.make and self.make[name].fixed for name in self.names)

    @property
    def rgb_index(self) -> tuple[int, ...]:
        """Positions in `names` of red, green and blue; empty where one of them is not used."""
        return tuple(self.names.index(name) for name in self.rgb) if set(self.rgb) <= set(self.names) else ()


def make_bands(image: np.ndarray, bands: Bands) -> np.ndarray:
    """The bands the model sees, of those that were read.

    Args:
        image: (len(bands.stored), H, W) float32, NaN where values are missing.

    Returns:
        (len(bands.names), H, W) float32; `image` itself where nothing is made.
    """
    if not bands.make:
        return image
    there = dict(zip(bands.stored, image, strict=True))
    for name, made in bands.make.items():
        there[name] = derive(made.how, np.stack([there[band] for band in made.of]), made.options)
    return np.stack([there[name] for name in bands.names])
