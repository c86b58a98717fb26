"""From TOML to a recipe: typing errors, overrides, sweeps, grids and what members need of each other."""

import subprocess
import sys

import pytest
from data_factory import write_recipe

from l4s.errors import RecipeError
from l4s.load import expand, find_recipe, load_cells, load_recipe, parse_recipe, resolved, shipped
from l4s.plan import Plan
from l4s.rundir import RunDir
from l4s.session import check_builders

BASE = """
rounds = 1
[domain.home]
role = "source"
holdout = { by = "block", share = 0.1 }
[domain.away]
role = "target"
[member.a]
model = { name = "baseline", width = 8 }
"""


def write(tmp_path, *lines, text=BASE, name="some"):
    return write_recipe(tmp_path / f"{name}.toml", *lines, text=text)


def load(tmp_path, *lines, sets=(), text=BASE):
    return load_recipe(write(tmp_path, *lines, text=text), sets)


def names(recipe):
    return [member.name for member in expand(recipe)]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_loads(name):
    cells = load_cells(name)
    for recipe in cells.values():
        assert parse_recipe(resolved(recipe), name) == recipe
        check_builders(recipe)


def test_recipes_are_found_by_name_and_by_path(tmp_path):
    assert "l4s-rgb" in shipped()
    assert load_recipe("l4s-rgb").name == "l4s-rgb"
    path = write(tmp_path)
    assert load_recipe(str(path)).name == "some" and find_recipe(str(path)) == path
    with pytest.raises(RecipeError, match="no recipe 'l4s-rgp', did you mean 'l4s-rgb'.*a file ends in .toml"):
        load_recipe("l4s-rgp")
    with pytest.raises(RecipeError, match="there is no recipe .*other.toml"):
        load_recipe(tmp_path / "other.toml")
    (tmp_path / "broken.toml").write_text("a = ")
    with pytest.raises(RecipeError, match="broken.toml is not TOML"):
        load_recipe(tmp_path / "broken.toml")


def test_a_recipe_is_read_as_utf_8_whatever_the_locale(tmp_path):
    path = tmp_path / "some.toml"
    path.write_bytes((BASE + '[about]\ntitle = "Überall"\n').encode())
    assert load_recipe(path).about.title == "Überall"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.steps=5", "there is no key 'trian', did you mean 'train'"),
        ("train.stpes=5", "there is no key 'train.stpes', did you mean 'steps'"),
        ("member.a.sed=1", "there is no key 'member.a.sed', did you mean 'seed'"),
        ("domain.home.rol=1", "there is no key 'domain.home.rol', did you mean 'role'"),
        ("domain.home.holdout.shar=1", "there is no key 'domain.home.holdout.shar', did you mean 'share'"),
        ("pseudo.uper=0.5", "there is no key 'pseudo.uper', did you mean 'upper'"),
        ("bands.fil=1", "there is no key 'bands.fil', did you mean 'file'"),
        ("normalize='source'", "there is no key 'normalize', did you mean 'normalise'"),
        ("normalise='sourc'", ": normalise: .*'source'.*given: 'sourc'"),
        ("train.steps='many'", ": train.steps: .*integer.*given: 'many'"),
        ("train.steps=0", ": train.steps: .*greater than or equal to 1"),
        ("train.clip=inf", "some.toml: a value is no text, finite number"),
        ("name=2020-01-01", "some.toml: a value is no text, finite number"),
        ("member=3", "members are tables such as"),
        ("member.a=3", "members are tables such as"),
        ("rounds.x=3", "cannot set rounds.x: rounds is a value, not a table"),
        ("train.steps", "--set 'train.steps' is not of the form"),
        ("=5", "--set '=5' is not of the form"),
        ("member.a.model.name=baselin", "member.a: model.name = 'baselin' is not a model, did you mean 'baseline'"),
        ("member.a.model.widht=4", "member.a: model.widht is not an option of model 'baseline', did you mean 'width'"),
    ],
)
def test_typing_errors_name_the_key_and_its_neighbour(tmp_path, override, message):
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, sets=[override])


