"""The anomaly task: what is learnt from, the loss, the score, and baselines that learn nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_factory import write_data, write_recipe, write_split
from safetensors.torch import load_file
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn

from l4s.apply import Use, predict_images
from l4s.data.bands import Bands
from l4s.data.dataset import Batch
from l4s.data.probs import open_probs
from l4s.errors import RecipeError
from l4s.models import Output, build_model
from l4s.pipeline import run_recipe
from l4s.recipe import MemberConfig, Train
from l4s.report import draw_run
from l4s.session import Machine, open_session
from l4s.ssim import blur, ssim_map
from l4s.tasks import build_task
from l4s.tasks.anomaly import build, build_score
from l4s.tasks.segment import At
from l4s.use import trainings

RGB = Bands(file=("b4", "b3", "b2"))


class Half(nn.Module):
    """Restores half of what it sees, in images that lie in [0, 1] already."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, image, clean=None):
        ssim = ssim_map(image if clean is None else clean, self.factor * image).mean(1, keepdim=True)
        return Output(((1 - ssim) / 2).logit(1e-6), {"ssim": ssim})


def batch(shares, size=16):
    """Patches of which these shares are landslide; None has no valid pixel."""
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(len(shares), 2, size, size, generator=draw)
    target, weight = torch.zeros(len(shares), size, size), torch.ones(len(shares), size, size)
    for row, share in enumerate(shares):
        if share is None:
            weight[row] = 0
        else:
            target[row].view(-1)[: round(share * size * size)] = 1
    place = torch.zeros(len(shares), dtype=torch.int64)
    return Batch(image, target, weight, place, place, place.bool())


def at(seed=7):
    return At(0, 1, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1]),  # 0.5 itself is not less than half
        ({"max_landslide": 0.51}, [0, 1, 2]),
        ({"max_landslide": 1.0}, [0, 1, 2, 3]),
        ({"use_labels": False}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_loss_is_over_the_patches_with_few_landslides(options, kept):
    rows = batch([0.0, 0.4, 0.5, 0.9, 1.0, None])
    terms = build(Train(), noise=0.3, **options).loss(Half(), rows, at())
    noise = 0.3 * torch.randn(rows.image.shape, generator=torch.Generator().manual_seed(7))
    each = 1 - ssim_map(rows.image, 0.5 * (rows.image + noise)).mean((1, 2, 3))
    torch.testing.assert_close(terms["loss"], each[kept].mean())
    assert float(terms["used"]) == pytest.approx(len(kept) / 6)


def test_a_batch_of_nothing_to_learn_from_has_no_gradient():
    model = Half()
    terms = build(Train()).loss(model, batch([0.9, None]), at())
    terms["loss"].backward()
    assert terms["loss"].item() == 0 and model.factor.grad.item() == 0


def test_the_score_is_smoothed_dissimilarity_of_the_image_itself():
    image, model = batch([0.0, 0.0, 0.0]).image, Half()
    with torch.no_grad():
        dissimilar = (1 - ssim_map(image, 0.5 * image).mean(1)) / 2
        torch.testing.assert_close(build(Train(), smooth=0.0).probs(model, image), dissimilar)
        torch.testing.assert_close(build(Train(), smooth=1.5).probs(model, image), blur(dissimilar, 1.5))


def test_noisy_passes_do_not_depend_on_the_batch():
    image, model = batch([0.0, 0.0, 0.0]).image, Half()
    task = build(Train(), passes=3, noise=0.2)
    with torch.no_grad():
        together = task.probs(model, image)
        torch.testing.assert_close(task.probs(model, image[1:2])[0], together[1])
        assert not torch.allclose(together, build(Train(), noise=0.2).probs(model, image), atol=1e-3)


def test_values_are_scores_and_carry_their_contamination():
    for task in (build(Train(), contamination=0.1), build_score(Train(), contamination=0.1)):
        assert (task.kind, task.about) == ("score", {"contamination": 0.1})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "anomaly", "noise": 0.0}, "noise = 0.0 leaves nothing to remove"),
        ({"name": "anomaly", "max_landslide": 0.0}, "max_landslide = 0.0 is no share"),
        ({"name": "anomaly", "passes": -1}, "passes = -1"),
        ({"name": "anomaly", "smooth": -1.0}, "'anomaly': smooth = -1.0"),
        ({"name": "score", "contamination": 1.0}, "'score': contamination = 1.0"),
        ({"name": "anomaly", "use_labels": False, "max_landslide": 0.3}, "no effect without use_labels"),
        ({"name": "score", "noise": 1.0}, "'score' has no option 'noise'"),
    ],
)
def test_options_are_checked(task, message):
    table = {"model": {"name": "anomaly_unet"}, "task": task}
    with pytest.raises(RecipeError, match=message):
        build_task(MemberConfig.model_validate_json(json.dumps(table)))


