"""SegFormer (Xie 2021) as Hugging Face transformers has it, with NVIDIA's ImageNet weights for all six variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from l4s.data.bands import Bands
from l4s.errors import DataError
from l4s.models.segformer import ENCODERS, check_segformer

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import SegformerConfig

DEPTHS = ((2, 2, 2, 2), (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 18, 3), (3, 8, 27, 3), (3, 6, 40, 3))
"""Blocks in each stage of B0 to B5 (Xie 2021, table 6)."""


def segformer_hf(
    bands: Bands, *, size: int, encoder: str = "mit_b2", decoder: int = 256, weights: str = "none"
) -> nn.Module:
    """Build a SegFormer with one logit a pixel; logits are computed at a quarter of the size and upsampled.

    Against `segformer`, which is SMP's, it adds the dropout of 0.1 before the last layer that the paper's code has.

    Args:
        bands: any number of bands.
        size: side of the training images in pixels; the architecture does not depend on it.
        encoder: `mit_b0` to `mit_b5`.
        decoder: width of the MLP decoder.
        weights: "none"; "imagenet", `nvidia/mit-b0` to `-b5` of the hub; or a safetensors file of an encoder with 3
            bands as the hub has it (a classifier or a decode head in it is left out) or of the whole of this model.

    Raises:
        RecipeError: an encoder that is not a Mix Transformer, or an unusable width.
        DataError: weights that cannot be had or do not fit.
    """
    check_segformer(encoder, decoder)
    from transformers import SegformerForSemanticSegmentation, SegformerModel

    from l4s.models.networks import MixTransformerSegmenter
    from l4s.models.weights import load_weights

    def hub() -> nn.Module:
        name = f"nvidia/{encoder.replace('_', '-')}"
        pretrained: nn.Module = SegformerModel.from_pretrained(name, use_safetensors=True)  # never a pickle
        return pretrained

    model = SegformerForSemanticSegmentation(_config(encoder, len(bands.names), decoder))
    network = MixTransformerSegmenter(model.segformer, model.decode_head)
    load_weights(
        network, weights, bands, encoder=encoder, hub=hub, convert=lambda state: _convert(state, encoder, weights)
    )
    return network


def _config(encoder: str, channels: int, decoder: int) -> SegformerConfig:
    from transformers import SegformerConfig

    number = ENCODERS.index(encoder)
    widths = [64, 128, 320, 512] if number else [32, 64, 160, 256]
    depths = list(DEPTHS[number])
    config = SegformerConfig(num_channels=channels, depths=depths, hidden_sizes=widths, decoder_hidden_size=decoder)
    config.num_labels = 1
    return config


def _convert(state: dict[str, Tensor], encoder: str, where: str) -> dict[str, Tensor]:
    """Bring the hub's names to those of the installed transformers, which has renamed its modules since.

    Raises:
        DataError: the tensors are not those of this encoder with 3 bands.
    """
    from transformers import SegformerModel

    heads = ("classifier.", "decode_head.")
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(heads)}
    load: Any = SegformerModel.from_pretrained  # its annotation knows nothing of what it returns beside the model
    model, info = load(
        None, config=_config(encoder, 3, 1), state_dict=kept, output_loading_info=True, ignore_mismatched_sizes=True
    )
    counts = {kind: sorted(map(str, info[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")}
    if any(counts.values()):
        found = ", ".join(f"{len(keys)} {kind} {keys[:3]}" for kind, keys in counts.items() if keys)
        raise DataError(f"{where} does not fit {encoder} of transformers with 3 bands: {found}; is it another encoder?")
    converted: dict[str, Tensor] = model.state_dict()
    return converted
