"""Every model: any bands, any size, equal seeds, weights that survive a file."""

import copy
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

from l4s.data.bands import L4S_BANDS, Bands
from l4s.errors import RecipeError
from l4s.models import ANSWERS, MODELS, Output, build_model, check_options
from l4s.models.encoders import encoder_name

BANDS = {
    3: Bands(
        use=("b4", "b3", "b2"),
        groups={"rgb": ("b4", "b3"), "dem": ("b2",), "pre": ("b4", "b3"), "post": ("b3", "b2")},
    ),
    7: Bands(
        use=("b2", "b3", "b4", "b8", "b11", "slope", "dem"),
        groups={
            "rgb": ("b4", "b3", "b2", "b8", "b11"),
            "dem": ("dem", "slope"),
            "pre": ("b2", "b3", "b4", "b8"),
            "post": ("b8", "b11", "slope", "dem"),
        },
    ),
    14: Bands(
        groups={"rgb": L4S_BANDS[:12], "dem": L4S_BANDS[12:], "pre": L4S_BANDS[:7], "post": L4S_BANDS[7:]},
    ),
}
SWIN = "swin_tiny_patch4_window7_224"
NARROW = [32, 16, 8, 8, 8]
CASES = {
    "unet": ("unet", {"encoder": "mobilenetv3_small_050", "decoder": NARROW}),
    "segformer": ("segformer", {"encoder": "mit_b0", "decoder": 16}),
    "baseline": ("baseline", {"width": 4}),
    "segformer_hf": ("segformer_hf", {"encoder": "mit_b0", "decoder": 16}),
    "hrnet_ocr": ("hrnet_ocr", {"encoder": "hrnet_w18_small", "width": 32}),
    "swin": ("unet", {"encoder": SWIN, "decoder": NARROW}),
    "efficientnetv2": ("unet", {"encoder": "tf_efficientnetv2_s", "decoder": NARROW}),
    "resnet": ("unet", {"encoder": "resnet50", "decoder": NARROW}),
    "deeplabv3plus": ("deeplabv3plus", {"encoder": "mobilenetv3_small_050", "width": 16}),
    "deeplab-resnet": ("deeplabv3plus", {"encoder": "resnet18", "width": 16}),
    "patch_classifier": ("patch_classifier", {"encoder": "test_resnet"}),
    "patch-swin": ("patch_classifier", {"encoder": SWIN}),
    "anomaly_unet": ("anomaly_unet", {"width": 2}),
    "fusion": ("fusion", {"width": 2}),
    "siamese": ("siamese", {"encoder": "cnn", "embedding": 3, "head": "topk", "kernel": 3}),
    "pair_cnn": ("pair_cnn", {"widths": [4, 4], "kernel": 3}),
}
"""The smallest of each family; every one of them keeps the whole contract."""
SMALL = (
    *("unet", "segformer", "baseline", "segformer_hf", "hrnet_ocr"),
    *("deeplabv3plus", "patch_classifier", "anomaly_unet", "fusion", "siamese", "pair_cnn"),
)
"""One of each builder."""
FIXED = {"local_std": {}, "brightness": {}, "ndvi": {}}
"""Models without parameters, which have nothing to learn, to save or to start from."""
BANDWISE = 0
EXTRAS = {
    "hrnet_ocr": {"aux": 1},
    "anomaly_unet": {"reconstruction": BANDWISE, "ssim": 1},
    "fusion": {"feature": 2, "attention": 4},
    "siamese": {"embedding": 6},
}
"""Name and channels of what a model returns beside its logits; BANDWISE: as many as the image has bands."""
PATCH = {"patch_classifier", "patch-swin", "siamese"}
STRIDE = {"baseline": 16, "deeplabv3plus": 16, "deeplab-resnet": 16, "anomaly_unet": 16, "fusion": 16, "pair_cnn": 1}
WINDOW = {"anomaly_unet": 5, "local_std": 3}
"""How far the edge of an image reaches into the logits of models that look at a window around each pixel."""
PROMOTED = [CASES[case] for case in ("segformer", "segformer_hf", "swin")]
OTHERS = [
    # scale promotion is for members that segment: others do not answer for each pixel, or not at a size of choice
    *[CASES[case] for case in CASES if CASES[case] not in PROMOTED and CASES[case][0] not in ANSWERS],
    *[(name, {"encoder": f"mit_b{n}"}) for name in ("segformer", "segformer_hf") for n in range(1, 6)],
    *[("unet", {"encoder": f"swin_{size}_patch4_window7_224"}) for size in ("small", "base")],
    ("unet", {"encoder": "tf_efficientnetv2_m"}),
    ("hrnet_ocr", {"encoder": "hrnet_w18"}),
    ("hrnet_ocr", {"encoder": "hrnet_w48", "width": 512}),
]
VARIANTS = [*PROMOTED, *[pytest.param(*variant, marks=pytest.mark.slow) for variant in OTHERS]]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(case: str, channels: int = 3, seed: int = 0, size: int = 64) -> nn.Module:
    name, options = CASES[case]
    return build_model(name, BANDS[channels], size=size, seed=seed, options=options)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def settled(case: str) -> nn.Module:
    """In evaluation, after a few batches that moved the running statistics. Not to be changed."""
    model = build(case, seed=1)
    with torch.no_grad():
        for step in range(3):
            model(images(4, 3, 64, 64, seed=step))
    return model.eval()


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_builder_is_tested():
    assert {name for name, _ in CASES.values()} == {CASES[case][0] for case in SMALL} == MODELS.keys() - FIXED.keys()


