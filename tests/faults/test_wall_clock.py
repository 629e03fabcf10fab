"""The machine's time of day is set while everything runs: nothing of the chain may go by it."""

import pytest

from loadtests.stack.chain import Chain, ChainOptions
from tests.faults.striking import with_environment
from tests.faults.survival import Fault, survive
from tests.faults.wall_clock import NoClockError, WallClock
from tests.integration import metrics

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.faults]

HOUR = 3600
JUMPING = ("tokenext-0", "epp-adapter", "envoy")
# What must be 0 where nothing is under way: (process, series).
HELD = (
    ("tokenext-0", "tokenext_breaker_open"),
    ("tokenext-0", "tokenext_queue_requests"),
    ("tokenext-0", "tokenext_streams_open"),
    ("epp-adapter", "epp_adapter_bookings_active"),
    ("epp-adapter", "epp_adapter_endpoints_set_aside"),
    ("epp-adapter", "epp_adapter_streams_open"),
    ("epp-adapter", "llm_d_epp_request_running"),
)


@pytest.fixture(scope="module")
def chain(start_chain) -> Chain:
    return start_chain(ChainOptions(workers=2, mocker_arguments=("--speedup-ratio", "10")))


@pytest.fixture(scope="module")
def clock(chain, tmp_path_factory):
    """The chain's parts but the workers go by it."""
    try:
        clock = WallClock(tmp_path_factory.mktemp("clock"))
    except NoClockError as error:
        pytest.skip(f"NOT TRIED, the clock that jumps: {error}")
    with with_environment(chain, clock.environment, *JUMPING):
        yield clock


@pytest.mark.parametrize("first", [HOUR, -HOUR], ids=["forward", "back"])
async def test_an_hour_is_jumped_and_nobody_sees_it(chain, outcomes, clock, first):
    where = {name: chain.admin_urls[name] for name in JUMPING}

    def jump(seconds: int) -> None:
        clock.jump(seconds)
        clock.is_off_by(seconds, where)

    ways = ("forward", "back") if first > 0 else ("back", "forward")
    fault = Fault(
        f"the wall clock of tokenext, EPP and Envoy jumps an hour {ways[0]}, then {ways[1]}",
        lambda: jump(first),
        lambda: jump(0),
        seconds=4.0,
    )
    await survive(chain, fault, outcomes)
    for process, series in HELD:
        assert await metrics.until(chain.admin_urls[process], 0, series) == 0, f"{process}: {series}"
