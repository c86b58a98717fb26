"""Training batches from cached domains: one `Batch` a step and slice, made the same way in any process."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from l4s.data.augment import Sample, build_augment
from l4s.data.domain import Domain, standardised
from l4s.data.mixup import mix, partners
from l4s.data.patch import IGNORED
from l4s.data.sampler import draw, share_rows
from l4s.errors import DataError
from l4s.recipe import Augment, Train

Labels = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""The labels of a row of a domain: target (H, W) float32 and weight (H, W) float32."""


@dataclass(frozen=True)
class Batch:
    """Rows of one step.

    `image` (B, C, H, W) float32 standardised; `target` (B, H, W) float32 in [0, 1]; `weight` (B, H, W) float32 >= 0,
    0 = ignored; `domain` (B,) int64 position in `l4s.member.trained_on`; `index` (B,) int64 row in the domain; `adapt` (B,)
    bool, True for rows of target domains. The last three stay on the CPU, where they are looked at.
    """

    image: Tensor
    target: Tensor
    weight: Tensor
    domain: Tensor
    index: Tensor
    adapt: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device, images channels last."""
        target, weight = (value.to(device, non_blocking=True) for value in (self.target, self.weight))
        image = self.image.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        return replace(self, image=image, target=target, weight=weight)

    def pin_memory(self) -> "Batch":
        """The same batch where a GPU can fetch it from while it computes; the loader calls this."""
        return replace(self, **{name: value.pin_memory() for name, value in vars(self).items()})


@dataclass(frozen=True)
class Part:
    """A domain's share of the training data: which rows, how they are normalised, and their labels.

    `scale`, `shift`: (N, C) float32 as `l4s.data.domain.affine` gives them. `positive`: (N,) uint8 in {0, 1, 255},
    whether a patch is one of a landslide; None where rows are drawn alike. `embeddings`: (N, E, H, W) float16 that follow
    the bands; None where there are none.
    """

    domain: Domain
    number: int
    rows: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    labels: Labels
    positive: np.ndarray | None = None
    embeddings: np.ndarray | None = None

    def image(self, row: int) -> np.ndarray:
        """(C, H, W) float32 under the recipe's normalisation; (C + E, H, W) with embeddings."""
        return standardised(self.domain, row, self.scale, self.shift, self.embeddings)

    @property
    def spectral(self) -> tuple[bool, ...]:
        """For each channel of an image: may its colour be changed?"""
        return self.domain.bands.spectral + (False,) * (0 if self.embeddings is None else self.embeddings.shape[1])


def mask_labels(domain: Domain) -> Labels:
    """Labels from a source domain's masks: target 1 on landslide, weight 0 on ignored pixels."""
    masks = domain.cache.masks
    return lambda row: ((masks[row] == 1).astype(np.float32), (masks[row] != IGNORED).astype(np.float32))


Pool = list[tuple[Part, int]]
SOURCE, TARGET, BALANCED = 0, 1, (3, 4)  # streams of the sampler; BALANCED: without and with landslide


@dataclass(frozen=True)
class Slice:
    """Which rows of each batch this process handles at a time."""

    rank: int = 0
    world: int = 1
    accumulate: int = 1


