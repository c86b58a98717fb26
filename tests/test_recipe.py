"""What each table of a recipe accepts; what it must agree on with the others is in test_load."""

import copy
import json

import pytest
from pydantic import ValidationError

from l4s.load import validate
from l4s.recipe import (
    Augment,
    DomainConfig,
    HoldOut,
    LossTerm,
    MemberConfig,
    ModelConfig,
    Optimiser,
    Predict,
    Pseudo,
    Recipe,
    Scale,
    SubDomains,
    Train,
    fingerprint,
)

RANGES = {"ranges": [[1, 2]]}


def build(model, table):
    return model.model_validate_json(json.dumps(table))


@pytest.mark.parametrize(
    ("model", "table", "message"),
    [
        (HoldOut, {"by": "block"}, "needs share"),
        (HoldOut, {"by": "ids"}, "needs ranges"),
        (HoldOut, {"by": "region"}, "needs regions"),
        (HoldOut, {"by": "random"}, "needs share"),
        (HoldOut, {"seed": 1}, "by 'none' does not read seed"),
        (HoldOut, {"by": "ids", **RANGES, "share": 0.5, "seed": 1}, "by 'ids' does not read share, seed"),
        (HoldOut, {"by": "block", "share": 0.5, **RANGES}, "by 'block' does not read ranges"),
        (HoldOut, {"by": "random", "share": 0.5, "gap": 3}, "by 'random' does not read gap"),
        (HoldOut, {"by": "region", "regions": ["a"], "gap": 3}, "by 'region' does not read gap"),
        (HoldOut, {"by": "ids", "ranges": [[1, 2], [9, 5]]}, r"\[9, 5\] ends before it begins"),
        (HoldOut, {"by": "block", "share": 1.0}, "less than 1"),
        (SubDomains, {"k": 3}, "by 'none' does not read k"),
        (SubDomains, {"blend": 0.5}, "by 'none' does not read blend"),
        (SubDomains, {"by": "region", "k": 3, "seed": 1}, "by 'region' does not read k, seed"),
        (SubDomains, {"by": "cluster", "blend": 0.0}, "greater than 0"),
        (DomainConfig, {"role": "target", "holdout": {"by": "block", "share": 0.1}}, "a target domain has no hold-out"),
        (DomainConfig, {"role": "eval", "holdout": {"by": "block", "share": 0.1}}, "a eval domain has no hold-out"),
        (
            DomainConfig,
            {"role": "source", "regions": {"iburi": [1, 2]}, "holdout": {"by": "region", "regions": ["ibury"]}},
            "region 'ibury', did you mean 'iburi'",
        ),
        (DomainConfig, {"role": "source", "share_stats": [["b4"]]}, "two or more bands"),
        (DomainConfig, {"role": "source", "share_stats": [["b4", "b3"], ["b2", "b3"]]}, "each band once"),
        (DomainConfig, {"role": "source", "tta": []}, "at least 1 item"),
        (Predict, {"tta": []}, "at least 1 item"),
        (Augment, {"rotate": 10.0, "shift": 0.2}, "without affine does not read rotate, shift"),
        (Augment, {"affine": 0.5, "zoom": [1.2, 0.8]}, "smallest, largest"),
        (Augment, {"affine": 0.5, "zoom": [0.0, 0.8]}, "both positive"),
        (Scale, {"factor": 0.0}, "must be positive"),
        (Scale, {"factor": [3.0, 2.0]}, "smallest, largest"),
        (Scale, {"crop": 0}, "greater than or equal to 1"),
        (Pseudo, {"upper": 0.3, "lower": 0.3}, "0.3 must lie below"),
        (Pseudo, {"lower": 0.2, "under_threshold": "background"}, "does not read lower"),
        (DomainConfig, {"role": "eval", "labelled": False}, "a eval domain may lack masks anyway"),
        (DomainConfig, {"role": "eval", "cut": 0}, "greater than or equal to 1"),
        (Train, {"batch": 6, "accumulate": 4}, "not a multiple"),
        (Train, {"balance": 1.0}, "less than 1"),
        (Train, {"batch": 1, "balance": 0.5}, "make batch 2 or more"),
        (MemberConfig, {"model": {"name": "unet"}, "task": {"positive_share": 0.1}}, "task.name"),
        (MemberConfig, {"model": {"name": "unet"}, "task": 3}, "task"),
        (Train, {"keep": 1}, "set evaluate_every"),
        (Train, {"patience": 1}, "set evaluate_every"),
        (Train, {"evaluate_every": 5, "patience": 1}, "set keep"),
        (Train, {"steps": 10.0}, "integer"),
        (Train, {"steps": True}, "integer"),
        (Train, {"clip": "1"}, "number"),
        (ModelConfig, {"name": "unet", "size": 8}, "greater than or equal to 16"),
    ],
)
def test_what_a_table_refuses(model, table, message):
    with pytest.raises(ValidationError, match=message):
        build(model, table)


