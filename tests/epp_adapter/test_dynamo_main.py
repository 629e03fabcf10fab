"""`epp-adapter serve` with Dynamo's routers: two adapters in replica sync, and the selection service."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from extproc.token_metadata import TokenIds
from tests.epp_adapter.dynamo_stack import BLOCK_SIZE, ENDPOINT, deployment, instance_ids
from tests.epp_adapter.test_main import answered, headers_message, routed, served

pytestmark = pytest.mark.integration

SETTLE_SECONDS = 10.0
SELECTION = f"""\
listen: 127.0.0.1:9002
endpoints: {{file: endpoints.yaml, poll_seconds: 0.05}}
strategies:
  selection: {{kind: dynamo-selection, block_size: {BLOCK_SIZE}, poll_seconds: 0.05,
              kv_events: {{port: 1, port_label: kv-port}}}}
  round-robin: {{kind: round-robin}}
default_strategy: selection
fallback: [round-robin]
drain_seconds: 1
"""
SYNCED = f"""\
listen: 127.0.0.1:9002
endpoints: {{file: endpoints.yaml}}
strategies:
  dynamo: {{kind: dynamo, endpoint: {ENDPOINT}, block_size: {BLOCK_SIZE}, discovery: file,
            router: {{router_replica_sync: true}}}}
default_strategy: dynamo
drain_seconds: 1
"""


def ids(seed: int, count: int = 320) -> TokenIds:
    return TokenIds.pack([2 + (seed * 7919 + position * (seed + 3)) % 380 for position in range(count)])


def picked(epp, strategy: str) -> list[str]:
    """The destinations that a strategy picked, in order."""
    return [line["destination"] for line in epp.lines() if line.get("strategy") == strategy]


class TestSelection:
    @pytest.fixture
    def config(self, tmp_path) -> Path:
        path = tmp_path / "epp.yaml"
        path.write_text(SELECTION)
        self.announce(path, 8001, 8002)
        return path

    @staticmethod
    def announce(config: Path, *ports: int) -> None:
        """Endpoints whose workers would publish at port + 1000; nobody does."""
        entries = [
            f'- {{address: "127.0.0.1:{port}", labels: {{kv-port: "{port + 1000}"}}}}' for port in ports
        ]
        (config.parent / "endpoints.yaml").write_text("endpoints:\n" + "\n".join(entries))

    async def ask(self, epp, token_ids: TokenIds | None = None):
        call = epp.stream()
        destination, changes = await routed(call, headers_message(token_ids))
        return call, destination, changes

    async def test_requests_with_ids_are_balanced_and_their_bookings_end(self, config):
        async with served(config) as epp:
            await self.until_selected(epp)
            asked = [await self.ask(epp, ids(seed)) for seed in range(4)]
            destinations = [destination for _, destination, _ in asked]
            assert {destinations.count(address) for address in set(destinations)} == {2}
            assert "x-dynamo-worker-instance-id" not in asked[0][2].set
            assert await epp.metric("epp_adapter_bookings_active") == 4
            for call, _, _ in asked:
                await answered(call)
            assert await epp.metric("epp_adapter_bookings_active") == 0

    async def test_the_catalog_follows_the_endpoints_file(self, config):
        async with served(config) as epp:
            await self.until_selected(epp)
            self.announce(config, 8002, 8003)
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    call, destination, _ = await self.ask(epp, ids(9))
                    await answered(call)
                    if destination == "127.0.0.1:8003" and picked(epp, "selection")[-1] == destination:
                        break
            call, destination, _ = await self.ask(epp, ids(10))
            assert destination != "127.0.0.1:8001"
            await answered(call)

    async def test_a_request_without_ids_falls_back(self, config):
        async with served(config) as epp:
            call, _, _ = await self.ask(epp)
            await answered(call)
            assert picked(epp, "round-robin")

    async def until_selected(self, epp) -> None:
        """The catalog is filled just after the start."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while not picked(epp, "selection"):
                call, _, _ = await self.ask(epp, ids(1))
                await answered(call)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    with deployment(tmp_path_factory.mktemp("dynamo"), workers=2) as running:
        yield running


async def test_an_adapter_avoids_the_worker_that_another_adapter_has_filled(tmp_path, deployed):
    instances = instance_ids(Path(deployed.environment["DYN_FILE_KV"]))
    entries = [
        f'- {{address: 127.0.0.1:{8001 + number}, dynamo_instance_id: "{instance}"}}'
        for number, instance in enumerate(instances)
    ]
    async with AsyncExitStack() as stack:
        adapters = []
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "endpoints.yaml").write_text("endpoints:\n" + "\n".join(entries))
            (folder / "epp.yaml").write_text(SYNCED)
            adapters.append(
                await stack.enter_async_context(served(folder / "epp.yaml", deployed.environment))
            )
        one, other = adapters
        async with asyncio.timeout(SETTLE_SECONDS):
            while not await together(one, other):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.2)
        # Once more, for sure: what was agreed on above was no accident.
        for _ in range(3):
            assert await together(one, other)


async def together(one, other) -> bool:
    """Fill a worker through one adapter; whether the other one sends all of four requests elsewhere.

    Alone it would balance them, two and two.
    """
    heavy = one.stream()
    filled, _ = await routed(heavy, headers_message(ids(3, 16_000)))
    await asyncio.sleep(0.1)
    light = []
    for seed in range(4):
        call = other.stream()
        light.append((call, (await routed(call, headers_message(ids(10 + seed, 160))))[0]))
    for call, _ in light:
        await answered(call)
    await answered(heavy)
    return filled not in {destination for _, destination in light}
