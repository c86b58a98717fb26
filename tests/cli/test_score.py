"""`l4s score`: any two of zip, folder of masks and ProbFile."""

import json

import numpy as np
import pytest
from data_factory import write_h5
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from l4s.data.probs import write_probs
from l4s.data.regions import read_regions
from l4s.submit import pack

IDS = ("3", "10", "21", "22")


@pytest.fixture
def place(tmp_path):
    """`probs.h5`, the same cut at 0.4 as `pred.zip` and folder `pred`, the truth as folder `truth` and zip `truth.zip`."""
    rng = np.random.default_rng(0)
    masks = (rng.random((4, 8, 8)) < 0.3).astype(np.uint8)
    values = np.clip(rng.normal(0.3 + 0.25 * masks, 0.2), 0, 1).astype(np.float16)
    about = {"member": "m", "fingerprint": "f", "domain": "d", "tta": "none", "kind": "probability"}
    with write_probs(tmp_path / "probs.h5", ids=IDS, shape=values.shape, **about) as writer:
        writer.put(0, values)
    cut = (values >= 0.4).astype(np.uint8)
    for name, kind in {"pred": cut, "truth": masks}.items():
        pack(zip(IDS, kind, strict=True), tmp_path / f"{name}.zip")
        for id, mask in zip(IDS, kind, strict=True):
            write_h5(tmp_path / name / f"mask_{id}.h5", "mask", mask)
    return tmp_path, values.astype(np.float64), masks


def scores(masks, pred):
    t, p = masks.ravel(), pred.ravel()
    return {
        "precision": precision_score(t, p),
        "recall": recall_score(t, p),
        "f1": f1_score(t, p),
        "iou": jaccard_score(t, p),
        "predicted_share": p.mean(),
        "true_share": t.mean(),
    }


def close(row, wanted):
    assert {key: row[key] for key in wanted} == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("truth", ["truth", "truth.zip"])
@pytest.mark.parametrize("pred", ["pred", "pred.zip", "probs.h5"])
def test_every_kind_against_sklearn(l4s, place, pred, truth):
    folder, values, masks = place
    threshold = ("--threshold", "0.4") if pred == "probs.h5" else ()
    shown = l4s("score", folder / pred, folder / truth, *threshold, "--json")
    assert shown.exit_code == 0, shown.output
    row = json.loads(shown.stdout)["pooled"]
    close(row, scores(masks, values >= 0.4))
    assert row["patches"] == 4
    assert ("average_precision" in row) == (pred == "probs.h5")
    if pred == "probs.h5":
        close(row, {"average_precision": average_precision_score(masks.ravel(), values.ravel())})


def test_the_threshold_is_one_half_unless_told(l4s, place):
    folder, values, masks = place
    shown = json.loads(l4s("score", folder / "probs.h5", folder / "truth", "--json").stdout)
    close(shown["pooled"], scores(masks, values >= 0.5))
    assert shown["threshold"] == 0.5


def test_a_file_of_probabilities_as_truth_is_cut_at_the_threshold(l4s, place):
    folder, values, masks = place
    shown = l4s("score", folder / "truth.zip", folder / "probs.h5", "--threshold", 0.3, "--json")
    close(json.loads(shown.stdout)["pooled"], scores((values >= 0.3).astype(np.uint8), masks == 1))


@pytest.mark.parametrize(
    "spelling", [("--regions", "west=1-10", "--regions", "east=11-22"), ("--regions", "west=1-10,east=11-22")]
)
def test_regions_apart(l4s, place, spelling):
    folder, values, masks = place
    arguments = ("score", folder / "probs.h5", folder / "truth", *spelling)
    regions = json.loads(l4s(*arguments, "--json").stdout)["regions"]
    assert list(regions) == ["east", "west"]
    close(regions["west"], scores(masks[:2], values[:2] >= 0.5))
    close(regions["east"], scores(masks[2:], values[2:] >= 0.5))
    shown = l4s(*arguments).stdout
    for name, row in {**regions, "all": {"f1": f1_score(masks.ravel(), values.ravel() >= 0.5)}}.items():
        assert any(name in line and f"{row['f1']:.4f}" in line for line in shown.splitlines()), shown


def test_scores_that_are_only_ordered_are_cut_by_name(l4s, place):
    folder, values, masks = place
    about = {"member": "m", "fingerprint": "f", "domain": "d", "tta": "none", "kind": "score"}
    with write_probs(folder / "odd.h5", ids=IDS, shape=values.shape, extra={"contamination": 0.25}, **about) as writer:
        writer.put(0, values)
    found = json.loads(l4s("score", folder / "odd.h5", folder / "truth", "--json").stdout)
    assert (values >= found["threshold"]).mean() == pytest.approx(0.25, abs=0.02)
    close(found["pooled"], scores(masks, values >= found["threshold"]))
    assert found["pooled"]["cuts"].keys() == {"quantile", "otsu", "oracle", "oracle_mean_iou"}
    shown = l4s("score", folder / "odd.h5", folder / "truth").stdout
    assert f"AUROC {roc_auc_score(masks.ravel(), values.ravel()):.4f}" in shown
    for name, row in found["pooled"]["cuts"].items():
        assert any(name in line and f"{row['mean_iou']:.4f}" in line for line in shown.splitlines()), name
    assert "scores by threshold" not in l4s("score", folder / "probs.h5", folder / "truth").stdout


def test_a_part_is_scored_only_when_asked_for(l4s, place):
    folder, values, masks = place
    (folder / "pred/mask_3.h5").unlink()
    refused = l4s("score", folder / "pred", folder / "truth")
    assert refused.exit_code == 2
    assert "1 of 4 patches of the truth are not predicted, first 3" in refused.stderr
    shown = l4s("score", folder / "pred", folder / "truth", "--subset", "--json")
    close(json.loads(shown.stdout)["pooled"], scores(masks[1:], values[1:] >= 0.4))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("pred truth --threshold 0.4", "a threshold of 0.4 means nothing"),
        ("probs.h5 truth --threshold 1.4", "the threshold must be in [0, 1], got 1.4"),
        ("probs.h5 truth --regions west=1-10", "patch 21 lies in none of the regions west"),
        ("probs.h5 truth --regions west", "'west' is not name=first-last"),
        ("probs.h5 truth --regions west=10-1", "'west=10-1' is not name=first-last"),
        ("probs.h5 truth --regions west=1-10 --regions east=10-30", "'west' and 'east' both hold id 10"),
        ("probs.h5 nowhere", "nowhere does not exist"),
        ("nowhere.h5 truth", "nowhere.h5 does not exist"),
    ],
)
def test_wrong_use(l4s, place, monkeypatch, arguments, says):
    monkeypatch.chdir(place[0])
    shown = l4s("score", *arguments.split())
    assert shown.exit_code == 2
    assert says in shown.stderr
    assert shown.stdout == ""


def test_regions_as_text():
    assert read_regions([]) == {}
    assert read_regions(["a=1-2,b=4-4", "c=5-9"]) == {"a": (1, 2), "b": (4, 4), "c": (5, 9)}


def test_a_piped_table_is_not_cut(l4s, place):
    shown = l4s("score", place[0] / "probs.h5", place[0] / "truth").stdout
    assert "oracle F1" in shown and "…" not in shown