def test_the_neighbours_are_those_of_the_table_even_where_a_name_equals_a_key(tmp_path):
    """A member may be called `train`: what it holds is a member, not [train]."""
    with pytest.raises(RecipeError, match="'member.train.inti', did you mean 'init'"):
        load(tmp_path, sets=["member.train={inti=1,model={name='baseline'}}"])


def test_every_wrong_thing_gets_a_line(tmp_path):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, sets=["pseudo.uper=0.5", "rounds=-1", "train.steps=0"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and all(line.startswith(str(tmp_path / "some.toml")) for line in lines)


def test_what_members_share_is_wrong_once_and_where_it_is_written(tmp_path):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, "[member.b]", 'model = { name = "baseline" }', sets=["train.steps=0", "member.b.train.batch=0"])
    wrong = [line.removeprefix(f"{tmp_path / 'some.toml'}: ").split(":")[0] for line in str(caught.value).splitlines()]
    assert wrong == ["train.steps", "member.b.train.batch"]


def test_recipes_load_without_torch(tmp_path):
    code = f"import sys; from l4s.load import load_recipe; load_recipe({str(write(tmp_path))!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_overrides_are_toml_or_bare_words(tmp_path):
    sets = [
        "train.steps = 7",
        "domain.away.split=test",
        "train.optimiser.lr=1e-2",
        "train.loss=[{name = 'bce', weight = 2}]",
        'about.title="a = b"',
        "train.augment.d4=false",
    ]
    recipe = load(tmp_path, sets=sets)
    train = recipe.member["a"].train
    assert train.steps == 7 and train.optimiser.lr == 0.01 and train.augment.d4 is False
    assert [(term.name, term.weight) for term in train.loss] == [("bce", 2.0)]
    assert recipe.domain["away"].split == "test" and recipe.about.title == "a = b"
    assert load(tmp_path, sets=["train.steps=7", "train.steps=8"]).member["a"].train.steps == 8


def test_train_and_normalise_at_the_top_are_defaults_of_every_member(tmp_path):
    recipe = load(
        tmp_path,
        "[member.b]",
        'model = { name = "baseline" }',
        'normalise = "source"',
        "train = { steps = 9, optimiser = { lr = 0.5 } }",
        sets=["train.steps=7", "train.optimiser.weight_decay=0.25", "normalise='patch'"],
    )
    a, b = recipe.member["a"], recipe.member["b"]
    assert (a.train.steps, a.train.optimiser.lr, a.train.optimiser.weight_decay, a.normalise) == (
        7,
        1e-3,
        0.25,
        "patch",
    )
    assert (b.train.steps, b.train.optimiser.lr, b.train.optimiser.weight_decay, b.normalise) == (
        9,
        0.5,
        0.25,
        "source",
    )


def test_a_resolved_recipe_reads_back_equal(tmp_path):
    lines = (
        "[train]",
        "clip = 1",
        "scale = { factor = [2.0, 3.0], crop = 48 }",
        "augment = { affine = 0.5, zoom = [0.9, 1.1] }",
        "optimiser = { name = 'adamw', betas = [0.9, 0.95] }",
        "[member.b]",
        "model = { name = 'unet', decoder = [8, 8, 8] }",
        "init = 'member:a'",
        "grid = { seed = [0, 1], 'train.steps' = [3, 4] }",
        "[ensemble]",
        "group_by = ['seed']",
        "[domain.home.regions]",
        "all = [1, 9]",
    )
    recipe = load(tmp_path, *lines)
    again = parse_recipe(resolved(recipe), "again")
    assert again == recipe and resolved(again) == resolved(recipe)
    assert expand(again) == expand(recipe)
    assert again.member["b"].model.options == {"decoder": [8, 8, 8]}


def test_a_table_that_is_parsed_stays_as_it_is(tmp_path):
    table = resolved(load(tmp_path)) | {"train": {"steps": 5}}
    before = repr(table)
    parse_recipe(table, "here")
    assert repr(table) == before


# --- grids


