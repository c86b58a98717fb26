"""Losses against slow float64 references, and the contract that every loss of LOSSES keeps."""

import math
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from l4s.errors import RecipeError, RunError
from l4s.losses import LOSSES, bce, dice, soft_ce, weighted_sum


def slow_ce(logits: np.ndarray, target: np.ndarray, weight: np.ndarray, eps: float = 0.0) -> float:
    """Cross entropy over the two classes of a sigmoid, pixel by pixel."""
    total = cost = 0.0
    for z, t, w in zip(logits.ravel().tolist(), target.ravel().tolist(), weight.ravel().tolist(), strict=True):
        if w == 0:
            continue
        p = 1.0 / (1.0 + math.exp(-z))
        for prob, part in ((p, t), (1.0 - p, 1.0 - t)):
            cost -= w * ((1.0 - eps) * part + eps / 2) * math.log(prob)
        total += w
    return cost / total if total else 0.0


def slow_dice(logits: np.ndarray, target: np.ndarray, weight: np.ndarray, smooth: float = 1.0) -> float:
    both = either = 0.0
    for z, t, w in zip(logits.ravel().tolist(), target.ravel().tolist(), weight.ravel().tolist(), strict=True):
        if w > 0:
            p = 1.0 / (1.0 + math.exp(-z))
            both += w * p * t
            either += w * (p + t)
    return 1.0 - (2.0 * both + smooth) / (either + smooth)


SLOW: dict[str, Callable[..., float]] = {
    "bce": slow_ce,
    "soft_ce": lambda *batch, eps=0.1: slow_ce(*batch, eps=eps),
    "dice": slow_dice,
}


def batch(seed: int = 0, soft: bool = False, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (2, 1, 3, 4) and target, weight (2, 3, 4); about a third of the pixels is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 1, 3, 4, generator=generator)
    target = torch.rand(2, 3, 4, generator=generator)
    weight = 2 * torch.rand(2, 3, 4, generator=generator)
    weight = weight * (torch.rand(2, 3, 4, generator=generator) > 0.33)
    target = target if soft else (target > 0.5).float()
    return logits.to(dtype), target.to(dtype), weight.to(dtype)


def numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().double().numpy() for tensor in tensors]


@pytest.mark.parametrize("name", SLOW)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), soft=st.booleans())
def test_equals_the_slow_reference(name: str, seed: int, soft: bool) -> None:
    tensors = batch(seed, soft)
    assert LOSSES[name](*tensors).item() == pytest.approx(SLOW[name](*numpy(*tensors)), rel=2e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "options"), [("soft_ce", {"eps": 0.0}), ("soft_ce", {"eps": 0.3}), ("dice", {"smooth": 7.0})]
)
def test_options_equal_the_slow_reference(name: str, options: dict[str, float]) -> None:
    tensors = batch(3, soft=True, dtype=torch.float64)
    expected = SLOW[name](*numpy(*tensors), **options)
    assert LOSSES[name](*tensors, **options).item() == pytest.approx(expected, rel=1e-12)


def test_values_worked_out_by_hand() -> None:
    # probabilities 0.5, 0.75, 0.25 with weights 1, 2, 0
    logits = torch.tensor([0.0, math.log(3), -math.log(3)]).reshape(1, 1, 1, 3)
    target, weight = torch.tensor([[[0.0, 1.0, 1.0]]]), torch.tensor([[[1.0, 2.0, 0.0]]])
    assert bce(logits, target, weight).item() == pytest.approx((math.log(2) - 2 * math.log(0.75)) / 3)
    smoothed = (math.log(2) - 2 * (0.95 * math.log(0.75) + 0.05 * math.log(0.25))) / 3
    assert soft_ce(logits, target, weight).item() == pytest.approx(smoothed)
    assert dice(logits, target, weight).item() == pytest.approx(1 - (2 * 1.5 + 1) / (0.5 + 1.5 + 2 + 1))


def test_soft_ce_is_least_at_the_smoothed_confidence() -> None:
    logits = torch.tensor(math.log(0.95 / 0.05), dtype=torch.float64).reshape(1, 1).requires_grad_()
    one = torch.ones(1, 1, dtype=torch.float64)
    soft_ce(logits, one, one).backward()
    assert logits.grad.item() == pytest.approx(0, abs=1e-12)


def test_equals_published_implementations_on_a_full_batch_with_landslides() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target, weight = batch(1)
    full = torch.ones_like(weight)
    # no smoothing: its smooth counts twice since it went over to Tversky
    theirs = smp.DiceLoss("binary", smooth=0.0)(logits, target.unsqueeze(1))
    assert dice(logits, target, full, smooth=1e-9).item() == pytest.approx(theirs.item(), rel=1e-5)
    pairs = torch.cat([torch.zeros_like(logits), logits], 1)  # softmax of (0, z) is (1 - sigmoid, sigmoid)
    two_class = torch.nn.functional.cross_entropy(pairs, target.long(), label_smoothing=0.1)
    assert soft_ce(logits, target, full).item() == pytest.approx(two_class.item(), rel=1e-5)


