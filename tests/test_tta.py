"""Test-time augmentation: every view is turned back exactly."""

import pytest
import torch

from l4s.tta import TURNS, average

COUNTS = {"none": 1, "flip": 4, "d4": 8}


def images(height=5, width=5):
    """Asymmetric under every turn and mirror: all pixels differ. Sums of eight of them are exact in float32."""
    return torch.arange(2 * 3 * height * width, dtype=torch.float32).reshape(2, 3, height, width)


@pytest.mark.parametrize("size", [(5, 5), (4, 7), (1, 6)])
@pytest.mark.parametrize("tta", COUNTS)
def test_the_identity_stays_the_identity(tta, size):
    image = images(*size)
    assert torch.equal(average(lambda view: view[:, 0], image, tta), image[:, 0])


@pytest.mark.parametrize("tta", COUNTS)
def test_views_are_as_many_as_they_say_and_all_different(tta):
    views = []

    def probs(view):
        views.append(view.clone())
        return view[:, 0]

    average(probs, images(), tta)
    assert len(views) == COUNTS[tta] == len(TURNS[tta])
    assert len({view.numpy().tobytes() for view in views}) == COUNTS[tta]
    assert torch.equal(views[0], images())


def test_flip_has_no_quarter_turns_and_both_mirrors():
    views = []
    average(lambda view: views.append(view) or view[:, 0], images(4, 7), "flip")
    image = images(4, 7)
    expected = [image, image.flip(-1, -2), image.flip(-1), image.flip(-2)]
    assert {view.numpy().tobytes() for view in views} == {view.numpy().tobytes() for view in expected}


def test_the_mean_of_a_model_that_sees_only_a_corner():
    """A model that marks the top left pixel of whatever it sees: d4 spreads it over the four corners."""

    def corner(view):
        mark = torch.zeros(view[:, 0].shape)
        mark[:, 0, 0] = 1
        return mark

    mean = average(corner, images(), "d4")[0]
    expected = torch.zeros(5, 5)
    expected[0, 0] = expected[0, -1] = expected[-1, 0] = expected[-1, -1] = 0.25
    assert torch.equal(mean, expected)
    halves = average(corner, images(4, 7), "flip")[0]
    assert halves[0, 0] == halves[0, -1] == halves[-1, 0] == halves[-1, -1] == 0.25 and halves.sum() == 1


@pytest.mark.parametrize("tta", COUNTS)
def test_answers_of_one_value_a_patch_are_averaged_as_they_are(tta):
    answer = average(lambda view: view[:, 0, 0, 0], images(), tta)
    corners = images()[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].mean(1)
    assert torch.equal(answer, images()[:, 0, 0, 0] if tta == "none" else corners)