# --- the models


def test_the_unet_scores_what_it_restores():
    model = build_model("anomaly_unet", RGB, size=32, seed=0, options={"width": 2, "limits": [-2.0, 4.0]}).eval()
    draw = torch.Generator().manual_seed(1)
    image, clean = (2 * torch.randn(2, 3, 40, 32, generator=draw) for _ in range(2))
    with torch.no_grad():
        output = model(image, clean=clean)
        restored = output.extras["reconstruction"]
        assert restored.shape == image.shape and restored.min() >= -2 and restored.max() <= 4
        wanted = ssim_map(((clean + 2) / 6).clamp(0, 1), (restored + 2) / 6).mean(1, keepdim=True)
        torch.testing.assert_close(output.extras["ssim"], wanted, atol=1e-4, rtol=0)
        torch.testing.assert_close(output.logits.sigmoid(), (1 - wanted) / 2, atol=1e-4, rtol=0)
        torch.testing.assert_close(model(image).logits, model(image, clean=image).logits)


def test_the_unet_has_the_widths_of_its_levels():
    model = build_model("anomaly_unet", RGB, size=128, seed=0, options={})
    assert [block[0].out_channels for block in model.encoder] == [32, 64, 128, 256, 512]
    inputs = {"all": [768, 384, 192, 96], "deep": [768, 384, 192, 64], "none": [512, 256, 128, 64]}
    for skips, widths in inputs.items():
        built = build_model("anomaly_unet", RGB, size=128, seed=0, options={"skips": skips})
        assert [block[0].in_channels for block in built.decoder] == widths


def test_a_unet_learns_to_remove_noise():
    model = build_model("anomaly_unet", RGB, size=16, seed=0, options={"width": 4}).train()
    rows = batch([0.0] * 4)
    rows = Batch(**{**vars(rows), "image": blur(torch.randn(4, 3, 16, 16, generator=at().generator), 2.0)})
    task, optimiser = build(Train(), noise=0.5), torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(60):
        loss = task.loss(model, rows, at(step))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_baselines_by_hand():
    bands = Bands(file=("b4", "b8", "slope"))
    image = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))

    def score(name, **options):
        return build_model(name, bands, size=16, seed=0, options=options)(image).logits.sigmoid()

    red, near = image[:, :1], image[:, 1:2]
    torch.testing.assert_close(score("brightness"), ((red + near) / 2).sigmoid())
    torch.testing.assert_close(score("ndvi"), (red - near).sigmoid())
    spread = (blur(image**2, 2.0) - blur(image, 2.0) ** 2).clamp(min=0).sqrt().mean(1, keepdim=True)
    torch.testing.assert_close(score("local_std", sigma=2.0), spread / (1 + spread))


