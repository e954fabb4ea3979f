from __future__ import annotations

import pytest

from rlu_cli.simulator.images import drawn_pool
from rlu_cli.simulator.pool import Holding, set_apart


@pytest.fixture(scope="session")
def holding() -> Holding:
    """Twenty images of each digit for the clients, three for the server."""
    return set_apart(drawn_pool(20, 4, seed=0), 3, seed=0)
