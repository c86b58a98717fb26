"""A domain's masks as truth to score against. A target's are used for nothing else, but that `parts` may balance its draw by them."""

import numpy as np

from l4s.data.domain import Domain
from l4s.data.probs import ProbFile
from l4s.score import Truth


def comparable(domain: Domain, probs: ProbFile) -> bool:
    """Whether the truth of a domain says something of these values: labels of whole patches say nothing of pixels."""
    return not (domain.by_patch and probs.shapes[0])


def truth_of(domain: Domain) -> Truth | None:
    """Masks of the domain's predicted patches, each at its own size; None where one of them has no mask (withheld)."""
    rows = domain.predicted
    if not domain.cache.labelled[rows].all():
        return None
    regions = tuple(domain.patches[row].region for row in rows)

    def mask(index: int) -> np.ndarray:
        """Of patches labelled as a whole one pixel says all, and predictions of pixels do not fit it."""
        whole = domain.cache.mask(rows[index])
        return whole[0, 0] if domain.by_patch else whole

    return Truth(domain.ids(rows), mask, regions)