@pytest.mark.parametrize("channels", BANDS)
def test_forward_and_backward_with_any_bands(case, channels):
    model = build(case, channels)
    image = images(2, channels, 64, 64).requires_grad_()
    output = model(image)
    assert isinstance(output, Output)
    assert output.extras.keys() == EXTRAS.get(case, {}).keys()
    assert output.logits.shape == ((2, 1) if case in PATCH else (2, 1, 64, 64))
    for name, extra in output.extras.items():
        assert extra.shape == (2, EXTRAS[case][name] or channels, 64, 64)
    assert {each.dtype for each in (output.logits, *output.extras.values())} == {torch.float32}
    output.logits.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert (image.grad.abs().amax(dim=(0, 2, 3)) > 0).all(), "a band is not seen"


def test_saved_and_loaded_weights_give_equal_logits(case, settled, tmp_path):
    save_file(settled.state_dict(), tmp_path / "weights.safetensors")
    other, image = build(case, seed=2).eval(), images(1, 3, 64, 64, seed=5)
    with torch.no_grad():
        expected = settled(image).logits
        assert not torch.equal(other(image).logits, expected)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert torch.equal(other(image).logits, expected)


def test_an_image_does_not_depend_on_its_batch(settled):
    both = images(2, 3, 64, 64)
    with torch.no_grad():
        together = settled(both).logits
        for row in range(2):
            torch.testing.assert_close(settled(both[row : row + 1]).logits[0], together[row], rtol=1e-4, atol=1e-5)


def test_odd_sizes_are_padded_by_their_edge_and_cropped_back(case, settled):
    if case in PATCH:
        pytest.skip("one logit for a patch of any size: see below")
    stride, edge = STRIDE.get(case, 32), WINDOW.get(case, 0)
    image = images(1, 3, 50, 70)
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (0, -50 % stride), (0, -70 % stride)), mode="edge")
    with torch.no_grad():
        output, whole = settled(image), settled(torch.from_numpy(padded))
    assert output.logits.shape == (1, 1, 50, 70)
    inner = np.s_[..., : 50 - edge, : 70 - edge]
    for key in EXTRAS.get(case, ()):
        torch.testing.assert_close(output.extras[key][inner], whole.extras[key][inner], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits[inner], whole.logits[inner], rtol=1e-4, atol=1e-5)


def test_patches_of_any_size_have_one_logit(case, settled):
    if case not in PATCH:
        pytest.skip("a logit for each pixel: see above")
    with torch.no_grad():
        logits = [settled(images(2, 3, *size)).logits for size in ((32, 32), (50, 70), (128, 64))]
    assert {each.shape for each in logits} == {(2, 1)} and all(each.isfinite().all() for each in logits)


def test_one_small_image_is_a_batch_in_evaluation(case, settled):
    with torch.no_grad():
        logits = settled(images(1, 3, 32, 32)).logits
    assert logits.shape == ((1, 1) if case in PATCH else (1, 1, 32, 32))
    assert logits.isfinite().all()


