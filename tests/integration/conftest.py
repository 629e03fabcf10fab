"""The chain on real parts, started once per module that asks for it. Everything listens on 127.0.0.1 only."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from loadtests.stack.chain import Chain, ChainOptions


@pytest.fixture(scope="module")
def start_chain(tmp_path_factory) -> Iterator[Callable[[ChainOptions], Chain]]:
    """Start a chain that lives until its module is over."""
    with ExitStack() as chains:

        def start(options: ChainOptions) -> Chain:
            return chains.enter_context(Chain(options, logs=tmp_path_factory.mktemp("chain")))

        yield start
