"""Losses of (logits, target, weight), and their weighted sum.

A loss is a plain function `loss(logits, target, weight, *, options)`:

* logits `(B, 1, H, W)` or `(B, 1)`, any floating dtype; target in [0, 1] and weight >= 0, shaped like the logits with
  or without the channel;
* weight 0 means ignored: nothing at such a pixel, not even NaN, reaches the value or the gradient;
* the result is a scalar float32 (float64 for float64 logits), computed outside autocast; a batch that is ignored
  everywhere gives 0 with zero gradients, still connected to the logits.

A new loss is one function and one line of `LOSSES`; it starts with `l4s.pixels.prepare`, and its options are
keyword-only with defaults.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from l4s.errors import RecipeError, chosen, refusals
from l4s.lovasz import lovasz
from l4s.ohem import ohem
from l4s.pixels import cross_entropy, prepare, smoothed


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
        return cross_entropy(*prepare(logits, target, weight))


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
    with torch.autocast(logits.device.type, enabled=False):
        values, truth, valid = prepare(logits, target, weight)
        return cross_entropy(values, smoothed(truth, eps, "soft_ce"), valid)


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
        values, truth, valid = prepare(logits, target, weight)
        probs = values.sigmoid()
        both = (valid * probs * truth).sum()
        either = (valid * probs).sum() + (valid * truth).sum()
        # The same number as 1 - (2 both + s) / (either + s), without subtracting two numbers near 1.
        return (either - 2.0 * both) / (either + smooth)


def batch_softmax(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of a softmax over the whole batch: `-sum(w t log softmax(logits))`, a ranking and no classifier.

    What the released code of Böhm 2022 minimises in stage 1, because it hands one logit a chip to a loss of classes;
    here to reproduce it. Logits are only compared with each other, so no threshold means anything, and a
    batch without landslides costs nothing. Shapes as in `bce`.

    Raises:
        RunError: the shapes do not belong together.
    """
    with torch.autocast(logits.device.type, enabled=False):
        values, truth, valid = prepare(logits, target, weight)
        used = valid > 0
        lowest = torch.finfo(values.dtype).min
        logs = torch.where(used, values, values.new_full((), lowest)).flatten().log_softmax(0).view_as(values)
        return -(valid * truth * torch.where(used, logs, values * 0)).sum()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce": bce,
    "soft_ce": soft_ce,
    "dice": dice,
    "lovasz": lovasz,
    "ohem": ohem,
    "batch_softmax": batch_softmax,
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
    function = partial(chosen("loss", LOSSES, name, options, given=("logits", "target", "weight")), **options)
    pixel = torch.zeros(1, 1)
    with refusals(f"loss {name!r}", options):
        function(pixel, pixel, torch.ones(1, 1))
    return function