class Steps(Dataset[Batch]):
    """Item s * accumulate + m is micro-batch m of step s, for one process.

    Raises:
        DataError: the domains' patches do not fit into one batch, or cannot be balanced.
    """

    def __init__(self, source: Sequence[Part], target: Sequence[Part], train: Train, seed: int, cut: Slice) -> None:
        _refuse_sizes([part.domain for part in (*source, *target)], train)
        self.counts = share_rows(train.batch, train.target_share if target else None)
        self.streams = [
            *_source_streams(source, self.counts[0], train.balance),
            (TARGET, _pool(target), self.counts[1]),
        ]
        self.seed, self.cut = seed, cut
        self.spectral = source[0].spectral
        self.augment = build_augment(train.augment, self.spectral)
        self.mixup, self.total = train.mixup, train.steps

    def turned_only(self, train: Train) -> "Steps":
        """The same rows with nothing changed but, where training has them, flips and quarter turns."""
        other = copy.copy(self)
        other.augment = build_augment(Augment(d4=train.augment.d4), self.spectral)
        other.mixup = None
        return other

    def rows(self, step: int) -> list[tuple[Part, int, bool]]:
        """All rows of a step: source rows first, then target rows."""
        rows: list[tuple[Part, int, bool]] = []
        for stream, pool, count in self.streams:
            if count:
                chosen = draw(step, count, len(pool), self.seed, stream)
                rows += [(*pool[place], stream == TARGET) for place in chosen]
        return rows

    def __getitem__(self, item: int) -> Batch:
        step, micro = divmod(item, self.cut.accumulate)
        first = micro * self.cut.world + self.cut.rank
        every = self.cut.accumulate * self.cut.world
        whole = self.rows(step)
        rows = list(enumerate(whole))[first::every]
        samples = self._samples(step, whole, [place for place, _ in rows])
        image, target, weight = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*samples, strict=True))
        number = torch.tensor([part.number for _, (part, _, _) in rows])
        index = torch.tensor([row for _, (_, row, _) in rows])
        return Batch(image, target, weight, number, index, torch.tensor([adapt for _, (_, _, adapt) in rows]))

    def _samples(self, step: int, rows: Sequence[tuple[Part, int, bool]], places: Sequence[int]) -> list[Sample]:
        """The samples at these places of a step, mixed where training mixes."""
        if self.mixup is None:
            return [self._sample(step, k, *rows[k][:2]) for k in places]
        paired = partners(self.mixup, [part.number for part, _, _ in rows], (self.seed, step), self.total)
        made = {k: self._sample(step, k, *rows[k][:2]) for k in sorted({*places, *(paired.get(k, k) for k in places)})}
        return [
            mix(self.mixup, made[k], made[paired[k]], (self.seed, step, k)) if k in paired else made[k] for k in places
        ]

    def _sample(self, step: int, place: int, part: Part, row: int) -> Sample:
        rng = np.random.default_rng((self.seed, 2, step, place))
        return self.augment((part.image(row), *part.labels(row)), rng)


def batches(steps: Steps, items: range, workers: int) -> Iterable[Batch]:
    """Batches of these items in order, made by `workers` processes (0: by this one)."""
    return DataLoader(
        steps,
        sampler=items,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def _quiet_worker(_: int) -> None:
    torch.set_num_threads(1)  # more threads than cores make small operations 25 to 100 times slower


def _refuse_sizes(domains: Sequence[Domain], train: Train) -> None:
    sizes = {domain.name: domain.size for domain in domains}
    if len(set(sizes.values())) > 1:
        raise DataError(
            f"patches of one batch must have one size, but the domains have {sizes}: cut or fit them to one size "
            "(domain.x.cut, domain.x.fit)"
        )
    height, width = domains[0].size
    if train.augment.d4 and height != width:
        raise DataError(f"augment.d4 turns patches by 90 degrees, but these are {height} x {width}: set it to false")


def _source_streams(parts: Sequence[Part], count: int, balance: float | None) -> list[tuple[int, Pool, int]]:
    """The pools that source rows are drawn from, with their streams and how many rows a step come from each."""
    if balance is None:
        return [(SOURCE, _pool(parts), count)]
    kinds = (_pool(parts, 0), _pool(parts, 1))
    shares = share_rows(count, balance)
    if not all(kinds) or not all(shares):
        raise DataError(
            f"train.balance = {balance} takes {shares[0]} and {shares[1]} rows a step out of {len(kinds[0])} patches "
            f"without and {len(kinds[1])} with landslide: there must be some of each, leave it out or enlarge train.batch"
        )
    return [(stream, pool, rows) for stream, pool, rows in zip(BALANCED, kinds, shares, strict=True)]


def _pool(parts: Sequence[Part], label: int | None = None) -> Pool:
    """The rows to train on; with a label, only those of it."""
    rows = [(part, int(row)) for part in parts for row in part.rows]
    return rows if label is None else [(part, row) for part, row in rows if _label(part, row) == label]


def _label(part: Part, row: int) -> int:
    assert part.positive is not None
    return int(part.positive[row])
