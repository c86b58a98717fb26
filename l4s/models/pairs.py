"""The torch modules for pairs of images, before and after an event (Böhm 2022, 3 and Figure 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from l4s.errors import RunError
from l4s.models.contract import Output
from l4s.models.networks import pad_to_stride

TOP = 0.01  # share of a map whose mean is a patch's answer, under head = "topk"


def convolution(below: int, above: int, kernel: int) -> nn.Sequential:
    """Convolution that keeps the size (an even kernel is padded by one more behind), BatchNorm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(below, above, kernel, padding="same"), nn.BatchNorm2d(above), nn.LeakyReLU(inplace=True)
    )


class Embedding(nn.Module):
    """A network that gives each pixel of one image a vector, at the size of the image."""

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, image: Tensor) -> Tensor:
        """`(B, K, H, W) float32` -> `(B, E, H, W)`."""
        height, width = image.shape[-2:]
        embedded: Tensor = self.network(pad_to_stride(image, self.stride))
        return embedded[..., :height, :width]


class Pooled(nn.Module):
    """Joined embeddings to one logit a patch as in the released code: a convolution to one channel, and its mean.

    Its activation leaves next to nothing of what is below 0.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.map = nn.Sequential(nn.Conv2d(channels, 1, kernel), nn.BatchNorm2d(1), nn.LeakyReLU(inplace=True))

    def forward(self, joined: Tensor) -> Tensor:
        """`(B, J, H, W)` -> `(B, 1)`."""
        values: Tensor = self.map(joined)
        return values.flatten(1).mean(dim=1, keepdim=True)


class Highest(nn.Module):
    """Joined embeddings to one logit a patch: a convolution to `hidden` maps, the mean of each one's highest values, a layer.

    The mean of one map's highest values would not do as the logit itself: it begins far above 0, and what takes it there
    soonest is a map that is 0 everywhere.
    """

    def __init__(self, channels: int, kernel: int, hidden: int) -> None:
        super().__init__()
        self.map = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel), nn.BatchNorm2d(hidden), nn.LeakyReLU(inplace=True)
        )
        self.last = nn.Linear(hidden, 1)

    def forward(self, joined: Tensor) -> Tensor:
        """`(B, J, H, W)` -> `(B, 1)`."""
        values: Tensor = self.map(joined).flatten(2)
        highest = values.topk(max(1, round(TOP * values.shape[2])), dim=2).values
        logits: Tensor = self.last(highest.mean(dim=2))
        return logits


class Connected(nn.Module):
    """Joined embeddings to one logit a patch: a convolution to one channel, then two fully connected layers."""

    def __init__(self, channels: int, kernel: int, side: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.map = nn.Sequential(nn.Conv2d(channels, 1, kernel), nn.BatchNorm2d(1), nn.LeakyReLU(inplace=True))
        self.side = side
        self.layers = nn.Sequential(
            nn.Linear((side - kernel + 1) ** 2, hidden),
            nn.LeakyReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, joined: Tensor) -> Tensor:
        """`(B, J, side, side)` -> `(B, 1)`."""
        if joined.shape[-2:] != (self.side, self.side):
            raise RunError(
                f"images of {joined.shape[-2]} x {joined.shape[-1]} pixels; a network with head = 'fc' was built for "
                f"model.size = {self.side}: set that, or another head"
            )
        logits: Tensor = self.layers(self.map(joined).flatten(1))
        return logits


class Siamese(nn.Module):
    """One network for both images, their embeddings joined, and a head; the network's parameters are `encoder.*`.

    `places` are the positions in the image of the bands before and after.
    """

    def __init__(self, encoder: Embedding, head: nn.Module, places: Sequence[Sequence[int]], symmetric: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.before, self.after = (list(place) for place in places)
        self.symmetric = symmetric

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1)`; extras: `embedding` `(B, J, H, W)`, what a second stage receives."""
        # one forward for both, so that BatchNorm sees them together
        before, after = self.encoder(torch.cat([image[:, self.before], image[:, self.after]])).chunk(2)
        parts = [before, after] + ([after - before, (after - before).abs()] if self.symmetric else [])
        joined = torch.cat(parts, dim=1)
        return Output(self.head(joined), {"embedding": joined})


class PairNetwork(nn.Module):
    """Convolutions of the pair, joined with embeddings that come with the image, and convolutions of both.

    The last `embedding` channels of the image are the embeddings.
    """

    def __init__(self, bands: int, embedding: int, widths: Sequence[int], hidden: int, kernel: int) -> None:
        super().__init__()
        self.bands = bands
        self.encoder = nn.Sequential(
            *(convolution(b, a, kernel) for b, a in zip([bands, *widths[:-1]], widths, strict=True))
        )
        joined = widths[-1] + embedding
        self.head = nn.Sequential(
            convolution(joined, hidden or joined, kernel), nn.Conv2d(hidden or joined, 1, kernel, padding="same")
        )

    def forward(self, image: Tensor) -> Output:
        """`(B, C + J, H, W) float32` -> logits `(B, 1, H, W)`."""
        pair = self.encoder(image[:, : self.bands])
        return Output(self.head(torch.cat([pair, image[:, self.bands :]], dim=1)), {})
