"""Two replicas of each: what one replica must cost, two need not."""

import pytest

from loadtests.stack.chain import Chain, ChainOptions
from tests.faults.counters import Counter, snapshot
from tests.faults.rolling import roll_service, roll_worker
from tests.faults.striking import hung, killed
from tests.faults.survival import Fault, survive

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.faults]

LINGER_SECONDS = 3  # as the chart says
PICKER_TIMEOUT = 5.0
PICKERS = ("epp-adapter", "epp-adapter-1")
SERVICES = (*PICKERS, "tokenext-0", "tokenext-1")  # in this order pickers count what tokenext's restarts do
LONG_WORDS = 24_000  # as many tokens: more than Envoy keeps to open a stream anew
CLIENTS = 6


@pytest.fixture(scope="module")
def chain(start_chain) -> Chain:
    return start_chain(
        ChainOptions(
            workers=2,
            tokenext_processes=2,
            epp_processes=2,
            tokenext_settings={"limits": {"linger_seconds": LINGER_SECONDS}},
            epp_settings={"linger_seconds": LINGER_SECONDS},
            mocker_arguments=("--speedup-ratio", "10"),
        )
    )


def untokenized(chain: Chain) -> float:
    """Requests that reached a picker without ids, of those that it has counted since it started."""
    labels = (("source", "metadata"), ("outcome", "absent"))
    counters = tuple(Counter(name, "epp_adapter_records_total", labels) for name in PICKERS)
    return sum(snapshot(chain, counters).values())


async def test_a_rolling_restart_of_all_but_envoy_is_seen_by_nobody(chain, outcomes):
    """Two of Envoy need a load balancer before them, which is not ours."""

    def roll() -> None:
        for name in ("nats", *SERVICES):
            roll_service(chain, name)
        for worker in chain.workers:
            roll_worker(chain, worker)

    fault = Fault(
        "tokenext, EPP, workers (and the one NATS) restarted in turn (SIGTERM), two replicas of each",
        roll,
        lambda: None,
        seconds=1.0,
    )
    await survive(chain, fault, outcomes)
    assert untokenized(chain) == 0


async def test_nor_where_prompts_are_too_long_for_a_second_attempt(chain, outcomes):
    def roll() -> None:
        for name in SERVICES:
            roll_service(chain, name)

    fault = Fault(
        f"tokenext and EPP restarted in turn, two replicas of each, prompts of {LONG_WORDS:,} tokens",
        roll,
        lambda: None,
        seconds=1.0,
        words=LONG_WORDS,
    )
    await survive(chain, fault, outcomes)
    assert untokenized(chain) == 0


async def test_one_picker_of_two_that_is_killed_costs_what_it_was_at(chain, outcomes):
    fault = killed("EPP killed, one of two", chain, "epp-adapter", seconds=4.0, allowed=frozenset({200, 503}))
    seen = await survive(chain, fault, outcomes)
    assert seen.statuses.get(503, 0) <= CLIENTS


async def test_one_picker_of_two_that_hangs_costs_what_waits_for_it(chain, outcomes):
    fault = hung(
        f"EPP hung, one of two (message timeout {PICKER_TIMEOUT:g} s)",
        chain.processes["epp-adapter"],
        seconds=8.0,
        allowed=frozenset({200, 504}),
        slowest=PICKER_TIMEOUT + 1.0,
    )
    seen = await survive(chain, fault, outcomes)
    assert seen.statuses.get(504, 0) <= CLIENTS
