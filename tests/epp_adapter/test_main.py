"""`epp-adapter` as its users meet it: a process, its exit code, what it prints and what it serves."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import RFC_4122, UUID

import grpc.aio
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as ext_proc_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epp_adapter.__main__ import _random_uuid, main
from extproc.events import BodyMode
from extproc.token_metadata import Kind, TokenIds, TokenRecord, encode
from tests.epp_adapter.dynamo_stack import BLOCK_SIZE, ENDPOINT, deployment, process
from tests.extproc.envoy_messages import (
    header_changes,
    metadata_of,
    request_headers,
    response_headers,
    response_trailers,
    with_metadata,
    with_modes,
)

START_SECONDS = 20.0
ENDPOINTS = "endpoints:\n- {address: 127.0.0.1:8001}\n- {address: 127.0.0.1:8002}\n"
ROUND_ROBIN = """\
listen: 127.0.0.1:9002
endpoints: {file: endpoints.yaml, poll_seconds: 0.05}
strategies: {round-robin: {kind: round-robin}}
default_strategy: round-robin
drain_seconds: 1
"""
DYNAMO = f"""\
listen: 127.0.0.1:9002
endpoints: {{file: endpoints.yaml, poll_seconds: 0.05}}
strategies:
  dynamo: {{kind: dynamo, endpoint: {ENDPOINT}, block_size: {BLOCK_SIZE}, discovery: file,
            connect_seconds: 2}}
  round-robin: {{kind: round-robin}}
default_strategy: dynamo
fallback: [round-robin]
drain_seconds: 1
"""


@pytest.fixture
def config(tmp_path):
    """A settings file beside its endpoints file; write other text into either to break it."""
    (tmp_path / "endpoints.yaml").write_text(ENDPOINTS)
    path = tmp_path / "epp.yaml"
    path.write_text(ROUND_ROBIN)
    return path


def test_check_says_ok_and_serves_nothing(config, capsys):
    assert main(["serve", "--config", str(config), "--check"]) == 0
    assert capsys.readouterr().out == f"{config}: ok, 1 strategies, 2 endpoints\n"


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_mistake_in_the_settings_is_one_line_and_exit_code_2(config, capsys, check):
    config.write_text(ROUND_ROBIN + "fallbak: []\n")
    assert main(["serve", "--config", str(config), *check]) == 2
    error = capsys.readouterr().err
    assert error == f"epp-adapter: {config}: Object contains unknown field `fallbak`\n"


@pytest.mark.parametrize("check", [[], ["--check"]])
@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("admin_token_file: token", "admin_token_file: {folder}/token cannot be read: No such file"),
        ("tls: {listen: 127.0.0.1:0, certificate: c, key: k}", "tls: the files cannot be used: "),
        (
            "tokenization: {address: 127.0.0.1:1, tls: {ca: ca.crt}}",
            "tokenization.tls: the files cannot be used: ",
        ),
    ],
)
def test_a_file_that_settings_name_and_that_is_missing_ends_the_start(config, capsys, check, more, problem):
    config.write_text(ROUND_ROBIN + more)
    assert main(["serve", "--config", str(config), *check]) == 2
    told = capsys.readouterr().err
    assert f"epp-adapter: {config}: {problem.format(folder=config.parent)}" in told


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_mistake_in_the_endpoints_file_is_one_line_and_exit_code_2(config, capsys, check):
    endpoints = config.parent / "endpoints.yaml"
    endpoints.write_text("endpoints: [{address: worker:80}]")
    assert main(["serve", "--config", str(config), *check]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"epp-adapter: {endpoints}: endpoints[0].address: is not ip:port")


def test_help_shows_a_settings_file_that_check_accepts(config, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    shown = text.partition("A settings file:\n")[2].partition("Its endpoints file:")
    config.write_text(shown[0])
    (config.parent / "endpoints.yaml").write_text(shown[2].partition("options:")[0])
    assert main(["serve", "--config", str(config), "--check"]) == 0
    assert capsys.readouterr().out.endswith("ok, 3 strategies, 2 endpoints\n")
    for variable in ("NATS_SERVER", "DYN_FILE_KV", "DYN_ROUTER_ACTIVE_REQUEST_EXPIRY_SECS"):
        assert variable in text


@dataclass
class Served:
    """A running `epp-adapter serve`."""

    running: "subprocess.Popen[bytes]"
    channel: grpc.aio.Channel
    log: Path

    def stream(self):
        return ext_proc_grpc.ExternalProcessorStub(self.channel).Process()

    def lines(self) -> list[dict]:
        """The JSON lines so far; Dynamo's own lines are none of ours."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    async def metric(self, sample: str) -> float:
        (address,) = [line["message"].split()[-1] for line in self.lines() if "metrics on" in line["message"]]

        def read() -> str:
            with urlopen(f"http://{address}/metrics") as answer:
                return answer.read().decode()

        for line in (await asyncio.to_thread(read)).splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        raise KeyError(sample)


