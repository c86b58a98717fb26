"""What a recipe may say: frozen, strict pydantic models. Loading one is `l4s.load`; what each step reads of it is in `l4s.experiment`.

A recipe holds the science only. Paths of a person, devices, worker and GPU counts are flags of the command line.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from l4s.data.bands import Bands
from l4s.errors import did_you_mean

Normalise = Literal["separated", "source", "official", "imagenet", "patch"]
Tta = Literal["none", "flip", "d4"]
Judge = Literal["f1", "accuracy", "ap", "loss"]
Threshold = Annotated[float, Field(gt=0, lt=1)] | Literal["expected_f1", "heldout"]


class Section(BaseModel):
    """One table of a recipe: nothing can be changed after loading, and no key goes unread."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _refuse_idle(section: Section, what: str, reads: set[str]) -> None:
    """A key that is set and has no effect misleads."""
    fields = type(section).model_fields
    if idle := [key for key in fields if key not in reads and getattr(section, key) != fields[key].default]:
        raise ValueError(f"{what} does not read {', '.join(idle)}: leave it out")


class HoldOut(Section):
    """Which patches of a domain are kept out of training, to choose and to score on.

    `ids`: the inclusive id ranges in `ranges`. `block`: the last `share` of each region's ids, in layout "bijie" of each
    class's. `region`: the regions named. `random`: `share` of the patches, drawn by `seed` (neighbouring patches leak: an
    optimistic score).
    With `ids` and `block`, patches whose id lies within `gap` of a held-out range are used for neither. Statistics, which
    need no labels, are of all patches of the domain.
    """

    by: Literal["none", "ids", "block", "region", "random"] = "none"
    ranges: tuple[tuple[int, int], ...] = ()
    share: float | None = Field(default=None, gt=0, lt=1)
    gap: int = Field(default=0, ge=0)
    regions: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _only_what_matters(self) -> Self:
        reads: set[str] = {
            "none": set(),
            "ids": {"ranges", "gap"},
            "block": {"share", "gap"},
            "region": {"regions"},
            "random": {"share", "seed"},
        }[self.by]
        _refuse_idle(self, f"holdout by {self.by!r}", {"by", *reads})
        if missing := [key for key in ("ranges", "share", "regions") if key in reads and not getattr(self, key)]:
            raise ValueError(f"holdout by {self.by!r} needs {missing[0]}")
        if backwards := [pair for pair in self.ranges if pair[0] > pair[1]]:
            raise ValueError(f"holdout.ranges {list(backwards[0])} ends before it begins")
        return self


class Parts(Section):
    """A split's patches dealt out to named parts, of which a domain takes some (Böhm 2022, 2 and Table A1).

    `random`: drawn by `seed`, so that each part has the whole's share of patches with landslides; where no label is known,
    all are drawn alike. `blocks`: in the order of ids, with `gap` patches at each border in no part; neighbours resemble
    each other, and only blocks keep them apart. Chips cut row by row have neighbours above and below, a row of chips away
    in the order of ids: the gap must be at least one row of chips. A part's name stands for the region of its patches: it can be held
    out (`holdout = { by = "region", regions = [...] }`), and is scored by itself.
    """

    shares: Mapping[str, float] = Field(min_length=2)
    take: tuple[str, ...] = Field(min_length=1)
    by: Literal["random", "blocks"] = "random"
    seed: int = Field(default=0, ge=0)
    gap: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _refuse_idle(
            self, f"parts by {self.by!r}", {"shares", "take", "by", {"random": "seed", "blocks": "gap"}[self.by]}
        )
        if min(self.shares.values()) <= 0 or abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"parts.shares {dict(self.shares)} must be positive and add up to 1")
        if unknown := [name for name in self.take if name not in self.shares]:
            raise ValueError(f"parts.take names {unknown[0]!r}{did_you_mean(unknown[0], self.shares)}")
        return self


class SubDomains(Section):
    """Parts of a domain that have statistics of their own.

    `cluster`: k-means (seeded) on each patch's mean and standard deviation per band. `region`: the domain's regions.
    Statistics used are `blend` times the sub-domain's plus `1 - blend` times the whole domain's.
    """

    by: Literal["none", "cluster", "region"] = "none"
    k: int = Field(default=2, ge=2)
    seed: int = Field(default=0, ge=0)
    blend: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _only_what_matters(self) -> Self:
        reads = {"none": {"by"}, "cluster": {"by", "k", "seed", "blend"}, "region": {"by", "blend"}}[self.by]
        _refuse_idle(self, f"subdomains by {self.by!r}", reads)
        return self


