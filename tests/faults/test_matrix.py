"""The fault matrix: each part killed, hung and slow under load, and what clients see of it.

tokenext fails open: its loss costs knowledge, and no request. The picker fails closed: without it there is no
answer but 503 or 504, at once. Workers are the pool's: their loss costs what they were answering.
"""

import time
from urllib.request import urlopen

import pytest

from loadtests.stack.chain import Chain, ChainOptions, Part, Upstream
from tests.faults.counters import envoy, epp, tokenext
from tests.faults.striking import Slow, breaking, full_disk, hung, killed, with_environment
from tests.faults.survival import Fault, survive

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.faults]

OK_OR_REFUSED = frozenset({200, 503})
MESSAGE_TIMEOUT = 1.0  # of Envoy for tokenext; the chart's default is 5 s
PICKER_TIMEOUT = 5.0
NO_RECORD = epp("records_total", source="metadata", outcome="absent")


@pytest.fixture(scope="module")
def chain(start_chain) -> Chain:
    return start_chain(
        ChainOptions(
            workers=2,
            mocker_arguments=("--speedup-ratio", "10"),
            tokenext_timeout_seconds=MESSAGE_TIMEOUT,
        )
    )


class TestTokenext:
    async def test_killed_costs_no_request(self, chain, outcomes):
        await survive(chain, killed("tokenext killed", chain, "tokenext-0", counted=(NO_RECORD,)), outcomes)

    async def test_hung_costs_each_request_the_message_timeout_and_no_more(self, chain, outcomes):
        fault = hung(
            f"tokenext hung (message timeout {MESSAGE_TIMEOUT:g} s)",
            chain.processes["tokenext-0"],
            seconds=4.0,
            slowest=MESSAGE_TIMEOUT + 1.0,
            counted=(NO_RECORD, envoy(r"ext_proc\.tokenext\.message_timeouts$")),
        )
        await survive(chain, fault, outcomes)

    async def test_slow_delays_and_loses_nothing(self, chain, outcomes):
        slow = Slow(chain.processes["tokenext-0"])
        fault = Fault("tokenext gets a tenth of a CPU", slow.start, slow.end, seconds=3.0, slowest=3.0)
        await survive(chain, fault, outcomes)

    async def test_with_a_full_disk_for_its_log_it_serves_on(self, chain, outcomes):
        await survive(chain, full_disk(chain, "tokenext-0"), outcomes)

    async def test_a_tokenizer_that_fails_opens_the_breaker_and_is_tried_again(
        self, chain, outcomes, tmp_path
    ):
        flag = tmp_path / "broken"
        with with_environment(chain, breaking(tmp_path, flag), "tokenext-0"):
            fault = Fault(
                "a model's tokenizer fails at run time",
                flag.touch,
                flag.unlink,
                seconds=3.0,
                counted=(
                    tokenext("requests_total", reason="engine_failed"),
                    tokenext("requests_total", reason="breaker_open"),
                    tokenext("breaker_changes_total", state="closed"),
                ),
            )
            await survive(chain, fault, outcomes)

    async def test_restarted_politely_it_loses_nothing(self, chain, outcomes):
        fault = Fault(
            "tokenext restarted (SIGTERM)", lambda: chain.restart("tokenext-0"), lambda: None, seconds=1.0
        )
        await survive(chain, fault, outcomes)


class TestPicker:
    async def test_killed_means_503_at_once_until_it_is_back(self, chain, outcomes):
        fault = killed(
            "EPP killed", chain, "epp-adapter",
            allowed=OK_OR_REFUSED | {0, 500},
            counted=(envoy(r"http\.ingress\.downstream_rq_5xx$"),),
        )  # fmt: skip
        await survive(chain, fault, outcomes)

    async def test_hung_means_504_after_the_message_timeout(self, chain, outcomes):
        fault = hung(
            f"EPP hung (message timeout {PICKER_TIMEOUT:g} s)",
            chain.processes["epp-adapter"],
            seconds=PICKER_TIMEOUT + 2.0,
            allowed=frozenset({200, 500, 504}),
            slowest=PICKER_TIMEOUT + 1.5,
            counted=(envoy(r"ext_proc\.epp[^.]*\.message_timeouts$"),),
        )
        await survive(chain, fault, outcomes)

    async def test_slow_delays_and_loses_nothing(self, chain, outcomes):
        slow = Slow(chain.processes["epp-adapter"])
        fault = Fault("EPP gets a tenth of a CPU", slow.start, slow.end, seconds=3.0, slowest=3.0)
        await survive(chain, fault, outcomes)

    async def test_with_a_full_disk_for_its_log_it_serves_on(self, chain, outcomes):
        await survive(chain, full_disk(chain, "epp-adapter"), outcomes)

    async def test_restarted_politely_it_lets_open_streams_end(self, chain, outcomes):
        fault = Fault(
            "EPP restarted (SIGTERM), one replica", lambda: chain.restart("epp-adapter"), lambda: None,
            seconds=1.0, allowed=OK_OR_REFUSED | {500},
        )  # fmt: skip
        await survive(chain, fault, outcomes)


