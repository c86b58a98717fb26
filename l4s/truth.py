"""A domain's masks as truth to score against. The only way from masks of a target to anything: a score."""

from l4s.data.domain import Domain
from l4s.score import Truth


def truth_of(domain: Domain) -> Truth | None:
    """Masks of the domain's predicted patches; None where one of them has no mask (withheld)."""
    rows = domain.predicted
    if not domain.cache.labelled[rows].all():
        return None
    masks = domain.cache.masks
    regions = tuple(domain.patches[row].region for row in rows)
    return Truth(domain.ids(rows), lambda index: masks[rows[index]], regions)
