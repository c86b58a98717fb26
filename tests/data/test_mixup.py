"""Mixup: its formula, who is mixed with whom, and when; the same batches whatever the processes."""

import numpy as np
import pytest
from data_factory import RGB, write_data, write_split
from hypothesis import given
from hypothesis import strategies as st

from l4s.data.dataset import Part, Slice, Steps, mask_labels
from l4s.data.domain import affine, open_domain
from l4s.data.mixup import SHARES, mix, partners
from l4s.recipe import Augment, DomainConfig, Mixup, Train


def sample(value, target, weight):
    return (
        np.full((2, 3, 3), value, np.float32),
        np.full((3, 3), target, np.float32),
        np.full((3, 3), weight, np.float32),
    )


def share_of(seeds, alpha=1.0):
    seed, step, place = seeds
    return np.random.default_rng((seed, SHARES, step, place)).beta(alpha, alpha)


def test_images_targets_and_weights_have_one_lambda():
    seeds = (1, 2, 3)
    share = share_of(seeds)
    image, target, weight = mix(Mixup(), sample(4.0, 1.0, 1.0), sample(-2.0, 0.0, 1.0), seeds)
    np.testing.assert_allclose(image, 4 * share - 2 * (1 - share), rtol=1e-6)
    np.testing.assert_allclose(target, share, rtol=1e-6)
    np.testing.assert_allclose(weight, 1.0, rtol=1e-6)
    assert {image.dtype, target.dtype, weight.dtype} == {np.dtype(np.float32)}


def test_what_one_does_not_know_is_the_others():
    seeds = (0, 0, 0)
    share = share_of(seeds)
    _, target, weight = mix(Mixup(), sample(0, 1.0, 0.0), sample(0, 0.25, 1.0), seeds)
    np.testing.assert_allclose(target, 0.25)
    np.testing.assert_allclose(weight, 1 - share, rtol=1e-6)
    _, target, weight = mix(Mixup(), sample(0, 1.0, 0.0), sample(0, 1.0, 0.0), seeds)
    assert not target.any() and not weight.any()


def test_lambda_is_uniform_with_alpha_1_and_near_the_ends_with_a_small_one():
    def shares(alpha):
        own, other = sample(1.0, 1, 1), sample(0.0, 0, 1)
        return np.array([mix(Mixup(alpha=alpha), own, other, (0, step, 0))[0][0, 0, 0] for step in range(800)])

    flat, bent = shares(1.0), shares(0.2)
    assert abs(flat.mean() - 0.5) < 0.04 and abs(flat.var() - 1 / 12) < 0.01
    assert bent.var() > 0.15


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 9), st.integers(0, 80))
def test_partners_are_of_one_domain_and_nobodys_own(domains, seed, step):
    paired = partners(Mixup(), domains, (seed, step), 100)
    assert all(domains[place] == domains[other] and place != other for place, other in paired.items())
    assert sorted(paired) == sorted(paired.values())
    assert set(paired) == {k for k, domain in enumerate(domains) if domains.count(domain) > 1}


def test_the_last_part_and_a_share_of_the_steps_are_not_mixed():
    config = Mixup(share=0.3, until=0.8)
    mixed = [bool(partners(config, [0, 0], (0, step), 1000)) for step in range(1000)]
    assert not any(mixed[800:]) and 0.25 < np.mean(mixed[:800]) < 0.35


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixup")
    data = write_data(root / "data")
    write_split(data, "test", range(1, 4), seed=7)
    configs = [("home", "source", "train"), ("more", "source", "test")]
    return [
        open_domain(name, DomainConfig(role=role, split=split), RGB, data, root / "cache")
        for name, role, split in configs
    ]


def steps(domains, cut=Slice(), **train):  # noqa: B008
    train = Train(**{"batch": 8, "steps": 10, "augment": Augment(gain=0.1)} | train)
    parts = [Part(d, k, d.train, *affine(d, "separated", ()), mask_labels(d)) for k, d in enumerate(domains)]
    return Steps(parts, [], train, 3, cut)


def test_a_batch_is_that_without_mixup_mixed(domains):
    plain, mixed = steps(domains)[2], steps(domains, mixup=Mixup())[2]
    paired = partners(Mixup(), plain.domain.tolist(), (3, 2), 10)
    assert paired
    for place in range(8):
        share = share_of((3, 2, place)) if place in paired else 1.0
        other = paired.get(place, place)
        wanted = share * plain.image[place] + (1 - share) * plain.image[other]
        np.testing.assert_allclose(mixed.image[place], wanted, atol=1e-5)
    assert plain.index.tolist() == mixed.index.tolist()
    last = steps(domains, mixup=Mixup())[9]
    np.testing.assert_array_equal(last.image, steps(domains)[9].image)


def test_processes_get_the_rows_of_one(domains):
    whole = steps(domains, mixup=Mixup())[1]
    for rank in range(2):
        half = steps(domains, Slice(rank, 2, 1), mixup=Mixup())[1]
        np.testing.assert_array_equal(half.image, whole.image[rank::2])
        np.testing.assert_array_equal(half.target, whole.target[rank::2])


def test_statistics_are_settled_on_unmixed_rows(domains):
    train = Train(batch=8, steps=10, augment=Augment(gain=0.1), mixup=Mixup())
    ours = steps(domains, mixup=Mixup()).turned_only(train)[1]
    plain = steps(domains).turned_only(train)[1]
    np.testing.assert_array_equal(ours.image, plain.image)