class Fit(Section):
    """How patches of varying size get one size, which batches need (Lissak 2024 does not say).

    `resize`: to squares of `side` pixels, images bilinear with anti-aliasing, masks nearest, which loses slides that are
    smaller than a pixel of the square and hold none of its centres. `pad`: on the right and below, to the least square
    whose side is a multiple of `multiple` and that holds every patch of the domain; padding is the mean in every band, and
    left out of the domain's statistics, of losses and of scores; task "anomaly", whose loss reads no mask, does count it.
    What a network computes over whole batches does count it:
    BatchNorm's batch statistics, and the running ones that AdaBN and `train.precise_bn` make of them. Predictions come back
    at each patch's own size.
    """

    by: Literal["resize", "pad"]
    side: int | None = Field(default=None, ge=16)
    multiple: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _only_what_matters(self) -> Self:
        needs = {"resize": "side", "pad": "multiple"}[self.by]
        _refuse_idle(self, f"fit by {self.by!r}", {"by", needs})
        if getattr(self, needs) is None:
            raise ValueError(f"fit by {self.by!r} needs {needs}")
        return self


class DomainConfig(Section):
    """Patches treated as one source or one target.

    `source` domains train with their masks; a `target` is adapted to, and trained on with pseudo labels only; an
    `eval` domain is predicted and scored, and nothing else. Masks of targets and eval domains only ever score.
    """

    role: Literal["source", "target", "eval"]
    split: str = "train"
    layout: str = "auto"
    bands: tuple[str, ...] = ()  # of its files, in their order; (): those of bands.file
    regions: Mapping[str, tuple[int, int]] = {}
    parts: Parts | None = None
    # Values of masks that are landslide, and that are not labelled; where one is given, the other is [1] or [255]. Neither
    # given: 1 and 255, but in a mask that is a picture, 0 and 255 alone are background and landslide.
    positive: tuple[int, ...] | None = None
    ignore: tuple[int, ...] | None = None
    cut: int | None = Field(default=None, ge=1)  # side of the squares that patches are cut into: patches of their own
    fit: Fit | None = None  # None: the patches have one size
    split_seed: int = Field(
        default=0, ge=0
    )  # layout = "bijie": draws train, validation and test where no lists lie there
    positives_only: bool = False  # layout = "bijie": true leaves out the patches of non-landslide
    labelled: bool = True  # false: a source without masks, for tasks that train without labels
    holdout: HoldOut = HoldOut()
    subdomains: SubDomains = SubDomains()
    share_stats: tuple[tuple[str, ...], ...] = ()
    normalise: Normalise | None = None  # None: what the member says
    adabn: bool | None = None  # None: what the member says
    tta: tuple[Tta, ...] | None = Field(default=None, min_length=1)  # None: what [predict] says

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.role != "source" and self.holdout.by != "none":
            raise ValueError(f"a {self.role} domain has no hold-out: nothing is chosen on its labels")
        if self.role != "source" and not self.labelled:
            raise ValueError(f"labelled is for sources: a {self.role} domain may lack masks anyway")
        if self.role == "source" and self.holdout.by == "none" and self.tta:
            raise ValueError("tta is for what is predicted, and a source without a hold-out is not: leave it out")
        if self.role == "source" and self.adabn:
            raise ValueError("adabn is for targets and eval domains: a source's statistics come from training")
        if self.parts and self.regions:
            raise ValueError("parts stand where regions do: leave one of them out")
        regions = self.parts.take if self.parts else tuple(self.regions)
        if unknown := [name for name in self.holdout.regions if name not in regions]:
            raise ValueError(f"holdout names region {unknown[0]!r}{did_you_mean(unknown[0], regions)}")
        shared = [band for group in self.share_stats for band in group]
        if len(set(shared)) < len(shared) or any(len(group) < 2 for group in self.share_stats):
            raise ValueError("share_stats lists groups of two or more bands, each band once")
        if self.layout != "bijie" and (self.split_seed or self.positives_only):
            raise ValueError('split_seed and positives_only are read with layout = "bijie" only')
        if self.cut and self.fit:
            raise ValueError("cut makes patches of one size already: leave cut or fit out")
        return self