@asynccontextmanager
async def served(config: Path, environment=None):
    socket = f"unix:{config.parent}/epp.sock"
    log = config.parent / "epp.log"
    command = [sys.executable, "-m", "epp_adapter", "serve", "--config", str(config)]
    with process([*command, "--listen", socket, "--admin", "127.0.0.1:0"], log, environment or {}) as running:
        async with grpc.aio.insecure_channel(socket) as channel:
            await ready(channel, running, log)
            yield Served(running, channel, log)


async def ready(channel, running, log: Path) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check
    async with asyncio.timeout(START_SECONDS):
        while running.poll() is None:
            try:
                answer = await check(health_pb2.HealthCheckRequest(service="readiness"))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise AssertionError(await asyncio.to_thread(log.read_text))


def headers_message(token_ids: TokenIds | None = None, **headers):
    values = {":method": "POST", ":path": "/v1/chat/completions"} | headers
    message = with_modes(request_headers(values), BodyMode.NONE)
    if token_ids is not None:
        record = TokenRecord("tiny", "sha256:0", token_ids, Kind.CHAT, engine_exact=True)
        with_metadata(message, "tokenext", {"record": encode(record)})
    return message


def test_minted_ids_are_uuids_and_never_the_same_twice():
    source = Random(1)
    minted = [UUID(_random_uuid(source)) for _ in range(1000)]
    assert {(each.version, each.variant) for each in minted} == {(4, RFC_4122)}
    assert len(set(minted)) == 1000


async def routed(call, message) -> tuple[str, object]:
    """Send the request; the destination, which header and metadata agree on, and the header changes."""
    await call.write(message)
    reply = await call.read()
    changes = header_changes(reply)
    destination = changes.set["x-gateway-destination-endpoint"]
    assert metadata_of(reply)["envoy.lb"] == {"x-gateway-destination-endpoint": destination}
    return destination, changes


async def answered(call) -> None:
    """The rest of the exchange, as Envoy sends it in response mode SEND / NONE / SEND."""
    for message in (response_headers(), response_trailers()):
        await call.write(message)
        await call.read()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


@pytest.mark.integration
class TestRoundRobin:
    async def test_requests_are_routed_in_turn_logged_and_counted(self, config):
        async with served(config) as epp:
            destinations = []
            for _ in range(4):
                call = epp.stream()
                destination, changes = await routed(call, headers_message())
                assert "x-request-id" in changes.set
                await answered(call)
                destinations.append(destination)
            assert destinations == ["127.0.0.1:8001", "127.0.0.1:8002"] * 2
            sample = 'epp_adapter_requests_total{outcome="routed",strategy="round-robin"}'
            assert await epp.metric(sample) == 4
            assert await epp.metric('epp_adapter_records_total{outcome="absent",source="metadata"}') == 4
            assert await epp.metric("epp_adapter_ready_endpoints") == 2
            exchanges = [line for line in epp.lines() if line["message"] == "exchange"]
            assert [line["destination"] for line in exchanges] == destinations
            assert {line["response_status"] for line in exchanges} == {200}

    async def test_the_log_keeps_to_its_level_and_its_share(self, config):
        config.write_text(ROUND_ROBIN + "log: {level: warning, exchange_ratio: 0.5}\n")
        async with served(config) as epp:
            await routed(epp.stream(), headers_message())
            (config.parent / "endpoints.yaml").write_text("endpoints: []")
            async with asyncio.timeout(5):
                while not (lines := [each for each in epp.lines() if each["message"] == "exchange"]):
                    call = epp.stream()
                    await call.write(headers_message())
                    await call.read()
                    await call.done_writing()
                    await call.read()
            assert {each["level"] for each in epp.lines()} == {"warning"}
            assert lines[0]["outcome"] == "refused_no_endpoint"

    async def test_an_admin_port_with_a_token_answers_nobody_else(self, config):
        (config.parent / "token").write_text("s3cret")
        config.write_text(ROUND_ROBIN + "admin_token_file: token\n")
        async with served(config) as epp:
            with pytest.raises(HTTPError, match="401"):
                await epp.metric("epp_adapter_ready_endpoints")

    async def test_a_changed_endpoints_file_is_followed_and_a_bad_one_is_not(self, config):
        async with served(config) as epp:
            endpoints = config.parent / "endpoints.yaml"
            endpoints.write_text("endpoints: [{address: 127.0.0.1:8009}]")
            await self.until(epp, 'epp_adapter_reloads_total{outcome="applied"}', 1)
            assert (await routed(epp.stream(), headers_message()))[0] == "127.0.0.1:8009"
            endpoints.write_text("endpoints: [{address: nowhere}]")
            await self.until(epp, 'epp_adapter_reloads_total{outcome="refused"}', 1)
            assert (await routed(epp.stream(), headers_message()))[0] == "127.0.0.1:8009"

    @staticmethod
    async def until(epp, sample, value):
        async with asyncio.timeout(5):
            while await epp.metric(sample) != value:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.02)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_ends_it_with_exit_code_0(self, config, number):
        async with served(config) as epp:
            epp.running.send_signal(number)
            assert await asyncio.to_thread(epp.running.wait, 5) == 0
            assert "Traceback" not in epp.log.read_text()

    async def test_an_open_exchange_ends_before_the_process_does(self, config):
        async with served(config) as epp:
            call = epp.stream()
            await routed(call, headers_message())
            epp.running.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            await answered(call)
            assert await asyncio.to_thread(epp.running.wait, 5) == 0
            assert epp.lines()[-1]["termination"] == "ended"

    def test_an_address_that_is_taken_is_one_line_and_exit_code_1(self, config):
        command = [sys.executable, "-m", "epp_adapter", "serve", "--config", str(config)]
        done = subprocess.run(
            [*command, "--listen", "192.0.2.1:1"], capture_output=True, timeout=START_SECONDS, check=False
        )
        assert done.returncode == 1
        assert b"epp-adapter: cannot listen on 192.0.2.1:1" in done.stderr
        assert b"Traceback" not in done.stderr


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    with deployment(tmp_path_factory.mktemp("dynamo"), workers=2) as running:
        yield running


