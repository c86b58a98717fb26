"""What a member sees of a domain: its bands as it standardises them, and perhaps the embeddings of another member."""

import numpy as np

from l4s import log, rundir
from l4s.data.dataset import Labels, Part
from l4s.data.domain import Domain
from l4s.embed import embed, open_embeddings
from l4s.errors import RunError
from l4s.experiment import Experiment, weights
from l4s.load import Member
from l4s.member import norm_row, trained_member, trained_on
from l4s.predict import View


def view_of(x: Experiment, domain: Domain, member: Member, number: int) -> View:
    """The rows of a domain to predict, as a member sees them."""
    row = norm_row(x.recipe, member, number, domain.name)
    embeddings = embeddings_of(x, domain, member, number)
    return View(domain, domain.predicted, *x.affine(domain, member), row, embeddings)


def part_of(x: Experiment, domain: Domain, member: Member, number: int, labels: Labels) -> Part:
    """The rows of a domain to train on, as a member sees them."""
    place = trained_on(x.recipe, member, number).index(domain.name)
    embeddings = embeddings_of(x, domain, member, number)
    return Part(domain, place, domain.train, *x.affine(domain, member), labels, embeddings=embeddings)


def embeddings_of(x: Experiment, domain: Domain, member: Member, number: int) -> np.ndarray | None:
    """What the member in `features` says of all patches of a domain, computed once: (N, E, H, W) float16, or None.

    Raises:
        RunError: that member is not trained yet.
    """
    first = x.plan.feature_member(member)
    if first is None:
        return None
    folder = x.run.member(number, first.name)
    key = x.fit_key(first, number)
    if not x.engine.agree(x.engine.main and rundir.is_done(folder, key)):  # weights of other settings are refused
        train = rundir.command(x.run.root, "train", "--round", number, "--member", first.name)
        raise RunError(f"{member.name} reads what {first.name} says, which is not trained: run {train} first")
    path = folder / "embeddings" / f"{domain.name}-{x.embed_key(first, number, domain)}.npy"
    if not x.engine.agree(x.engine.main and path.is_file()):
        models = trained_member(x.recipe, first, number, weights(folder)[:1], x.engine)
        row = norm_row(x.recipe, first, number, domain.name)
        view = View(domain, np.arange(len(domain)), *x.affine(domain, first), row)
        if x.engine.main:
            embed(x.engine, models[0], view, path, x.recipe.predict.batch)
            log.info(f"round {number} {first.name}: embedded {len(domain)} patches of {domain.name}")
        x.engine.wait()
    return open_embeddings(path)