def test_bfloat16_comes_close(settled):
    image = images(1, 3, 64, 64, seed=9)
    with torch.no_grad():
        exact = settled(image).logits
        with torch.autocast("cpu", torch.bfloat16):
            rounded = settled(image).logits.float()
    # eight bits tell a number from one 0.4 % larger, and every layer rounds
    assert (rounded - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


def test_the_encoder_is_told_by_its_prefix(settled):
    keys = list(settled.state_dict())
    share = sum(key.startswith("encoder.") for key in keys)
    assert 0 < share < len(keys)


@pytest.mark.parametrize("name", SMALL)
def test_equal_seeds_give_equal_weights_and_leave_the_random_state_alone(name):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = build(name, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    second, other = build(name, seed=3).state_dict(), build(name, seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_a_model_that_has_run_can_be_copied(settled):  # weights averaged over training are a deep copy
    image = images(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(settled)(image).logits, settled(image).logits)


def weightless(name: str, options: dict[str, object], channels: int, size: int) -> nn.Module:
    """On the meta device, where only shapes are computed."""
    if name == "segformer":  # SMP's reads numbers from a tensor while it builds
        return build_model(name, BANDS[channels], size=size, seed=0, options=options).to("meta")
    with torch.device("meta"):
        return build_model(name, BANDS[channels], size=size, seed=0, options=options)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_variant_takes_the_promoted_sizes(name, options):
    model = weightless(name, options, channels=14, size=128).eval()
    for size in (128, 320, 512):
        if size > 128 and options.get("encoder", "").startswith("swin"):  # built for its size
            model = weightless(name, options, channels=14, size=size).eval()
        assert model(torch.empty(1, 14, size, size, device="meta")).logits.shape == (1, 1, size, size)


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("channels", [7, 14])
def test_models_without_parameters(name, channels):
    model = build_model(name, BANDS[channels], size=64, seed=0, options=FIXED[name]).eval()
    assert model.state_dict() == {} and not list(model.parameters())
    image = images(2, channels, 50, 70)
    output, edge = model(image), WINDOW.get(name, 0)
    assert isinstance(output, Output) and output.extras == {}
    assert output.logits.shape == (2, 1, 50, 70) and output.logits.dtype == torch.float32
    torch.testing.assert_close(model(image[1:]).logits[0], output.logits[1])
    part = model(image[..., 10:, 20:]).logits  # a window of a scene has the scores of the scene
    torch.testing.assert_close(part[..., edge:, edge:], output.logits[..., 10 + edge :, 20 + edge :])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(image).logits, output.logits)


@pytest.mark.parametrize("stride", [8, 16])
def test_deeplab_computes_what_smp_computes(stride):
    options = {"encoder": "resnet18", "width": 16, "stride": stride, "rates": [2, 3, 4]}
    ours = build_model("deeplabv3plus", BANDS[3], size=64, seed=0, options=options).eval()
    theirs = smp.DeepLabV3Plus(
        "resnet18",
        encoder_weights=None,
        encoder_output_stride=stride,
        decoder_channels=16,
        decoder_atrous_rates=(2, 3, 4),
    ).eval()
    theirs.load_state_dict({k.replace("head.", "segmentation_head.", 1): v for k, v in ours.state_dict().items()})
    image = images(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(ours(image).logits, theirs(image))
        assert ours.encoder(image)[-1].shape[-2:] == (64 // stride, 32 // stride)


def test_deeplab_has_the_papers_rates_and_stride():
    model = weightless("deeplabv3plus", {}, channels=14, size=128)
    rates = {module.dilation[0] for module in model.decoder.modules() if isinstance(module, nn.Conv2d)}
    assert rates == {1, 6, 12, 18} and model.stride == 16
    assert model.decoder.block1[0].out_channels == 48


def test_a_patch_classifier_is_timm_s():
    model = build("patch_classifier").eval()
    theirs = timm.create_model("test_resnet", num_classes=1).eval()
    names = {"encoder.": "", "head.": "fc."}
    state = {
        next(there + key.removeprefix(ours) for ours, there in names.items() if key.startswith(ours)): value
        for key, value in model.state_dict().items()
    }
    theirs.load_state_dict(state)
    image = images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(image).logits, theirs(image))
    assert sum(each.numel() for each in weightless("patch_classifier", {}, 3, 32).parameters()) == 23_508_032 + 2_049


def test_unet_computes_what_smp_computes():
    ours = build("unet").eval()
    theirs = smp.Unet(
        "tu-mobilenetv3_small_050", encoder_weights=None, decoder_channels=tuple(NARROW), in_channels=3
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


def test_segformer_hf_computes_what_transformers_computes():
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    ours = build("segformer_hf").eval()
    theirs = SegformerForSemanticSegmentation(SegformerConfig(decoder_hidden_size=16, num_labels=1)).eval()
    names = {"encoder.": "segformer.", "decoder.": "decode_head."}
    state = {names[key[:8]] + key[8:]: tensor for key, tensor in ours.state_dict().items()}
    theirs.load_state_dict(state)
    image = images(2, 3, 64, 32)
    with torch.no_grad():
        quarter = theirs(image).logits
        assert quarter.shape == (2, 1, 16, 8)
        assert torch.equal(ours(image).logits, F.interpolate(quarter, size=(64, 32), mode="bilinear"))


@pytest.mark.parametrize("number", [0, *[pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6)]])
def test_both_segformers_have_encoders_of_the_papers_size(number):
    ours, theirs = (
        weightless(name, {"encoder": f"mit_b{number}"}, channels=3, size=64).encoder.parameters()
        for name in ("segformer", "segformer_hf")
    )
    count = sum(each.numel() for each in ours)
    assert count == sum(each.numel() for each in theirs)
    millions = [3.4, 13.1, 24.2, 44.0, 60.8, 81.4][number]  # Xie 2021, table 1
    assert count / 1e6 == pytest.approx(millions, abs=0.15)


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


def test_detail_is_the_image_at_its_full_size_in_the_last_stage():
    options = {"encoder": "mobilenetv3_small_050", "decoder": NARROW, "detail": 6}
    model = build_model("unet", BANDS[3], size=64, seed=0, options=options).eval()
    image, blocks = images(1, 3, 64, 64), model.decoder.blocks
    with torch.no_grad():
        skips = model.encoder(image)[1:]
        x = skips.pop()
        for block in blocks[:-1]:
            x = block.conv2(block.conv1(torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), skips.pop()], 1)))
        detail = image
        for conv, norm, relu in (model.detail[:3], model.detail[3:]):
            detail = relu(norm(conv(detail)))
        x = torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), detail], 1)
        expected = model.head(blocks[-1].conv2(blocks[-1].conv1(x)))
        torch.testing.assert_close(model(image).logits, expected)