def test_a_grid_is_every_combination(tmp_path):
    grid = "grid = { seed = [0, 1], 'model.width' = [4, 6], normalise = ['source', 'separated'] }"
    recipe = load(tmp_path, sets=[f"member.a.{grid.replace(' = ', '=', 1)}"])
    members = expand(recipe)
    assert [m.name for m in members][:3] == [
        "a-seed0-width4-normalise-source",
        "a-seed0-width4-normalise-separated",
        "a-seed0-width6-normalise-source",
    ]
    assert len({m.name for m in members}) == 8 and {m.base for m in members} == {"a"}
    for member in members:
        assert member.config.seed == member.axes["seed"]
        assert member.config.model.options["width"] == member.axes["model.width"]
        assert member.config.normalise == member.axes["normalise"]
        assert member.config.grid == {}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("sed = [1]", "member.a.grid: there is no key 'sed', did you mean 'seed'"),
        ("seed = ['x']", "member.a.grid: seed: .*integer"),
        ("seed = []", "member.a.grid: seed lists no values"),
        ("seed = [1, 1]", "two members are called 'a-seed1'"),
        ("'model.widht' = [4]", "model.widht is not an option of model 'baseline'"),
        ("'model.name' = ['baseline', 'unet']", "model.width is not an option of model 'unet'"),
    ],
)
def test_a_grid_is_checked_cell_by_cell(tmp_path, grid, message):
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, f"grid = {{ {grid} }}")


def test_two_members_cannot_share_a_folder(tmp_path):
    with pytest.raises(RecipeError, match="two members are called 'a-seed1'"):
        load(tmp_path, "grid = { seed = [1] }", "[member.a-seed1]", "model = { name = 'baseline' }")


MEMBER = "model = { name = 'baseline' }"
CLASSIFIER = ("model = { name = 'patch_classifier' }", "task = 'classify'")


def test_needs_come_first_and_link_what_agrees(tmp_path):
    recipe = load(
        tmp_path,
        "needs = ['b']",
        "grid = { seed = [0, 1], normalise = ['source', 'separated'] }",
        "[member.b]",
        MEMBER,
        "grid = { seed = [0, 1], 'train.steps' = [3, 4] }",
        "[member.c]",
        MEMBER,
        "init = 'member:b'",
        "grid = { seed = [1], 'train.steps' = [4] }",
    )
    members = {member.name: member for member in expand(recipe)}
    assert list(members)[:4] == [f"b-seed{seed}-steps{steps}" for seed in (0, 1) for steps in (3, 4)]
    assert members["a-seed1-normalise-source"].needs == ("b-seed1-steps3", "b-seed1-steps4")
    assert members["c-seed1-steps4"].needs == ("b-seed1-steps4",)
    assert members["c-seed1-steps4"].init == "member:b-seed1-steps4"


def test_chains_are_sorted_whatever_the_order_in_the_file(tmp_path):
    lines = ["needs = ['b']"]
    for name, needed in (("b", "c"), ("c", "d")):
        lines += [f"[member.{name}]", MEMBER, f"needs = ['{needed}']"]
    assert names(load(tmp_path, *lines, "[member.d]", MEMBER)) == ["d", "c", "b", "a"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["needs = ['a']"], "members need each other in a circle: a$"),
        (
            ["needs = ['c']", "[member.b]", MEMBER, "needs = ['a']", "[member.c]", MEMBER, "init = 'member:b'"],
            "members need each other in a circle: a, b, c$",
        ),
        (["needs = ['bb']", "[member.b]", MEMBER], "member.a needs 'bb', did you mean 'b'"),
        (
            ["init = 'member:b'", "[member.b]", MEMBER, "grid = { seed = [0, 1] }"],
            "member.a.init 'b' stands for 2 members",
        ),
        (
            ["needs = ['b']", "grid = { seed = [7] }", "[member.b]", MEMBER, "grid = { seed = [0, 1] }"],
            "a-seed7 needs 'b', but no 'b' agrees with it on {'seed': 7}",
        ),
    ],
)
def test_needs_that_cannot_be_met(tmp_path, lines, message):
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, *lines)


# --- sweeps


