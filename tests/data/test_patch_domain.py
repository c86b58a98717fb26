"""Patches labelled as a whole: what the task that answers for patches sees of them, and that others refuse them."""

import json

import numpy as np
import pytest
from data_factory import RGB, write_images, write_recipe, write_split

from l4s.data.domain import open_domain
from l4s.data.labels import patch_labels
from l4s.data.probs import open_probs, write_probs
from l4s.errors import DataError, RecipeError
from l4s.pipeline import run_recipe
from l4s.recipe import DomainConfig, HoldOut
from l4s.score import score
from l4s.session import Machine, open_session
from l4s.truth import truth_of

LABELS = {1: 1, 2: 0, 3: 1, 4: 0, 5: 1, 6: 0, 7: 1, 8: 0}


def write_points(root, labels=LABELS):
    """Patches without masks; those of a landslide are brighter."""
    for number, label in labels.items():
        image = np.random.default_rng(number).normal(3 * label, 1, (16, 16, 3))
        write_images(root / "points/img", [image], first=number)
    lines = [f"{number},{label},8.0,8.0" for number, label in labels.items()]
    (root / "points/labels.csv").write_text("\n".join(["id,label,x,y", *lines]) + "\n")
    return root


def opened(root, **config):
    config = DomainConfig(role="source", split="points", **config)
    return open_domain("points", config, RGB, root, root / "cache")


def test_masks_are_the_label_throughout(tmp_path):
    domain = opened(write_points(tmp_path))
    assert domain.by_patch and domain.cache.labelled.all()
    assert domain.cache.masks.reshape(8, -1).mean(1).tolist() == list(LABELS.values())
    for share in (0.0, 0.01, 1.0):
        assert patch_labels(domain.cache.masks, share).tolist() == list(LABELS.values())


def test_another_label_is_another_cache(tmp_path):
    first = opened(write_points(tmp_path)).cache.digest
    other = opened(write_points(tmp_path, LABELS | {2: 1}))
    assert other.cache.digest != first and other.cache.masks[1].all()


def test_a_patch_without_a_line_is_not_labelled(tmp_path):
    write_points(tmp_path)
    path = tmp_path / "points/labels.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match=r"source patch .*image_8\.h5 has no mask"):
        opened(tmp_path)


def test_squares_of_a_patch_have_no_label(tmp_path):
    with pytest.raises(DataError, match="domain points: cut makes squares of patches that are labelled as a whole"):
        opened(write_points(tmp_path), cut=8)


def test_truth_is_one_value_a_patch(tmp_path):
    domain = opened(write_points(tmp_path), holdout=HoldOut(by="ids", ranges=((5, 8),)))
    truth = truth_of(domain)
    assert [truth.mask(k).item() for k in range(4)] == [1, 0, 1, 0] and truth.mask(0).shape == ()
    about = {"member": "a", "fingerprint": "f", "domain": "points", "tta": "none", "kind": "probability"}
    with write_probs(
        tmp_path / "p.h5", ids=("5", "6", "7", "8"), shape=(4,), **about, extra={"positive_share": 0.1}
    ) as w:
        w.put(0, np.array([0.9, 0.1, 0.2, 0.3], np.float16))
    table = score(open_probs(tmp_path / "p.h5"), truth)
    assert (table.pooled.precision, table.pooled.recall) == pytest.approx((1.0, 0.5))
    with write_probs(tmp_path / "q.h5", ids=("5", "6", "7", "8"), shape=(4, 16, 16), **about) as writer:
        writer.put(0, np.zeros((4, 16, 16), np.float16))
    with pytest.raises(DataError, match=r"patch 5: the prediction is \(16, 16\), the truth \(\)"):
        score(open_probs(tmp_path / "q.h5"), truth)


POINTS = """
[domain.points]
role = "source"
split = "points"
holdout = { by = "ids", ranges = [[7, 8]] }
"""
CLASSIFY = """
name = "patches"
[bands]
file = ["b4", "b3", "b2"]
[train]
steps = 4
batch = 4
evaluate_every = 2
balance = 0.5
[member.c]
model = { name = "patch_classifier", size = 16 }
task = { name = "classify", positive_share = 0.01 }
[predict]
tta = ["none"]
"""


@pytest.mark.slow
def test_a_classifier_trains_on_them(tmp_path):
    write_points(tmp_path)
    recipe = write_recipe(tmp_path / "r.toml", POINTS, text=CLASSIFY)
    for x in open_session(
        str(recipe), [], tmp_path, tmp_path / "run", Machine("cpu", "fp32", cache=tmp_path / "cache")
    ):
        run_recipe(x)
    found = open_probs(tmp_path / "run/round-0/c/probs/points.none.h5")
    assert found.ids == ("7", "8") and found.shape == (2,)


def test_tasks_of_pixels_refuse_them(tmp_path):
    write_split(write_points(tmp_path), "train", range(1, 9))
    write_split(tmp_path, "validation", range(1, 4), masks=False)
    recipe = write_recipe(tmp_path / "r.toml", POINTS)
    machine = Machine("cpu", "fp32", cache=tmp_path / "cache")
    with pytest.raises(
        RecipeError, match="member.a has task 'segment', which learns from pixels, but in domain points"
    ):
        next(open_session(str(recipe), [], tmp_path, tmp_path / "run", machine))


def test_tasks_of_pixels_that_read_no_mask_predict_them_and_are_not_scored(tmp_path):
    write_points(tmp_path)
    head = CLASSIFY[: CLASSIFY.index("[train]")]
    odd = """
[member.odd]
model = { name = "anomaly_unet", size = 16, width = 2 }
task = { name = "anomaly", use_labels = false }
train = { steps = 1, batch = 4 }
[predict]
tta = ["none"]
"""
    recipe = write_recipe(tmp_path / "r.toml", POINTS, odd, text=head)
    for x in open_session(
        str(recipe), [], tmp_path, tmp_path / "run", Machine("cpu", "fp32", cache=tmp_path / "cache")
    ):
        run_recipe(x)
    assert open_probs(tmp_path / "run/round-0/odd/probs/points.none.h5").shape == (2, 16, 16)
    found = json.loads((tmp_path / "run/table.json").read_text())
    assert found["rows"] == [] and found["unscored"] == ["pixels of points (its labels are of whole patches)"]
