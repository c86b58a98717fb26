"""The fusion network beside its formulas, written out by hand, and options that cannot be."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder

from l4s.data.bands import Bands
from l4s.errors import DataError, RecipeError
from l4s.models import build_model
from l4s.models.fused import Gate, Residual

BANDS = Bands(
    file=("r", "g", "b", "dem"), terrain=("dem",), rgb=("r", "g", "b"), groups={"rgb": ("r", "g", "b"), "dem": ("dem",)}
)


def build(bands=BANDS, seed=0, **options):
    return build_model("fusion", bands, size=32, seed=seed, options={"width": 2} | options)


def images(channels=4, size=32, count=2):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def by_hand(model, image, concat=True):
    """The network of one residual encoder a group, level by level."""
    each = []
    for group, place in model.places.items():
        x, features = image[:, place], []
        for number, level in enumerate(model.encoder[group].levels):
            x = level(F.max_pool2d(x, 2) if number else x)
            features.append(x)
        each.append(features)
    deepest = [features[4] for features in each]
    x = model.fuse(torch.cat(deepest, 1)) if concat else sum(deepest[1:], deepest[0])
    for row, level in enumerate((3, 2, 1, 0)):
        skip = sum((features[level] for features in each[1:]), each[0][level])
        x = F.interpolate(model.reduce[row](x), scale_factor=2, mode="bilinear")
        skip = model.gates[row](skip, x) * skip if model.gates is not None else skip
        x = model.decoder[row](torch.cat([skip, x], 1))
    return model.head(x)


@pytest.mark.parametrize(
    "options", [{}, {"fuse": "sum"}, {"attention": False}, {"encoder": "plain"}, {"groups": ["dem"]}]
)
def test_skips_are_sums_and_the_latent_space_is_fused(options):
    model, image = build(**options).eval(), images()
    with torch.no_grad():
        output = model(image)
        torch.testing.assert_close(
            output.logits, by_hand(model, image, options.get("fuse") != "sum" and "groups" not in options)
        )
    assert ("attention" in output.extras) == options.get("attention", True)


def test_a_group_sees_its_bands_and_no_others():
    model, image = build(groups=["rgb"]).eval(), images()
    other = image.clone()
    other[:, 3] += 1
    with torch.no_grad():
        assert torch.equal(model(image).logits, model(other).logits)
        other[:, 0] += 1
        assert not torch.equal(model(image).logits, model(other).logits)


def test_bands_are_found_by_name():
    turned = BANDS.model_copy(update={"file": ("dem", "b", "g", "r")})
    one, two, image = build().eval(), build(turned).eval(), images()
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one(image).logits, two(image.flip(1)).logits)


def test_the_gate_is_oktays():
    gate, skip, signal = Gate(4), images(4, 8), images(4, 8).flip(0)
    inner = F.relu(
        F.conv2d(skip, gate.skip.weight, gate.skip.bias) + F.conv2d(signal, gate.signal.weight, gate.signal.bias)
    )
    expected = torch.sigmoid(F.conv2d(inner, gate.map.weight, gate.map.bias))
    torch.testing.assert_close(gate(skip, signal), expected)


def test_a_residual_block_of_zeros_lets_its_input_through():
    block = Residual(3, 3).eval()
    torch.nn.init.zeros_(block.body[3].weight)
    image = images(3, 8)
    assert torch.equal(block(image), F.relu(image))


def test_maps_lie_in_0_to_1_and_have_the_images_size():
    with torch.no_grad():
        output = build().eval()(images(size=50))
    assert output.extras["attention"].shape == (2, 4, 50, 50) and output.extras["feature"].shape == (2, 2, 50, 50)
    assert 0 <= output.extras["attention"].min() and output.extras["attention"].max() <= 1


@pytest.mark.slow
def test_vgg_takes_pretrained_filters_for_its_colours_and_their_mean_for_relief(tmp_path):
    encoder = get_encoder("vgg16_bn", in_channels=3, depth=4, weights=None)
    save_file(encoder.state_dict(), tmp_path / "vgg.safetensors")
    model = build(encoder="vgg16_bn", weights=str(tmp_path / "vgg.safetensors"), seed=1)
    first = encoder.state_dict()["features.0.weight"]
    rgb, dem = (model.encoder[group].encoder.state_dict()["features.0.weight"] for group in ("rgb", "dem"))
    assert torch.equal(rgb, first)
    torch.testing.assert_close(dem, 3 * first.mean(1, keepdim=True))
    output = model(images())
    output.logits.square().mean().backward()
    assert all(
        p.grad is not None and name.startswith("encoder.") for name, p in model.encoder.named_parameters("encoder")
    )


@pytest.mark.parametrize(
    ("bands", "options", "message"),
    [
        (Bands(), {}, "set bands.groups"),
        (BANDS, {"groups": ["dmm"]}, "did you mean 'dem'"),
        (BANDS, {"encoder": "residul"}, "did you mean 'residual'"),
        (BANDS, {"encoder": {"rgb": "plain"}}, "name each of dem, rgb"),
        (BANDS, {"fuse": "max"}, "model.fuse = 'max'"),
        (BANDS, {"fuse": "sum", "groups": ["rgb"]}, "no effect with one band group"),
        (BANDS, {"width": 0}, "must be positive"),
        (BANDS, {"weights": "imagenet"}, "trained from scratch"),
        (BANDS.model_copy(update={"use": ("r", "g", "b")}), {}, "band group 'dem' needs 'dem'"),
        (BANDS.model_copy(update={"groups": {"rgb": ("r", "g", "b")}}), {}, "band 'dem' is in none of bands.groups"),
    ],
)
def test_what_cannot_be_is_refused(bands, options, message):
    with pytest.raises(RecipeError, match=message):
        build(bands, **options)


def test_the_order_of_groups_changes_nothing():
    """Fingerprints do not see the order of a mapping."""
    swapped = BANDS.model_copy(update={"groups": dict(reversed(BANDS.groups.items()))})
    ours, theirs = (build(bands).eval()(images()).logits for bands in (BANDS, swapped))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_weights_that_are_no_vggs_are_refused(tmp_path):
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="does not fit the encoder"):
        build(encoder="vgg16_bn", weights=str(tmp_path / "other.safetensors"))