def test_swin_has_no_skip_between_a_quarter_and_the_image():
    model = build("swin")
    features = model.encoder(images(1, 3, 64, 64))
    assert [feature.shape[1] for feature in features] == [3, 0, 96, 192, 384, 768]
    assert [feature.shape[-1] for feature in features] == [64, 32, 16, 8, 4, 2]


def test_swin_is_built_for_the_training_size():
    options = {"encoder": SWIN, "decoder": NARROW}
    model = build_model("unet", BANDS[3], size=50, seed=0, options=options).eval()
    own = model.encoder.model
    # 64 / 32 = 2 positions a side in the last stage, so the native windows of 7 would be wrong there
    assert own.layers_3.blocks[0].attn.window_size == (2, 2)
    reference = timm.create_model(SWIN, features_only=True, img_size=64, strict_img_size=False).eval()
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
        ("zzz", {}, "there are: anomaly_unet, baseline, brightness, deeplabv3plus, fusion, hrnet_ocr, local_std, ndvi"),
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
        ("segformer_hf", {"encoder": "resnet34"}, "mit_b0"),
        ("segformer_hf", {"decoder": 0}, "positive"),
        ("hrnet_ocr", {"encoder": "hrnet_w81"}, "'hrnet_w81' is not a HRNet of timm, did you mean"),
        ("hrnet_ocr", {"width": 5}, "model.width = 5"),
        ("unet", {"detail": -1}, "model.detail = -1"),
        ("baseline", {"width": 3}, "even"),
        ("deeplabv3plus", {"stride": 32}, "model.stride = 32"),
        ("deeplabv3plus", {"rates": [6, 12]}, r"model.rates = \[6, 12\]"),
        ("deeplabv3plus", {"width": 0}, "model.width = 0"),
        ("deeplabv3plus", {"encoder": SWIN}, "cannot feed DeepLabV3Plus"),
        ("patch_classifier", {"encoder": "resnet5o"}, "'resnet5o' is no model of timm, did you mean"),
    ],
)
def test_unusable_values_are_refused(name, options, message):
    with pytest.raises(RecipeError, match=message):
        build_model(name, BANDS[3], size=64, seed=0, options=options)


def test_a_recipe_is_checked_without_torch():
    code = "import sys, l4s.models as m; m.check_options('unet', {'encoder': 'x'}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
