"""Batches: a pure function of seed and step, whatever the processes, and weights that ignore what is not known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_factory import RGB, write_data, write_h5, write_split
from hypothesis import given
from hypothesis import strategies as st

from l4s.data.augment import build_augment
from l4s.data.bands import Bands
from l4s.data.dataset import Part, Slice, Steps, batches, mask_labels
from l4s.data.domain import affine, open_domain
from l4s.data.sampler import draw, share_rows
from l4s.errors import DataError
from l4s.recipe import Augment, DomainConfig, Train

WILD = Augment(d4=True, affine=0.7, gain=0.2, offset=0.2)


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    data = write_data(root / "data")
    write_split(data, "test", range(1, 4), seed=7)
    configs = [("home", "source", "train"), ("more", "source", "test"), ("away", "target", "validation")]
    return [
        open_domain(name, DomainConfig(role=role, split=split), RGB, data, root / "cache")
        for name, role, split in configs
    ]


def part(domain, number, sources=(), labels=None):
    return Part(domain, number, domain.train, *affine(domain, "separated", sources), labels or mask_labels(domain))


def pseudo_labels(row):
    """A target and a weight that tell the row."""
    return np.full((16, 16), row % 2, np.float32), np.full((16, 16), 1.0, np.float32)


def steps(domains, cut=Slice(), seed=3, target=True, **train):  # noqa: B008
    train = Train(**{"batch": 8, "augment": WILD} | train)
    source = [part(domain, number) for number, domain in enumerate(domains[:2])]
    adapted = [part(domains[2], 2, labels=pseudo_labels)] if target else []
    return Steps(source, adapted, train, seed, cut)


def arrays(batch):
    return {name: value.numpy() for name, value in vars(batch).items()}


def same(ours, theirs):
    for name, array in arrays(ours).items():
        np.testing.assert_array_equal(array, arrays(theirs)[name], err_msg=name)
        assert array.tobytes() == arrays(theirs)[name].tobytes(), name


# --- the sampler


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 50), st.integers(0, 1), st.integers(1, 40))
def test_rows_come_in_passes_without_replacement(size, count, seed, stream, number):
    rows = np.concatenate([draw(step, count, size, seed, stream) for step in range(number)])
    assert rows.dtype == np.int64 and len(rows) == count * number
    for first in range(0, len(rows) - size + 1, size):
        assert sorted(rows[first : first + size].tolist()) == list(range(size))
    rest = rows[len(rows) // size * size :].tolist()
    assert len(set(rest)) == len(rest) and set(rest) <= set(range(size))


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 50), st.integers(0, 40))
def test_a_step_is_drawn_without_those_before(size, count, seed, step):
    straight = [draw(each, count, size, seed, 0).tolist() for each in range(step + 1)]
    assert draw(step, count, size, seed, 0).tolist() == straight[-1]


def test_passes_seeds_and_streams_differ():
    first = draw(0, 50, 50, 0, 0).tolist()
    for other in (draw(1, 50, 50, 0, 0), draw(0, 50, 50, 1, 0), draw(0, 50, 50, 0, 1)):
        assert other.tolist() != first


@pytest.mark.parametrize(
    ("batch", "share", "expected"),
    [
        (16, None, (16, 0)),
        (16, 0.5, (8, 8)),
        (16, 0.01, (15, 1)),
        (16, 0.99, (1, 15)),
        (2, 0.5, (1, 1)),
        (6, 0.3, (4, 2)),
    ],
)
def test_source_and_target_rows(batch, share, expected):
    assert share_rows(batch, share) == expected


# --- batches


def test_a_batch_by_hand(domains):
    data = steps(domains, augment=Augment(d4=False))
    batch = data[2]
    source, target = draw(2, 4, 11, 3, 0), draw(2, 4, 5, 3, 1)
    assert batch.adapt.tolist() == [False] * 4 + [True] * 4
    expected = [(0, row) if row < 8 else (1, row - 8) for row in source.tolist()]
    assert list(zip(batch.domain.tolist(), batch.index.tolist(), strict=True))[:4] == expected
    assert batch.domain.tolist()[4:] == [2] * 4 and batch.index.tolist()[4:] == target.tolist()
    for place, (number, row) in enumerate(zip(batch.domain.tolist(), batch.index.tolist(), strict=True)):
        cached = np.asarray(domains[number].cache.images[row], np.float32)
        np.testing.assert_array_equal(batch.image[place], cached)  # separated: cached as they are
        if number < 2:
            np.testing.assert_array_equal(batch.target[place], domains[number].cache.masks[row])
        else:
            assert (batch.target[place] == row % 2).all()
    assert {batch.image.dtype, batch.target.dtype, batch.weight.dtype} == {torch.float32}
    assert (batch.weight == 1).all()
    assert {batch.domain.dtype, batch.index.dtype} == {torch.int64} and batch.adapt.dtype == torch.bool


def balanced(domains, cut=Slice(), share=0.5, labels=(1, 0, 0, 1, 255, 0, 0, 0), **train):  # noqa: B008
    """Rows 0 and 3 have landslides, row 4 nobody knows."""
    home = replace(part(domains[0], 0), positive=np.array(labels, np.uint8))
    return Steps([home], [], Train(**{"batch": 8, "balance": share, "augment": WILD} | train), 3, cut)


@pytest.mark.parametrize(("share", "rows"), [(0.5, 4), (0.25, 2), (0.01, 1), (0.99, 7)])
def test_a_share_of_the_source_rows_has_landslides(domains, share, rows):
    for step in range(6):
        drawn = balanced(domains, share=share)[step].index.tolist()
        assert sum(row in (0, 3) for row in drawn) == rows
        assert 4 not in drawn
        assert drawn[8 - rows :] == [(0, 3)[k] for k in draw(step, rows, 2, 3, 4)]
        assert drawn[: 8 - rows] == [(1, 2, 5, 6, 7)[k] for k in draw(step, 8 - rows, 5, 3, 3)]


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 4), (2, 2)])
def test_ranks_and_accumulation_slice_the_same_balanced_batch(domains, world, accumulate):
    slices = [
        balanced(domains, Slice(rank, world, accumulate), accumulate=accumulate)[2 * accumulate + micro]
        for micro in range(accumulate)
        for rank in range(world)
    ]
    same(joined(slices), balanced(domains)[2])


def test_balance_leaves_target_rows_alone(domains):
    home = replace(part(domains[0], 0), positive=np.array([1, 0] * 4, np.uint8))
    target = part(domains[2], 2, labels=pseudo_labels)
    batch = Steps([home], [target], Train(batch=8, balance=0.5, augment=WILD), 3, Slice())[1]
    assert batch.adapt.tolist() == [False] * 4 + [True] * 4
    assert [row % 2 for row in batch.index.tolist()[:4]] == [1, 1, 0, 0]
    assert batch.index.tolist()[4:] == draw(1, 4, 5, 3, 1).tolist()


@pytest.mark.parametrize("labels", [(0,) * 8, (1,) * 8, (255, 1) * 4])
def test_what_cannot_be_balanced_is_refused(domains, labels):
    with pytest.raises(DataError, match=r"train.balance = 0.5 takes 4 and 4 rows a step out of"):
        balanced(domains, labels=labels)


def test_images_are_under_the_member_s_normalisation(domains):
    home = domains[0]
    scale, shift = affine(home, "official", domains[:1])
    own = replace(part(home, 0), scale=scale, shift=shift)
    batch = Steps([own], [], Train(batch=4, augment=Augment(d4=False)), 0, Slice())[0]
    for place, row in enumerate(batch.index.tolist()):
        cached = np.asarray(home.cache.images[row], np.float32)
        np.testing.assert_array_equal(
            batch.image[place], cached * scale[row][:, None, None] + shift[row][:, None, None]
        )


def test_without_targets_all_rows_are_source(domains):
    batch = steps(domains, target=False)[0]
    assert batch.adapt.tolist() == [False] * 8 and set(batch.domain.tolist()) <= {0, 1}


def test_ignored_pixels_have_weight_0(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[:3], mask[3:5] = 255, 1
    data = write_split(tmp_path / "data", "train", [1])
    write_h5(data / "TrainData" / "mask" / "mask_1.h5", "mask", mask)
    home = open_domain("home", DomainConfig(role="source"), RGB, data, tmp_path / "cache")
    target, weight = mask_labels(home)(0)
    assert target.dtype == weight.dtype == np.float32
    np.testing.assert_array_equal(weight, (mask != 255).astype(np.float32))
    np.testing.assert_array_equal(target, (mask == 1).astype(np.float32))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_makes_the_same_bytes(domains, workers):
    plain = [arrays(batch) for batch in batches(steps(domains), range(5), 0)]
    for ours, theirs in zip(batches(steps(domains), range(5), workers), plain, strict=True):
        for name, array in arrays(ours).items():
            assert array.tobytes() == theirs[name].tobytes(), name


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_from_a_step_makes_the_same_bytes(domains, workers):
    straight = list(batches(steps(domains), range(6), 0))
    resumed = list(batches(steps(domains), range(4, 6), workers))
    assert len(resumed) == 2
    for ours, theirs in zip(resumed, straight[4:], strict=True):
        same(ours, theirs)


def test_batches_of_one_step_differ_from_the_next_and_with_the_seed(domains):
    first = steps(domains)[0].image
    assert not torch.equal(first, steps(domains)[1].image)
    assert not torch.equal(first, steps(domains, seed=4)[0].image)


def joined(parts):
    """The rows of several slices of a step in the order of the whole, which deals them out in turn."""
    every = len(parts)
    whole = {}
    for name in vars(parts[0]):
        values = [getattr(batch, name) for batch in parts]
        rows = [values[place % every][place // every] for place in range(sum(map(len, values)))]
        whole[name] = torch.stack(rows)
    return type(parts[0])(**whole)


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (4, 1), (1, 2), (1, 4), (2, 2), (8, 1)])
def test_ranks_and_accumulation_slice_the_same_batch(domains, world, accumulate):
    for step in (0, 3):
        slices = [
            steps(domains, Slice(rank, world, accumulate), accumulate=accumulate)[step * accumulate + micro]
            for micro in range(accumulate)
            for rank in range(world)
        ]
        assert {len(batch.image) for batch in slices} == {8 // (world * accumulate)}
        same(joined(slices), steps(domains)[step])


def test_every_slice_has_its_part_of_target_rows(domains):
    for rank in range(4):
        assert steps(domains, Slice(rank, 4, 1))[0].adapt.tolist() == [False, True]


def other_size(domain, *size):
    """The domain with patches of another size."""
    return replace(domain, name="odd", cache=replace(domain.cache, images=np.zeros((8, 3, *size), np.float16)))


def test_patches_of_two_sizes_make_no_batch(domains):
    pair = [part(domains[0], 0), part(other_size(domains[0], 8, 8), 1)]
    message = r"one size, but the domains have {'home': \(16, 16\), 'odd': \(8, 8\)}"
    with pytest.raises(DataError, match=message):
        Steps(pair, [], Train(), 0, Slice())
    with pytest.raises(DataError, match=message):
        Steps(pair[:1], pair[1:], Train(), 0, Slice())


def test_oblong_patches_cannot_be_turned(domains):
    oblong = [part(other_size(domains[0], 8, 12), 0)]
    with pytest.raises(DataError, match="augment.d4 turns patches by 90 degrees, but these are 8 x 12"):
        Steps(oblong, [], Train(), 0, Slice())
    Steps(oblong, [], Train(augment=Augment(d4=False)), 0, Slice())


def test_a_batch_moves_as_a_whole(domains):
    batch = steps(domains)[0]
    moved = batch.to(torch.device("cpu"))
    same(moved, batch)
    assert moved.image.is_contiguous(memory_format=torch.channels_last)


# --- augmentation


def sample(bands=3, size=16, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(bands, size, size)).astype(np.float32) + 5
    target = (rng.random((size, size)) < 0.3).astype(np.float32)
    return image, target, np.ones((size, size), np.float32)


def generator(seed):
    return np.random.default_rng(seed)


def test_colour_leaves_terrain_alone():
    bands = Bands(use=("b4", "slope", "b2", "dem"))
    change = build_augment(Augment(d4=False, gain=0.3, offset=0.3), bands.spectral)
    image, target, weight = sample(4)
    for seed in range(20):
        seen, its_target, its_weight = change((image, target, weight), generator(seed))
        np.testing.assert_array_equal(seen[[1, 3]], image[[1, 3]])
        assert not np.allclose(seen[0], image[0]) and not np.allclose(seen[2], image[2])
        gain, offset = np.polyfit(image[0].ravel(), seen[0].ravel(), 1)
        np.testing.assert_allclose(seen[0], gain * image[0] + offset, atol=1e-4)  # one gain, one offset a band
        assert its_target is target and its_weight is weight and seen.dtype == np.float32


def test_gain_and_offset_have_the_recipe_s_spread():
    change = build_augment(Augment(d4=False, gain=0.1, offset=0.3), (True,))
    image = np.zeros((1, 1, 2), np.float32)
    image[..., 1] = 1.0  # offset, and gain + offset
    drawn = np.stack([change((image, image[0], image[0]), generator(seed))[0].ravel() for seed in range(4000)])
    offset, gain = drawn[:, 0], drawn[:, 1] - drawn[:, 0]
    assert gain.mean() == pytest.approx(1, abs=0.01) and gain.std() == pytest.approx(0.1, rel=0.05)
    assert offset.mean() == pytest.approx(0, abs=0.02) and offset.std() == pytest.approx(0.3, rel=0.05)


def test_contrast_and_brightness_are_common_to_all_spectral_bands():
    change = build_augment(Augment(d4=False, contrast=0.3, brightness=0.3), (True, True, False))
    image = np.zeros((3, 1, 2), np.float32)
    image[..., 1] = 1.0
    drawn = [change((image, image[0], image[0]), generator(seed))[0] for seed in range(2000)]
    for seen in drawn[:20]:
        np.testing.assert_array_equal(seen[0], seen[1])
        np.testing.assert_array_equal(seen[2], image[2])
    brightness = np.array([seen[0, 0, 0] for seen in drawn])
    contrast = np.array([seen[0, 0, 1] - seen[0, 0, 0] for seen in drawn])
    assert contrast.mean() == pytest.approx(1, abs=0.03) and contrast.std() == pytest.approx(0.3, rel=0.07)
    assert brightness.mean() == pytest.approx(0, abs=0.03) and brightness.std() == pytest.approx(0.3, rel=0.07)


def test_d4_moves_image_target_and_weight_together_and_reaches_all_views():
    change = build_augment(Augment(d4=True), (True,))
    plane = np.arange(16, dtype=np.float32).reshape(4, 4)
    views = set()
    for seed in range(60):
        image, target, weight = change((plane[None], plane + 100, plane + 200), generator(seed))
        np.testing.assert_array_equal(image[0] + 100, target)
        np.testing.assert_array_equal(image[0] + 200, weight)
        views.add(image.tobytes())
    every = {np.rot90(side, turns).tobytes() for side in (plane, plane[:, ::-1]) for turns in range(4)}
    assert views == every and len(views) == 8


def test_what_a_rotation_brings_in_has_weight_0():
    change = build_augment(Augment(d4=False, affine=1.0, rotate=45.0, zoom=(0.5, 0.6), shift=0.0), (True, True))
    image, target, weight = sample(2, 32)
    for seed in range(10):
        seen, its_target, its_weight = change((image, target, weight), generator(seed))
        outside = (seen == 0).all(0)  # the fill: 0 in every band, where all pixels of the patch are far from 0
        assert outside.mean() > 0.5  # zoomed out
        assert (its_weight[outside] == 0).all() and (its_target[outside] == 0).all()
        assert set(np.unique(its_weight)) == {0.0, 1.0} and set(np.unique(its_target)) <= {0.0, 1.0}
        assert (its_weight == 1).sum() > 100


def test_a_zoom_keeps_the_ratio_of_the_sides():
    change = build_augment(Augment(d4=False, affine=1.0, rotate=0.0, zoom=(0.3, 0.9), shift=0.0), (True, True))
    sides = set()
    for seed in range(10):
        inside = change(sample(2, 64), generator(seed))[2]
        height, width = (int(inside.any(axis).sum()) for axis in (1, 0))
        assert abs(height - width) <= 1
        sides.add(height)
    assert len(sides) > 5


def test_an_affine_move_that_moves_nothing():
    change = build_augment(Augment(d4=False, affine=1.0, rotate=0.0, zoom=(1.0, 1.0), shift=0.0), (True, True))
    image, target, weight = sample(2)
    seen, its_target, its_weight = change((image, target, weight), generator(0))
    np.testing.assert_allclose(seen, image, atol=1e-6)
    np.testing.assert_array_equal(its_target, target)
    np.testing.assert_array_equal(its_weight, weight)


def test_fourteen_bands_move_alike():
    change = build_augment(Augment(affine=1.0), (False,) * 14)
    image, target, weight = sample(1, 32)
    seen, *_ = change((np.repeat(image, 14, axis=0), target, weight), generator(0))
    for band in seen:
        np.testing.assert_array_equal(band, seen[0])


def test_the_generator_decides_everything():
    change, again = (build_augment(WILD, (True,) * 3) for _ in range(2))
    for seed in (0, 1, 0):
        for ours, theirs in zip(change(sample(), generator(seed)), again(sample(), generator(seed)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    first, other = change(sample(), generator(0))[0], change(sample(), generator(1))[0]
    assert not np.array_equal(first, other)


def test_the_sample_itself_is_not_changed():
    original = sample()
    kept = [array.copy() for array in original]
    build_augment(WILD, (True,) * 3)(original, generator(0))
    for ours, theirs in zip(original, kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_augmentation_nothing_changes():
    image, target, weight = sample()
    seen, its_target, its_weight = build_augment(Augment(d4=False), (True,) * 3)((image, target, weight), generator(0))
    np.testing.assert_array_equal(seen, image)
    assert its_target is target and its_weight is weight