class TestTheRest:
    async def test_nats_gone_and_back_costs_nothing(self, chain, outcomes):
        await survive(chain, killed("NATS gone and back", chain, "nats", seconds=3.0), outcomes)

    async def test_a_killed_worker_costs_what_it_was_answering(self, chain, outcomes):
        fault = killed(
            "a worker killed with its front end", chain, "worker-0", "frontend-0",
            seconds=3.0,
            allowed=frozenset({0, 200, 500, 502, 503}),
            slowest=4.0,
            counted=(epp("endpoint_failures_total"),),
        )  # fmt: skip
        await survive(chain, fault, outcomes)

    async def test_a_hung_worker_holds_what_it_has_and_answers_when_it_goes_on(self, chain, outcomes):
        fault = hung(
            "a worker hung with its front end (no timeout on responses)",
            chain.processes["worker-1"],
            chain.processes["frontend-1"],
            seconds=4.0,
            slowest=8.0,
        )
        await survive(chain, fault, outcomes)

    async def test_envoy_restarted_cuts_connections_and_hangs_nobody(self, chain, outcomes):
        fault = Fault(
            "Envoy restarted", lambda: chain.restart("envoy"), lambda: None,
            seconds=1.0, allowed=frozenset({0, 200, 503}),
        )  # fmt: skip
        await survive(chain, fault, outcomes)

    async def test_everything_restarted_in_turn_comes_back(self, chain, outcomes):
        """Envoy last. Workers come back under a new instance id; a front end that does not know the id that a
        request is pinned to answers 400.
        """

        def one_after_another() -> None:
            for name in ("nats", "tokenext-0", "worker-0", "frontend-0", "worker-1", "frontend-1",
                         "epp-adapter", "envoy"):  # fmt: skip
                chain.restart(name)
                time.sleep(1.0)

        fault = Fault(
            "every process restarted in turn (SIGTERM), one replica of each",
            one_after_another,
            lambda: None,
            seconds=1.0,
            allowed=frozenset({0, 200, 400, 500, 502, 503}),
            slowest=10.0,
        )
        await survive(chain, fault, outcomes)


class TestOtherChains:
    async def test_records_that_are_not_forwarded_cost_knowledge_and_no_request(self, start_chain, outcomes):
        blind = start_chain(ChainOptions(workers=1, epp_settings={"metadata_namespace": "elsewhere"}))
        fault = Fault(
            "the metadata namespace is not forwarded to the EPP (from the start)",
            lambda: None,
            lambda: None,
            counted=(NO_RECORD,),
        )
        await survive(blind, fault, outcomes)

    async def test_a_worker_that_answers_500_is_heard_and_one_that_answers_503_is_set_aside(
        self, start_chain, outcomes
    ):
        echo = start_chain(ChainOptions(upstream=Upstream.ECHO, workers=3, tokenext=Part.ABSENT))
        for status, allowed, counted in (
            (500, frozenset({200, 500}), ()),
            (503, OK_OR_REFUSED, (epp("endpoint_failures_total", reason="unavailable"),)),
        ):
            server = f"http://{echo.workers[0].address}/__status?status="
            fault = Fault(
                f"a worker answers {status}",
                lambda asked=f"{server}{status}": urlopen(asked, timeout=5).close(),
                lambda asked=f"{server}200": urlopen(asked, timeout=5).close(),
                seconds=3.0,
                allowed=allowed,
                counted=counted,
            )
            await survive(echo, fault, outcomes)