def test_a_sweep_makes_a_recipe_of_each_cell(tmp_path):
    lines = (
        "[sweep]",
        "'train.steps' = [3, 4]",
        "normalise = ['source', 'official']",
        "'domain.away.split' = ['test']",
    )
    cells = load_cells(write(tmp_path, *lines), ["train.batch=8"])
    assert list(cells) == [
        f"steps{steps}-normalise-{mode}-split-test" for steps in (3, 4) for mode in ("source", "official")
    ]
    cell = cells["steps4-normalise-source-split-test"]
    assert (cell.member["a"].train.steps, cell.member["a"].train.batch, cell.member["a"].normalise) == (4, 8, "source")
    assert cell.domain["away"].split == "test" and cell.sweep == {}


def test_an_axis_may_name_its_cells(tmp_path):
    lines = (
        "[sweep]",
        "'train.steps' = [3, 4]",
        "[sweep.way]",
        "plain = {}",
        "csn = { norm = 'domain', 'domain.away.split' = 'test' }",
    )
    cells = load_cells(write(tmp_path, *lines))
    assert list(cells) == ["steps3-plain", "steps3-csn", "steps4-plain", "steps4-csn"]
    csn, plain = cells["steps4-csn"], cells["steps4-plain"]
    assert (csn.member["a"].train.steps, csn.member["a"].norm, csn.domain["away"].split) == (4, "domain", "test")
    assert (plain.member["a"].train.steps, plain.member["a"].norm) == (4, "batch")


def test_without_a_sweep_there_is_one_cell(tmp_path):
    assert load_cells(write(tmp_path)) == {"": load(tmp_path)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("'train.stpes' = [1]", "there is no key 'train.stpes'"),
        ("'train.steps' = []", "sweep: train.steps lists no values"),
        ("'train.clip' = [0.5, 0.5]", "two cells called 'clip0.5'"),
        ("'domain.away.split' = ['a/b', 'a b']", "two cells called 'split-a-b'"),
        ("way = { a = { nrom = 'domain' } }", "there is no key 'nrom', did you mean 'norm'"),
        ("way = {}", "sweep: way lists no values"),
        ("way = { a = {}, b = { normalise = 'separated' } }", "the cells 'a' and 'b', which are the same recipe"),
    ],
)
def test_a_wrong_sweep_fails_when_it_is_loaded(tmp_path, line, message):
    with pytest.raises(RecipeError, match=message):
        load_cells(write(tmp_path, "[sweep]", line))


# --- what tables must agree on