def test_dice_learns_from_a_batch_without_landslides_where_smp_does_not() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    empty, full = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    ours = torch.zeros(2, 1, 3, 4, requires_grad=True)
    theirs = torch.zeros(2, 1, 3, 4, requires_grad=True)
    loss = dice(ours, empty, full)
    loss.backward()
    smp.DiceLoss("binary", smooth=1.0)(theirs, empty.unsqueeze(1)).backward()
    # sum(p) = 12: the loss is 12/13, its gradient s / (sum(p) + s)^2 * p (1 - p)
    assert loss.item() == pytest.approx(12 / 13)
    assert torch.allclose(ours.grad, torch.full_like(ours, 0.25 / 13**2))
    assert not theirs.grad.any()


def test_dice_pools_over_the_batch() -> None:
    logits, target, weight = batch(2)
    one_image = [tensor.reshape(1, *tensor.shape[1:-2], -1, tensor.shape[-1]) for tensor in (logits, target, weight)]
    assert dice(logits, target, weight).item() == pytest.approx(dice(*one_image).item(), rel=1e-6)
    alone = [dice(logits[i : i + 1], target[i : i + 1], weight[i : i + 1]).item() for i in range(2)]
    assert abs(dice(logits, target, weight).item() - sum(alone) / 2) > 1e-3


# ---- what every loss keeps ----


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name: str) -> None:
    logits, target, weight = batch(4, soft=True, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, target, weight), logits.requires_grad_())
    assert LOSSES[name](logits, target, weight).dtype == torch.float64


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("junk", [1.0, 255.0, math.inf, math.nan])
def test_ignored_pixels_change_nothing(name: str, junk: float) -> None:
    logits, target, weight = batch(5)
    ignored = weight == 0
    assert ignored.any()
    clean = logits.clone().requires_grad_()
    dirty = logits.masked_fill(ignored.unsqueeze(1), junk).requires_grad_()
    expected = LOSSES[name](clean, target, weight)
    loss = LOSSES[name](dirty, target.masked_fill(ignored, junk), weight)
    expected.backward()
    loss.backward()
    assert loss.item() == expected.item()
    assert torch.equal(dirty.grad, clean.grad)
    assert not dirty.grad[ignored.unsqueeze(1)].any()
    if name != "ohem":  # which leaves easy pixels alone
        assert dirty.grad[~ignored.unsqueeze(1)].all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("junk", [0.0, math.nan])
def test_a_batch_ignored_everywhere_is_zero_and_connected(name: str, junk: float) -> None:
    logits = torch.full((2, 1, 3, 4), junk, requires_grad=True)
    loss = LOSSES[name](logits, torch.ones(2, 3, 4), torch.zeros(2, 3, 4))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(2, 1, 3, 4))


