"""Networks for pairs of images beside the numbers of the paper and of its released code, and their formulas."""

import pytest
import torch
import torch.nn.functional as F

from l4s.data.bands import Bands
from l4s.errors import RecipeError
from l4s.models import build_model
from l4s.models.siamese import joined_channels

SAR = Bands(
    file=("vv_pre", "vh_pre", "vv_post", "vh_post"),
    terrain=(),
    groups={"pre": ("vv_pre", "vh_pre"), "post": ("vv_post", "vh_post")},
)
SMALL = {"encoder": "cnn", "embedding": 3, "kernel": 3}


def build(name, bands=SAR, size=32, **options):
    return build_model(name, bands, size=size, seed=0, options=options)


def images(channels=4, size=32, count=2):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_released_first_stage_runs_a_stem_and_one_block():
    """Methods E2: 43,424 weights of the 21 million that are stored take part."""
    assert count(build("siamese", decoder=[32], head="mean").encoder) == 43_424


@pytest.mark.parametrize(("embedding", "parameters"), [(64, 1_133_193), (0, 342_473)])
def test_the_second_stage_has_the_released_codes_parameters(embedding, parameters):
    assert count(build("pair_cnn", embedding=embedding)) == parameters


def test_a_baseline_can_be_matched():
    with_embeddings = count(build("pair_cnn", embedding=64))
    matched = count(build("pair_cnn", widths=[8, 16, 124]))
    assert abs(matched / with_embeddings - 1) < 0.01


def test_one_network_sees_both_images():
    model, image = build("siamese", head="mean", **SMALL).eval(), images()
    with torch.no_grad():
        before, after = model(image).extras["embedding"].split(3, dim=1)
        swapped = model(image[:, [2, 3, 0, 1]]).extras["embedding"].split(3, dim=1)
        torch.testing.assert_close((before, after), swapped[::-1])
        torch.testing.assert_close(before, model.encoder(image[:, :2]))


def test_bands_are_found_by_name():
    turned = SAR.model_copy(update={"file": ("vh_post", "vv_pre", "vv_post", "vh_pre")})
    one, two = build("siamese", head="mean", **SMALL).eval(), build("siamese", turned, head="mean", **SMALL).eval()
    image = images()
    with torch.no_grad():
        torch.testing.assert_close(one(image).logits, two(image[:, [3, 0, 2, 1]]).logits)


def test_a_symmetric_join_adds_the_change_and_its_size():
    with torch.no_grad():
        joined = build("siamese", head="mean", join="symmetric", **SMALL).eval()(images()).extras["embedding"]
    before, after, change, size = joined.split(3, dim=1)
    torch.testing.assert_close(change, after - before)
    torch.testing.assert_close(size, change.abs())
    assert joined.shape[1] == joined_channels(embedding=3, join="symmetric") == 12
    assert joined_channels(embedding=3) == 6 and joined_channels() == 64


@pytest.mark.parametrize("head", ["mean", "topk", "fc"])
def test_heads_are_their_formulas(head):
    model, image = build("siamese", head=head, **SMALL).eval(), images()
    with torch.no_grad():
        output = model(image)
        maps = model.head.map[1](model.head.map[0](output.extras["embedding"]))
        values = F.leaky_relu(maps, 0.01).flatten(2)
        assert values.shape == (2, 8 if head == "topk" else 1, 30 * 30)
        if head == "mean":
            wanted = values.mean((1, 2))
        elif head == "topk":
            wanted = model.head.last(values.sort(2, descending=True).values[:, :, :9].mean(2))[:, 0]
        else:
            first, _, _, last = model.head.layers
            wanted = last(F.leaky_relu(first(values[:, 0]), 0.01))[:, 0]
        torch.testing.assert_close(output.logits[:, 0], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("join", ["concat", "symmetric"])
def test_the_highest_values_learn_a_change_that_few_pixels_show(join):
    """Once the head's answer was the mean of one map's highest values, and training took that map to 0 and stayed there."""
    torch.manual_seed(0)
    before, truth = torch.randn(64, 2, 32, 32), torch.arange(64) % 2
    after = before + 0.3 * torch.randn(64, 2, 32, 32)
    after[truth == 1, :, 12:16, 12:16] -= 2.0
    model = build("siamese", head="topk", join=join, encoder="cnn", embedding=8, kernel=3)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(120):
        rows = torch.arange(16) + 16 * (step % 4)
        logits = model(torch.cat([before, after], 1)[rows]).logits[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, truth[rows].float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        answers = model.eval()(torch.cat([before, after], 1)).logits[:, 0] > 0
    assert (answers == truth.bool()).float().mean() > 0.9


def test_a_connected_head_is_for_one_size():
    with pytest.raises(ValueError, match="built for model.size = 32"):
        build("siamese", **SMALL)(images(size=48))


def test_embeddings_follow_the_bands():
    model, image = build("pair_cnn", embedding=3, widths=[4], kernel=3).eval(), images(7)
    with torch.no_grad():
        joined = torch.cat([model.encoder(image[:, :4]), image[:, 4:]], 1)
        torch.testing.assert_close(model(image).logits, model.head(joined))
        assert model(image).logits.shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("name", "bands", "options", "message"),
    [
        ("siamese", Bands(), {}, "bands.groups has no 'pre'"),
        (
            "siamese",
            SAR.model_copy(update={"groups": {"pre": ("vv_pre",), "post": ("vv_post", "vh_post")}}),
            {},
            "pre has 1",
        ),
        (
            "siamese",
            SAR.model_copy(update={"use": ("vv_pre", "vv_post")}),
            {},
            "'vh_pre', which is not one of bands.use",
        ),
        ("siamese", SAR, {"head": "fcc"}, "did you mean 'fc'"),
        ("siamese", SAR, {"join": "both"}, "model.join = 'both'"),
        ("siamese", SAR, {"kernel": 64}, "larger than the images"),
        ("siamese", SAR, {"decoder": []}, "give 1 to 5 positive widths"),
        ("siamese", SAR, {"kernel": 0}, "model.kernel = 0 must be positive"),
        ("siamese", SAR, {"head": "topk", "kernel": 64}, "larger than the images"),
        ("siamese", SAR, {"head": "topk", "dropout": 0.1}, "model.dropout has no effect with head 'topk'"),
        ("siamese", SAR, {"head": "mean", "hidden": 4}, "model.hidden has no effect with head 'mean'"),
        ("siamese", SAR, {"head": "topk", "hidden": 0}, "model.hidden = 0 must be positive"),
        ("siamese", SAR, {"encoder": "cnn", "decoder": [8]}, "no effect with encoder 'cnn'"),
        ("siamese", SAR, {"encoder": "resnt34"}, "resnet34"),
        ("pair_cnn", SAR, {"widths": []}, "must be positive"),
        ("pair_cnn", SAR, {"kernel": 0}, "must be positive"),
    ],
)
def test_what_cannot_be_is_refused(name, bands, options, message):
    with pytest.raises(RecipeError, match=message):
        build(name, bands, **options)
