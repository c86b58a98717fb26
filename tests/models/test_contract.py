"""Every model: any bands, any size, equal seeds, weights that survive a file."""

import subprocess
import sys

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from l4s.data.bands import Bands
from l4s.errors import RecipeError
from l4s.models import MODELS, Output, build_model, check_options
from l4s.models.encoders import encoder_name

BANDS = {
    3: Bands(use=("b4", "b3", "b2")),
    7: Bands(use=("b2", "b3", "b4", "b8", "b11", "slope", "dem")),
    14: Bands(),
}
TINY = {
    "unet": {"encoder": "mobilenetv3_small_050", "decoder": [32, 16, 8, 8, 8]},
    "segformer": {"encoder": "mit_b0", "decoder": 16},
    "baseline": {"width": 4},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(name: str, channels: int = 3, seed: int = 0, size: int = 64) -> nn.Module:
    return build_model(name, BANDS[channels], size=size, seed=seed, options=TINY.get(name, {}))


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", BANDS)
@pytest.mark.parametrize("name", MODELS)
def test_forward_and_backward_with_any_bands(name, channels):
    model = build(name, channels)
    output = model(images(2, channels, 64, 64))
    assert isinstance(output, Output)
    assert output.logits.shape == (2, 1, 64, 64)
    assert output.logits.dtype == torch.float32
    assert output.extras == {}
    output.logits.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", MODELS)
def test_every_band_is_seen(name):
    model = build(name, 7).eval()
    image = images(1, 7, 64, 64).requires_grad_()
    model(image).logits.square().sum().backward()
    assert (image.grad.abs().amax(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_weights_give_equal_logits(name, tmp_path):
    model, other = build(name, seed=1), build(name, seed=2)
    model(images(4, 3, 64, 64))  # moves the running statistics, which must be saved too
    image = images(1, 3, 64, 64, seed=5)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    with torch.no_grad():
        expected = model.eval()(image).logits
        assert not torch.equal(other.eval()(image).logits, expected)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert torch.equal(other(image).logits, expected)


@pytest.mark.parametrize("name", MODELS)
def test_odd_sizes_are_padded_by_their_edge_and_cropped_back(name):
    model = build(name).eval()
    image = images(1, 3, 50, 70)
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (0, 14), (0, 26)), mode="edge")
    with torch.no_grad():
        logits = model(image).logits
        whole = model(torch.from_numpy(padded)).logits
    assert logits.shape == (1, 1, 50, 70)
    if name == "baseline":  # its stride is 16: 50 x 70 becomes 64 x 80
        whole = model(torch.from_numpy(padded[..., :80])).logits
    torch.testing.assert_close(logits, whole[..., :50, :70])


@pytest.mark.parametrize("name", MODELS)
def test_one_small_image_is_a_batch_in_evaluation(name):
    with torch.no_grad():
        logits = build(name).eval()(images(1, 3, 32, 32)).logits
    assert logits.shape == (1, 1, 32, 32)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_equal_seeds_give_equal_weights_and_leave_the_random_state_alone(name):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = build(name, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    second, other = build(name, seed=3).state_dict(), build(name, seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_the_encoder_is_told_by_its_prefix(name):
    keys = list(build(name).state_dict())
    share = sum(key.startswith("encoder.") for key in keys)
    assert 0 < share < len(keys)


def test_unet_computes_what_smp_computes():
    ours = build("unet").eval()
    theirs = smp.Unet(
        "tu-mobilenetv3_small_050", encoder_weights=None, decoder_channels=(32, 16, 8, 8, 8), in_channels=3
    ).eval()
    theirs.load_state_dict({k.replace("head.", "segmentation_head.", 1): v for k, v in ours.state_dict().items()})
    image = images(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(ours(image).logits, theirs(image))


def test_segformer_computes_what_smp_computes():
    ours = build("segformer").eval()
    theirs = smp.Segformer("mit_b0", encoder_weights=None, decoder_segmentation_channels=16, in_channels=3).eval()
    theirs.load_state_dict({k.replace("head.", "segmentation_head.", 1): v for k, v in ours.state_dict().items()})
    image = images(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(ours(image).logits, theirs(image))


def test_baseline_has_the_organisers_size():
    # milesial's bilinear U-Net (3 bands, 2 classes, no biases) has 17,263,042 parameters; one logit less is 65 fewer,
    # 11 bands more are 11 * 64 * 9, and the organisers' 4,416 convolution outputs before BatchNorm have biases
    model = build_model("baseline", Bands(), size=128, seed=0, options={})
    assert sum(each.numel() for each in model.parameters()) == 17_263_042 - 65 + 11 * 64 * 9 + 4_416


def test_baseline_computes_the_u_net_written_out():
    model = build("baseline").eval()
    state = model.state_dict()

    def double_conv(x: Tensor, where: str) -> Tensor:
        for conv, norm in ((0, 1), (3, 4)):
            x = F.conv2d(x, state[f"{where}.{conv}.weight"], state[f"{where}.{conv}.bias"], padding=1)
            mean, variance = state[f"{where}.{norm}.running_mean"], state[f"{where}.{norm}.running_var"]
            x = F.batch_norm(x, mean, variance, state[f"{where}.{norm}.weight"], state[f"{where}.{norm}.bias"]).relu()
        return x

    def up(x: Tensor, skip: Tensor, where: str) -> Tensor:
        larger = nn.UpsamplingBilinear2d(scale_factor=2)(x)  # align_corners = True by definition
        return double_conv(torch.cat([skip, larger], 1), where)

    image = images(2, 3, 32, 48)
    with torch.no_grad():
        one = double_conv(image, "encoder.0")
        two = double_conv(F.max_pool2d(one, 2), "encoder.1")
        three = double_conv(F.max_pool2d(two, 2), "encoder.2")
        four = double_conv(F.max_pool2d(three, 2), "encoder.3")
        x = double_conv(F.max_pool2d(four, 2), "encoder.4")
        for level, skip in enumerate((four, three, two, one)):
            x = up(x, skip, f"decoder.{level}")
        expected = F.conv2d(x, state["head.weight"], state["head.bias"])
        torch.testing.assert_close(model(image).logits, expected)


def test_swin_is_built_for_the_training_size():
    name = "swin_tiny_patch4_window7_224"
    options = {"encoder": name, "decoder": [16, 8, 8, 8, 8]}
    model = build_model("unet", BANDS[3], size=50, seed=0, options=options).eval()
    own = model.encoder.model
    # 64 / 32 = 2 positions a side in the last stage, so the native windows of 7 would be wrong there
    assert own.layers_3.blocks[0].attn.window_size == (2, 2)
    reference = timm.create_model(name, features_only=True, img_size=64, strict_img_size=False).eval()
    reference.load_state_dict(own.state_dict())
    image = images(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(one, other) for one, other in zip(own(image), reference(image), strict=True))
        assert model(image[..., :50, :50]).logits.shape == (1, 1, 50, 50)


def test_encoder_names():
    assert encoder_name("resnet34") == "resnet34"
    assert encoder_name("mobilenetv3_small_050") == "tu-mobilenetv3_small_050"
    assert encoder_name("tu-resnet34") == "tu-resnet34"
    with pytest.raises(RecipeError, match="'resnet43'.*close to it are .*resnet34"):
        encoder_name("resnet43")
    with pytest.raises(RecipeError, match="tu-nosuch"):
        encoder_name("tu-nosuch")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unett", {}, "'unett' is not a model, did you mean 'unet'"),
        ("zzz", {}, "there are: baseline, segformer, unet"),
        ("unet", {"encodr": "resnet18"}, "model.encodr .*'unet', did you mean 'encoder'"),
        ("baseline", {"weights": "package"}, "model.weights is not an option of model 'baseline'"),
        ("unet", {"size": 64}, "model.size"),
        ("unet", {"bands": 3}, "model.bands"),
    ],
)
def test_misspelt_recipes_are_refused(name, options, message):
    with pytest.raises(RecipeError, match=message):
        check_options(name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"decoder": [8, 8]}, r"\[8, 8\]"),
        ("unet", {"decoder": [8, 8, 0]}, "positive"),
        ("unet", {"encoder": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224.*cannot feed Unet"),
        ("segformer", {"encoder": "resnet34"}, "mit_b0"),
        ("segformer", {"decoder": 0}, "positive"),
        ("baseline", {"width": 3}, "even"),
    ],
)
def test_unusable_values_are_refused(name, options, message):
    with pytest.raises(RecipeError, match=message):
        build_model(name, BANDS[3], size=64, seed=0, options=options)


def test_a_recipe_is_checked_without_torch():
    code = "import sys, l4s.models as m; m.check_options('unet', {'encoder': 'x'}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
