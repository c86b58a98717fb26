"""What every test runs under: few threads, no network, none of the user's settings, the same examples every time."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Read by numpy and torch when they are first imported, which is after this file.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "MPLBACKEND": "Agg"}

# A loaded machine is no failure, and a failure must come again: no deadlines, no chance.
settings.register_profile("l4s", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("l4s")


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's data folder and terminal are not seen, and the user's cache is not written."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("L4S_DATA", "COLUMNS", "NO_COLOR"):
            patch.delenv(name, raising=False)
        patch.setenv("L4S_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