@pytest.mark.parametrize(
    ("model", "table"),
    [
        (HoldOut, {"by": "none", "gap": 0}),  # a default that is spelt out is no setting without effect
        (HoldOut, {"by": "ids", "ranges": [[5, 5]], "gap": 3}),
        (SubDomains, {"by": "region", "blend": 0.5}),
        (Pseudo, {"upper": 0.2, "under_threshold": "background"}),
        (Scale, {"factor": [2.0, 2.0], "crop": 64}),
        (Augment, {"affine": 0.1, "rotate": 10.0}),
        (Train, {"clip": 1}),  # a whole number where a float is meant
        (Train, {"evaluate_every": 5, "keep": 2, "patience": 1}),
    ],
)
def test_what_a_table_accepts(model, table):
    build(model, table)


def test_a_recipe_cannot_be_changed():
    train = Train()
    with pytest.raises(ValidationError, match="frozen"):
        train.steps = 5
    with pytest.raises(ValidationError, match="frozen"):
        train.optimiser.lr = 5.0


@pytest.mark.parametrize("model", [ModelConfig, LossTerm, Optimiser])
def test_options_are_what_the_table_does_not_know(model):
    table = {"name": "x", "betas": [0.9, 0.99], "deep": {"a": 1}}
    assert build(model, table).options == {"betas": [0.9, 0.99], "deep": {"a": 1}}
    assert build(model, {"name": "x"}).options == {}


@pytest.mark.parametrize(
    ("task", "plain"),
    [
        ("segment", "segment"),
        ({"name": "classify"}, "classify"),
        ({"name": "classify", "positive_share": 0.1}, {"name": "classify", "positive_share": 0.1}),
    ],
)
def test_a_task_is_a_name_or_a_name_with_options(task, plain):
    config = build(MemberConfig, {"model": {"name": "unet"}, "task": task})
    assert config.task.options == ({} if isinstance(plain, str) else {"positive_share": 0.1})
    dumped = config.model_dump(mode="json")
    assert dumped["task"] == plain and build(MemberConfig, dumped) == config
    short = config.model_dump(mode="json", exclude_defaults=True)
    assert short.get("task", "segment") == plain and ("task" in short) == (task != "segment")


RECIPE = {
    "name": "r",
    "domain": {"a": {"role": "source"}, "b": {"role": "target"}, "c": {"role": "eval", "tta": ["none"]}},
    "member": {"m": {"model": {"name": "baseline"}}},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domain": {"b": {"role": "target"}}}, 'no domain has role = "source"'),
        ({"rounds": 1, "domain": {"a": {"role": "source"}}}, 'no domain has role = "target"'),
        ({"submit": {"domain": "d"}}, "submit.domain 'd' is not one of a, b, c"),
        ({"ensemble": {"tta": "flip"}}, "ensemble.tta 'flip' is not one of domain b's tta"),
        ({"submit": {"domain": "c"}}, "ensemble.tta 'd4' is not one of domain c's tta"),
        (
            {"domain": {"a": {"role": "source", "share_stats": [["b4", "vv"]]}}},
            "share_stats names 'vv', which is not one of b1",
        ),
    ],
)
def test_domains_and_what_speaks_of_them(changes, message):
    build(Recipe, RECIPE)
    with pytest.raises(ValidationError, match=message):
        build(Recipe, copy.deepcopy(RECIPE) | changes)


def test_roles_keep_the_order_of_the_recipe():
    recipe = validate(Recipe, RECIPE, "here")
    assert recipe.domains("eval", "source") == ("a", "c")
    assert recipe.ensemble_tta == "d4"
    assert validate(Recipe, RECIPE | {"predict": {"tta": ["none", "d4", "flip"]}}, "here").ensemble_tta == "flip"


def test_fingerprints_name_values():
    assert fingerprint({"a": 1, "b": [1.5, None]}) == fingerprint({"b": [1.5, None], "a": 1})
    assert fingerprint((1, 2)) == fingerprint([1, 2])  # what JSON cannot tell apart
    others = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"a": [1]}, {"b": 1}, [], {}, None, ["a", 1]]
    assert len({fingerprint(value) for value in others}) == len(others)
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint({"a": float("nan")})
