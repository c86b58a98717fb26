"""Online hard example mining (OHEM, Shrivastava et al. 2016) over a cross entropy of pixels."""

import torch
from torch import Tensor

from l4s.errors import RecipeError, did_you_mean
from l4s.pixels import cross_entropy, prepare, smoothed

NORMS = ("kept", "all")


def ohem(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: float = 0.1,
    norm: str = "kept",
    eps: float = 0.0,
) -> Tensor:
    """Cross entropy over the hard pixels of the batch, those whose true class is given too little probability.

    With `p_true = t p + (1 - t)(1 - p)` a pixel is kept where `p_true < max(threshold, q)`. Of the n valid pixels of
    the batch k = floor(min_kept n) are below q, fewer where some are as likely as q. So mmsegmentation selects too.
    The selection has no gradient and takes t as it is, unsmoothed. Zhao 2022 names "soft CE 0.1 + OHEM": `eps = 0.1`;
    it leaves threshold and min_kept open, 0.7 and about 0.1 are the values of the same team's earlier code.

    Args:
        logits: `(B, 1, H, W)` or `(B, 1)` float.
        target: same, with or without the channel, in [0, 1]; soft targets are welcome.
        weight: shaped like target, >= 0, 0 = ignored; it weighs the kept pixels and has no part in their selection.
        threshold: in [0, 1), the confidence from which a pixel is easy; at 1 every pixel would be kept.
        min_kept: in [0, 1), the share of valid pixels to keep where fewer are hard.
        norm: "kept" averages over the weight of the kept pixels, "all" divides by that of all valid ones, as
            mmsegmentation does: there the loss shrinks as pixels become easy.
        eps: label smoothing in [0, 1), as in `soft_ce`.

    Raises:
        RecipeError: an option is out of range, or nothing could ever be kept.
        RunError: the shapes do not belong together.
    """
    _check(threshold, min_kept, norm)
    with torch.autocast(logits.device.type, enabled=False):
        values, truth, valid = prepare(logits, target, weight)
        kept = torch.where(_hard(values.detach(), truth, valid, threshold, min_kept), valid, 0.0)
        total = (kept if norm == "kept" else valid).sum()
        return cross_entropy(values, smoothed(truth, eps, "ohem"), kept, total)


def _check(threshold: float, min_kept: float, norm: str) -> None:
    for option, value in (("threshold", threshold), ("min_kept", min_kept)):
        if not 0.0 <= value < 1.0:
            why = "1 would keep every pixel and make it 'soft_ce'"
            raise RecipeError(f"loss 'ohem': {option} = {value} is outside [0, 1): {why}")
    if threshold == min_kept == 0.0:
        raise RecipeError("loss 'ohem': threshold = 0 and min_kept = 0 keep no pixel; raise one of them")
    if norm not in NORMS:
        raise RecipeError(f"loss 'ohem': norm = {norm!r} does not exist{did_you_mean(norm, NORMS)}")


def _hard(values: Tensor, truth: Tensor, valid: Tensor, threshold: float, min_kept: float) -> Tensor:
    """Which of the `(B, pixels)` are kept, bool."""
    probs = values.sigmoid()
    p_true = torch.lerp(1.0 - probs, probs, truth).masked_fill_(valid == 0, torch.inf)
    hard = p_true < threshold
    # One wait for the device, not two.
    found, pixels = torch.stack([hard.sum(), (valid > 0).sum()]).tolist()
    wanted = int(min_kept * pixels)
    if found >= wanted:
        return hard
    # topk and not kthvalue, which works on a GPU with one block of threads for the whole batch.
    easiest = p_true.flatten().topk(wanted + 1, largest=False, sorted=False).values.max()
    return p_true < easiest
