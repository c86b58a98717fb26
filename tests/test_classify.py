"""The classification task: labels of patches, the loss of them, and a run that ends in scores of patches."""

import json

import numpy as np
import pytest
import torch
from data_factory import write_h5, write_recipe, write_split
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from l4s.data.dataset import Batch
from l4s.data.labels import patch_label
from l4s.data.probs import open_probs
from l4s.errors import RecipeError
from l4s.losses import LOSSES, bce
from l4s.models import Output
from l4s.pipeline import run_recipe
from l4s.plots import FALSE, HIT, MISSED
from l4s.recipe import LossTerm, MemberConfig, Train
from l4s.report import draw_run
from l4s.session import Machine, open_session
from l4s.tasks import build_task
from l4s.tasks.classify import build, labels
from l4s.tasks.segment import At


class Mean(nn.Module):
    """The logit of a patch is the mean of its first band."""

    def forward(self, image):
        return Output(image[:, :1].mean((2, 3)), {})


def batch(count=5, size=8):
    rng = np.random.default_rng(0)
    masks = (rng.random((count, size, size)) < 0.1).astype(np.uint8)
    masks[0], masks[1, :4], masks[2] = 255, 255, 0
    target, weight = torch.from_numpy((masks == 1) * 1.0).float(), torch.from_numpy((masks != 255) * 1.0).float()
    image = torch.from_numpy(rng.normal(size=(count, 2, size, size)).astype(np.float32))
    place = torch.zeros(count, dtype=torch.int64)
    return masks, Batch(image, target, weight, place, place, place.bool())


@given(
    st.lists(st.lists(st.sampled_from([0, 1, 255]), min_size=10, max_size=10), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.1, 0.2, 0.3, 1 / 3, 0.7, 1.0]),
)
def test_labels_on_the_device_are_those_of_the_masks(rows, share):
    masks = np.array(rows, np.uint8).reshape(-1, 2, 5)
    target, weight = torch.from_numpy((masks == 1) * 1.0).float(), torch.from_numpy((masks != 255) * 1.0).float()
    label, known = labels(target, weight, share)
    wanted = np.array([patch_label(mask, share) for mask in masks])
    np.testing.assert_array_equal(known.numpy(), wanted != 255)
    np.testing.assert_array_equal(label.numpy()[wanted != 255], wanted[wanted != 255])


@pytest.mark.parametrize("share", [0.0, 0.08, 0.12])
def test_the_loss_is_of_labels_and_leaves_unknown_patches_out(share):
    masks, rows = batch()
    wanted = np.array([patch_label(mask, share) for mask in masks])
    known = wanted != 255
    terms = build(Train(loss=(LossTerm(name="bce"),)), positive_share=share).loss(
        Mean(), rows, At(0, 1, torch.Generator())
    )
    logits = rows.image[:, :1].mean((2, 3))
    truth = torch.from_numpy(wanted[known].astype(np.float32))
    torch.testing.assert_close(terms["loss"], bce(logits[known], truth, torch.ones(len(truth))))


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_works_on_patches(loss):
    _, rows = batch()
    rows.image.requires_grad_()
    terms = build(Train(loss=(LossTerm(name=loss),))).loss(Mean(), rows, At(0, 1, torch.Generator()))
    terms["loss"].backward()
    assert rows.image.grad.isfinite().all() and rows.image.grad[1:].abs().sum() > 0
    assert (rows.image.grad[0] == 0).all()  # without a valid pixel


def test_probabilities_of_patches():
    _, rows = batch()
    task = build(Train(), positive_share=0.25)
    torch.testing.assert_close(task.probs(Mean(), rows.image), rows.image[:, 0].mean((1, 2)).sigmoid())
    assert (task.kind, task.about) == ("probability", {"positive_share": 0.25})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive_share": 1.5}, "positive_share = 1.5 is no share"),
        ({"positive_shar": 0.5}, "'classify' has no option 'positive_shar', did you mean 'positive_share'"),
    ],
)
def test_options_are_checked(options, message):
    table = {"model": {"name": "patch_classifier"}, "task": {"name": "classify", **options}}
    with pytest.raises(RecipeError, match=message):
        build_task(MemberConfig.model_validate_json(json.dumps(table)))


RECIPE = """
name = "squares"

[bands]
file = ["b4", "b3", "b2"]

[domain.home]
role = "source"
split = "train"
cut = 16
holdout = { by = "ids", ranges = [[7, 8]] }

[domain.away]
role = "eval"
split = "validation"
cut = 16

[train]
steps = 3
batch = 8
balance = 0.5
loss = [{ name = "bce" }]
augment = { d4 = true }
evaluate_every = 3

[member.m]
model = { name = "patch_classifier", size = 16, encoder = "test_resnet" }
task = { name = "classify", positive_share = 0.1 }
grid = { seed = [0, 1] }

[predict]
tta = ["none", "d4"]
"""


def test_a_run_of_squares_is_scored_by_its_rule(tmp_path):
    data = write_split(tmp_path / "data", "train", range(1, 9), size=32)
    write_split(data, "validation", range(1, 5), size=32, seed=1)
    whole = np.full((32, 32), 255, np.uint8)
    whole[:16] = 0
    write_h5(data / "ValidData/mask/mask_2.h5", "mask", whole)
    recipe = write_recipe(tmp_path / "squares.toml", text=RECIPE)
    machine = Machine("cpu", "fp32", cache=tmp_path / "cache")
    (x,) = open_session(str(recipe), [], data, tmp_path / "run", machine)
    run_recipe(x)
    probs = open_probs(tmp_path / "run/round-0/ensemble/probs/away.d4.h5")
    assert probs.shape == (16,) and probs.ids[:2] == ("1-0-0", "1-0-1") and probs.extra == {"positive_share": 0.1}
    wanted = np.array([patch_label(mask, 0.1) for mask in x.domains["away"].cache.masks])
    assert (wanted == 255).sum() == 2
    (row,) = [
        row
        for row in json.loads((tmp_path / "run/table.json").read_text())["rows"]
        if (row["name"], row["domain"], row["tta"]) == ("ensemble", "away", "d4")
    ]
    found = probs.read().astype(np.float64) >= 0.5
    known = wanted != 255
    assert row["f1"] == pytest.approx(f1_score(wanted[known], found[known]))
    assert row["accuracy"] == pytest.approx(accuracy_score(wanted[known], found[known]))
    (picture,) = [path for path in draw_run(x) if path.name == "away.png"]
    with Image.open(picture) as shown:
        colours = {colour for _, colour in shown.convert("RGB").getcolors(1 << 20)}
    assert colours & {HIT, FALSE, MISSED}
    assert row["patches"] == 16 and row["true_share"] == pytest.approx((wanted[known] == 1).mean())
