"""The segmentation task: which losses are added up, and how."""

import pytest
import torch
from torch import Tensor, nn

from l4s.data.dataset import Batch
from l4s.losses import bce
from l4s.models import Output
from l4s.recipe import LossTerm, Train
from l4s.tasks.segment import At, build

AT = At(0, 1, torch.Generator())


class Heads(nn.Module):
    """Logits are the first band, auxiliary logits (where asked for) the second."""

    def __init__(self, aux: bool) -> None:
        super().__init__()
        self.aux = aux

    def forward(self, image: Tensor) -> Output:
        return Output(image[:, :1], {"aux": image[:, 1:2]} if self.aux else {})


def batch(adapt: list[bool]) -> Batch:
    draw = torch.Generator().manual_seed(0)
    count = len(adapt)
    image = torch.randn(count, 2, 4, 4, generator=draw)
    target = (torch.rand(count, 4, 4, generator=draw) > 0.5).float()
    weight = (torch.rand(count, 4, 4, generator=draw) > 0.3).float()
    number = torch.tensor(adapt).long()
    return Batch(image, target, weight, number, torch.arange(count), torch.tensor(adapt))


def part(rows: Batch, band: int, keep: list[int]) -> Tensor:
    return bce(rows.image[keep, band : band + 1], rows.target[keep], rows.weight[keep])


def test_an_auxiliary_head_is_trained_by_the_same_loss() -> None:
    rows, every = batch([False, False]), [0, 1]
    train = Train(loss=(LossTerm(name="bce"),), aux=0.25)
    terms = build(train).loss(Heads(aux=True), rows, AT)
    torch.testing.assert_close(terms["aux"], part(rows, 1, every))
    torch.testing.assert_close(terms["loss"], part(rows, 0, every) + 0.25 * part(rows, 1, every))
    assert "aux" not in build(train).loss(Heads(aux=False), rows, AT)


@pytest.mark.parametrize("aux", [False, True])
def test_source_and_target_are_normalised_apart(aux: bool) -> None:
    rows = batch([False, True, False, True, True])
    terms = build(Train(loss=(LossTerm(name="bce"),), target_weight=0.5)).loss(Heads(aux), rows, AT)
    source, target = ([0, 2], [1, 3, 4])
    sides = [part(rows, 0, keep) + (0.4 * part(rows, 1, keep) if aux else 0.0) for keep in (source, target)]
    torch.testing.assert_close(terms["source/loss"], sides[0])
    torch.testing.assert_close(terms["loss"], sides[0] + 0.5 * sides[1])
