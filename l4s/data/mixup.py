"""Mixup: pairs of samples of one batch mixed by a random share (Zhang 2018; Lissak & Corpetti 2024, 3)."""

from collections.abc import Sequence

import numpy as np

from l4s.data.augment import Sample
from l4s.recipe import Mixup

PAIRS, SHARES = 5, 6  # streams of random numbers, apart from those of the sampler and of augmentation


def partners(config: Mixup, domains: Sequence[int], seeds: tuple[int, int], total: int) -> dict[int, int]:
    """Who is mixed with whom in one step: each place of the batch with another place of its domain.

    Args:
        domains: the domain of each row of the whole batch; BatchNorm by domain must not meet a mixture of two.
        seeds: of the member, and the step.
        total: steps of the training.

    Returns:
        The partner of each place; empty in a step without Mixup, and without the rows that are alone in their domain.
    """
    seed, step = seeds
    rng = np.random.default_rng((seed, PAIRS, step))
    if step >= config.until * total or rng.random() >= config.share:
        return {}
    paired: dict[int, int] = {}
    for domain in sorted(set(domains)):
        order = rng.permutation([place for place, other in enumerate(domains) if other == domain]).tolist()
        if len(order) > 1:
            paired |= dict(zip(order, [*order[1:], order[0]], strict=True))
    return paired


def mix(config: Mixup, own: Sample, other: Sample, seeds: tuple[int, int, int]) -> Sample:
    """One sample times lambda plus another times 1 - lambda, lambda from Beta(alpha, alpha).

    Targets are averaged by lambda times weight, so that a pixel that one of the two does not know (weight 0) has the
    other's target, at the other's share of the weight.

    Args:
        own, other: image (C, H, W) float32, target (H, W) float32 in [0, 1], weight (H, W) float32 >= 0.
        seeds: of the member, the step and the place in the batch.
    """
    seed, step, place = seeds
    share = np.float32(np.random.default_rng((seed, SHARES, step, place)).beta(config.alpha, config.alpha))
    (image, target, weight), (image2, target2, weight2) = own, other
    one, two = share * weight, (1 - share) * weight2
    both = one + two
    mixed = np.divide(one * target + two * target2, both, out=np.zeros_like(both), where=both > 0)
    return share * image + (1 - share) * image2, mixed, both
