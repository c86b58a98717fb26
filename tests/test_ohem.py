"""OHEM against a slow reference that sorts all pixels, as mmsegmentation does."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from l4s.errors import RecipeError
from l4s.losses import bce, soft_ce, weighted_sum
from l4s.ohem import ohem


def slow_kept(
    logits: np.ndarray, target: np.ndarray, weight: np.ndarray, threshold: float = 0.7, min_kept: float = 0.1
) -> list[int]:
    """Indices of the kept pixels."""
    p_true = {}
    for i, (z, t, w) in enumerate(zip(logits, target, weight, strict=True)):
        if w > 0:
            p = 1.0 / (1.0 + math.exp(-z))
            p_true[i] = t * p + (1.0 - t) * (1.0 - p)
    if not p_true:
        return []
    hardest = sorted(p_true.values())
    limit = max(threshold, hardest[min(int(min_kept * len(hardest)), len(hardest) - 1)])
    return [i for i, p in p_true.items() if p < limit]


def slow_ohem(*batch: Tensor, norm: str = "kept", eps: float = 0.0, **selection: float) -> float:
    logits, target, weight = (tensor.double().flatten().numpy() for tensor in batch)
    kept, cost = slow_kept(logits, target, weight, **selection), 0.0
    for i in kept:
        p, t = 1.0 / (1.0 + math.exp(-logits[i])), (1.0 - eps) * target[i] + eps / 2
        cost -= weight[i] * (t * math.log(p) + (1.0 - t) * math.log(1.0 - p))
    total = weight[kept].sum() if norm == "kept" else weight.sum()
    return cost / total if total else 0.0


def batch(seed: int = 0, soft: bool = False, easy: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (3, 1, 4, 5) and target, weight (3, 4, 5) float64; `easy` moves every logit to its target's side."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64)
    target = target if soft else (target > 0.7).double()
    logits = 2 * torch.randn(3, 1, 4, 5, generator=generator, dtype=torch.float64)
    logits += easy * (2 * target - 1).unsqueeze(1)
    weight = 2 * torch.rand(3, 4, 5, generator=generator, dtype=torch.float64)
    return logits, target, weight * (torch.rand(3, 4, 5, generator=generator) > 0.33)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    soft=st.booleans(),
    easy=st.sampled_from([0.0, 3.0, 6.0]),
    threshold=st.sampled_from([0.0, 0.3, 0.7, 0.95]),
    min_kept=st.sampled_from([0.01, 0.1, 0.5, 0.99]),
    norm=st.sampled_from(["kept", "all"]),
    eps=st.sampled_from([0.0, 0.1]),
)
def test_equals_the_slow_reference(
    seed: int, soft: bool, easy: float, threshold: float, min_kept: float, norm: str, eps: float
) -> None:
    tensors = batch(seed, soft, easy)
    options = {"threshold": threshold, "min_kept": min_kept, "norm": norm, "eps": eps}
    assert ohem(*tensors, **options).item() == pytest.approx(slow_ohem(*tensors, **options), rel=1e-9)


def test_values_worked_out_by_hand() -> None:
    # p_true 0.6, 0.8, 0.9 and 0.9, of weights 1, 1, 2 and 0
    p = torch.tensor([0.6, 0.2, 0.9, 0.9])
    logits = (p / (1 - p)).log().reshape(1, 1, 1, 4)
    target, weight = torch.tensor([[[1.0, 0.0, 1.0, 1.0]]]), torch.tensor([[[1.0, 1.0, 2.0, 0.0]]])
    first, second = -math.log(0.6), -math.log(0.8)
    assert ohem(logits, target, weight).item() == pytest.approx(first)
    assert ohem(logits, target, weight, norm="all").item() == pytest.approx(first / 4)
    # floor(0.7 * 3) = 2 pixels at least
    assert ohem(logits, target, weight, min_kept=0.7).item() == pytest.approx((first + second) / 2)
    assert ohem(logits, target, weight, threshold=0.0, min_kept=0.4).item() == pytest.approx(first)
    smoothed = -0.95 * math.log(0.6) - 0.05 * math.log(0.4)
    assert ohem(logits, target, weight, eps=0.1).item() == pytest.approx(smoothed)


@pytest.mark.parametrize("easy", [0.0, 6.0])
def test_gradient_of_the_kept_pixels_alone(easy: float) -> None:
    logits, target, weight = batch(1, easy=easy)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ohem(z, target, weight, eps=0.1), logits)
    (gradient,) = torch.autograd.grad(ohem(logits, target, weight), logits)
    kept = slow_kept(*(tensor.detach().flatten().numpy() for tensor in (logits, target, weight)))
    assert gradient.flatten().nonzero().flatten().tolist() == kept
    assert 0 < len(kept) < (weight > 0).sum()


def test_keeping_every_pixel_is_the_plain_cross_entropy() -> None:
    logits, target, weight = batch(2, soft=True)
    for norm in ("kept", "all"):
        options = {"threshold": 0.999999, "norm": norm}
        assert ohem(logits, target, weight, **options).item() == pytest.approx(bce(logits, target, weight).item())
        smoothed = ohem(logits, target, weight, eps=0.1, **options).item()
        assert smoothed == pytest.approx(soft_ce(logits, target, weight, eps=0.1).item())


def test_equals_smp_over_the_pixels_that_are_kept() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target, weight = batch(3)
    kept = slow_kept(*(tensor.flatten().numpy() for tensor in (logits, target, weight)))
    assert 3 < len(kept) < 60
    theirs = smp.SoftBCEWithLogitsLoss(smooth_factor=0.05)(logits.flatten()[kept], target.flatten()[kept])
    assert ohem(logits, target, (weight > 0).double(), eps=0.1).item() == pytest.approx(theirs.item(), rel=1e-9)


def test_weights_have_no_part_in_the_selection() -> None:
    logits, target, weight = batch(4, easy=4.0)
    (one,) = torch.autograd.grad(ohem(logits.requires_grad_(), target, (weight > 0).double()), logits)
    (other,) = torch.autograd.grad(ohem(logits, target, weight), logits)
    assert torch.equal(one != 0, other != 0)
    assert not torch.allclose(one, other)


def test_smoothing_has_no_part_in_the_selection() -> None:
    logits, target, weight = batch(5, easy=4.0)
    gradients = [torch.autograd.grad(ohem(logits.requires_grad_(), target, weight, eps=e), logits)[0] for e in (0, 0.5)]
    assert torch.equal(gradients[0] != 0, gradients[1] != 0)


def test_the_order_of_pixels_changes_nothing() -> None:
    logits, target, weight = batch(6, easy=6.0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    turned = [tensor.flatten()[order].reshape(tensor.shape) for tensor in (logits, target, weight)]
    assert ohem(*turned).item() == pytest.approx(ohem(logits, target, weight).item(), rel=1e-12)


def test_equally_easy_pixels_are_no_hard_ones() -> None:
    logits = torch.full((1, 1, 2, 5), -9.0, requires_grad=True)
    loss = ohem(logits, torch.zeros(1, 2, 5), torch.ones(1, 2, 5), min_kept=0.5)
    loss.backward()
    assert loss.item() == 0.0 and not logits.grad.any()


@pytest.mark.parametrize("easy", [0.0, 8.0])
@pytest.mark.parametrize("norm", ["kept", "all"])
def test_ignored_pixels_reach_nothing(norm: str, easy: float) -> None:
    logits, target, weight = batch(7, easy=easy)
    ignored = weight == 0
    dirty = logits.masked_fill(ignored.unsqueeze(1), math.nan).requires_grad_()
    loss = ohem(dirty, target.masked_fill(ignored, math.nan), weight, norm=norm)
    loss.backward()
    assert loss.item() == ohem(logits, target, weight, norm=norm).item() > 0
    assert dirty.grad.isfinite().all() and not dirty.grad[ignored.unsqueeze(1)].any()


def test_bf16_logits_are_computed_in_fp32() -> None:
    logits, target, weight = batch(8, easy=5.0)
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ohem(half, target, weight, eps=0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_ohem(half, target, weight, eps=0.1), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0}, r"threshold = 1.0 is outside \[0, 1\).*every pixel"),
        ({"threshold": -0.1}, "threshold = -0.1"),
        ({"threshold": math.nan}, "threshold = nan"),
        ({"min_kept": 1.0}, r"min_kept = 1.0 is outside \[0, 1\)"),
        ({"min_kept": 100_000}, "min_kept = 100000"),
        ({"threshold": 0.0, "min_kept": 0.0}, "keep no pixel"),
        ({"norm": "keep"}, "norm = 'keep' does not exist, did you mean 'kept'"),
        ({"eps": 1.0}, r"loss 'ohem': eps = 1.0 is outside \[0, 1\)"),
        ({"thresh": 0.7}, "no option 'thresh', did you mean 'threshold'"),
    ],
)
def test_a_wrong_option_fails_when_the_sum_is_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        weighted_sum([("ohem", 1.0, options)])
