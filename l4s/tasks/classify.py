"""Landslide or not, one answer a patch (Kimura 2019, 2.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from l4s.data.dataset import Batch
from l4s.data.probs import Extra, Kind
from l4s.errors import RecipeError
from l4s.losses import weighted_sum
from l4s.models.norm import domain_rows
from l4s.promote import promote, promoted
from l4s.recipe import Train
from l4s.tasks.segment import At


@dataclass(frozen=True)
class Classify:
    """A patch is one of a landslide from a share of landslide pixels on; see `l4s.tasks.Task` for the contract."""

    terms: Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]
    positive_share: float
    scale: float | tuple[float, float]
    crop: int | None

    @property
    def kind(self) -> Kind:
        return "probability"

    @property
    def about(self) -> Extra:
        return {"positive_share": self.positive_share}

    def loss(self, model: nn.Module, batch: Batch, at: At) -> dict[str, Tensor]:
        """The loss of the patches' labels; patches without a valid pixel have no part in it."""
        image, target, weight = promote(
            batch.image, batch.target, batch.weight, scale=self.scale, crop=self.crop, generator=at.generator
        )
        with domain_rows(batch.domain, image.device):
            logits = model(image).logits
        return self.terms(logits, *labels(target, weight, self.positive_share))

    def probs(self, model: nn.Module, image: Tensor) -> Tensor:
        """Probability that a patch is one of a landslide, (B,) float32 in [0, 1].

        Args:
            image: (B, C, H, W) float32 standardised.
        """
        logits: Tensor = model(promoted(image, self.scale)).logits
        return logits.float().sigmoid().squeeze(1)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing: this task keeps no teacher."""


def build(train: Train, *, positive_share: float = 0.01) -> Classify:
    """The classification task with a recipe's loss and scale.

    Args:
        train: of it, `aux` and what speaks of targets are not read.
        positive_share: of its valid pixels; from here on a patch is one of a landslide, at 0 from any pixel on. The
            paper does not say; 1 % is our choice.

    Raises:
        RecipeError: the share lies outside [0, 1].
    """
    if not 0 <= positive_share <= 1:
        raise RecipeError(f"task 'classify': positive_share = {positive_share} is no share of a patch, 0 to 1")
    terms = weighted_sum([(term.name, term.weight, term.options) for term in train.loss])
    return Classify(terms, positive_share, train.scale.factor, train.scale.crop)


def labels(target: Tensor, weight: Tensor, positive_share: float) -> tuple[Tensor, Tensor]:
    """Labels of patches and their weights, as `l4s.data.labels.patch_label` has them: two (B,) float32.

    Args:
        target: (B, H, W) float in [0, 1].
        weight: (B, H, W) float >= 0, 0 = ignored.
    """
    used = weight > 0
    # float64: a product of float32 may miss a share by its last bit
    valid, landslide = (mask.flatten(1).sum(1).double() for mask in (used, used & (target >= 0.5)))
    positive = (landslide > 0) & (landslide >= positive_share * valid)
    return positive.to(torch.float32), (valid > 0).to(torch.float32)