def test_batch_softmax_is_what_a_loss_of_classes_makes_of_one_logit_a_chip() -> None:
    logits, target = torch.randn(6, 1, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 0, 0, 1, 0, 1])
    expected = torch.nn.CrossEntropyLoss()(logits[:, 0], target)
    assert LOSSES["batch_softmax"](logits, target, torch.ones(6)).item() == pytest.approx(expected.item(), rel=1e-6)
    fewer = LOSSES["batch_softmax"](logits, target, torch.tensor([1.0, 1, 1, 1, 0, 0]))
    expected = torch.nn.CrossEntropyLoss()(logits[:4, 0], target[:4])
    assert fewer.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name != "batch_softmax"]
)  # which compares logits, and learns nothing there
def test_an_all_empty_batch_pushes_every_logit_down(name: str) -> None:
    logits = torch.zeros(2, 1, 3, 4, requires_grad=True)
    LOSSES[name](logits, torch.zeros(2, 3, 4), torch.ones(2, 3, 4)).backward()
    assert (logits.grad > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_shape_of_the_contract_gives_the_same(name: str) -> None:
    logits, target, weight = batch(6)
    loss = LOSSES[name](logits, target, weight)
    assert loss.shape == () and loss.dtype == torch.float32
    assert LOSSES[name](logits, target.unsqueeze(1), weight).item() == loss.item()
    assert LOSSES[name](logits, target, weight.unsqueeze(1)).item() == loss.item()
    whole = {"per": "batch"} if name == "lovasz" else {}  # per image, a patch of one logit is an image
    as_patches = LOSSES[name](logits.reshape(-1, 1), target.reshape(-1), weight.reshape(-1, 1), **whole)
    assert as_patches.item() == pytest.approx(LOSSES[name](logits, target, weight, **whole).item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("wrong", [(2, 4, 3), (2, 1, 4, 3), (1, 3, 4), (2, 2, 3, 4)])
def test_shapes_that_would_broadcast_are_refused(name: str, wrong: tuple[int, ...]) -> None:
    logits, target, weight = batch(6)
    with pytest.raises(RunError, match="target"):
        LOSSES[name](logits, torch.ones(wrong), weight)
    with pytest.raises(RunError, match="weight"):
        LOSSES[name](logits, target, torch.ones(wrong))
    with pytest.raises(RunError, match="do not belong together"):
        LOSSES[name](logits.expand(2, 2, 3, 4), target, weight)


@pytest.mark.parametrize("name", LOSSES)
def test_bf16_logits_are_computed_in_fp32(name: str) -> None:
    logits, target, weight = batch(7)
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](half, target, weight)
    assert loss.dtype == torch.float32
    assert loss.item() == LOSSES[name](half.float(), target, weight).item()


class SumsUnderAutocast(TorchFunctionMode):
    """Notes for every sum whether autocast was on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "sum":
            self.seen.append(torch.is_autocast_enabled("cpu"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_step_out_of_autocast(name: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), SumsUnderAutocast() as sums:
        LOSSES[name](*batch(7))
    assert sums.seen and not any(sums.seen)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [100.0, -100.0, 1e30, -1e30])
def test_extreme_logits_stay_finite(name: str, size: float) -> None:
    logits = torch.full((1, 1, 2, 2), size, requires_grad=True)
    loss = LOSSES[name](logits, torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), torch.ones(1, 2, 2))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


# ---- weighted sum ----


def test_weighted_sum_adds_up_and_names_its_terms() -> None:
    tensors = batch(8)
    logits = tensors[0].requires_grad_()
    out = weighted_sum([("soft_ce", 0.5, {"eps": 0.2}), ("dice", 2, {})])(*tensors)
    assert list(out) == ["loss", "soft_ce", "dice"]
    expected = 0.5 * soft_ce(*tensors, eps=0.2) + 2 * dice(*tensors)
    assert out["soft_ce"].item() == soft_ce(*tensors, eps=0.2).item()
    assert out["dice"].item() == dice(*tensors).item()
    assert out["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert not out["dice"].requires_grad
    (ours,) = torch.autograd.grad(out["loss"], logits)
    (theirs,) = torch.autograd.grad(expected, logits)
    assert torch.allclose(ours, theirs)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([("dise", 1.0, {})], "loss 'dise' does not exist, did you mean 'dice'.*bce, dice"),
        ([("dice", 1.0, {"smoth": 1.0})], "no option 'smoth', did you mean 'smooth'.*there are: smooth"),
        ([("bce", 1.0, {"eps": 0.1})], "no option 'eps' .there are: none"),
        ([("bce", 1.0, {"logits": 1})], "no option 'logits'"),
        ([("bce", 0.0, {})], "weight 0.0.*positive"),
        ([("bce", -1.0, {})], "weight -1.0.*positive"),
        ([("bce", math.nan, {})], "weight nan"),
        ([("bce", 1.0, {}), ("bce", 1.0, {})], "twice"),
        ([], "nothing to minimise"),
        ([("soft_ce", 1.0, {"eps": 1.0})], r"eps = 1.0 is outside \[0, 1\)"),
        ([("soft_ce", 1.0, {"eps": -0.1})], "eps = -0.1"),
        ([("dice", 1.0, {"smooth": 0.0})], "smooth = 0.0 must be positive"),
    ],
)
def test_a_wrong_recipe_fails_when_the_sum_is_built(terms: list[tuple[str, float, dict]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        weighted_sum(terms)


# ---- time ----


def step_seconds(model: torch.nn.Module, image: Tensor, loss: Callable, truth: tuple[Tensor, Tensor]) -> Tensor:
    """Processor time of a training step's forward and backward, and of the loss in it."""
    start = time.process_time()
    logits = model(image).logits
    middle = time.process_time()
    (gradient,) = torch.autograd.grad(loss(logits, *truth)["loss"], logits, retain_graph=True)
    in_loss = time.process_time() - middle
    logits.backward(gradient)
    return torch.tensor([time.process_time() - start, in_loss])


@pytest.mark.slow
def test_three_terms_cost_little_of_a_step() -> None:
    """What soft CE + OHEM + Lovász cost beyond bce, in a step of SegFormer-B2 on one image of 512 pixels."""
    from l4s.data.bands import Bands
    from l4s.models import build_model

    model = build_model("segformer", Bands(), size=512, seed=0, options={"encoder": "mit_b2"}).train()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 14, 512, 512, generator=generator)
    truth = (torch.rand(1, 512, 512, generator=generator) < 0.03).float(), torch.ones(1, 512, 512)
    plain = weighted_sum([("bce", 1.0, {})])
    terms = weighted_sum([("soft_ce", 1.0, {}), ("ohem", 1.0, {"eps": 0.1}), ("lovasz", 1.0, {})])
    times = [[step_seconds(model, image, loss, truth) for loss in (plain, terms)] for _ in range(3)]
    # The losses are timed inside the steps: two steps differ by more than two losses do.
    share = median(((three[1] - one[1]) / one[0]).item() for one, three in times)
    print(f"\nsoft CE + OHEM + Lovasz beyond bce: {share:.4f} of a step of {times[-1][0][0]:.1f} s")  # noqa: T201
    assert share <= 0.1
