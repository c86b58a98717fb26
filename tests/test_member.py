"""Running statistics by domain (CSN) and AdaBN through a whole run, against networks with plain BatchNorm."""

import numpy as np
import pytest
import torch
from data_factory import write_data, write_recipe
from safetensors.torch import load_file
from torch import nn

from l4s.apply import Use, predict_images
from l4s.data.bands import Bands
from l4s.data.probs import open_probs
from l4s.errors import RecipeError
from l4s.experiment import Experiment
from l4s.member import TRAINED, adapts, initial_member, norm_domains, norm_row, stored_domains
from l4s.models import build_model
from l4s.models.norm import norm_layers
from l4s.pipeline import predict_round, run_recipe, train_round
from l4s.session import Machine, open_session

EVAL = ("[domain.other]", 'role = "eval"', 'split = "validation"', 'normalise = "source"')
QUICK = (
    "train.steps=2",
    "train.evaluate_every=2",
    "predict.tta=['none']",
    "predict.batch=8",
    "pseudo.upper=0.55",
    "pseudo.lower=0.545",
    "member.b.train.accumulate=1",  # a domain with one row and one pixel has no variance
)
CSN = ("member.a.norm='domain'", "member.b.norm='domain'")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("member")
    write_data(place / "data")
    return place


def opened(place, root, *sets) -> Experiment:
    recipe = write_recipe(place / "tiny.toml", *EVAL)
    (x,) = open_session(
        str(recipe), [*QUICK, *sets], place / "data", root, Machine("cpu", "fp32", cache=place / "cache")
    )
    return x


@pytest.fixture(scope="module")
def csn(place):
    x = opened(place, place / "csn" / "run", *CSN)
    run_recipe(x)
    return x


def find(x, name):
    return next(member for member in x.members if member.name == name)


def plain_network(x, state, row) -> nn.Module:
    """The network with ordinary BatchNorm, its running statistics those of one domain."""
    model = build_model("baseline", x.recipe.bands, size=16, seed=0, options={"width": 4})
    chosen = {key: value[row] if "running" in key or "tracked" in key else value for key, value in state.items()}
    model.load_state_dict(chosen)
    return model.eval()


def images_of(x, member, domain) -> torch.Tensor:
    rows = x.domains[domain].predicted
    scale, shift = x.affine(x.domains[domain], member)
    values = np.asarray(x.domains[domain].cache.images[rows], np.float32)
    return torch.from_numpy(values * scale[rows, :, None, None] + shift[rows, :, None, None])


def probs_of(x, number, name, domain) -> np.ndarray:
    return open_probs(x.run.probs(x.run.member(number, name), domain, "none")).read().astype(np.float32)


def test_round_0_keeps_the_sources_and_later_rounds_the_targets_too(csn):
    for name in "ab":
        first, second = (
            load_file(csn.run.root / f"round-{number}" / name / "weights.safetensors") for number in (0, 1)
        )
        for key in (key for key in first if "running" in key):
            assert first[key].shape[0] == 1 and second[key].shape[0] == 2
            assert not torch.equal(second[key][0], second[key][1]), key
    member = find(csn, "a")
    assert norm_domains(csn.recipe, member, 0) == ["home"] and norm_domains(csn.recipe, member, 1) == ["home", "away"]
    assert stored_domains(csn.run.member(1, "a") / "weights.safetensors") == ["home", "away"]


@pytest.mark.parametrize(
    ("number", "domain", "row"),
    [(0, "home", 0), (0, "away", 0), (0, "other", 0), (1, "home", 0), (1, "away", 1), (1, "other", 1)],
)
def test_each_domain_is_predicted_with_its_own_statistics(csn, number, domain, row):
    assert norm_row(csn.recipe, find(csn, "a"), number, domain) == row
    for name in "ab":
        member = find(csn, name)
        state = load_file(csn.run.member(number, name) / "weights.safetensors")
        with torch.no_grad():
            logits = plain_network(csn, state, row)(images_of(csn, member, domain)).logits
        np.testing.assert_allclose(probs_of(csn, number, name, domain), logits.sigmoid()[:, 0], atol=1e-3)


def test_a_member_that_goes_on_gives_a_new_target_the_source_s_statistics(csn):
    member = find(csn, "b")
    model = initial_member(csn.recipe, member, 1, csn.initial(member, 1))
    before = load_file(csn.run.member(0, "b") / "weights.safetensors")
    for name, value in model.state_dict().items():
        same = value if name not in before or before[name].shape == value.shape else value[:1]
        assert torch.equal(same, before[name]), name
    for layer in norm_layers(model):
        assert layer.domains == ["home", "away"] and torch.equal(layer.running_mean[0], layer.running_mean[1])


