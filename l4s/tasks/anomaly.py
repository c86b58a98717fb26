"""Landslides as anomalies: a network learns to remove noise, and what it cannot restore is odd (Kimura 2019, 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from l4s.data.dataset import Batch
from l4s.data.probs import Extra, Kind
from l4s.errors import RecipeError
from l4s.models.norm import domain_rows
from l4s.promote import demote, promote, promoted
from l4s.recipe import Train
from l4s.ssim import blur
from l4s.tasks.segment import At
from l4s.thresholds import CONTAMINATION

HALF = 0.5  # of a patch: "images with less than 50% of their area exhibiting landslides"


@dataclass(frozen=True)
class Anomaly:
    """Scores, not probabilities; see `l4s.tasks.Task` for the contract. Options as in `build`."""

    scale: float | tuple[float, float]
    crop: int | None
    smooth: float
    contamination: float
    noise: float = 0.0
    max_landslide: float | None = None
    passes: int = 0

    @property
    def kind(self) -> Kind:
        return "score"

    @property
    def about(self) -> Extra:
        return {"contamination": self.contamination}

    def loss(self, model: nn.Module, batch: Batch, at: At) -> dict[str, Tensor]:
        """1 - SSIM(x, f(x + z)), z ~ N(0, noise), equation 1 of the paper, over the patches that are learnt from."""
        image, target, weight = promote(
            batch.image, batch.target, batch.weight, scale=self.scale, crop=self.crop, generator=at.generator
        )
        noise = self.noise * torch.randn(image.shape, generator=at.generator)
        with domain_rows(batch.domain, image.device):
            extras = model(image + noise.to(image.device), clean=image).extras
        used = torch.ones(len(image), device=image.device)
        if self.max_landslide is not None:
            used = few_landslides(target, weight, self.max_landslide)
        each = 1 - extras["ssim"].mean((1, 2, 3))
        return {"loss": (used * each).sum() / used.sum().clamp(min=1), "used": used.mean()}

    def probs(self, model: nn.Module, image: Tensor) -> Tensor:
        """The anomaly score (1 - local SSIM) / 2, smoothed, (B, H, W) float32 in [0, 1] at native size.

        Args:
            image: (B, C, H, W) float32 standardised.
        """
        large = promoted(image, self.scale)
        if self.passes:
            score = torch.stack([_noisy(model, large, self.noise, number) for number in range(self.passes)]).mean(0)
        else:
            score = model(large).logits.float().sigmoid().squeeze(1)
        return demote(blur(score, self.smooth).clamp(0, 1), (image.shape[-2], image.shape[-1]))

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing: this task keeps no teacher."""


def build(
    train: Train,
    *,
    noise: float = 1.0,
    use_labels: bool = True,
    max_landslide: float = HALF,
    passes: int = 0,
    smooth: float = 1.0,
    contamination: float = CONTAMINATION,
) -> Anomaly:
    """The anomaly task for a network that denoises, such as `anomaly_unet`.

    Args:
        train: of it, the losses and what speaks of targets are not read: the loss is 1 - SSIM.
        noise: standard deviation of z in standardised units; 1 is the paper's N(0, 1), which does not say of what.
        use_labels: learn from patches with few landslides alone, as the paper does; false learns from all patches and
            reads no mask: the paper's own way needs labels. Patches with more have no part in the loss, but keep their
            place in a batch, whose statistics they share.
        max_landslide: the share of a patch below which landslides are few.
        passes: how many noisy images are restored and their scores averaged; 0, our choice, restores the image itself.
        smooth: standard deviation in pixels of the Gaussian that smooths scores, 0 for none; 1, our choice, is 5 x 5.
        contamination: share of all pixels, nodata included, that the threshold by quantile calls landslide; 5 % is our choice.

    Raises:
        RecipeError: a value out of range, or without effect.
    """
    _refuse("anomaly", smooth, contamination)
    if not noise > 0:
        raise RecipeError(f"task 'anomaly': noise = {noise} leaves nothing to remove; 1 is the paper's")
    if not 0 < max_landslide <= 1:
        raise RecipeError(f"task 'anomaly': max_landslide = {max_landslide} is no share of a patch; 0.5 is the paper's")
    if passes < 0:
        raise RecipeError(f"task 'anomaly': passes = {passes}: give 0 for the image itself, or more")
    if not use_labels and max_landslide != HALF:
        raise RecipeError("task 'anomaly': max_landslide has no effect without use_labels: leave it out")
    few = max_landslide if use_labels else None
    return Anomaly(train.scale.factor, train.scale.crop, smooth, contamination, noise, few, passes)


def build_score(train: Train, *, smooth: float = 1.0, contamination: float = CONTAMINATION) -> Anomaly:
    """The task of networks without parameters, such as `brightness`: they score and learn nothing.

    Args:
        train: of it, `scale` is read.
        smooth: as in `build`.
        contamination: as in `build`.

    Raises:
        RecipeError: a value out of range.
    """
    _refuse("score", smooth, contamination)
    return Anomaly(train.scale.factor, train.scale.crop, smooth, contamination)


def few_landslides(target: Tensor, weight: Tensor, share: float) -> Tensor:
    """Which patches have valid pixels, and landslides on less than a share of them: (B,) float32 in {0, 1}.

    Args:
        target: (B, H, W) float in [0, 1].
        weight: (B, H, W) float >= 0, 0 = ignored.
    """
    used = weight > 0
    valid, landslide = (mask.flatten(1).sum(1).double() for mask in (used, used & (target >= 0.5)))
    return ((valid > 0) & (landslide < share * valid)).to(torch.float32)


def _refuse(task: str, smooth: float, contamination: float) -> None:
    if smooth < 0:
        raise RecipeError(f"task {task!r}: smooth = {smooth} is no width in pixels; 0 smooths nothing")
    if not 0 < contamination < 1:
        raise RecipeError(f"task {task!r}: contamination = {contamination} is no share of the pixels; 0.05 is usual")


def _noisy(model: nn.Module, image: Tensor, noise: float, number: int) -> Tensor:
    """The score of images of which noisy ones are restored; each gets the same noise, whatever its place in a batch."""
    drawn = torch.randn(1, *image.shape[1:], generator=torch.Generator().manual_seed(number))
    ssim: Tensor = model(image + noise * drawn.to(image.device), clean=image).extras["ssim"]
    return ((1 - ssim) / 2).squeeze(1)
