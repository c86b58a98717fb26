"""DomainBatchNorm against torch's BatchNorm: one domain is the same layer, several are several layers that share an affine."""

import copy

import pytest
import timm
import torch
from safetensors.torch import load, save
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from l4s.models.norm import DomainBatchNorm, adapt_bn, convert_bn, domain_rows, norm_layers, settle_bn


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))


def images(count: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def test_one_domain_is_batchnorm_to_the_bit_through_training_ema_and_a_file() -> None:
    plain, ours = network(), convert_bn(network(), ["source"])
    shadows = [ModelEmaV3(model, decay=0.9) for model in (plain, ours)]
    for step in range(3):
        for model, shadow in zip((plain, ours), shadows, strict=True):
            optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
            model(images(seed=step)).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
            shadow.update(model, step=step)
    restored = convert_bn(network(), ["source"])
    restored.load_state_dict(load(save(ours.state_dict())))
    for left, right in ((plain, ours), (plain, restored), (shadows[0].module, shadows[1].module)):
        assert torch.equal(left.eval()(images()), right.eval()(images()))


@pytest.mark.parametrize("domains", [[0, 1, 0, 1, 1, 0], [0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]])
def test_two_domains_are_two_batchnorms_with_one_affine(domains: list[int]) -> None:
    rows = torch.tensor(domains)
    ours = convert_bn(nn.Sequential(nn.BatchNorm2d(3)), ["source", "target"])
    apart = [nn.BatchNorm2d(3) for _ in range(2)]
    for step in range(3):
        batch = images(seed=step)
        with domain_rows(rows):
            out = ours(batch)
        for domain, layer in enumerate(apart):
            assert torch.equal(out[rows == domain], layer(batch[rows == domain]))
    (layer,) = norm_layers(ours)
    for domain, norm in enumerate(apart):
        assert torch.equal(layer.running_mean[domain], norm.running_mean)
        assert torch.equal(layer.running_var[domain], norm.running_var)
    with domain_rows(rows):
        out = ours.eval()(images())
    for domain, norm in enumerate(apart):
        assert torch.equal(out[rows == domain], norm.eval()(images()[rows == domain]))


def test_domains_in_blocks_keep_the_layout_of_memory() -> None:
    """A layer that loses it makes every convolution after it bring it back, forwards and backwards."""
    batch = images().contiguous(memory_format=torch.channels_last).requires_grad_()
    with domain_rows(torch.tensor([0, 0, 0, 1, 1, 1])):
        out = convert_bn(nn.Sequential(nn.BatchNorm2d(3)), ["source", "target"])(batch)
    out.square().mean().backward()
    assert batch.grad is not None
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert batch.grad.is_contiguous(memory_format=torch.channels_last)


def test_training_does_not_look_at_the_count_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each look waits for it: once a layer, domain and step."""

    def look(tensor: Tensor) -> float:
        raise AssertionError("a value of a tensor was asked for")

    ours = convert_bn(network(), ["source"])
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "__float__", look)
        ours(images())
    assert int(norm_layers(ours)[0].num_batches_tracked[0]) == 1


def test_without_a_momentum_the_statistics_are_the_plain_mean_of_all_batches() -> None:
    plain = nn.BatchNorm2d(3, momentum=None)
    ours = convert_bn(nn.Sequential(copy.deepcopy(plain)), ["source"])
    for seed in range(3):
        plain(images(seed=seed))
        ours(images(seed=seed))
    (layer,) = norm_layers(ours)
    assert torch.equal(layer.running_mean[0], plain.running_mean)
    assert torch.equal(layer.running_var[0], plain.running_var)


def test_the_gradient_of_a_mixed_batch_is_that_of_the_parts() -> None:
    rows = torch.tensor([1, 0, 0, 1, 1, 0])
    ours, apart = convert_bn(nn.Sequential(nn.BatchNorm2d(3)), ["a", "b"]), nn.BatchNorm2d(3)
    batch = images().requires_grad_()
    with domain_rows(rows):
        mixed = ours(batch)
    (left,) = torch.autograd.grad(mixed.pow(3).sum(), batch)
    parts = torch.cat([apart(batch[rows == d]).pow(3).reshape(-1) for d in (0, 1)])
    (right,) = torch.autograd.grad(parts.sum(), batch)
    torch.testing.assert_close(left, right)


def test_a_timm_layer_keeps_its_activation() -> None:
    plain = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    ours = convert_bn(copy.deepcopy(plain), ["source"]).eval()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ours.modules())
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for left, right in zip(plain(image), ours(image), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("sizes", [[6], [2, 4], [1, 1, 4]])
def test_adabn_of_one_layer_is_the_pooled_mean_and_variance(sizes: list[int]) -> None:
    ours = convert_bn(nn.Sequential(nn.BatchNorm2d(3)), ["source", "target"])
    batch = images()
    adapt_bn(ours, batch.split(sizes), domain=1)
    (layer,) = norm_layers(ours)
    pixels = batch.transpose(0, 1).reshape(3, -1)
    torch.testing.assert_close(layer.running_mean[1], pixels.mean(1))
    torch.testing.assert_close(layer.running_var[1], pixels.var(1))
    assert torch.equal(layer.running_mean[0], torch.zeros(3)), "the other domain must not move"


def test_one_value_a_channel_is_normalised_by_the_running_statistics() -> None:
    """As torch cannot: a batch with one patch of a domain, pooled as DeepLab does."""
    layer = DomainBatchNorm(nn.BatchNorm2d(3), ["a", "b"]).train()
    layer.running_mean[1], layer.running_var[1] = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 4.0, 4.0])
    image = torch.arange(15.0).reshape(5, 3, 1, 1)
    with domain_rows(torch.tensor([0, 0, 1, 0, 0])):
        found = layer(image)
    torch.testing.assert_close(found[2, :, 0, 0], (image[2, :, 0, 0] - layer.running_mean[1]) / (4 + layer.eps) ** 0.5)
    assert layer.running_mean[1].tolist() == [1, 2, 3] and layer.num_batches_tracked.tolist() == [1, 0]


def test_a_new_domain_starts_from_another() -> None:
    layer = DomainBatchNorm(nn.BatchNorm2d(3), ["source"])
    layer.train()(images())
    layer.add_domain("target", init="source")
    assert layer.domains == ["source", "target"]
    assert torch.equal(layer.running_mean[0], layer.running_mean[1])
    with domain_rows(torch.ones(6, dtype=torch.int64)):
        layer(images(seed=5))
    assert not torch.equal(layer.running_mean[0], layer.running_mean[1])


def test_precise_statistics_of_one_batch_are_those_that_torch_computes_anew() -> None:
    ours, theirs = network(), network()
    for step in range(3):  # moving averages of something else
        ours(images(seed=step) + 5)
    settle_bn(ours.eval(), [(images(), torch.zeros(6, dtype=torch.int64))])
    torch.optim.swa_utils.update_bn([images()], theirs)
    assert not ours.training
    for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
        torch.testing.assert_close(ours.state_dict()[name], theirs.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_precise_statistics_by_domain_are_those_of_its_rows_alone() -> None:
    ours = convert_bn(network(), ["a", "b", "nobody"])
    rows = torch.tensor([0, 1, 0, 1, 1, 0])
    before = ours.state_dict()["1.running_mean"][2].clone()
    settle_bn(ours, [(images(seed=1), rows), (images(seed=2), rows)])
    for domain in (0, 1):
        alone = network()
        settle_bn(alone, [(images(seed=seed)[rows == domain], rows[rows == domain]) for seed in (1, 2)])
        for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
            assert torch.equal(ours.state_dict()[name][domain], alone.state_dict()[name])
    assert torch.equal(ours.state_dict()["1.running_mean"][2], before)
