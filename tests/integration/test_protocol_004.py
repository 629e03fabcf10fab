"""Endpoint Picker Protocol 004 on real Envoy, in every mode that a gateway may run the picker in.

Envoy turns the header x-test-subset into the gateway's subset hint, as gateways do with their own knowledge.
"""

import hashlib
import io
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from extproc import wellknown
from loadtests.stack import envoy_binary, services
from loadtests.stack.envoy_config import (
    AccessLog,
    BodyMode,
    EnvoyOptions,
    StaticPool,
    TcpAddress,
    UnixAddress,
    epp_filter,
    render,
)
from loadtests.stack.probes import LOOPBACK, free_ports, http_answers
from loadtests.stack.processes import ProcessSpec, Supervisor
from tests.integration import metrics

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
SUBSET = "x-test-subset"
MODES = list(BodyMode)
# Where the picker holds the whole body before it answers.
HOLDING = (BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED)


@dataclass
class Gateway:
    url: str
    endpoints: list[str]
    supervisor: Supervisor
    admin: str
    asked: int = 0

    @property
    def log(self) -> str:
        return (self.supervisor.logs / "epp-adapter.log").read_text()


def bootstrap(options: EnvoyOptions) -> str:
    """With a filter before all others that reads the hint from a header."""
    document = json.loads(render(options))
    manager = document["staticResources"]["listeners"][0]["filterChains"][0]["filters"][0]["typedConfig"]
    hint = {
        "metadataNamespace": wellknown.SUBSET_NAMESPACE,
        "key": wellknown.SUBSET_KEY,
        "type": "STRING",
    }
    api = "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config"
    rules = [{"header": SUBSET, "onHeaderPresent": hint, "remove": True}]
    manager["httpFilters"].insert(0, {"name": "hint", "typedConfig": {"@type": api, "requestRules": rules}})
    return json.dumps(document)


@contextmanager
def gateway(folder: Path, body: BodyMode, response_body: BodyMode, settings):
    *ports, listen, envoy_admin, admin = free_ports(6)
    addresses = [TcpAddress(LOOPBACK, port) for port in ports]
    socket = UnixAddress(str(folder / "e.sock"))
    with Supervisor(folder) as supervisor:
        for port in ports:
            command = (sys.executable, "-m", "tests.integration.model_upstream", "--port", str(port))
            spec = ProcessSpec(
                f"upstream-{port}",
                command,
                env={"PYTHONPATH": str(REPOSITORY)},
                ready=http_answers(f"http://{LOOPBACK}:{port}/"),
            )
            supervisor.start(spec)
        services.write_endpoints(
            folder / "endpoints.yaml", [services.Endpoint(str(address)) for address in addresses]
        )
        supervisor.start(
            services.epp_adapter(
                folder, socket, admin, folder / "endpoints.yaml", dynamo_env=None, settings=settings
            )
        )
        options = EnvoyOptions(
            listen=TcpAddress(LOOPBACK, listen),
            admin=TcpAddress(LOOPBACK, envoy_admin),
            pool=StaticPool(tuple(addresses)),
            filters=(epp_filter((socket,), request_body=body, response_body=response_body),),
            access_log=AccessLog(str(folder / "access.log")),
        )
        config = folder / "envoy.json"
        config.write_text(bootstrap(options))
        command = envoy_binary.command(envoy_binary.find(), config, worker_threads=1)
        ready = http_answers(f"http://{LOOPBACK}:{envoy_admin}/ready")
        supervisor.start(ProcessSpec("envoy", command, ready=ready))
        supervisor.wait_ready(supervisor.processes.values(), deadline_seconds=40)
        yield Gateway(
            f"http://{LOOPBACK}:{listen}",
            [str(each) for each in addresses],
            supervisor,
            f"http://{LOOPBACK}:{admin}",
        )


@pytest.fixture(scope="module", params=MODES, ids=str)
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def started(mode, tmp_path_factory):
    """Three servers; the picker names two fallbacks and knows the conformance suite's headers."""
    settings = {"conformance": True, "destination_fallbacks": 2}
    # Where the request's body is seen, the response's is too.
    response = BodyMode.NONE if mode is BodyMode.NONE else mode
    with gateway(tmp_path_factory.mktemp("gateway"), mode, response, settings) as running:
        yield running


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def seen(self):
        return json.loads(self.body)["seen"]


async def ask(running: Gateway, headers=None, body=b'{"model": "food"}', method="POST") -> Answer:
    running.asked += 1
    data = None if body is None else io.BytesIO(body)
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.request(
            method, f"{running.url}/v1/completions", data=data, headers=headers or {}
        ) as response,
    ):
        return Answer(
            response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read()
        )


async def test_who_is_named_first_serves_and_the_others_are_its_fallbacks(started):
    answer = await ask(started)
    destination = answer.seen["headers"]["x-gateway-destination-endpoint"].split(",")
    assert sorted(destination) == sorted(started.endpoints)
    assert answer.headers["x-conformance-test-served-endpoint"] == destination[0]
    assert answer.headers["x-conformance-test-selected-endpoint"] == ",".join(destination)
    assert answer.headers["x-went-into-resp-headers"] == "true"


async def test_the_gateways_hint_limits_the_choice_by_ip_and_port_or_list(started):
    one, two, three = started.endpoints
    for hint, allowed in ((two, {two}), (f"{one}, {three}", {one, three}), ("127.0.0.1", {one, two, three})):
        served = {
            (await ask(started, {SUBSET: hint})).headers["x-conformance-test-served-endpoint"]
            for _ in range(4)
        }
        assert served <= allowed


