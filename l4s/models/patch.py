"""The torch module behind patch classifiers."""

from torch import Tensor, nn

from l4s.models.contract import Output
from l4s.models.networks import pad_to_stride


class PatchClassifier(nn.Module):
    """An encoder that ends in one vector a patch, and a linear layer; parameters of the encoder are named `encoder.*`.

    Patches are continued by their edge to multiples of `stride`.
    """

    def __init__(self, encoder: nn.Module, features: int, stride: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features, 1)
        self.stride = stride

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1)`."""
        return Output(self.head(self.encoder(pad_to_stride(image, self.stride))), {})
