"""A file of timm's, in the names and sizes of timm's feature extractor.

timm resamples and renames what it downloads while it loads a classifier, and takes the features out afterwards. A file
that is loaded here must arrive at the same tensors.
"""

import re
from collections.abc import Mapping

from timm.layers import resize_rel_pos_bias_table
from torch import Tensor, nn

TABLE = "relative_position_bias_table"
BUFFERS = ("relative_position_index", "relative_coords_table", "attn_mask")
"""What older files of Swin hold although it follows from the size of the image."""
OLD_SWIN = "layers.0.downsample.reduction.weight"
"""Where this is, stages end in what timm's begin with: files of Swin's authors."""


def timm_state(state: Mapping[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """Bring the tensors of a classifier or encoder to an encoder's names and sizes, as far as they have others.

    Where timm's feature extractor flattens a list of stages, `layers.0` is called `layers_0`. The position tables of
    Swin belong to windows, which are smaller where the image is; they are resampled as timm does.

    Args:
        state: a file's tensors by name; those of SMP's own encoders and of the whole of SMP's wrapper stay as they are.
        encoder: SMP's encoder, built for the size of the images.
    """
    own = encoder.state_dict()
    flat = {match[1] for key in own if (match := re.match(r"model\.([a-z]+)_\d+\.", key))}
    found = {}
    for key, tensor in state.items():
        if key.endswith(BUFFERS):
            continue
        name = _flattened(_moved(key) if OLD_SWIN in state else key, flat)
        there = name if name in own else f"model.{name}"
        if name.endswith(TABLE) and there in own and tensor.shape != own[there].shape:
            windows = encoder.get_submodule(there.rpartition(".")[0]).window_size
            tensor = resize_rel_pos_bias_table(tensor, windows, own[there].shape)  # type: ignore[arg-type]
        found[name] = tensor
    return found


def _moved(key: str) -> str:
    return re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", key)


def _flattened(key: str, lists: set[str]) -> str:
    match = re.match(r"([a-z]+)\.(\d+)\.", key)
    return f"{match[1]}_{match[2]}.{key[match.end() :]}" if match and match[1] in lists else key
