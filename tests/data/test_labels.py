"""One label a patch: the share rule at its edges."""

import numpy as np
import pytest

from l4s.data.labels import patch_label, patch_labels


def mask(landslide, background, ignored=0):
    return np.array([1] * landslide + [0] * background + [255] * ignored, np.uint8).reshape(1, -1)


@pytest.mark.parametrize(
    ("pixels", "share", "expected"),
    [
        ((0, 9), 0.0, 0),
        ((1, 99), 0.0, 1),  # at 0 any landslide pixel
        ((0, 9), 0.01, 0),
        ((1, 99), 0.01, 1),  # exactly the share
        ((1, 100), 0.01, 0),
        ((1, 100, 1000), 0.01, 0),  # ignored pixels are no part of the patch
        ((1, 99, 1000), 0.01, 1),
        ((3, 27), 0.1, 1),
        ((7, 0), 1.0, 1),
        ((7, 1), 1.0, 0),
        ((0, 0, 5), 0.0, 255),
        ((0, 0, 5), 0.5, 255),
    ],
)
def test_the_rule(pixels, share, expected):
    label = patch_label(mask(*pixels), share)
    assert label.dtype == np.uint8 and label.shape == () and int(label) == expected


def test_many_at_once():
    masks = np.stack([mask(1, 9), mask(0, 10), mask(0, 0, 10)])
    assert patch_labels(masks, 0.1).tolist() == [1, 0, 255]
    assert patch_labels(masks, 0.2).tolist() == [0, 0, 255]
