"""Object context against loops over pixels and regions, and HRNet's branches against timm's."""

import math

import pytest
import timm
import torch
from torch import Tensor

from l4s.data.bands import Bands
from l4s.models import build_model
from l4s.models.ocr import attend, region_means

RGB = Bands(use=("b4", "b3", "b2"))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_regions_are_means_weighted_by_probability():
    pixels, aux = draw(2, 5, 3, 4), 3 * draw(2, 1, 3, 4, seed=1)
    got = region_means(pixels, aux)
    assert got.shape == (2, 5, 2, 1)
    for image in range(2):
        total, weight = torch.zeros(2, 5), [0.0, 0.0]
        for row in range(3):
            for column in range(4):
                p = 1 / (1 + math.exp(-aux[image, 0, row, column].item()))
                for region, degree in enumerate((p, 1 - p)):
                    total[region] += degree * pixels[image, :, row, column]
                    weight[region] += degree
        for region in range(2):
            torch.testing.assert_close(got[image, :, region, 0], total[region] / weight[region])


def test_certain_pixels_are_their_region_and_an_empty_region_is_finite():
    pixels = torch.tensor([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 2, 2)
    certain = torch.tensor([90.0, -90.0, 90.0, -90.0]).reshape(1, 1, 2, 2)
    assert region_means(pixels, certain).flatten().tolist() == [2.0, 4.0]
    nowhere = torch.full((1, 1, 2, 2), -400.0)  # p is 0 in float32
    assert region_means(pixels, nowhere).flatten().tolist() == [3.0, 3.0]


def test_attention_takes_from_regions_by_agreement():
    query, key, value = draw(2, 6, 3, 2), draw(2, 6, 2, 1, seed=1), draw(2, 4, 2, 1, seed=2)
    got = attend(query, key, value)
    assert got.shape == (2, 4, 3, 2)
    for image in range(2):
        for row in range(3):
            for column in range(2):
                weights = [
                    math.exp((query[image, :, row, column] @ key[image, :, region, 0]).item() / math.sqrt(6))
                    for region in range(2)
                ]
                expected = sum(w * value[image, :, region, 0] for region, w in enumerate(weights)) / sum(weights)
                torch.testing.assert_close(got[image, :, row, column], expected)


@pytest.mark.parametrize("output", ["logits", "aux"])
def test_the_auxiliary_head_learns_from_either_output(output):
    model = build_model("hrnet_ocr", RGB, size=32, seed=0, options={"encoder": "hrnet_w18_small", "width": 8})
    result = model(draw(2, 3, 32, 32))
    {"logits": result.logits, "aux": result.extras["aux"]}[output].square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.aux.parameters() if parameter.ndim > 1)
    assert bool(model.head.weight.grad.any()) == (output == "logits")


def test_branches_are_those_before_the_classifier():
    options = {"encoder": "hrnet_w18_small", "width": 8}
    model = build_model("hrnet_ocr", RGB, size=64, seed=0, options=options).eval()
    classifier = timm.create_model("hrnet_w18_small").eval()
    state = classifier.state_dict()
    assert state.keys() > model.encoder.state_dict().keys()
    classifier.load_state_dict({**state, **model.encoder.state_dict()})
    image = draw(1, 3, 64, 64)
    with torch.no_grad():
        stem = classifier.act1(classifier.bn1(classifier.conv1(image)))
        stem = classifier.act2(classifier.bn2(classifier.conv2(stem)))
        branches = classifier.stages(stem)
        for ours, theirs in zip(model.encoder(image), branches, strict=True):
            assert torch.equal(ours, theirs)
    assert [branch.shape[-1] for branch in branches] == [16, 8, 4, 2]
