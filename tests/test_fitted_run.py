"""Patches of varying size through a run: predictions, ensembles, labels, scores and pictures at the patches' own sizes."""

import json
import shutil

import numpy as np
import pytest
import torch
from data_factory import write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_factory import RECIPE, RGBD, SIZES, write_both, write_hokkaido
from torch import nn

from l4s.apply import Use, predict_images
from l4s.data.domain import open_domain
from l4s.data.fitting import nearest
from l4s.data.probs import open_probs, write_probs
from l4s.data.readers import find_patches
from l4s.engine import Engine, start_engine
from l4s.ensemble import ensemble
from l4s.errors import DataError, RecipeError
from l4s.pipeline import run_recipe
from l4s.plots import draw_patches
from l4s.postprocess import masks
from l4s.predict import View, predict
from l4s.pseudo import open_pseudo, pseudo
from l4s.recipe import DomainConfig, Fit, Pseudo
from l4s.score import score, score_masks
from l4s.session import Machine, open_session
from l4s.truth import truth_of

FITS = {"resize": Fit(by="resize", side=16), "pad": Fit(by="pad", multiple=8)}


class Says:
    """A task that answers with the first band, squeezed into [0, 1], or with one value a patch."""

    kind, about = "probability", {}

    def __init__(self, whole=False, constant=None):
        self.whole, self.constant = whole, constant

    def probs(self, model, image):
        said = image[:, 0].sigmoid() if self.constant is None else torch.full_like(image[:, 0], self.constant)
        return said.mean((1, 2)) if self.whole else said


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_both(tmp_path_factory.mktemp("fitted"))


@pytest.fixture(scope="module")
def engine():
    return start_engine("cpu", "fp32")


def opened(data, cache, fit, role="eval"):
    config = DomainConfig(role=role, layout="hokkaido", split="train", fit=FITS[fit])
    return open_domain("hokkaido", config, RGBD, data, cache)


def view(domain, rows=None):
    one = np.ones((len(domain), 4), np.float32)
    return View(domain, np.arange(len(domain)) if rows is None else rows, one, 0 * one)


def said(engine, domain, out, task=None, rows=None, **more):
    about = {"member": "a", "fingerprint": "f", "batch": 2} | more
    return predict(engine, task or Says(), [nn.Identity()], view(domain, rows), out, **about)


@pytest.mark.parametrize("fit", FITS)
def test_predictions_come_back_at_the_sizes_of_the_files(data, engine, tmp_path, fit):
    domain = opened(data, tmp_path, fit)
    rows = np.array([1, 2, 4])
    probs = said(engine, domain, tmp_path / "p.h5", rows=rows)
    assert probs.ragged and probs.ids == domain.ids(rows)
    assert probs.shapes == tuple(tuple(domain.shapes[row]) for row in rows)
    assert [patch.shape for patch in probs.patches()] == list(probs.shapes)


def test_padding_is_cut_off_and_nothing_else_is_done(data, engine, tmp_path):
    domain = opened(data, tmp_path, "pad")
    probs = said(engine, domain, tmp_path / "p.h5")
    for row, (height, width) in enumerate(domain.shapes.tolist()):
        band = torch.from_numpy(np.asarray(domain.cache.images[row, 0], np.float32))
        wanted = band.sigmoid().numpy().astype(np.float16)[:height, :width]
        np.testing.assert_array_equal(probs.patch(row), wanted)


@pytest.fixture(scope="module")
def domains(data, tmp_path_factory):
    place = tmp_path_factory.mktemp("domains")
    return place, {fit: opened(data, place, fit) for fit in FITS}


@settings(max_examples=25)
@given(st.floats(0, 1, width=16), st.sampled_from(sorted(FITS)))
def test_a_constant_map_stays_constant(domains, engine, constant, fit):
    place, known = domains
    probs = said(engine, known[fit], place / "p.h5", Says(constant=constant))
    assert {value for patch in probs.patches() for value in np.unique(patch)} == {np.float16(constant)}


def test_one_value_a_patch_has_no_size(data, engine, tmp_path):
    probs = said(engine, opened(data, tmp_path, "resize"), tmp_path / "p.h5", Says(whole=True))
    assert probs.shape == (5,) and not probs.ragged