X = ("[domain.x]", "role = 'eval'")
TWO = ("[domain.x]", "role = 'eval'", "[domain.y]", "role = 'eval'")
DEALT = (
    *("[domain.x]", "role = 'eval'", "split = 'validation'", "parts = { shares = { a = 0.5, b = 0.5 }, take = ['a'] }"),
    *("[domain.y]", "role = 'eval'", "split = 'validation'", "[domain.y.parts]", "take = ['b']"),
)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[member.ensemble]", MEMBER], "member 'ensemble' has the name of a folder"),
        (["[member.pseudo-x]", MEMBER], "member 'pseudo-x' has the name of a folder"),
        (["[member.'a/b']", MEMBER], "member 'a/b' becomes the name of a file"),
        (["[domain.'..']", "role = 'eval'"], "domain '..' becomes the name of a file"),
        (["[[round]]", "round = 2"], r"\[\[round\]\] 2 is given twice, or lies beyond rounds = 1"),
        (["[[round]]", "round = 1", "[[round]]", "round = 1"], "1 is given twice"),
        (["[[round]]", "round = 1", "train = ['aa']"], r"\[\[round\]\] 1 names 'aa', did you mean 'a'"),
        (["[[round]]", "round = 1", "labels_from = ['x']"], r"\[\[round\]\] 1 names 'x' \(there are: a\)"),
        (["[[round]]", "round = 0", "labels_from = ['a']"], "round 0 trains without pseudo labels"),
        (
            [
                "[member.b]",
                MEMBER,
                "[[round]]",
                "round = 0",
                "train = ['a']",
                "[[round]]",
                "round = 1",
                "labels_from = ['b']",
            ],
            "takes labels from 'b', which round 0 does not train",
        ),
        (
            [
                "grid = { seed = [0, 1] }",
                "[[round]]",
                "round = 0",
                "train = ['a-seed0']",
                "[[round]]",
                "round = 1",
                "labels_from = ['a-seed1']",
            ],
            "takes labels from 'a-seed1', which round 0 does not train",
        ),
        (
            ["[member.b]", MEMBER, "init = 'member:a'", "[[round]]", "round = 1", "train = ['b']"],
            "member 'b' starts from 'a', which round 1 does not train",
        ),
        (
            ["train = { start = 'continue' }", "[member.b]", MEMBER, "[[round]]", "round = 0", "train = ['b']"],
            "member 'a' continues in round 1, but round 0 does not train it",
        ),
        (["[ensemble]", "group_by = ['seed']"], "group_by 'seed' is an axis of no member's grid"),
        (["[ensemble]", "weights = { b = 1 }"], "ensemble.weights names 'b'"),
        (["[member.b]", MEMBER, "[ensemble]", "weights = { a = 1 }"], "no positive weight for 'b'"),
        (["[ensemble]", "weights = { a = 0 }"], "no positive weight for 'a'"),
        (["seed = 7", "grid = { seed = [0, 1] }"], "member.a sets seed, and its grid lists values of it, which win"),
        (["train = { schedule = { warmup = 10 }, steps = 10 }"], "warmup = 10 leaves none of 10 steps"),
        (
            ["train = { schedule = { warmup = 5 } }", "[[round]]", "round = 0", "steps = 5"],
            "member 'a' warms up for all 5 steps of round 0: lower train.schedule.warmup",
        ),
        (
            ["train = { evaluate_every = 5 }", "[domain.more]", "role = 'source'"],
            "evaluate_every scores on held-out patches, but domain.more has no holdout",
        ),
        (["train = { batch = 1 }"], "1 source and 0 target rows a batch: too few"),
        (["train = { batch = 8, accumulate = 8 }"], "4 source and 4 target rows a batch: too few"),
        (["patch_blend = 0.7"], "patch_blend = 0.7 has no effect"),
        (
            ["[domain.more]", "role = 'source'", "[submit]", "domain = 'more'"],
            "submit.domain 'more' is never predicted",
        ),
        (
            ["normalise = 'source'", "[domain.more]", "role = 'source'", "share_stats = [['b4', 'b3']]"],
            "their share_stats differ",
        ),
        (["[member.b]", *CLASSIFIER], "member 'b' has task 'classify', which pseudo labels of pixels cannot train"),
        (["task = 'classify'"], "model 'baseline' answers to task 'segment', not 'classify': set task = 'segment'"),
        (["ensemble = 'a/b'"], "ensemble 'a/b' becomes the name of a file"),
        (
            ["[submit]", "domain = 'cut'", "[domain.cut]", "role = 'eval'", "cut = 16"],
            "a submission holds whole patches",
        ),
        (
            ["[submit]", "domain = 'odd'", "[domain.odd]", "role = 'eval'", "fit = { by = 'pad', multiple = 8 }"],
            "'odd' has patches of varying size",
        ),
        (["train = { batch = 1, mixup = {} }"], "mixes the samples of a batch with each other"),
        (
            ["train = { freeze = 5 }", "[[round]]", "round = 1", "steps = 5"],
            "freezes its encoder for all 5 steps of round 1",
        ),
        (
            ["predicts = ['more']", "[domain.more]", "role = 'source'", "split = 'validation'"],
            "predicts 'more', a source that holds nothing out",
        ),
        (["predicts = ['home']"], "the ensemble labels target 'away' for the next round.*see `predicts` of a"),
        (
            ["[member.b]", MEMBER, "predicts = ['away']", "ensemble = 'b'", *TWO, "[submit]", "domain = 'x'"],
            "ensemble 'b' is packed by .submit., but not all of its members predict 'x'",
        ),
        (
            ["[member.b]", MEMBER, "predicts = ['x']", "[member.c]", MEMBER, "predicts = ['y']", *TWO],
            "no domain that all of its members predict .see `predicts` of b, c",
        ),
        (["normalise = 'imagenet'", *X, "subdomains = { by = 'cluster' }"], "subdomains has no effect .* by imagenet"),
        (["normalise = 'official'", *X, "share_stats = [['b4', 'b3']]"], "share_stats has no effect .* by official"),
        (
            ["[member.b]", "init = 'a.safetensors'", "model = { name = 'unet', weights = 'imagenet' }"],
            "are not read where",
        ),
        (["[domain.more]", "role = 'source'", "split = 'test'", "tta = ['d4']"], "tta is for what is predicted"),
        (
            [*DEALT, "shares = { a = 0.5, b = 0.5 }", "seed = 1"],
            "domains x and y deal out split 'validation' in two ways",
        ),
        ([*DEALT, "shares = { b = 0.5, a = 0.5 }"], "give both the same shares in the same order"),
        (
            [
                *(line.replace("'validation'", "'./validation'") for line in DEALT[:3]),
                *DEALT[3:],
                "shares = { b = 0.5, a = 0.5 }",
            ],
            "domains x and y deal out split",
        ),
        (
            [*X, "layout = 'bijie'", "split_seed = 1", "[domain.y]", "role = 'eval'", "layout = 'bijie'"],
            "split_seed is 0 and 1: one seed draws all splits",
        ),
    ],
)
def test_tables_that_contradict_each_other(tmp_path, lines, message):
    load(tmp_path)
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, *lines)