async def test_a_request_without_a_body_is_routed_by_the_hint_too(started):
    two = started.endpoints[1]
    answer = await ask(started, {SUBSET: two}, body=None, method="GET")
    assert answer.seen["method"] == "GET"
    assert answer.headers["x-conformance-test-served-endpoint"] == two


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("hint", ["10.9.9.9:1", "nonsense", ","])
async def test_a_hint_that_allows_nobody_is_503_with_the_reason(started, hint, method):
    answer = await ask(started, {SUBSET: hint}, body=b"{}" if method == "POST" else None, method=method)
    assert answer.status == 503
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert json.loads(answer.body)["error"]["code"] == "no_ready_endpoint"


async def test_an_unknown_strategy_is_400_and_lists_the_names(started):
    answer = await ask(started, {"x-routing-strategy": "unheard-of"})
    assert answer.status == 400
    assert "round-robin" in json.loads(answer.body)["error"]["message"]


async def test_control_headers_do_not_reach_the_server_and_a_request_id_does(started):
    sent = dict.fromkeys((*wellknown.CHAIN_OWNED_HEADERS, *wellknown.PICKER_HEADERS), "10.0.0.1:1")
    del sent["x-routing-strategy"], sent["x-llm-d-model-name-rewrite"], sent["x-gateway-model-name-rewrite"]
    answer = await ask(started, sent)
    assert answer.status == 200
    seen = answer.seen["headers"]
    assert set(seen) & set(sent) == {"x-gateway-destination-endpoint"}
    assert "10.0.0.1" not in seen["x-gateway-destination-endpoint"]
    assert len(seen["x-request-id"]) == 36


async def test_the_conformance_suite_steers_the_choice(started):
    for endpoint in started.endpoints:
        answer = await ask(started, {"test-epp-endpoint-selection": endpoint})
        assert answer.headers["x-conformance-test-served-endpoint"] == endpoint
        assert "test-epp-endpoint-selection" not in answer.seen["headers"]


@pytest.mark.parametrize("size", [0, 1, 61_999, 62_001, 3_000_000])
async def test_bodies_of_any_size_arrive_whole(started, size):
    body = bytes(index * 7 % 251 for index in range(size))
    seen = (await ask(started, body=body)).seen
    assert (seen["length"], seen["sha256"]) == (size, hashlib.sha256(body).hexdigest())


async def test_a_clients_wish_for_another_model_is_granted_or_refused_with_the_reason(started, mode):
    headers = {"x-gateway-model-name-rewrite": "older", "x-llm-d-model-name-rewrite": "lora-8"}
    answer = await ask(started, headers)
    if mode in HOLDING:
        assert answer.seen["says"] == 'my "model": "lora-8"'
        assert json.loads(answer.body)["model"] == "food"
    else:
        assert answer.status == 400
        assert "request_body_mode" in json.loads(answer.body)["error"]["message"]


async def test_events_pass_and_their_usage_is_counted_where_bodies_are_seen(started, mode):
    # A client has its answer a moment before the picker has counted it: all earlier ones must be in.
    asked = started.asked
    assert await metrics.until(started.admin, asked, "epp_adapter_requests_total") == asked
    before = metrics.total(started.admin, "epp_adapter_usage_tokens_total", kind="prompt")
    headers = {"x-llm-d-model-name-rewrite": "lora-8"} if mode in HOLDING else {}
    answer = await ask(started, headers, json.dumps({"model": "food", "stream": True, "n": 20}).encode())
    events = [line[6:] for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    documents = [json.loads(event) for event in events[:-1]]
    assert [document["model"] for document in documents] == ["food"] * 21
    assert [document.get("number") for document in documents] == [*range(20), None]
    counted = 0 if mode is BodyMode.NONE else 11
    assert (
        await metrics.until(started.admin, before + counted, "epp_adapter_usage_tokens_total", kind="prompt")
        == before + counted
    )


async def test_the_next_of_the_list_serves_where_the_first_is_gone_and_that_is_counted(started):
    """Last of its mode: it takes a server away."""
    gone = started.endpoints[0]
    port = gone.rpartition(":")[2]
    started.supervisor.processes[f"upstream-{port}"].kill()
    answers = [await ask(started) for _ in range(12)]
    assert {answer.status for answer in answers} == {200}
    assert gone not in {answer.headers["x-conformance-test-served-endpoint"] for answer in answers}
    assert metrics.total(started.admin, "epp_adapter_served_total", endpoint="fallback") == 1
    assert metrics.total(started.admin, "epp_adapter_endpoint_failures_total", reason="bypassed") == 1


RULES = {"model_rewrites": [{"models": ["food"], "targets": [{"model": "lora-7"}]}]}


class TestConfiguredRewriting:
    """Rules need both bodies; a filter that does not show them ends the stream and names its setting."""

    @pytest.mark.parametrize("body", HOLDING)
    async def test_the_server_gets_one_name_and_the_client_the_other(self, tmp_path, body):
        with gateway(tmp_path, body, body, RULES) as running:
            answer = await ask(running)
            assert answer.seen["says"] == 'my "model": "lora-7"'
            assert json.loads(answer.body)["model"] == "food"
            assert (await ask(running, body=b'{"model": "other"}')).seen["says"] == 'my "model": "other"'

    @pytest.mark.parametrize(
        ("body", "response", "setting"),
        [
            (BodyMode.NONE, BodyMode.NONE, "request_body_mode"),
            (BodyMode.STREAMED, BodyMode.STREAMED, "request_body_mode"),
            (BodyMode.BUFFERED, BodyMode.NONE, "response_body_mode"),
        ],
    )
    async def test_a_mode_that_cannot_serve_them_is_refused(self, tmp_path, body, response, setting):
        with gateway(tmp_path, body, response, RULES) as running:
            assert (await ask(running)).status == 503
            assert f"processing_mode.{setting}" in running.log
            assert (await ask(running, body=None, method="GET")).status == 200