def adapt(model: nn.Module, images: torch.Tensor) -> None:
    """AdaBN another way: all that reaches each layer is kept while every view is normalised by itself."""
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    seen = {layer: [] for layer in layers}
    hooks = [layer.register_forward_hook(lambda own, given, _: seen[own].append(given[0])) for layer in layers]
    with torch.no_grad():
        for turned in (torch.rot90(images, turns, (2, 3)) for turns in range(4)):
            model.train()(turned)
            model(turned.flip(3))
    for layer, hook in zip(layers, hooks, strict=True):
        hook.remove()
        pixels = torch.cat(seen[layer]).transpose(0, 1).flatten(1)
        layer.running_mean, layer.running_var = pixels.mean(1), pixels.var(1)


@pytest.mark.parametrize("norm", ["batch", "domain"])
def test_adabn_predicts_targets_with_the_statistics_of_their_own_images(place, tmp_path, norm):
    sets = ("rounds=0", "member.a.adabn=true", f"member.a.norm='{norm}'")
    x = opened(place, tmp_path / "run", *sets)
    train_round(x, 0, ["a"])
    predict_round(x, 0, ["a"])
    member, state = find(x, "a"), load_file(x.run.member(0, "a") / "weights.safetensors")
    state = {key: value[None] if norm == "batch" and "running" in key else value for key, value in state.items()}
    state |= {key: value.reshape(1) for key, value in state.items() if "tracked" in key}
    for domain in ("away", "other", "home"):
        model, images = plain_network(x, state, 0), images_of(x, member, domain)
        if domain != "home":
            adapt(model, images)
        with torch.no_grad():
            logits = model.eval()(images).logits
        np.testing.assert_allclose(probs_of(x, 0, "a", domain), logits.sigmoid()[:, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("domain", "asked", "wanted"), [("other", False, False), ("other", True, True), ("away", None, True)]
)
def test_a_domain_may_have_its_own_word_about_adabn(place, tmp_path, domain, asked, wanted):
    own = [] if asked is None else [f"domain.{domain}.adabn={str(asked).lower()}"]
    x = opened(place, tmp_path / "run", f"adabn={str(not asked).lower()}", *own)
    assert adapts(find(x, "a"), x.recipe.domain[domain]) is wanted
    assert not adapts(find(x, "a"), x.recipe.domain["home"])
    with pytest.raises(RecipeError, match="adabn is for targets and eval domains"):
        opened(place, tmp_path / "source", "domain.home.adabn=true")


def test_adabn_changes_predictions_and_no_training(place, tmp_path, csn):
    adapted = opened(place, tmp_path / "run", *CSN, "member.a.adabn=true")
    for x, name in ((adapted, "a"), (adapted, "b")):
        assert x.fit_key(find(x, name), 0) == csn.fit_key(find(csn, name), 0)
    keys = {
        domain: [x.predict_key(find(x, "a"), 0, x.domains[domain], "none") for x in (csn, adapted)]
        for domain in csn.domains
    }
    assert keys["home"][0] == keys["home"][1]
    assert keys["away"][0] != keys["away"][1] and keys["other"][0] != keys["other"][1]
    other = opened(place, tmp_path / "batch", *CSN, "member.a.adabn=true", "predict.batch=2")
    keys = {
        domain: [x.predict_key(find(x, "a"), 0, x.domains[domain], "none") for x in (adapted, other)]
        for domain in ("home", "away")
    }
    assert keys["home"][0] == keys["home"][1] and keys["away"][0] != keys["away"][1], "batches are normalised apart"
    plain = opened(place, tmp_path / "plain")
    assert csn.fit_key(find(csn, "a"), 0) != plain.fit_key(find(plain, "a"), 0)


@pytest.mark.parametrize("like", ["away", "other", "home"])
def test_new_images_like_a_domain_are_predicted_as_it_was(place, tmp_path, like):
    """With its normalisation, its statistics of BatchNorm, and adapted where it is."""
    x = opened(place, tmp_path / "run", *CSN, "adabn=true", "domain.other.adabn=false")
    run_recipe(x)
    machine = Machine("cpu", "fp32", cache=place / "cache")
    folder = "TrainData" if like == "home" else "ValidData"
    ours = predict_images(x.run.root, place / "data" / folder, tmp_path / "new.h5", machine, Use(like=like))
    theirs = open_probs(x.run.probs(x.run.ensemble(1), like, "none"))
    rows = [ours.ids.index(name) for name in theirs.ids]
    np.testing.assert_allclose(ours.read()[rows], theirs.read(), atol=2e-3)


def test_new_images_like_a_target_have_the_source_s_shared_statistics(place, tmp_path):
    x = opened(place, tmp_path / "run", "rounds=0", "normalise=source", "domain.home.share_stats=[['b4','b2']]")
    run_recipe(x)
    machine, images = Machine("cpu", "fp32", cache=place / "cache"), place / "data" / "ValidData"
    ours = predict_images(x.run.root, images, tmp_path / "new.h5", machine, Use(like="away"))
    np.testing.assert_array_equal(ours.read(), open_probs(x.run.probs(x.run.ensemble(0), "away", "none")).read())


@pytest.mark.parametrize("adabn", ["true", "false"])
def test_new_images_are_predicted_as_the_target_was(place, tmp_path, adabn):
    sets = (*CSN, f"member.a.adabn={adabn}", f"member.b.adabn={adabn}", "rounds=0")
    x = opened(place, tmp_path / "run", *sets)
    run_recipe(x)
    machine = Machine("cpu", "fp32", cache=place / "cache")
    ours = predict_images(x.run.root, place / "data" / "ValidData", tmp_path / "new.h5", machine, Use())
    theirs = open_probs(x.run.probs(x.run.ensemble(0), "away", "none"))
    np.testing.assert_array_equal(ours.read(), theirs.read())


def test_weights_by_domain_start_only_a_member_that_keeps_them(place, tmp_path, csn):
    other = tmp_path / "weights.safetensors"
    start = csn.run.member(1, "a") / "weights.safetensors"
    x = opened(place, tmp_path / "run", f"member.a.init='{start}'")
    with pytest.raises(RecipeError, match=r"by domain \(home, away\): set member.a.norm = 'domain'"):
        initial_member(x.recipe, find(x, "a"), 0, [start])
    plain = opened(place, tmp_path / "plain", "rounds=0")
    train_round(plain, 0, ["a"])
    other.write_bytes((plain.run.member(0, "a") / "weights.safetensors").read_bytes())  # nothing is known of this file
    assert stored_domains(other) == [TRAINED]
    model = initial_member(csn.recipe, find(csn, "a"), 1, [other])
    state = load_file(other)
    for layer in norm_layers(model):
        assert layer.domains == ["home", "away"]
    first = model.state_dict()["encoder.0.1.running_mean"]
    assert torch.equal(first[0], state["encoder.0.1.running_mean"]) and torch.equal(first[1], first[0])


def test_weights_are_for_bands_in_their_order(place, tmp_path, capsys):
    x = opened(place, tmp_path / "run", "rounds=0")
    train_round(x, 0, ["a"])
    start, member = x.run.member(0, "a") / "weights.safetensors", find(x, "a")
    initial_member(x.recipe, member, 0, [start])
    assert "channels are taken by their place" not in capsys.readouterr().err
    names = x.recipe.bands.names
    turned = x.recipe.model_copy(update={"bands": x.recipe.bands.model_copy(update={"use": names[::-1]})})
    with pytest.raises(RecipeError, match=f"was trained on the bands {', '.join(names)}, and channels are taken by"):
        initial_member(turned, member, 0, [start])
    other = Bands(file=tuple(f"x{k}" for k in range(len(names))), rgb=("x0", "x1", "x2"))
    initial_member(x.recipe.model_copy(update={"bands": other}), member, 0, [start])
    assert "are they those of this recipe, x0, x1" in capsys.readouterr().err
    (start.parent / "config.json").write_text('{"model_type": "of another program"}')
    initial_member(turned, member, 0, [start])


def test_a_network_without_batchnorm_is_refused(place, tmp_path, monkeypatch):
    x = opened(place, tmp_path / "run", "member.a.adabn=true")
    monkeypatch.setattr("l4s.member.build_model", lambda *given, **more: nn.Conv2d(3, 1, 1))
    with pytest.raises(RecipeError, match="member.a: norm = 'domain', adabn and train.precise_bn are about BatchNorm"):
        initial_member(x.recipe, find(x, "a"), 0, [])