def test_a_threshold_is_chosen_on_patches_that_a_source_holds_out(tmp_path):
    lines = ("[submit]", "domain = 'away'", "threshold = 'heldout'")
    load(tmp_path, *lines)
    with pytest.raises(RecipeError, match="chosen on held-out patches, but no source holds any out"):
        load(tmp_path, *lines, sets=["domain.home.holdout={}"])


def test_parts_of_one_deal_go_together(tmp_path):
    load(tmp_path, *DEALT, "shares = { a = 0.5, b = 0.5 }")


@pytest.mark.parametrize(
    "lines",
    [
        ["train = { batch = 8, accumulate = 4 }"],
        ["patch_blend = 0.7", "normalise = 'patch'"],
        ["init = 'member:b'", "[member.b]", MEMBER],
        ["train = { start = 'continue' }"],
        ["grid = { seed = [0, 1] }", "[ensemble]", "group_by = ['seed']", "weights = { a-seed0 = 1, a-seed1 = 2 }"],
        ["grid = { seed = [0, 1] }", "[ensemble]", "weights = { a = 1, a-seed1 = 2 }"],
    ],
)
def test_tables_that_agree(tmp_path, lines):
    load(tmp_path, *lines)


def test_a_recipe_without_members(tmp_path):
    with pytest.raises(RecipeError, match="nothing would be trained"):
        load(tmp_path, text=BASE.split("[member.a]")[0] + "[member]")


# --- tasks

FREE = """
[domain.home]
role = "source"
labelled = false
[member.a]
model = { name = "anomaly_unet" }
task = { name = "anomaly", use_labels = false }
[member.b]
model = { name = "brightness" }
task = "score"
"""


def test_members_without_labels_train_on_a_source_without_masks(tmp_path):
    load(tmp_path, text=FREE)
    for member in ('model = { name = "anomaly_unet" }\ntask = "anomaly"', "model = { name = 'unet' }"):
        with pytest.raises(RecipeError, match="member 'c' trains with labels, but domain home has labelled = false"):
            load(tmp_path, "[member.c]", member, text=FREE)


def test_members_of_other_tasks_are_no_submission(tmp_path):
    with pytest.raises(RecipeError, match=r"\[submit\] packs masks"):
        load(tmp_path, "[submit]", "domain = 'away'", "[domain.away]", "role = 'target'", text=FREE)


