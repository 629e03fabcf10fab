"""Dynamo's choice of a data-parallel rank, served by a real front end in direct mode."""

from pathlib import Path

import pytest

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.dynamo import DynamoStrategy
from epp_adapter.routing.dynamo_runtime import DynamoRuntime
from extproc.events import Termination
from tests.epp_adapter.dynamo_client import OPTIONS, Client, cached, ids, picked_with_cache, pinned, router_of
from tests.epp_adapter.dynamo_stack import ENDPOINT, frontend, instance_ids, mockers, plane

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The environment, the front end's URL, and the candidates."""
    folder = tmp_path_factory.mktemp("ranks")
    with (
        plane(folder) as environment,
        mockers(folder, environment, arguments=("--data-parallel-size", "2")),
        frontend(folder, environment) as url,
    ):
        (instance,) = instance_ids(Path(environment["DYN_FILE_KV"]))
        yield environment, url, (Endpoint("127.0.0.1:1", instance),)


@pytest.fixture
async def joined(served, monkeypatch):
    """This process's place in the deployment."""
    for name, value in served[0].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NATS_STARTUP_CONNECT_TIMEOUT_SECONDS", "2")
    monkeypatch.setenv("ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS", "2")
    runtime = DynamoRuntime.connect(OPTIONS)
    yield runtime
    runtime.shutdown()


async def test_a_prompt_goes_to_the_rank_that_holds_it_and_is_found_there(joined, served):
    _, url, candidates = served
    strategy = DynamoStrategy("dynamo", await router_of(joined, ENDPOINT, ranks=2))
    client = Client(url)
    ranks = set()
    held = []
    for seed in range(6):
        first = await strategy.pick(client.request(ids(seed)), candidates)
        status, answer = await client.send(pinned(first), ids(seed))
        assert (status, cached(answer)) == (200, 0)
        ranks.add(first.request_headers["x-dynamo-dp-rank"])
        held.append(first)  # so that the next prompt goes to the other rank
        second = await picked_with_cache(strategy, client, ids(seed), candidates)
        assert second.request_headers == first.request_headers
        assert cached((await client.send(pinned(second), ids(seed)))[1]) > 0
    for pick in held:
        await pick.finished(Termination.ENDED)
    assert ranks == {"0", "1"}


async def test_a_rank_that_does_not_exist_is_the_front_ends_400(served):
    _, url, (endpoint,) = served
    headers = {"x-dynamo-worker-instance-id": str(endpoint.dynamo_instance_id), "x-dynamo-dp-rank": "2"}
    status, answer = await Client(url).send(headers, ids(1))
    assert (status, answer["message"]) == (400, "dp_rank 2 is out of bounds for dp_size 2")