def instance_ids(discovery: Path) -> list[int]:
    """Dynamo's file discovery keeps a JSON file for each endpoint of each running worker."""
    files = discovery.glob("v1/instances/*")
    return sorted({json.loads(file.read_text())["instance_id"] for file in files})


@pytest.mark.integration
class TestDynamo:
    @pytest.fixture
    def configured(self, config, deployed):
        config.write_text(DYNAMO)
        instances = instance_ids(Path(deployed.environment["DYN_FILE_KV"]))
        assert len(instances) == deployed.workers
        entries = [
            f'- {{address: 127.0.0.1:{8001 + number}, dynamo_instance_id: "{instance}"}}'
            for number, instance in enumerate(instances)
        ]
        (config.parent / "endpoints.yaml").write_text("endpoints:\n" + "\n".join(entries))
        return {f"127.0.0.1:{8001 + number}": str(instance) for number, instance in enumerate(instances)}

    async def test_a_request_with_ids_is_picked_by_dynamo_and_pinned(self, config, configured, deployed):
        async with served(config, deployed.environment) as epp:
            call = epp.stream()
            destination, changes = await routed(call, headers_message(TokenIds.pack(list(range(320)))))
            assert changes.set["x-dynamo-worker-instance-id"] == configured[destination]
            assert changes.set["x-dynamo-dp-rank"] == "0"
            assert await epp.metric("epp_adapter_bookings_active") == 1
            await answered(call)
            assert await epp.metric("epp_adapter_bookings_active") == 0
            (line,) = [line for line in epp.lines() if line["message"] == "exchange"]
            assert (line["strategy"], line["token_count"]) == ("dynamo", 320)

    async def test_a_request_without_ids_falls_back_and_is_pinned_too(self, config, configured, deployed):
        async with served(config, deployed.environment) as epp:
            destination, changes = await routed(epp.stream(), headers_message())
            assert changes.set["x-dynamo-worker-instance-id"] == configured[destination]
            sample = 'epp_adapter_fallbacks_total{reason="no_token_ids",strategy="dynamo"}'
            assert await epp.metric(sample) == 1

    async def test_clients_that_leave_give_their_bookings_back(self, config, configured, deployed):
        async with served(config, deployed.environment) as epp:
            calls = [epp.stream() for _ in range(20)]
            for number, call in enumerate(calls):
                await call.write(headers_message(TokenIds.pack([number] * 640)))
                if number % 2:
                    await call.read()
            for call in calls:
                call.cancel()
            async with asyncio.timeout(5):
                while await epp.metric("epp_adapter_bookings_active"):  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(0.02)
            assert epp.running.poll() is None

    async def test_a_signal_ends_it_quickly_though_dynamo_has_threads(self, config, configured, deployed):
        async with served(config, deployed.environment) as epp:
            await routed(epp.stream(), headers_message(TokenIds.pack([5] * 64)))
            epp.running.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(epp.running.wait, 8) == 0
            exchanges = [line for line in epp.lines() if line["message"] == "exchange"]
            assert [line["outcome"] for line in exchanges] == ["routed"], "the open exchange was closed too"

    def test_without_nats_it_says_so_in_one_line_and_exits_with_1(self, config, configured, deployed):
        environment = {**os.environ, **deployed.environment, "NATS_SERVER": "nats://127.0.0.1:9"}
        command = [sys.executable, "-m", "epp_adapter", "serve", "--config", str(config)]
        done = subprocess.run(
            command, capture_output=True, env=environment, timeout=START_SECONDS, check=False
        )
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if line.startswith(b"epp-adapter: ")]
        assert b"cannot join Dynamo" in line
        assert b"NATS startup connection timed out" in line
        assert b"Traceback" not in done.stderr
