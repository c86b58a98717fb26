"""What a study of few labels makes of files and rows: errors paired by id, tables and figures with gaps."""

import json

import numpy as np
import pytest

from l4s.data.probs import open_probs, write_probs
from l4s.errors import DataError
from l4s.score import Truth
from l4s.study import score_of
from l4s.study_plots import draw_study
from l4s.study_table import markdown

IDS = ("7", "2", "10")


def write(path, ids, values):
    about = {"member": "x", "fingerprint": "f", "domain": "d", "tta": "none", "kind": "probability"}
    with write_probs(path, ids=ids, shape=values.shape, **about) as writer:
        writer.put(0, values.astype(np.float32))
    return open_probs(path)


@pytest.fixture
def truth():
    masks = np.zeros((3, 2, 2), np.uint8)
    masks[0, 0], masks[1, 1, 1] = 1, 255
    return Truth(IDS, masks, ("",) * 3)


def test_errors_are_paired_by_id(tmp_path, truth):
    values = np.array([np.full((2, 2), value) for value in (0.75, 0.5, 0.25)])
    straight = score_of(write(tmp_path / "a.h5", IDS, values), truth)
    order = [2, 0, 1]
    mixed = score_of(write(tmp_path / "b.h5", [IDS[k] for k in order], values[order]), truth)
    np.testing.assert_array_equal(straight.errors["threshold"], [2, 3, 0])
    np.testing.assert_array_equal(straight.errors["sum"], [1, 1.5, 1])
    for rule, errors in straight.errors.items():
        np.testing.assert_array_equal(mixed.errors[rule], errors)
    assert mixed.precision == straight.precision == pytest.approx(0.5)


def test_files_of_other_patches(tmp_path, truth):
    with pytest.raises(DataError, match="1 of 3 predicted patches have no truth, first 8"):
        score_of(write(tmp_path / "a.h5", ("7", "2", "8"), np.zeros((3, 2, 2))), truth)


def over(mean, error):
    return {"mean": mean, "error": error}


def row(line, size, seeds=3, empty=True):
    """A row of a study whose domain may have no patch without landslides."""
    figures = ("median", "mean", "median_size", "mean_size")
    parts = {"all": 5.0, "empty": 4.0 if empty else None, "landslide": -3.0}
    error = 1.0 if seeds > 1 else None
    counts = {part: dict.fromkeys(figures, value) for part, value in parts.items()}
    spread = {part: dict.fromkeys(figures, over(value, value and error)) for part, value in parts.items()}
    interval = {"difference": -1.25, "low": -2.0, "high": 0.5}
    against = {part: interval for part in parts if empty or part != "empty"}
    return {
        "line": line,
        "size": size,
        "seeds": seeds,
        "checkpoints": 5,
        "average_precision": 0.5,
        "random": 0.03,
        "over_seeds": over(0.4, 0.02 if seeds > 1 else None)
        | {"each": [0.4], "sd_over_n": 0.01 if seeds > 1 else None},
        "counts": {"threshold": counts, "sum": counts},
        "counts_over_seeds": {"threshold": spread, "sum": spread},
        "against": dict.fromkeys({"a", "b"} - {line}, against),
    }


def test_a_part_without_patches_is_no_perfect_score(tmp_path):
    rows = [row("a", 2, empty=False), row("b", 2, empty=False)]
    text = markdown(rows, "d", False)
    assert "| a | 2 | 5 (5 ± 1) | – | – | -3 (-3 ± 1) | -3 (-3 ± 1) | – |" in text
    assert "| a | b | 2 | -1.2 [-2.0, 0.5] | – | -1.2 [-2.0, 0.5] |" in text
    assert "| b | a |" not in text  # each pair once
    for path in draw_study(tmp_path, rows, "d"):
        assert path.read_bytes().startswith(b"\x89PNG")
    json.dumps(rows, allow_nan=False)


def test_one_seed_has_no_error():
    text = markdown([row("a", None, seeds=1)], "d", False)
    assert "| a | all | 1 | 0.400 | 0.500 |" in text and "| a | all | 5 (5) | 4 (4) |" in text
    assert "against" not in text.replace("held against", "")


def test_the_first_line_says_what_was_scored():
    heads = [markdown([row("a", 2)], "coast", chose).splitlines()[0] for chose in (False, True)]
    assert "coast" in heads[0] and "checkpoints" not in heads[0]
    assert "coast, whose labels chose the checkpoints" in heads[1]


def test_the_bar_stands_at_the_mean_over_seeds(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    monkeypatch.setattr(Axes, "errorbar", spy(Axes.errorbar, drawn))
    draw_study(tmp_path, [row("a", 2), row("a", 5)], "d")
    np.testing.assert_array_equal(drawn[0][1:], ([0.4, 0.4], [0.02, 0.02]))
    np.testing.assert_array_equal(drawn[1][1:], ([5, 5], [1, 1]))


def spy(function, calls):
    def call(self, *arguments, **options):
        calls.append(arguments)
        return function(self, *arguments, **options)

    return call
