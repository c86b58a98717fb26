"""Bands by name: which lie in the files, which the model sees, and which are spectral."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

L4S_BANDS = ("b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9", "b10", "b11", "b12", "slope", "dem")
"""The 14 bands of the official release in file order (methods A1); Sentinel-2's B8A is left out."""


class Bands(BaseModel):
    """The bands of a data set.

    `file` names every band on disk, in file order; `use` names those the model sees, in the order it sees them (all
    of `file` when left out). Colour augmentation and spectral statistics leave `terrain` bands alone. `rgb` are the
    bands shown as red, green and blue, and those that receive the RGB filters of pretrained weights.
    `groups` splits the channels of models with several inputs (`rgb`/`dem`, `pre`/`post`).
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    file: tuple[str, ...] = L4S_BANDS
    use: tuple[str, ...] = ()
    terrain: tuple[str, ...] = ("slope", "dem")
    rgb: tuple[str, str, str] = ("b4", "b3", "b2")
    groups: Mapping[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _known(self) -> Self:
        for what, names in (("file", self.file), ("use", self.use)):
            if len(set(names)) != len(names):
                raise ValueError(f"bands.{what} names a band twice: {', '.join(names)}")
        for what, names in (("use", self.use), *((f"groups.{key}", value) for key, value in self.groups.items())):
            if unknown := [name for name in names if name not in self.file]:
                raise ValueError(f"bands.{what} names {unknown[0]!r}, which is not one of {', '.join(self.file)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The bands the model sees, in order."""
        return self.use or self.file

    @property
    def index(self) -> tuple[int, ...]:
        """Position on disk of each band of `names`."""
        return tuple(self.file.index(name) for name in self.names)

    @property
    def spectral(self) -> tuple[bool, ...]:
        """For each band of `names`: is it spectral, so that its colour may be changed?"""
        return tuple(name not in self.terrain for name in self.names)

    @property
    def rgb_index(self) -> tuple[int, ...]:
        """Positions in `names` of red, green and blue; empty where one of them is not used."""
        return tuple(self.names.index(name) for name in self.rgb) if set(self.rgb) <= set(self.names) else ()
