"""Scores by id, pooled and by region, of probabilities and of masks in folders and zips."""

import json
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from l4s.data.labels import patch_label
from l4s.data.probs import open_probs, write_probs
from l4s.errors import DataError
from l4s.metrics import best_threshold, bootstrap_f1, code_counts, paired_bootstrap, patch_counts
from l4s.score import Truth, score, score_masks, threshold_of, value_counts
from l4s.thresholds import cuts, label_free, plain

IDS, REGIONS = ("7", "10", "2", "33", "4"), ("west", "east", "west", "east", "west")


def make_probs(path, values, ids=IDS, shape=None, **more):
    about = {"member": "unet", "fingerprint": "f", "domain": "iburi", "tta": "d4", "kind": "probability"} | more
    with write_probs(path, ids=ids, shape=shape or values.shape, **about) as writer:
        writer.put(0, values)
    return open_probs(path)


def values_and_masks(seed=0, shape=(5, 8, 6)):
    rng = np.random.default_rng(seed)
    masks = (rng.random(shape) < 0.3).astype(np.uint8)
    values = np.clip(rng.normal(0.35 + 0.25 * masks, 0.2), 0, 1).astype(np.float16)
    masks[rng.random(shape) < 0.1] = 255
    return values, masks


def test_values_are_counted_without_counts_of_each_patch(tmp_path):
    """A patch's counts take half a MB: those of 3,800 would take 2 GB."""
    values = np.full((200, 2, 2), 0.5, np.float16)
    ids = tuple(map(str, range(200)))
    probs = make_probs(tmp_path / "many.h5", values, ids)
    truth = Truth(ids, np.ones((200, 2, 2), np.uint8), ("",) * 200)
    tracemalloc.start()
    counts = value_counts(probs, truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    np.testing.assert_array_equal(counts, code_counts(values, truth.masks, truth.masks != 255))


def check_row(row, values, masks, threshold):
    """Against scikit-learn on the valid pixels."""
    valid = masks != 255
    p, t = values[valid].astype(np.float64), masks[valid]
    pred = p >= threshold
    wanted = [score(t, pred) for score in (precision_score, recall_score, f1_score, jaccard_score)]
    assert [row.precision, row.recall, row.f1, row.iou] == pytest.approx(wanted, abs=1e-12)
    both = (jaccard_score(t, pred) + jaccard_score(1 - t, ~pred)) / 2
    assert [row.mean_iou, row.accuracy] == pytest.approx([both, accuracy_score(t, pred)], abs=1e-12)
    assert row.auroc == pytest.approx(roc_auc_score(t, p), abs=1e-12)
    assert row.cuts.keys() == {"expected_f1", "oracle", "oracle_mean_iou"} and row.cuts["oracle"]["f1"] == row.oracle_f1
    assert [row.predicted_share, row.true_share] == pytest.approx([pred.mean(), t.mean()], abs=1e-12)
    assert row.average_precision == pytest.approx(average_precision_score(t, p), abs=1e-9)
    f1 = {value: f1_score(t, p >= value) for value in set(p)}
    assert row.oracle_f1 == pytest.approx(max(f1.values()), abs=1e-12)
    assert f1[row.oracle_threshold] == pytest.approx(row.oracle_f1, abs=1e-12)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_pooled_and_by_region_against_sklearn(tmp_path, threshold):
    values, masks = values_and_masks()
    table = score(make_probs(tmp_path / "a.h5", values), Truth(IDS, masks, REGIONS), threshold=threshold)
    check_row(table.pooled, values, masks, threshold)
    assert list(table.regions) == ["east", "west"]
    for name, row in table.regions.items():
        inside = np.array(REGIONS) == name
        check_row(row, values[inside], masks[inside], threshold)
        assert row.patches == inside.sum()
    counts = patch_counts(values, masks, masks != 255, threshold)
    np.testing.assert_array_equal(table.counts, counts)
    assert (table.pooled.f1_low, table.pooled.f1_high) == bootstrap_f1(counts, 0, 1000)
    east = np.array(REGIONS) == "east"
    assert (table.regions["east"].f1_low, table.regions["east"].f1_high) == bootstrap_f1(counts[east], 0, 1000)
    assert table.ids == IDS and table.pooled.patches == 5


def test_patches_are_matched_by_id_and_the_order_changes_nothing(tmp_path):
    values, masks = values_and_masks()
    truth, order = Truth(IDS, masks, REGIONS), [3, 0, 4, 1, 2]
    straight = score(make_probs(tmp_path / "a.h5", values), truth)
    turned = score(make_probs(tmp_path / "b.h5", values[order], [IDS[k] for k in order]), truth)
    assert straight.as_dict() == turned.as_dict() and straight.ids == turned.ids
    assert paired_bootstrap(straight.counts, turned.counts, 0) == (0, 0, 0)
    by_position = score(make_probs(tmp_path / "c.h5", values[order]), truth)
    assert by_position.pooled.f1 != straight.pooled.f1


def test_masks_may_come_from_a_function_and_differ_in_size(tmp_path):
    shapes, rng = [(3, 4), (5, 2), (1, 1)], np.random.default_rng(1)
    masks = [rng.integers(0, 2, shape).astype(np.uint8) for shape in shapes]
    values = [rng.random(shape).astype(np.float16) for shape in shapes]
    probs = make_probs(tmp_path / "a.h5", values, ids=IDS[:3], shape=shapes)
    row = score(probs, Truth(IDS[:3], masks.__getitem__, REGIONS[:3])).pooled
    check_row(row, *(np.concatenate([one.ravel() for one in many]) for many in (values, masks)), 0.5)


def test_one_label_a_patch(tmp_path):
    values, labels = np.array([0.9, 0.2, 0.6, 0.4, 0.8], np.float16), np.array([1, 0, 0, 1, 255], np.uint8)
    table = score(make_probs(tmp_path / "a.h5", values), Truth(IDS, labels, REGIONS))
    check_row(table.pooled, values, labels, 0.5)
    assert table.pooled.patches == 5 and table.pooled.patches_with_landslide == 2


def test_masks_become_labels_by_the_rule_that_the_file_carries(tmp_path):
    values = np.array([0.9, 0.2, 0.6, 0.4, 0.8], np.float16)
    _, masks = values_and_masks()
    masks[0], masks[1] = 255, 0
    labels = np.array([patch_label(mask, 0.3) for mask in masks])
    assert set(labels.tolist()) == {0, 1, 255}
    by_rule = make_probs(tmp_path / "a.h5", values, extra={"positive_share": 0.3})
    row = score(by_rule, Truth(IDS, masks, REGIONS)).pooled
    assert row == score(make_probs(tmp_path / "b.h5", values), Truth(IDS, labels, REGIONS)).pooled
    assert row.patches == 5 and 0 < row.true_share < 1
    with pytest.raises(DataError, match=r"the prediction is \(\), the truth \(8, 6\)"):
        score(make_probs(tmp_path / "c.h5", values), Truth(IDS, masks, REGIONS))


def test_scores_that_are_only_ordered_are_cut_without_labels(tmp_path):
    values, masks = values_and_masks()
    truth = Truth(IDS, masks, REGIONS)
    probs = make_probs(tmp_path / "a.h5", values, kind="score", extra={"contamination": 0.2})
    table = score(probs, truth)
    chosen = label_free(values, 0.2)
    assert table.threshold == threshold_of(probs) == chosen["quantile"]
    assert (values.astype(np.float64) >= table.threshold).mean() == pytest.approx(0.2, abs=0.01)
    for name, row in {"": table.pooled, **table.regions}.items():
        inside = np.array([name in ("", region) for region in REGIONS])  # one threshold for all regions
        wanted = cuts(code_counts(values[inside], masks[inside], masks[inside] != 255), chosen)
        assert row.cuts == plain(wanted)
        assert row.f1 == row.cuts["quantile"]["f1"] and row.oracle_f1 == row.cuts["oracle"]["f1"]
    assert score(probs, truth, threshold=0.5).pooled.cuts == table.pooled.cuts
    plainly = make_probs(tmp_path / "b.h5", values)
    assert threshold_of(plainly) == 0.5 and score(plainly, truth).threshold == 0.5


def test_a_file_is_cut_where_it_is_wanted(tmp_path):
    values, masks = values_and_masks()
    probs, scores = (make_probs(tmp_path / f"{kind}.h5", values, kind=kind) for kind in ("probability", "score"))
    assert threshold_of(probs, 0.3) == threshold_of(scores, 0.3) == 0.3
    free = threshold_of(probs, "expected_f1")
    assert {"expected_f1": free} == label_free(values)
    row = score(probs, Truth(IDS, masks, REGIONS)).pooled.cuts["expected_f1"]
    assert row["f1"] == score(probs, Truth(IDS, masks, REGIONS), threshold=free).pooled.f1
    with pytest.raises(DataError, match="only ordered: expected_f1 needs probabilities"):
        threshold_of(scores, "expected_f1")


def test_patches_with_landslides_are_counted(tmp_path):
    values, masks = values_and_masks()
    masks[1] = 0
    masks[2] = 255
    assert score(make_probs(tmp_path / "a.h5", values), Truth(IDS, masks, REGIONS)).pooled.patches_with_landslide == 3


def test_subsets_only_when_asked_for_and_never_without_truth(tmp_path):
    values, masks = values_and_masks()
    truth = Truth(IDS, masks, REGIONS)
    some = make_probs(tmp_path / "a.h5", values[:3], IDS[:3])
    with pytest.raises(DataError, match="2 of 5 patches of the truth are not predicted, first 33"):
        score(some, truth)
    table = score(some, truth, allow_subset=True)
    check_row(table.pooled, values[:3], masks[:3], 0.5)
    more = make_probs(tmp_path / "b.h5", values, (*IDS[:4], "99"))
    for allowed in (False, True):
        with pytest.raises(DataError, match="1 of 5 predicted patches have no truth, first 99"):
            score(more, truth, allow_subset=allowed)


def test_truth_that_cannot_be(tmp_path):
    values, masks = values_and_masks()
    probs = make_probs(tmp_path / "a.h5", values)
    with pytest.raises(DataError, match="patch 7 twice"):
        Truth(("7", "7"), masks[:2], REGIONS[:2])
    with pytest.raises(DataError, match="5 ids but 4 masks"):
        Truth(IDS, masks[:4], REGIONS)
    with pytest.raises(DataError, match="5 ids but 1 regions"):
        Truth(IDS, masks, ("x",))
    with pytest.raises(DataError, match=r"patch 7: the prediction is \(8, 6\), the truth \(8, 5\)"):
        score(probs, Truth(IDS, masks[:, :, 1:], REGIONS))
    with pytest.raises(DataError, match="patch 7 must be uint8, got int64"):
        score(probs, Truth(IDS, masks.astype(np.int64), REGIONS))
    masks[3, 0, 0] = 2
    with pytest.raises(DataError, match=r"patch 33 must hold 0, 1 and 255 \(ignore\), got 2"):
        score(probs, Truth(IDS, masks, REGIONS))
    with pytest.raises(DataError, match="threshold must be in"):
        score(probs, Truth(IDS, masks, REGIONS), threshold=1.5)


def test_the_table_is_plain_json(tmp_path):
    values, masks = values_and_masks()
    table = score(make_probs(tmp_path / "a.h5", values), Truth(IDS, masks, REGIONS)).as_dict()
    text = json.dumps(table, allow_nan=False)
    assert text == json.dumps(table, sort_keys=True) and json.loads(text) == table
    assert table["source"]["member"] == "unet" and table["threshold"] == 0.5
    cuts = table["pooled"].pop("cuts")
    numbers = [*table["pooled"].items(), *cuts["expected_f1"].items()]
    assert {name for name, value in numbers if type(value) is int} == {"patches", "patches_with_landslide"}
    assert all(type(value) in (int, float) for _, value in numbers)
    oracle = best_threshold(code_counts(values, masks, masks != 255))
    assert (table["pooled"]["oracle_threshold"], table["pooled"]["oracle_f1"]) == oracle


def test_masks_score_as_the_probabilities_they_are_cut_from(tmp_path):
    values, masks = values_and_masks()
    truth = Truth(IDS, masks, REGIONS)
    pred = {name: (row.astype(np.float64) >= 0.7).astype(np.uint8) for name, row in zip(IDS, values, strict=True)}
    whole = score(make_probs(tmp_path / "a.h5", values), truth, threshold=0.7).as_dict()
    cut = score_masks(dict(reversed(pred.items())), truth).as_dict()
    without = {"average_precision", "oracle_threshold", "oracle_f1", "auroc", "cuts"}
    assert cut["pooled"] == {name: value for name, value in whole["pooled"].items() if name not in without}
    assert "threshold" not in cut and cut["regions"].keys() == whole["regions"].keys()


def test_predicted_masks_that_cannot_be():
    _, masks = values_and_masks()
    truth, pred = Truth(IDS, masks, REGIONS), dict.fromkeys(IDS, np.zeros((8, 6), np.uint8))
    for wrong, message in ((np.full((8, 6), 255, np.uint8), "got 255"), (np.zeros((8, 6), bool), "got bool")):
        with pytest.raises(DataError, match=f"patch 2 must be uint8 with 0 and 1, {message}"):
            score_masks(pred | {"2": wrong}, truth)
    with pytest.raises(DataError, match="no patches to score"):
        score_masks({}, truth, allow_subset=True)
    with pytest.raises(DataError, match="not predicted, first 10"):
        score_masks({"7": pred["7"]}, truth)
