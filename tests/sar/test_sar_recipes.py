"""What the shipped radar recipes say can happen, and their parts are those of the paper."""

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
