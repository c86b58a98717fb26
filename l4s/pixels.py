"""What losses over pixels begin with: logits, target and weight in one shape and dtype, and their cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor

from l4s.errors import RecipeError, RunError


def prepare(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, target and weight as `(B, pixels)` float32 or wider; where the weight is 0, logit and target are 0.

    Args:
        logits: `(B, 1, H, W)` or `(B, 1)` float.
        target: same, with or without the channel, in [0, 1].
        weight: shaped like target, >= 0, 0 = ignored.

    Raises:
        RunError: the shapes do not belong together.
    """
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


def smoothed(truth: Tensor, eps: float, loss: str) -> Tensor:
    """The target `(1 - eps) t + eps / 2` of a loss, which is label smoothing over the two classes of a sigmoid.

    Raises:
        RecipeError: eps lies outside [0, 1).
    """
    if not 0.0 <= eps < 1.0:
        raise RecipeError(f"loss {loss!r}: eps = {eps} is outside [0, 1); 0.1 is usual")
    return (1.0 - eps) * truth + eps / 2.0 if eps else truth


def cross_entropy(values: Tensor, truth: Tensor, weight: Tensor, total: Tensor | None = None) -> Tensor:
    """Cross entropy of prepared `(B, pixels)` tensors: the weighted sum over `total`, by default the weights' sum."""
    total = weight.sum() if total is None else total
    each = F.binary_cross_entropy_with_logits(values, truth, reduction="none")
    return (weight * each).sum() / torch.where(total > 0, total, 1.0)
