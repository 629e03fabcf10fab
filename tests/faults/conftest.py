"""One chain for all faults of a module, and the file that keeps what was seen."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loadtests.stack.chain import Chain, ChainOptions


@pytest.fixture(scope="module")
def start_chain(tmp_path_factory) -> Iterator[Callable[[ChainOptions], Chain]]:
    """Start a chain that lives until its module is over."""
    with ExitStack() as chains:

        def start(options: ChainOptions) -> Chain:
            return chains.enter_context(Chain(options, logs=tmp_path_factory.mktemp("chain")))

        yield start


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory) -> Path:
    """`python -m tests.faults` names the file, and makes a page of it."""
    named = os.environ.get("FAULTS_OUTCOMES")
    return Path(named) if named else tmp_path_factory.mktemp("faults") / "outcomes.jsonl"