@pytest.mark.parametrize(
    ("name", "options", "bands", "message"),
    [
        ("anomaly_unet", {"width": 0}, RGB, "model.width = 0"),
        ("anomaly_unet", {"skips": "some"}, RGB, "model.skips = 'some': choose one of all, deep, none"),
        ("anomaly_unet", {"limits": [1.0, 1.0]}, RGB, r"model.limits = \[1.0, 1.0\]"),
        ("local_std", {"sigma": 0.0}, RGB, "model.sigma = 0.0"),
        ("ndvi", {}, RGB, "needs b4 and b8, but the bands lack b8"),
        ("brightness", {}, Bands(use=("slope", "dem")), "needs a spectral band, but there are slope, dem"),
    ],
)
def test_models_that_cannot_be(name, options, bands, message):
    with pytest.raises(RecipeError, match=message):
        build_model(name, bands, size=16, seed=0, options=options)


# --- a run

RECIPE = """
name = "odd"

[about.expected]
"round-0/odd/away/mean_iou" = 0.7102

[bands]
file = ["b4", "b3", "b2"]

[domain.home]
role = "source"
split = "train"

[domain.away]
role = "eval"
split = "validation"

[train]
steps = 2
batch = 4

[member.odd]
model = { name = "anomaly_unet", size = 16, width = 2 }
task = "anomaly"
grid = { seed = [0, 1] }

[member.brightness]
model = { name = "brightness", size = 16 }
task = { name = "score", smooth = 0.0, contamination = 0.2 }

[member.unet]
model = { name = "baseline", size = 16, width = 2 }

[predict]
tta = ["none"]
"""


@pytest.fixture(scope="module")
def x(tmp_path_factory):
    place = tmp_path_factory.mktemp("odd")
    data = write_split(place / "data", "train", range(1, 9))
    write_split(data, "validation", range(1, 6), seed=1)
    recipe = write_recipe(place / "odd.toml", text=RECIPE)
    machine = Machine("cpu", "fp32", cache=place / "cache")
    (x,) = open_session(str(recipe), [], data, place / "run", machine)
    run_recipe(x)
    return x


def rows_of(x):
    return json.loads(x.run.table.read_text())["rows"]


def row_of(x, name, kind="member"):
    (row,) = [row for row in rows_of(x) if (row["name"], row["kind"]) == (name, kind)]
    return row


def test_tasks_have_ensembles_of_their_own(x):
    made = {path.name for path in (x.run.root / "round-0").iterdir()}
    assert made == {"odd-seed0", "odd-seed1", "brightness", "unet"} | {
        f"ensemble-{task}" for task in ("anomaly", "score", "segment")
    }
    kinds = {
        task: open_probs(x.run.probs(x.run.ensemble(0, task), "away", "none")).kind
        for task in ("anomaly", "score", "segment")
    }
    assert kinds == {"anomaly": "score", "score": "score", "segment": "probability"}


def test_a_network_without_parameters_is_not_trained(x):
    folder = x.run.member(0, "brightness")
    assert load_file(folder / "weights.safetensors") == {}
    assert not (folder / "metrics.jsonl").exists()


def test_its_row_is_scored_at_its_quantile(x):
    row, domain = row_of(x, "brightness"), x.domains["away"]
    values = open_probs(x.run.probs(x.run.member(0, "brightness"), "away", "none")).read().astype(np.float64)
    image = torch.from_numpy(np.asarray(domain.cache.images, np.float32))
    np.testing.assert_allclose(values, image.mean(1).sigmoid(), atol=1e-3)
    t, v = np.asarray(domain.cache.masks).ravel(), values.ravel()
    threshold = min(value for value in [*np.unique(v), 1.0] if (v >= value).mean() <= 0.2)
    assert (v >= row["threshold"]).sum() == (v >= threshold).sum()
    assert row["f1"] == pytest.approx(f1_score(t, v >= threshold))
    assert row["f1_low"] <= row["f1"] <= row["f1_high"]
    assert row["auroc"] == pytest.approx(roc_auc_score(t, v))
    assert row["values"] == "score" and row["cuts"].keys() == {"quantile", "otsu", "oracle", "oracle_mean_iou"}
    assert row["cuts"]["quantile"]["f1"] == pytest.approx(row["f1"])
    assert row["cuts"]["oracle"]["f1"] == pytest.approx(row["oracle_f1"])


