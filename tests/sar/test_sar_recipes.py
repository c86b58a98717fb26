"""What the shipped radar recipes say can happen, and their parts are those of the paper."""

import re

import pytest

from l4s.load import expand, find_recipe, load_cells, shipped

NAMES = [name for name in shipped() if name.startswith("boehm2022")]


@pytest.mark.parametrize("name", NAMES)
def test_patience_can_run_out(name):
    """As many evaluations as it takes to lose patience, and more: otherwise the setting has no effect."""
    for cell in load_cells(name, ()).values():
        for member in expand(cell):
            train = member.config.train
            if train.patience:
                assert train.evaluate_every and train.steps // train.evaluate_every > train.patience, member.name


@pytest.mark.parametrize("name", NAMES)
def test_commented_overrides_fit_the_recipe(name):
    """A recipe that says how to read chips of one pass can be told so."""
    override = "bands.file=['vv_pre_1', 'vh_pre_1', 'vv_post_1', 'vh_post_1']"
    if "Of one pass: --set" in find_recipe(name).read_text():
        assert load_cells(name, [override])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "boehm2022-visits"])
def test_commented_overrides_leave_no_size_that_few_chips_lack(name):
    """Members that learn of 110 chips are refused where there are fewer: the recipe says how to do without them."""
    sets = re.findall(r"^#   --set '(.+)'$", find_recipe(name).read_text(), re.MULTILINE)

    def sizes(overrides):
        (cell,) = load_cells(name, overrides).values()
        return {member.config.train.subset for member in expand(cell)} - {None}

    assert sizes(()) == {2, 5, 10, 20, 110} and sizes(sets) == {2, 5, 10, 20}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "boehm2022-visits"])
def test_validation_chips_are_said_to_serve_both_stages(name):
    """The same part holds out the chips of both stages' sources, so only training chips are apart."""
    (cell,) = load_cells(name, ()).values()
    held = {cell.domain[part].holdout.regions for part in ("pretrain", "hokkaido")}
    assert held == {("validation",)} and "Chips of the first stage take no part" not in find_recipe(name).read_text()