def test_each_task_has_an_ensemble_of_its_own(tmp_path):
    def groups(*lines, text=FREE):
        recipe = load(tmp_path, *lines, text=text)
        return Plan(RunDir(tmp_path), recipe, expand(recipe)).groups(0)

    def named(found):
        return {group: [member.name for member in members] for group, members in found.items()}

    assert named(groups(text=BASE)) == {"": ["a"]}
    assert named(groups()) == {"anomaly": ["a"], "score": ["b"]}
    more = ("[member.c]", 'model = { name = "ndvi" }', 'task = "score"')
    assert named(groups(*more)) == {"anomaly": ["a"], "score": ["b", "c"]}
    assert named(groups(*more, 'ensemble = "ndvi"')) == {"anomaly": ["a"], "score": ["b"], "ndvi": ["c"]}
    seeds = ("grid = { seed = [0, 1] }", "[ensemble]", "group_by = ['seed']")
    assert named(groups(*more, *seeds)) == {
        "anomaly": ["a"],
        "score": ["b"],
        "score-seed-0": ["c-seed0"],
        "score-seed-1": ["c-seed1"],
    }


# --- names beside torch code


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.loss=[{name='bse'}]", "member.a: loss 'bse' does not exist, did you mean 'bce'"),
        ("train.loss=[{name='dice', smoth=1}]", "member.a: loss 'dice' has no option 'smoth', did you mean 'smooth'"),
        ("train.optimiser.name=adamwx", "member.a: optimiser 'adamwx' does not exist, did you mean 'adamw'"),
        ("train.optimiser.beta=[0.9, 0.9]", "member.a: optimiser 'adamw' has no option 'beta', did you mean 'betas'"),
        ("train.optimiser.betas=[0.9, 1.9]", "member.a: optimiser 'adamw' refuses"),
        ("train.schedule.name=pole", "member.a: schedule 'pole' does not exist, did you mean 'poly'"),
        ("train.schedule.pover=2.0", "member.a: schedule 'poly' has no option 'pover', did you mean 'power'"),
        ("member.a.task=segmnt", "member.a: task 'segmnt' does not exist, did you mean 'segment'"),
        ("member.a.task={name='segment', smooth=1}", "member.a: task 'segment' has no option 'smooth'"),
    ],
)
def test_names_of_torch_code_are_checked_before_data_are_read(tmp_path, override, message):
    with pytest.raises(RecipeError, match=f"recipe some: {message}"):
        check_builders(load(tmp_path, sets=[override]))


def test_scores_are_not_judged_at_one_half_while_they_train(tmp_path):
    text = FREE.replace("labelled = false", 'holdout = { by = "block", share = 0.1 }')
    check_builders(load(tmp_path, text=text))
    with pytest.raises(RecipeError, match=r"member.a: train.evaluate_every scores at threshold 0.5"):
        check_builders(load(tmp_path, text=text, sets=["train.evaluate_every=5"]))


def test_members_that_cannot_be_averaged_are_told_before_they_are_trained(tmp_path):
    score = "model = { name = 'brightness' }\ntask = { name = 'score', contamination = %s }"
    text = FREE[: FREE.index("[member.a]")]
    lines = ("[member.a]", score % 0.2, "[member.b]", score % 0.05)
    with pytest.raises(
        RecipeError, match=r"'a' .score, contamination = 0.2. and 'b' .* cannot be averaged: give them diff"
    ):
        check_builders(load(tmp_path, *lines, text=text))
    check_builders(load(tmp_path, *lines, "ensemble = 'b'", text=text))


@pytest.mark.parametrize(
    ("lines", "key", "message"),
    [
        (["train = { steps = 7 }"], "train.steps", "a set train.steps for themselves"),
        (["grid = { seed = [0, 1] }"], "member.a.seed", "the grid lists its values"),
        (
            ["[[round]]\nround = 0\nsteps = 3", "[[round]]\nround = 1\nsteps = 3"],
            "train.steps",
            r"every \[\[round\]\] sets steps",
        ),
    ],
)
@pytest.mark.parametrize("axis", ["[sweep]\n'{}' = [2, 3]", "[sweep.way]\none = {{ '{}' = 2 }}\ntwo = {{ '{}' = 3 }}"])
def test_a_sweep_of_what_nothing_reads_is_refused(tmp_path, lines, key, message, axis):
    path = write(tmp_path, *lines, axis.format(key, key))
    with pytest.raises(RecipeError, match=rf"\[sweep\] {key} has no effect: .*{message}"):
        load_cells(path)