class Built(Section):
    """A table that names a builder; keys that it does not know are the builder's own options, checked where it is called."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The builder's keyword options."""
        return dict(self.model_extra or {})


class ModelConfig(Built):
    """A builder of `l4s.models.MODELS` by name, the side it is built for, and the builder's own options."""

    size: int = Field(default=128, ge=16)


class TaskConfig(Built):
    """A builder of `l4s.tasks.TASKS` by name, and its own options; without options its name alone may stand for it."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _to_name(self, dump: SerializerFunctionWrapHandler) -> Any:
        return dump(self) if self.model_extra else self.name


class LossTerm(Built):
    """One term of the training loss: a name of `l4s.losses.LOSSES`, its weight and its options."""

    weight: float = Field(default=1.0, gt=0)


class Augment(Section):
    """Geometry on all bands, then colour on spectral bands, in standardised units."""

    d4: bool = True  # one of the 8 flips and quarter turns
    affine: float = Field(default=0.0, ge=0, le=1)  # probability of a rotation, scaling and shift
    rotate: float = Field(default=45.0, ge=0, le=180)  # degrees
    zoom: tuple[float, float] = (0.8, 1.25)
    shift: float = Field(default=0.1, ge=0, lt=1)  # share of the side
    gain: float = Field(default=0.0, ge=0)  # standard deviation of a factor per band, around 1
    offset: float = Field(default=0.0, ge=0)  # standard deviation of a shift per band, around 0
    contrast: float = Field(default=0.0, ge=0)  # standard deviation of a factor common to all bands, around 1
    brightness: float = Field(default=0.0, ge=0)  # standard deviation of a shift common to all bands, around 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"augment.zoom {list(self.zoom)} must be [smallest, largest], both positive")
        if not self.affine:
            unread = {"rotate", "zoom", "shift"}
            _refuse_idle(self, "augment without affine", set(type(self).model_fields) - unread)
        return self


class Mixup(Section):
    """Pairs of samples mixed: images, targets and weights by one lambda a sample (Zhang 2018; Lissak 2024, 3).

    A sample's partner is another one of its domain in the same batch. lambda is drawn from Beta(alpha, alpha); 1 is uniform
    on [0, 1], as in the paper.
    """

    alpha: float = Field(default=1.0, gt=0)
    share: float = Field(default=1.0, gt=0, le=1)  # of the steps, drawn
    until: float = Field(default=0.9, gt=0, le=1)  # of training; the last part has unmixed samples, which calibrates it


class Scale(Section):
    """Scale promotion (Zhao 2022, 2.1): the factor, or a range to draw from, and the side of the crop after it."""

    factor: float | tuple[float, float] = 1.0
    crop: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        low, high = self.factor if isinstance(self.factor, tuple) else (self.factor, self.factor)
        if not 0 < low <= high:
            raise ValueError(f"scale.factor {self.factor} must be positive, and a pair [smallest, largest]")
        return self


class Optimiser(Built):
    """A builder of `l4s.optim.OPTIMIZERS` by name, and its options (`betas`, `momentum`, ...)."""

    name: str = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    encoder_lr_factor: float = Field(default=1.0, gt=0)
    decay_all: bool = False  # true: norm scales and biases decay too


class Schedule(Built):
    """A function of `l4s.optim.SCHEDULES` by name, its warm-up in steps, and its options (`power`, `floor`, ...)."""

    name: str = "poly"
    warmup: int = Field(default=0, ge=0)


class Train(Section):
    """How a member is trained. `batch` counts rows over all processes."""

    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=16, ge=1)
    target_share: float = Field(default=0.5, gt=0, lt=1)  # of the rows of a batch, in rounds >= 1
    target_weight: float = Field(default=1.0, gt=0)  # lambda_t of L = L_source + lambda_t L_target
    balance: float | None = Field(default=None, gt=0, lt=1)  # of the source rows: drawn from patches with landslide
    start: Literal["restart", "continue"] = "restart"  # rounds >= 1: from initial weights, or from the last round's
    loss: tuple[LossTerm, ...] = (LossTerm(name="bce"), LossTerm(name="dice"))
    aux: float = Field(default=0.4, gt=0)  # of the same loss of an auxiliary head, where the model has one (Yuan 2020)
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    clip: float | None = Field(default=None, gt=0)  # norm of the whole gradient
    accumulate: int = Field(default=1, ge=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    precise_bn: int = Field(default=0, ge=0)  # batches that BatchNorm's running statistics are computed anew from
    scale: Scale = Scale()
    augment: Augment = Augment()
    mixup: Mixup | None = None
    # Steps in which the encoder's weights stay as they are, all of them, with weights of old or without; its BatchNorm
    # goes on.
    freeze: int = Field(default=0, ge=0)
    evaluate_every: int | None = Field(default=None, ge=1)  # steps between scores on the held-out source
    keep: int = Field(default=0, ge=0)  # 0: the last weights; k: the k best evaluations, averaged when predicting
    keep_by: Judge = "f1"  # which of the scores on the held-out source says what is best
    patience: int | None = Field(default=None, ge=1)  # evaluations without a better score before training stops
    stop_by: Judge = "f1"  # which score that is; "loss" is the cross entropy of the held-out pixels, or patches
    subset: int | None = Field(default=None, ge=1)  # source patches to train on, drawn by the member's seed

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} is not a multiple of accumulate {self.accumulate}")
        if self.balance and self.batch < 2:
            raise ValueError("balance needs rows of both kinds: make batch 2 or more")
        if self.evaluate_every is None and (self.keep or self.patience):
            raise ValueError("keep and patience choose by evaluations: set evaluate_every")
        if self.freeze >= self.steps:
            raise ValueError(f"freeze = {self.freeze} leaves none of {self.steps} steps to train the encoder in")
        if 0 < self.steps <= self.schedule.warmup:
            raise ValueError(
                f"schedule.warmup = {self.schedule.warmup} leaves none of {self.steps} steps at the rate asked for: lower it"
            )
        if (self.keep_by != "f1" and not self.keep) or (self.stop_by != "f1" and not self.patience):
            raise ValueError("keep_by is read with keep, stop_by with patience: set these, or leave it out")
        if self.patience and not self.keep:
            raise ValueError("patience stops training once the kept weights are old: set keep = 1 or more")
        return self


class MemberConfig(Section):
    """One trained model, or, with `grid`, one for each combination of the values listed there."""

    model: ModelConfig
    task: TaskConfig = TaskConfig(name="segment")
    ensemble: str = ""  # the ensemble that it is averaged in; "": that of its task, where the recipe has several tasks
    seed: int = Field(default=0, ge=0)
    source: tuple[str, ...] = ()  # the source domains that it trains on; (): all of the recipe
    train: Train = Train()
    normalise: Normalise = "separated"
    patch_blend: float = Field(default=0.5, gt=0, le=1)  # normalise = "patch": share of the patch's own statistics
    norm: Literal["batch", "domain"] = "batch"  # "domain": BatchNorm's running statistics by domain (CSN, Zhao 2022)
    adabn: bool = False  # targets are predicted with BatchNorm statistics of their own images (Li 2016)
    init: str | None = None  # "member:x", "run:NAME/round-4/x", or a file of weights
    features: str | None = None  # "member:x": the embeddings of x, frozen, follow the bands (Böhm 2022, 3)
    predicts: tuple[str, ...] = ()  # the domains that it predicts; (): all that are predicted
    needs: tuple[str, ...] = ()
    grid: Mapping[str, tuple[Any, ...]] = {}


class Round(Section):
    """What changes in one round: who trains and for how long, and which members' ensemble labels the targets.

    `train` and `labels_from` name members by their table, which stands for its whole grid, or one of a grid, as "lite0-seed0".
    `steps = 0` takes the weights that members start from as they are.
    """

    round: int = Field(ge=0)
    steps: int | None = Field(default=None, ge=0)
    train: tuple[str, ...] = ()
    labels_from: tuple[str, ...] = ()


class Pseudo(Section):
    """Hard pseudo labels: landslide from `upper` on, background up to `lower`, ignored between (Zhao 2022, 2.3).

    The paper names the threshold 0.7 only; `under_threshold = "background"` is its other reading.
    """

    upper: float = Field(default=0.7, gt=0, lt=1)
    lower: float = Field(default=0.3, ge=0, lt=1)
    under_threshold: Literal["ignore", "background"] = "ignore"
    stop: float | None = Field(default=None, gt=0, lt=1)  # the rounds end once a smaller share of pixels changes label

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.under_threshold == "background":
            _refuse_idle(self, "pseudo labels without ignored pixels", {"upper", "under_threshold", "stop"})
        elif self.lower >= self.upper:
            raise ValueError(f"pseudo.lower {self.lower} must lie below pseudo.upper {self.upper}")
        return self


class Predict(Section):
    """Test-time augmentations, each written to a file of its own."""

    tta: tuple[Tta, ...] = Field(default=("d4",), min_length=1)
    batch: int = Field(default=16, ge=1)


class Ensemble(Section):
    """Mean of the members' probabilities, or a weighted mean. `group_by` keeps members apart by a grid axis."""

    weights: Mapping[str, float] | None = None
    group_by: tuple[str, ...] = ()
    tta: Tta | None = None  # None: the last of predict.tta