def test_the_page_shows_every_threshold_by_its_name(x):
    text = x.run.table.with_suffix(".md").read_text()
    table = text.split("| round | member | AUROC | quantile: F1 / IoU / mean IoU | otsu: ")[1]
    line = next(line for line in table.splitlines() if "brightness" in line)
    row = row_of(x, "brightness")
    for cut in row["cuts"].values():
        assert f"{cut['f1']:.3f} / {cut['iou']:.3f} / {cut['mean_iou']:.3f}" in line
    assert f"{row['auroc']:.3f}" in line
    lines = table.split("\n\n")[0].splitlines()[2:]
    assert len(lines) == 6 and not any("unet" in line for line in lines)  # a probability needs no such table
    for line in lines:
        assert ("(inverted)" in line) == (float(line.split(" | ")[2][:5]) < 0.5)
    seeds = row_of(x, "odd", kind="seeds")
    each = [row_of(x, f"odd-seed{seed}")["cuts"]["otsu"]["f1"] for seed in (0, 1)]
    assert seeds["cuts"]["otsu"]["f1"] == pytest.approx(np.mean(each))


def test_a_printed_score_stands_beside_its_row(x):
    assert row_of(x, "odd", kind="seeds")["printed_scores"] == {"mean_iou": 0.7102}
    assert "mean IoU 0.7102" in x.run.table.with_suffix(".md").read_text()


def test_pictures_of_every_ensemble(x):
    made = [path.name for path in draw_run(x)]
    assert made == ["away-anomaly.png", "away-score.png", "away-segment.png"]


def test_what_training_does_not_read_redoes_no_training(x):
    def keys(**options):
        (member,) = [each for each in x.members if each.name == "odd-seed0"]
        task = member.config.task.model_copy(update=options)
        task = type(task)(name="anomaly", **options)
        changed = type(member)(**{**vars(member), "config": member.config.model_copy(update={"task": task})})
        return x.fit_key(changed, 0), x.predict_key(changed, 0, x.domains["away"], "none")

    x.keys.clear()
    plain = keys()
    x.keys.clear()
    smoothed = keys(smooth=2.0)
    x.keys.clear()
    noisier = keys(noise=2.0)
    assert smoothed[0] == plain[0] != noisier[0] and smoothed[1] != plain[1]


def test_maps_and_new_images_are_kept_by_what_only_prediction_reads_too(x):
    member = next(each for each in x.members if each.name == "odd-seed0")

    def told(**options):
        task = type(member.config.task)(name="anomaly", **options)
        return trainings(x.plan, 0, [replace(member, config=member.config.model_copy(update={"task": task}))])

    assert told(smooth=1.0) != told(smooth=2.0) != told() == told(noise=2.0)  # trained with other noise: another folder


def test_new_images_are_scored_too(x, tmp_path):
    data = write_split(tmp_path / "new", "test", [3, 4], seed=9)
    machine = Machine("cpu", "fp32", cache=tmp_path / "cache")
    probs = predict_images(x.run.root, data, tmp_path / "out.h5", machine, Use(group="score", split="test"))
    assert probs.kind == "score" and probs.extra == {"contamination": 0.2} and probs.shape == (2, 16, 16)


def test_a_source_without_labels(tmp_path):
    write_data(tmp_path / "data")
    text = RECIPE.replace('split = "train"', 'split = "validation"\nlabelled = false')
    text = text.replace('task = "anomaly"', 'task = { name = "anomaly", use_labels = false }').split("[member.unet]")[0]
    recipe = write_recipe(tmp_path / "odd.toml", "[predict]", "tta = ['none']", text=text)
    machine = Machine("cpu", "fp32", cache=tmp_path / "cache")
    (x,) = open_session(str(recipe), [], tmp_path / "data", tmp_path / "run", machine)
    run_recipe(x)
    table = json.loads(x.run.table.read_text())
    assert table["rows"] == [] and table["unscored"] == ["away (5 of 5 patches have no mask)"]
    assert [path.name for path in draw_run(x)] == ["away-anomaly.png", "away-score.png"]
