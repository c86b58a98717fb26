"""Losses of (logits, target, weight), and their weighted sum.

A loss is a plain function `loss(logits, target, weight, *, options)`:

* logits `(B, 1, H, W)` or `(B, 1)`, any floating dtype; target in [0, 1] and weight >= 0, shaped like the logits with
  or without the channel;
* weight 0 means ignored: nothing at such a pixel, not even NaN, reaches the value or the gradient;
* the result is a scalar float32 (float64 for float64 logits), computed outside autocast; a batch that is ignored
  everywhere gives 0 with zero gradients, still connected to the logits.

A new loss is one function and one line of `LOSSES`; it starts with `_prepare`, and its options are keyword-only with
defaults.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from l4s.errors import RecipeError, RunError, did_you_mean


def bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross entropy, averaged over the valid weight.

    Args:
        logits: `(B, 1, H, W)` or `(B, 1)` float.
        target: same, with or without the channel, in [0, 1]; soft targets are welcome.
        weight: shaped like target, >= 0, 0 = ignored.

    Raises:
        RunError: the shapes do not belong together.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _cross_entropy(*_prepare(logits, target, weight))


def soft_ce(logits: Tensor, target: Tensor, weight: Tensor, *, eps: float = 0.1) -> Tensor:
    """Binary cross entropy towards the smoothed target `(1 - eps) t + eps / 2`, averaged over the valid weight.

    This is label smoothing over the two classes of a sigmoid. With a hard target the optimum is a confidence of
    `1 - eps / 2`. Zhao 2022 names the loss and leaves eps open; 0.1 is our choice. Shapes as in `bce`.

    Args:
        eps: smoothing in [0, 1).

    Raises:
        RecipeError: eps lies outside its range.
        RunError: the shapes do not belong together.
    """
    if not 0.0 <= eps < 1.0:
        raise RecipeError(f"loss 'soft_ce': eps = {eps} is outside [0, 1); 0.1 is usual")
    with torch.autocast(logits.device.type, enabled=False):
        values, truth, valid = _prepare(logits, target, weight)
        return _cross_entropy(values, (1.0 - eps) * truth + eps / 2.0, valid)


def dice(logits: Tensor, target: Tensor, weight: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss with sums pooled over the whole batch: `1 - (2 sum(wpt) + s) / (sum(wp) + sum(wt) + s)`.

    A batch without landslides costs `sum(wp) / (sum(wp) + s)` with p the predicted probability: false alarms are
    pushed down, and harder the fewer remain. (Implementations that return 0 there teach nothing on such batches.)
    Shapes as in `bce`.

    Args:
        smooth: s > 0, in units of weight (pixels, where the weight is 1).

    Raises:
        RecipeError: smooth is not a positive number.
        RunError: the shapes do not belong together.
    """
    if not 0.0 < smooth < math.inf:
        why = "at 0 a batch without landslides has no gradient"
        raise RecipeError(f"loss 'dice': smooth = {smooth} must be positive: {why}; 1.0 is usual")
    with torch.autocast(logits.device.type, enabled=False):
        values, truth, valid = _prepare(logits, target, weight)
        probs = values.sigmoid()
        both = (valid * probs * truth).sum()
        either = (valid * probs).sum() + (valid * truth).sum()
        # The same number as 1 - (2 both + s) / (either + s), without subtracting two numbers near 1.
        return (either - 2.0 * both) / (either + smooth)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce": bce,
    "soft_ce": soft_ce,
    "dice": dice,
}


def weighted_sum(
    terms: Sequence[tuple[str, float, Mapping[str, Any]]],
) -> Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]:
    """From (name, factor, options) build `(logits, target, weight) -> {"loss": sum of factor * term, "<name>": term}`.

    Only "loss" carries a gradient. The terms are detached and not multiplied by their factor: they are there to be
    logged. Every option is tried here once, so that a recipe fails when it is loaded and not at the first step.

    Raises:
        RecipeError: no terms, an unknown loss or option, an option out of range, a term given twice, a factor that is
            not positive.
    """
    if not terms:
        raise RecipeError(f"no loss given: there is nothing to minimise; name one or more of {', '.join(LOSSES)}")
    bound: dict[str, tuple[float, Callable[..., Tensor]]] = {}
    for name, factor, options in terms:
        if name in bound:
            raise RecipeError(f"loss {name!r} is given twice; merge the two terms into one")
        if not 0.0 < factor < math.inf:
            raise RecipeError(
                f"loss {name!r} has weight {factor}: it must be positive; to switch a term off leave it out"
            )
        bound[name] = (float(factor), _bind(name, options))

    def loss(logits: Tensor, target: Tensor, weight: Tensor) -> dict[str, Tensor]:
        values = {name: function(logits, target, weight) for name, (_, function) in bound.items()}
        total = torch.stack([bound[name][0] * value for name, value in values.items()]).sum()
        return {"loss": total} | {name: value.detach() for name, value in values.items()}

    return loss


def _bind(name: str, options: Mapping[str, Any]) -> Callable[..., Tensor]:
    """The loss with its options fixed, after trying them on one pixel."""
    if name not in LOSSES:
        raise RecipeError(f"loss {name!r} does not exist{did_you_mean(name, LOSSES)}")
    known = [p.name for p in inspect.signature(LOSSES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise RecipeError(f"loss {name!r} has no option {option!r}{did_you_mean(option, known)}")
    function = partial(LOSSES[name], **options)
    pixel = torch.zeros(1, 1)
    function(pixel, pixel, torch.ones(1, 1))
    return function


def _prepare(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, target and weight as `(B, pixels)` float32 or wider; where the weight is 0, logit and target are 0."""
    without_channel = logits.shape[:1] + logits.shape[2:]
    for what, tensor in (("target", target), ("weight", weight)):
        # Without this check (B, 1, H, W) against (B, H, W) would broadcast to (B, B, H, W) in silence.
        if logits.shape[1] != 1 or tensor.shape not in (logits.shape, without_channel):
            shapes = f"logits {tuple(logits.shape)} and {what} {tuple(tensor.shape)}"
            raise RunError(f"{shapes} do not belong together: expected (B, 1, ...) and (B, ...) or (B, 1, ...)")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    flat = logits.flatten(1).shape
    values, truth, valid = (tensor.to(dtype).reshape(flat) for tensor in (logits, target, weight))
    used = valid > 0
    zero = values.new_zeros(())
    # where() and not a product: 0 * NaN would be NaN, in the value and in the gradient.
    return torch.where(used, values, zero), torch.where(used, truth, zero), valid


def _cross_entropy(values: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Cross entropy of prepared `(B, pixels)` tensors, averaged over the weight."""
    total = valid.sum()
    each = F.binary_cross_entropy_with_logits(values, truth, reduction="none")
    return (valid * each).sum() / torch.where(total > 0, total, 1.0)
