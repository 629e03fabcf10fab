"""The chain as tests and benchmarks use it, on parts that start fast: echo servers and passing services.

What the real services do in it is tested in tests/integration.
"""

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from loadtests.stack.chain import Chain, ChainOptions, Part, StartError, Upstream
from loadtests.stack.envoy_config import BodyMode
from loadtests.stack.model_source import Model
from loadtests.stack.sse import EventParser

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
PASSING = {"upstream": Upstream.ECHO, "workers": 2, "tokenext": Part.PASSING, "epp": Part.PASSING}


def post(url: str, body: bytes, **headers: str) -> dict:
    request = urllib.request.Request(url, body, {"content-type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def passing(tmp_path_factory):
    options = ChainOptions(**PASSING, tokenext_processes=2)
    with Chain(options, logs=tmp_path_factory.mktemp("passing")) as chain:
        yield chain


def test_every_part_is_a_process_of_its_own(passing):
    assert list(passing.processes) == ["echo-0", "echo-1", "tokenext-0", "tokenext-1", "epp-adapter", "envoy"]
    assert all(process.running for process in passing.processes.values())
    assert all(process.log.parent == passing.logs for process in passing.processes.values())


@pytest.mark.parametrize("size", [0, 1, 1024, 1024 * 1024])
def test_a_body_arrives_byte_identical_through_passing_services(passing, size):
    body = bytes(number % 251 for number in range(size))
    report = post(f"{passing.url}/v1/anything", body)
    assert report["length"] == size
    assert report["sha256"] == hashlib.sha256(body).hexdigest()
    assert report["path"] == "/v1/anything"


def test_a_carrying_service_adds_as_many_bytes_as_ids_would_take(tmp_path):
    options = ChainOptions(**PASSING | {"tokenext": Part.CARRYING})
    body = json.dumps({"text": "word " * 2_000}).encode()
    with Chain(options, logs=tmp_path) as chain:
        report = post(f"{chain.url}/v1/chat/completions", body)
        assert 2.0 * len(body) < report["length"] < 2.3 * len(body)
        assert post(f"{chain.url}/v1/chat/completions", b"")["length"] == 0


def test_the_access_log_tells_who_served_a_request_under_its_own_id(passing):
    post(f"{passing.url}/", b"{}", **{"x-request-id": "my-own-id"})
    entry = passing.access_log.wait_for({"my-own-id"})["my-own-id"]
    assert entry.status == 200
    assert entry.token_count is None
    assert entry.upstream in {endpoint.address for endpoint in passing.endpoints}


async def test_the_echo_server_streams_events_with_delays(passing):
    parser, times, events = EventParser(), [], []
    async with aiohttp.ClientSession() as session:
        url = f"{passing.url}/stream?sse=3&interval_ms=150"
        async with session.post(url, data=b"abc") as response:
            assert response.content_type == "text/event-stream"
            async for chunk in response.content.iter_any():
                new = parser.feed(chunk)
                events += new
                times += [time.monotonic()] * len(new)
    assert json.loads(events[0])["length"] == 3
    assert events[1:] == ['{"event": 1}', '{"event": 2}', "[DONE]"]
    assert times[2] - times[0] > 0.2


def test_the_echo_server_answers_with_the_status_that_was_asked_for(passing):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(f"{passing.url}/?status=418", b"")
    with caught.value as error:
        assert error.code == 418


def test_the_destination_header_picks_an_endpoint_and_its_list_is_walked_when_one_is_dead(tmp_path):
    options = ChainOptions(upstream=Upstream.ECHO, workers=3, tokenext=Part.ABSENT, epp=Part.ABSENT)
    with Chain(options, logs=tmp_path) as chain:
        first, second, third = (endpoint.address for endpoint in chain.endpoints)
        chain.processes["echo-0"].kill()
        served = {}
        for destination in (third, f"{first},{second}", f"{first},{third}", first):
            request_id = f"to {destination}"
            headers = {"x-gateway-destination-endpoint": destination, "x-request-id": request_id}
            post(f"{chain.url}/", b"", **headers)
            served[destination] = chain.access_log.wait_for({request_id})[request_id].upstream
    assert served[third] == third
    assert served[f"{first},{second}"] == second
    assert served[f"{first},{third}"] == third
    assert served[first] in {second, third}


def test_a_dead_epp_is_503_at_once_and_a_restarted_one_serves_again(tmp_path):
    with Chain(ChainOptions(**PASSING), logs=tmp_path) as chain:
        chain.processes["epp-adapter"].kill()
        started = time.monotonic()
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(f"{chain.url}/", b"{}")
        with caught.value as error:
            assert error.code == 503
        assert time.monotonic() - started < 1.0
        chain.restart("epp-adapter")
        assert post(f"{chain.url}/", b"{}")["length"] == 2


def test_dead_tokenizing_services_are_passed_by(passing):
    for name in ("tokenext-0", "tokenext-1"):
        passing.processes[name].kill()
    try:
        assert post(f"{passing.url}/", b"{}")["length"] == 2
    finally:
        for name in ("tokenext-0", "tokenext-1"):
            passing.restart(name)


def test_full_duplex_filters_carry_bodies_too(tmp_path):
    modes = {"tokenext_body": BodyMode.FULL_DUPLEX_STREAMED, "epp_body": BodyMode.FULL_DUPLEX_STREAMED}
    body = b"x" * 300_000
    with Chain(ChainOptions(**PASSING, **modes), logs=tmp_path) as chain:
        assert post(f"{chain.url}/", body)["sha256"] == hashlib.sha256(body).hexdigest()


def test_leaving_the_block_ends_every_process_and_removes_its_sockets(tmp_path):
    with Chain(ChainOptions(**PASSING), logs=tmp_path) as chain:
        pids = [process.pid for process in chain.processes.values()]
        sockets = list(
            Path(chain.processes["tokenext-0"].spec.command[-1].removeprefix("unix:")).parent.iterdir()
        )
        assert sockets
    assert not any(running(pid) for pid in pids)
    assert not any(each.exists() for each in sockets)
    assert (tmp_path / "envoy.json").exists()


def test_a_part_that_cannot_start_is_an_error_with_its_log_and_leaves_nothing(tmp_path):
    chain = Chain(
        ChainOptions(
            model=Model("nothing", tmp_path / "no-model"), upstream=Upstream.ECHO, workers=1, epp=Part.ABSENT
        ),
        logs=tmp_path / "logs",
    )
    with pytest.raises(StartError, match="tokenext-0 ended with exit code"):
        chain.__enter__()
    assert not any(process.running for process in chain.processes.values())


def test_a_chain_needs_a_worker():
    with pytest.raises(ValueError, match="1 or more"):
        ChainOptions(workers=0)


def test_servers_that_run_already_can_be_the_pool_and_are_left_running(tmp_path, passing):
    options = ChainOptions(
        upstream=Upstream.EXTERNAL,
        external=tuple(worker.address for worker in passing.workers),
        tokenext=Part.PASSING,
        access_log_fields={"path": "%REQ(:PATH)%"},
    )
    with Chain(options, logs=tmp_path) as chain:
        assert list(chain.processes) == ["tokenext-0", "epp-adapter", "envoy"]
        assert post(f"{chain.url}/here", b"abc", **{"x-request-id": "external"})["length"] == 3
        entry = chain.access_log.wait_for({"external"})["external"]
    assert entry.upstream in {str(worker.address) for worker in passing.workers}
    assert entry.extra == {"path": "/here"}
    assert all(worker.server.running for worker in passing.workers)


def test_external_servers_need_addresses():
    with pytest.raises(ValueError, match="go together"):
        ChainOptions(upstream=Upstream.EXTERNAL)


async def test_a_chain_can_be_used_from_a_running_event_loop(tmp_path):
    options = ChainOptions(upstream=Upstream.ECHO, workers=1, tokenext=Part.ABSENT, epp=Part.ABSENT)
    with Chain(options, logs=tmp_path) as chain:
        report = await asyncio.to_thread(post, f"{chain.url}/", b"abc")
    assert report["length"] == 3


@contextmanager
def up(logs: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a person's shell starts it; whatever the test finds, it has ended afterwards."""
    command = [sys.executable, "-m", "loadtests.stack", *arguments, "--logs", str(logs)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
        # What a shell starts in the background ignores it, and so would all that such a process starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # one thread
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def test_a_missing_model_is_one_line_and_exit_code_2(tmp_path):
    with up(tmp_path, "demo", "--model", str(tmp_path / "none")) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.splitlines() == [f"error: {tmp_path / 'none'}: no such model directory"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_up_prints_how_to_use_it_and_takes_everything_down_when_told_to(tmp_path, number):
    with up(tmp_path, "up", "--workers", "1") as process:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "Ctrl-C" in line:
                break
        stack = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if str(tmp_path).encode() in _read(path) and path.parent.name != str(process.pid)
        ]
        # Those that name the log folder: Envoy and our services.
        assert len(stack) == 3, "".join(printed) + (process.stderr.read() if process.poll() else "")
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == (0 if number is signal.SIGINT else 128 + number)
    assert any("curl" in line for line in printed)
    assert not any(running(pid) for pid in stack)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
