"""One chain for all faults of a module, and the file that keeps what was seen."""

import os
from pathlib import Path

import pytest

from tests.integration.conftest import start_chain

__all__ = ["outcomes", "start_chain"]


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory) -> Path:
    """`python -m tests.faults` names the file, and makes a page of it."""
    named = os.environ.get("FAULTS_OUTCOMES")
    return Path(named) if named else tmp_path_factory.mktemp("faults") / "outcomes.jsonl"