class Submit(Section):
    """The zip that the last round ends in.

    `threshold = "heldout"` cuts where the ensemble's F1 on the held-out patches of the sources is highest; "expected_f1" where
    it would be highest if the probabilities were true, which reads no labels.
    """

    domain: str
    threshold: Threshold = 0.5
    min_area: int = Field(default=0, ge=0)


class About(Section):
    """What a recipe reproduces, for `l4s recipes` and its readers.

    A key of `expected` is a member or an ensemble, `round-N/` before it and `/domain` behind it where that matters, and last
    `/score` (`/mean_iou`), F1 where none is named.
    """

    title: str = ""
    paper: str = ""
    data: str = ""
    expected: Mapping[str, float] = {}


class Recipe(Section):
    """A whole experiment. Members and rounds are run in the order of `l4s.pipeline`; see `recipes/` for examples."""

    name: str
    about: About = About()
    bands: Bands = Bands()
    domain: Mapping[str, DomainConfig]
    member: Mapping[str, MemberConfig]
    rounds: int = Field(default=0, ge=0)
    round: tuple[Round, ...] = ()
    pseudo: Pseudo = Pseudo()
    predict: Predict = Predict()
    ensemble: Ensemble = Ensemble()
    submit: Submit | None = None
    # an axis is a key with its values, or a name with a table of named cells, each of the keys that it changes
    sweep: Mapping[str, tuple[Any, ...] | Mapping[str, Mapping[str, Any]]] = {}

    def domains(self, *roles: str) -> tuple[str, ...]:
        """Names of the domains that have one of these roles, in the recipe's order."""
        return tuple(name for name, config in self.domain.items() if config.role in roles)

    def sources(self, member: MemberConfig) -> tuple[str, ...]:
        """Names of the source domains that a member trains on, in the recipe's order."""
        return tuple(name for name in self.domains("source") if not member.source or name in member.source)

    @property
    def ensemble_tta(self) -> Tta:
        """The test-time augmentation whose files are ensembled, and label the targets."""
        return self.ensemble.tta or self.predict.tta[-1]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if not self.domains("source"):
            raise ValueError('no domain has role = "source"')
        if self.rounds and not self.domains("target"):
            raise ValueError('rounds >= 1 label target patches, but no domain has role = "target"')
        if self.submit and self.submit.domain not in self.domain:
            raise ValueError(f"submit.domain {self.submit.domain!r} is not one of {', '.join(self.domain)}")
        for name in (name for config in self.domain.values() for group in config.share_stats for name in group):
            if name not in self.bands.names:
                raise ValueError(f"share_stats names {name!r}, which is not one of {', '.join(self.bands.names)}")
        for name in {*self.domains("target"), *([self.submit.domain] if self.submit else [])}:
            views = self.domain[name].tta or self.predict.tta
            if self.ensemble_tta not in views:
                raise ValueError(f"ensemble.tta {self.ensemble_tta!r} is not one of domain {name}'s tta {views}")
        return self


def fingerprint(value: object) -> str:
    """16 hex digits that name a JSON-able value: equal values, whatever the order of their keys, have equal names."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