@pytest.mark.parametrize("fit", FITS)
def test_two_processes_write_what_one_does(data, engine, tmp_path, fit):
    """Each predicts a part; the parts are put together by the place of their first row."""
    domain = opened(data, tmp_path, fit)
    said(engine, domain, tmp_path / "one.h5")
    parts = []
    for rank in (1, 0):
        other = Two(engine.accelerator, engine.device, "fp32")
        object.__setattr__(other, "told", (rank, parts))
        said(other, domain, tmp_path / "two.h5") if rank == 0 else _quietly(said, other, domain, tmp_path / "two.h5")
    assert (tmp_path / "two.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


class Two(Engine):
    """One of two processes, run one after the other."""

    rank = property(lambda self: self.told[0])
    world = property(lambda self: 2)
    main = property(lambda self: self.told[0] == 0)

    def collect(self, rows):
        self.told[1].extend(rows)
        return list(self.told[1])


def _quietly(call, *arguments):
    with pytest.raises(DataError):  # the second process finds no file yet: the first has not run
        call(*arguments)


def test_an_ensemble_of_patches_of_varying_size(data, engine, tmp_path):
    domain = opened(data, tmp_path, "pad")
    files = [
        said(engine, domain, tmp_path / f"{k}.h5", Says(constant=c), member=str(k)) for k, c in enumerate((0.25, 0.75))
    ]
    ensemble(files, tmp_path / "mean.h5", fingerprint="m")
    mean = open_probs(tmp_path / "mean.h5")
    assert mean.shapes == files[0].shapes
    assert all((patch == 0.5).all() for patch in mean.patches())
    ensemble(files, tmp_path / "mean.h5", fingerprint="m", weights={"0": 3, "1": 1})
    assert all((patch == 0.375).all() for patch in open_probs(tmp_path / "mean.h5").patches())


def ragged(path, shapes, member="a", value=0.5):
    ids = [str(number) for number in range(len(shapes))]
    about = {"member": member, "fingerprint": "f", "domain": "d", "tta": "none", "kind": "probability"}
    with write_probs(path, ids=ids, shape=shapes, **about) as writer:
        writer.put(0, [np.full(shape, value, np.float32) for shape in shapes])
    return open_probs(path)


def test_files_whose_patches_differ_in_size_are_no_ensemble(tmp_path):
    one, two = ragged(tmp_path / "a.h5", [(2, 3), (4, 4)]), ragged(tmp_path / "b.h5", [(2, 3), (4, 5)])
    with pytest.raises(DataError, match=r"patch 1 is \(4, 4\) in one and \(4, 5\) in the other"):
        ensemble([one, two], tmp_path / "mean.h5", fingerprint="m")


@pytest.mark.parametrize("fit", FITS)
def test_scores_are_of_the_files_pixels(data, engine, tmp_path, fit):
    domain = opened(data, tmp_path, fit)
    truth, probs = truth_of(domain), said(engine, domain, tmp_path / "p.h5")
    row = score(probs, truth, draws=1).pooled
    pixels = domain.shapes.prod(axis=1).sum()
    assert row.patches == 5
    assert row.true_share * pixels == pytest.approx(sum(int((truth.mask(k) == 1).sum()) for k in range(5)))
    again = score_masks(dict(masks(probs, 0.5)), truth, draws=1).pooled
    assert again.f1 == pytest.approx(row.f1) and row.f1 > 0.5  # landslides are bright


@pytest.mark.parametrize("fit", FITS)
def test_pseudo_labels_come_to_the_size_that_is_trained_on(data, engine, tmp_path, fit):
    domain = opened(data, tmp_path, fit, role="target")
    probs = said(engine, domain, tmp_path / "p.h5")
    config = Pseudo(upper=0.7, lower=0.4)
    labels = pseudo(probs, config, tmp_path / "labels.h5", fingerprint="k", fitting=domain.fitting)
    assert labels.target.shape == labels.weight.shape == (5, *domain.size)
    for row, (height, width) in enumerate(domain.shapes.tolist()):
        values = probs.patch(row).astype(np.float64)
        target, weight = (values >= 0.7).astype(int), ((values >= 0.7) | (values <= 0.4)).astype(int)
        if fit == "pad":
            np.testing.assert_array_equal(labels.target[row, :height, :width], target)
            assert not labels.weight[row, height:].any() and not labels.weight[row, :, width:].any()
        else:
            np.testing.assert_array_equal(labels.weight[row], nearest(weight, domain.size))
    np.testing.assert_array_equal(open_pseudo(tmp_path / "labels.h5").target, labels.target)


@pytest.mark.slow
@pytest.mark.parametrize("fit", FITS)
def test_pictures_of_patches_of_varying_size(data, engine, tmp_path, fit):
    domain = opened(data, tmp_path, fit)
    for task in (Says(), Says(whole=True)):
        probs = said(engine, domain, tmp_path / "p.h5", task)
        assert draw_patches(tmp_path / "p.png", domain, probs, [0, 3, 4], threshold=0.5).stat().st_size > 1000


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    write_both(place / "data")
    recipe = write_recipe(place / "pictures.toml", text=RECIPE)
    machine = Machine("cpu", "fp32", cache=place / "cache")
    (x,) = open_session(str(recipe), [], place / "data", place / "run", machine)
    run_recipe(x)
    return place, x, machine


@pytest.mark.slow
def test_a_run_of_two_rounds(finished):
    place, x, _ = finished
    for name in ("round-0/a", "round-0/ensemble", "round-1/b", "round-1/ensemble"):
        for tta in ("none", "d4"):
            probs = open_probs(x.run.probs(place / "run" / name, "hokkaido", tta))
            assert probs.shapes == tuple(tuple(shape) for shape in x.domains["hokkaido"].shapes.tolist())
    table = json.loads((place / "run" / "table.json").read_text())
    assert "hokkaido" in json.dumps(table) and "bijie" in json.dumps(table)
    told = json.loads((place / "run" / "stats" / "bijie.json").read_text())
    assert len(told["ids"]) == 9 and {name.split("-p")[0] for name in told["ids"]} == {"landslide", "non-landslide"}


@pytest.mark.slow
def test_a_finished_run_on_new_pictures(finished, tmp_path):
    """The new images are read as the run's source was, here resized."""
    place, _, machine = finished
    new = write_hokkaido(tmp_path, "somewhere", count=3)
    out = predict_images(place / "run", new, tmp_path / "p.h5", machine, Use(split="somewhere"))
    assert out.ids == ("h1", "h2", "h3") and out.shapes == SIZES[1:4]
    every = predict_images(
        place / "run", place / "data" / "Bijie-landslide-dataset", tmp_path / "q.h5", machine, Use(normalise="source")
    )
    assert len(every) == 12 and every.ragged


@pytest.mark.slow
def test_new_pictures_are_read_like_a_domain_of_the_run(finished, tmp_path):
    """Those of `hokkaido` are padded, as the recipe says of it: what comes out is what the run itself predicted."""
    place, x, machine = finished
    folder = place / "data" / "HokkaidoLandslide_dataset"
    use = Use(split="train", like="hokkaido", tta="none")
    ours = predict_images(place / "run", folder, tmp_path / "p.h5", machine, use)
    theirs = open_probs(x.run.probs(x.run.ensemble(x.plan.last_round()), "hokkaido", "none"))
    assert ours.ids == theirs.ids
    for one, other in zip(ours.patches(), theirs.patches(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    with pytest.raises(RecipeError, match="like is 'hokaido', did you mean 'hokkaido'"):
        predict_images(place / "run", folder, tmp_path / "q.h5", machine, Use(like="hokaido"))


@pytest.mark.slow
def test_the_test_patches_of_a_drawn_split_are_those_of_the_run(finished, tmp_path):
    place, x, machine = finished
    text = (place / "run" / "config.json").read_text()
    other = tmp_path / "run"
    shutil.copytree(place / "run", other)
    (other / "config.json").write_text(text.replace('"split_seed": 0', '"split_seed": 5', 1))
    folder = place / "data" / "Bijie-landslide-dataset"
    probs = predict_images(other, folder, tmp_path / "p.h5", machine, Use(split="test"))
    assert probs.ids == tuple(ref.id for ref in find_patches(folder, "test", layout="bijie", seed=5))
    assert probs.ids != tuple(ref.id for ref in find_patches(folder, "test"))


@pytest.mark.slow
def test_running_again_does_nothing(finished):
    place, x, machine = finished
    files = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*.h5")}
    (again,) = open_session(str(place / "pictures.toml"), [], place / "data", place / "run", machine)
    run_recipe(again)
    assert {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*.h5")} == files
    assert again.domains["bijie"].cache.digest == x.domains["bijie"].cache.digest
