"""Lovász losses against the definition, set by set, and against those of segmentation-models-pytorch."""

import math
import time
from collections.abc import Callable, Sequence
from itertools import product
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from l4s.errors import RecipeError
from l4s.losses import weighted_sum
from l4s.lovasz import hardest_first, lovasz

KINDS = list(product(("softmax", "hinge"), ("image", "batch")))
Pixel = tuple[float, float, float]  # logit, target, weight


def jaccard_loss(members: Sequence[bool], counts: Sequence[float], wrong: set[int]) -> float:
    """1 - |fg without the wrong| / |fg with the wrong|, equation 6 of Berman 2018; 0 if nothing is wrong."""
    if not wrong:
        return 0.0
    foreground = {i for i, member in enumerate(members) if member}
    left, union = (sum(counts[i] for i in pixels) for pixels in (foreground - wrong, foreground | wrong))
    return 1.0 - left / union


def extension(errors: Sequence[float], members: Sequence[bool], counts: Sequence[float]) -> float:
    """The Lovász extension of the Jaccard loss, from its definition: every prefix is a set of its own."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    prefixes = [jaccard_loss(members, counts, set(order[:k])) for k in range(len(order) + 1)]
    return sum(errors[i] * (prefixes[k + 1] - prefixes[k]) for k, i in enumerate(order))


def slow_image(pixels: Sequence[Pixel], variant: str) -> float:
    """The cost of pixels that are all valid."""
    positive, counts = [t >= 0.5 for _, t, _ in pixels], [w for _, _, w in pixels]
    if variant == "hinge":
        errors = [max(0.0, 1.0 - z if t else 1.0 + z) for (z, _, _), t in zip(pixels, positive, strict=True)]
        return extension(errors, positive, counts)
    costs = []
    for label in (True, False):
        members = [t == label for t in positive]
        if any(members):
            probs = [1.0 / (1.0 + math.exp(-z if label else z)) for z, _, _ in pixels]
            errors = [abs(member - p) for member, p in zip(members, probs, strict=True)]
            costs.append(extension(errors, members, counts))
    return sum(costs) / len(costs)


def slow_lovasz(logits: Tensor, target: Tensor, weight: Tensor, variant: str = "softmax", per: str = "image") -> float:
    images = [
        [(z, t, w) for z, t, w in zip(*image, strict=True) if w > 0 and not 0.3 < t < 0.7]
        for image in zip(*(tensor.double().flatten(1).tolist() for tensor in (logits, target, weight)), strict=True)
    ]
    if per == "batch":
        images = [[pixel for image in images for pixel in image]]
    costs = [slow_image(image, variant) for image in images if image]
    return sum(costs) / len(costs) if costs else 0.0


def batch(seed: int = 0, soft: bool = False, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (3, 1, 3, 4) and target, weight (3, 3, 4); about a third of the pixels is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 1, 3, 4, generator=generator)
    target = torch.rand(3, 3, 4, generator=generator)
    weight = 2 * torch.rand(3, 3, 4, generator=generator) * (torch.rand(3, 3, 4, generator=generator) > 0.33)
    target = target if soft else (target > 0.6).float()
    return logits.to(dtype), target.to(dtype), weight.to(dtype)


def value_and_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[float, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf)
    return value.item(), torch.autograd.grad(value, leaf)[0]


# ---- the value ----


@pytest.mark.parametrize(("variant", "per"), KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), soft=st.booleans(), ties=st.booleans())
def test_equals_the_definition(variant: str, per: str, seed: int, soft: bool, ties: bool) -> None:
    logits, target, weight = batch(seed, soft)
    logits = logits.round() if ties else logits
    expected = slow_lovasz(logits, target, weight, variant, per)
    assert lovasz(logits, target, weight, variant=variant, per=per).item() == pytest.approx(expected, rel=1e-5)


def test_values_worked_out_by_hand() -> None:
    # probabilities 3/4, 1/4, 1/2 of landslide, background, background: errors 1/4, 1/4, 1/2.
    logits = torch.tensor([math.log(3), -math.log(3), 0.0]).reshape(1, 1, 1, 3)
    target, weight = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.ones(1, 1, 3)
    # Landslide: 1 - 1/2, then 1 - 0/2, then no more. Background: 1 - 1/2, then 1 - 1/3 or 1 - 0/2, then 1.
    landslide = 0.5 * 0.5 + 0.25 * 0.5
    background = 0.5 * 0.5 + 0.25 * 0.5
    expected = (landslide + background) / 2
    assert lovasz(logits, target, weight).item() == pytest.approx(expected)
    # hinge errors 1 - log 3 < 0 twice, and 1: only the third pixel costs, and half of the union.
    assert lovasz(logits, target, weight, variant="hinge").item() == pytest.approx(0.5)
    doubled = torch.tensor([[[1.0, 1.0, 2.0]]])
    assert lovasz(logits, target, doubled, variant="hinge").item() == pytest.approx(1 - 1 / 3)


@pytest.mark.parametrize("variant", ["softmax", "hinge"])
def test_is_the_jaccard_loss_of_hard_predictions(variant: str) -> None:
    _, target, weight = batch(1)
    logits = torch.where(torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(2)) > 0.5, 1e4, -1e4)
    said, true = logits.squeeze(1) > 0, target > 0.5
    iou = [(weight * (a & b)).sum() / (weight * (a | b)).sum() for a, b in ((said, true), (~said, ~true))]
    got = lovasz(logits, target, weight, variant=variant, per="batch").item()
    if variant == "softmax":
        assert got == pytest.approx(1 - (iou[0] + iou[1]).item() / 2, rel=1e-5)
    else:  # a wrong pixel has error 1 + 1e4
        assert got == pytest.approx((1 - iou[0].item()) * (1 + 1e4), rel=1e-5)


@pytest.mark.parametrize("per", ["image", "batch"])
def test_equals_smp_where_all_pixels_count_alike(per: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target, weight = batch(3)
    ones, labels = (weight > 0).float(), target.long().masked_fill(weight == 0, 255)
    assert (labels == 255).any()
    binary = smp.LovaszLoss("binary", per_image=per == "image", ignore_index=255)
    two_class = smp.LovaszLoss("multiclass", per_image=per == "image", ignore_index=255)
    theirs = {
        "hinge": lambda z: binary(z, labels.unsqueeze(1)),
        "softmax": lambda z: two_class(torch.cat([torch.zeros_like(z), z], 1), labels),
    }
    for variant, loss in theirs.items():
        expected, its_gradient = value_and_gradient(loss, logits)
        got, gradient = value_and_gradient(lambda z, v=variant: lovasz(z, target, ones, variant=v, per=per), logits)
        assert got == pytest.approx(expected, rel=1e-6)
        assert torch.allclose(gradient, its_gradient, rtol=1e-4, atol=1e-6)


# ---- the gradient ----


@pytest.mark.parametrize(("variant", "per"), KINDS)
def test_gradient(variant: str, per: str) -> None:
    logits, target, weight = batch(4, soft=True, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: lovasz(z, target, weight, variant=variant, per=per), logits.requires_grad_()
    )


@pytest.mark.parametrize(("variant", "per"), KINDS)
def test_float32_is_enough_for_a_large_image(variant: str, per: str) -> None:
    generator = torch.Generator().manual_seed(5)
    target = (torch.rand(1, 512, 512, generator=generator) < 0.03).float()
    logits = torch.randn(1, 1, 512, 512, generator=generator) + 3 * (2 * target.unsqueeze(1) - 1)
    weight = torch.rand(1, 512, 512, generator=generator)

    def loss(z: Tensor) -> Tensor:
        return lovasz(z, target, weight, variant=variant, per=per)

    single, gradient = value_and_gradient(loss, logits)
    double, exact = value_and_gradient(loss, logits.double())
    assert single == pytest.approx(double, rel=1e-5)
    moved = (gradient - exact).abs() > 1e-3 * exact.abs() + 1e-12
    assert moved.float().mean() < 1e-3  # float32 ties of different float64 errors may change places


# ---- what is left out ----


@pytest.mark.parametrize(("variant", "per"), KINDS)
def test_soft_targets_and_weight_0_are_removed(variant: str, per: str) -> None:
    logits, target, weight = batch(6)
    target[:, 0, 0], target[:, 0, 1], target[:, 1, 0] = 0.31, 0.69, 0.5
    unsure = (target > 0.3) & (target < 0.7)
    options = {"variant": variant, "per": per}
    removed = weight.masked_fill(unsure, 0.0)
    expected, _ = value_and_gradient(lambda z: lovasz(z, target.round(), removed, **options), logits)
    dirty = logits.masked_fill((weight == 0).unsqueeze(1), math.nan)
    got, gradient = value_and_gradient(lambda z: lovasz(z, target, weight, **options), dirty)
    assert got == pytest.approx(expected, rel=1e-6)
    assert gradient.isfinite().all() and not gradient[(unsure | (weight == 0)).unsqueeze(1)].any()
    assert gradient.any()


def test_soft_targets_at_the_bounds_count() -> None:
    logits, ones = torch.tensor([[[[0.5, -0.5]]]]), torch.ones(1, 1, 2)
    soft, hard = torch.tensor([[[0.3, 0.7]]]), torch.tensor([[[0.0, 1.0]]])
    assert lovasz(logits, soft, ones).item() == lovasz(logits, hard, ones).item() > 0


@pytest.mark.parametrize(("variant", "per"), KINDS)
def test_an_image_ignored_everywhere_contributes_nothing(variant: str, per: str) -> None:
    logits, target, weight = batch(7)
    options = {"variant": variant, "per": per}
    expected, gradient = value_and_gradient(lambda z: lovasz(z, target, weight, **options), logits)
    more = [torch.cat([tensor, tensor[:2]]) for tensor in (logits, target, weight)]
    more[0][3:], more[2][3] = math.nan, 0.0
    more[0][4], more[1][4] = 1.0, 0.5  # weight, but no certain target
    got, with_more = value_and_gradient(lambda z: lovasz(z, more[1], more[2], **options), more[0])
    assert got == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(with_more[:3], gradient, rtol=1e-5) and not with_more[3:].any()


@pytest.mark.parametrize(("variant", "per"), KINDS)
def test_a_batch_ignored_everywhere_is_zero_and_connected(variant: str, per: str) -> None:
    for target, weight in ((1.0, 0.0), (0.5, 1.0)):
        tensors = torch.full((2, 3, 4), target), torch.full((2, 3, 4), weight)
        value, gradient = value_and_gradient(
            lambda z, rest=tensors: lovasz(z, *rest, variant=variant, per=per), torch.ones(2, 1, 3, 4)
        )
        assert value == 0.0 and torch.equal(gradient, torch.zeros(2, 1, 3, 4))


# ---- images of one class ----


def test_softmax_without_landslides_is_the_mean_probability() -> None:
    logits, target, weight = batch(8)
    expected = [(w * z.sigmoid()).sum() / w.sum() for z, w in zip(logits.squeeze(1), weight, strict=True)]
    got = lovasz(logits, torch.zeros_like(target), weight).item()
    assert got == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)


def test_hinge_without_landslides_is_the_worst_valid_pixel() -> None:
    logits, target, weight = batch(9)
    logits[0, 0, 0, 0], weight[0, 0, 0] = 50.0, 0.0
    value, gradient = value_and_gradient(lambda z: lovasz(z, torch.zeros_like(target), weight, variant="hinge"), logits)
    worst = torch.where(weight > 0, 1 + logits.squeeze(1), 0.0).flatten(1).amax(1)
    assert value == pytest.approx(worst.mean().item(), rel=1e-6)
    assert [row.nonzero().numel() for row in gradient.flatten(1)] == [1, 1, 1]


def test_a_landslide_of_tiny_weight_stays_finite() -> None:
    target, weight = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[[1e-9, 1.0, 1.0]]])
    for logits, (variant, per) in product(torch.tensor([[3.0, 2.0, 1.0], [-3.0, 1.0, 2.0]]), KINDS):
        logits = logits.reshape(1, 1, 1, 3)
        value, gradient = value_and_gradient(
            lambda z, v=variant, p=per: lovasz(z, target, weight, variant=v, per=p), logits
        )
        assert value == pytest.approx(slow_lovasz(logits, target, weight, variant, per), rel=1e-5)
        assert gradient.isfinite().all()


# ---- what changes nothing ----


@pytest.mark.parametrize(("variant", "per"), KINDS)
def test_the_order_of_pixels_changes_nothing(variant: str, per: str) -> None:
    tensors = [tensor.flatten(1) for tensor in batch(10, soft=True, dtype=torch.float64)]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))

    def loss(z: Tensor, rest: list[Tensor]) -> Tensor:
        return lovasz(z.unsqueeze(1), *rest, variant=variant, per=per)

    value, gradient = value_and_gradient(lambda z: loss(z, tensors[1:]), tensors[0])
    turned = [tensor[:, order] for tensor in tensors]
    other, its_gradient = value_and_gradient(lambda z: loss(z, turned[1:]), turned[0])
    assert other == pytest.approx(value, rel=1e-12)
    assert torch.allclose(its_gradient, gradient[:, order], rtol=1e-9)


@pytest.mark.parametrize(("variant", "per"), KINDS)
def test_a_weight_of_2_is_the_pixel_twice(variant: str, per: str) -> None:
    logits, target, weight = (tensor.flatten(1) for tensor in batch(11))
    weight = (weight > 0).float()
    weight[:, ::2] *= 2
    twice = [torch.cat([tensor, tensor], 1).unsqueeze(1) for tensor in (logits, target)]
    copies = torch.cat([weight.clamp(max=1), weight - weight.clamp(max=1)], 1).unsqueeze(1)
    got = lovasz(logits.unsqueeze(1), target, weight, variant=variant, per=per).item()
    assert got == pytest.approx(lovasz(*twice, copies, variant=variant, per=per).item(), rel=1e-6)


def test_images_and_batch_differ_where_their_landslides_do() -> None:
    logits, target, weight = batch(12)
    assert abs(lovasz(logits, target, weight, per="batch") - lovasz(logits, target, weight)) > 1e-2
    alone = [lovasz(logits[i : i + 1], target[i : i + 1], weight[i : i + 1], per="batch").item() for i in range(3)]
    assert lovasz(logits, target, weight).item() == pytest.approx(sum(alone) / 3, rel=1e-6)


@pytest.mark.parametrize(("variant", "per"), KINDS)
def test_bf16_logits_are_computed_in_fp32(variant: str, per: str) -> None:
    logits, target, weight = batch(13)
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = lovasz(half, target, weight, variant=variant, per=per)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_lovasz(half, target, weight, variant, per), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 7), (3, 5), (300, 2), (2, 40_000)])
def test_hardest_first(shape: tuple[int, int], dtype: torch.dtype) -> None:
    errors = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 100
    errors[:, ::3] = 0.0
    image = np.arange(shape[0]).repeat(shape[1])
    expected = np.lexsort((-errors.flatten().numpy(), image))
    np.testing.assert_array_equal(hardest_first(errors).numpy(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "sigmoid"}, "variant = 'sigmoid' does not exist.*hinge, softmax"),
        ({"per": "images"}, "per = 'images' does not exist, did you mean 'image'"),
        ({"per_image": True}, "no option 'per_image'"),
    ],
)
def test_a_wrong_option_fails_when_the_sum_is_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        weighted_sum([("lovasz", 1.0, options)])


# ---- time ----


def seconds(loss: Callable[[Tensor], Tensor], logits: Tensor) -> float:
    """Processor time, which other programs on the machine disturb less than they do the clock."""
    leaf = logits.clone().requires_grad_()
    start = time.process_time()
    loss(leaf).backward()
    return time.process_time() - start


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1, 128, 128), (4, 1, 512, 512)])
@pytest.mark.parametrize(("per", "limit"), [("image", 0.65), ("batch", 0.5)])
@pytest.mark.usefixtures("one_thread")
def test_takes_less_time_than_smp(per: str, limit: float, shape: tuple[int, ...]) -> None:
    """Forward and backward of both, in turns on one input; the median over 9 pairs of ours to theirs."""
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(shape, generator=generator) < 0.03).float()
    logits, weight = torch.randn(shape, generator=generator), torch.ones(shape)
    binary, two_class = (smp.LovaszLoss(mode, per_image=per == "image") for mode in ("binary", "multiclass"))
    losses = [
        ("hinge", lambda z: binary(z, target)),
        ("softmax", lambda z: two_class(torch.cat([torch.zeros_like(z), z], 1), target.squeeze(1).long())),
    ]
    ratios = {}
    for variant, theirs in losses:

        def ours(z: Tensor, variant: str = variant) -> Tensor:
            return lovasz(z, target, weight, variant=variant, per=per)

        pairs = [(seconds(ours, logits), seconds(theirs, logits)) for _ in range(11)][2:]
        ratios[variant] = median(a / b for a, b in pairs)
    print(f"\nLovasz per {per}, {shape}, ours / SMP: {ratios}")  # noqa: T201
    assert ratios["hinge"] <= limit and ratios["softmax"] <= limit