def test_an_override_of_steps_that_every_round_sets(tmp_path):
    rounds = [f"[[round]]\nround = {number}\nsteps = 3" for number in (0, 1)]
    with pytest.raises(RecipeError, match="--set train.steps has no effect: every .*round 0 too"):
        load(tmp_path, *rounds, sets=["rounds=1", "train.steps=5"])
    load(tmp_path, *rounds, sets=["rounds=2", "train.steps=5"])
    load(tmp_path, rounds[1], sets=["rounds=1", "train.steps=5"])


def test_an_override_that_members_do_not_read_is_told(tmp_path, capsys):
    own = ("train = { steps = 7 }", "[member.b]", MEMBER)
    recipe = load(tmp_path, *own, sets=["train.steps=5"])
    assert [member.config.train.steps for member in expand(recipe)] == [7, 5]
    said = " ".join(capsys.readouterr().err.split())
    assert "--set train.steps changes some members only: a set train.steps for themselves" in said
    with pytest.raises(RecipeError, match="--set train.steps has no effect: a, b set.*--set 'member.a.train.steps="):
        load(tmp_path, *own, "train = { steps = 9 }", sets=["train.steps=5"])
    load(tmp_path, *own, sets=["train.batch=4"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (["normalise = 'source'"], "normalise=separated"),
        (["grid = { 'train.steps' = [2, 3] }"], "train.steps=5"),
        (["[sweep]", "'train.steps' = [2, 3]"], "train.steps=5"),
        (["[sweep.way.one]", "'train.steps' = 2", "[sweep.way.two]", "'train.steps' = 3"], "train.steps=5"),
    ],
)
def test_an_override_that_nothing_reads_is_refused(tmp_path, lines, key):
    with pytest.raises(RecipeError, match=f"--set {key.partition('=')[0]} has no effect"):
        load_cells(str(write(tmp_path, *lines)), [key])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.steps=5", r"a set train.steps for themselves \(--set 'member.a.grid=...' changes one\)"),
        ("member.a.train.steps=5", r"no effect: the grid lists its values; --set 'member.a.grid=...' changes it"),
        ("member.aa.train.steps=5", "there is no member 'aa', did you mean 'a'"),
        ("member.a-steps2.train.steps=5", "there is no member 'a-steps2': it is of the grid of 'a'"),
    ],
)
def test_an_override_beside_a_grid(tmp_path, key, message):
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, "grid = { 'train.steps' = [2, 3] }", sets=[key])
    load(tmp_path, "train = { steps = 4 }", sets=["member.a.grid={'train.steps'=[2, 3]}"])


def test_a_member_may_be_added_whole(tmp_path):
    recipe = load(tmp_path, sets=["member.new={model={name='unet'}}", "member.new.seed=3"])
    assert recipe.member["new"].seed == 3


def test_an_override_that_some_cells_read_is_taken(tmp_path):
    path = write(tmp_path, "[sweep.way.one]", "'train.steps' = 2", "[sweep.way.two]", "'train.batch' = 3")
    cells = load_cells(str(path), ["train.steps=5"])
    assert [expand(cell)[0].config.train.steps for cell in cells.values()] == [2, 5]


@pytest.mark.parametrize(
    "setting",
    [
        "train.loss=[{ name = 'soft_ce', eps = 'high' }]",
        "train.schedule={ name = 'poly', power = '2' }",
        "train.optimiser={ name = 'adamw', lr = 0.001, betas = [0.9] }",
    ],
)
def test_an_option_of_another_type_is_wrong_use(tmp_path, setting):
    with pytest.raises(RecipeError, match="refuses"):
        check_builders(load(tmp_path, sets=[setting]))
