"""Client -> Envoy -> tokenext -> EPP adapter -> Dynamo worker, on the real parts."""

import asyncio
import json
import uuid

import pytest

from loadtests.stack.chain import Chain, ChainOptions
from tests.integration import metrics
from tests.integration.raw_http import exchange

pytestmark = pytest.mark.integration

LONG = "Tell me about the history of the lighthouse on the northern cape, its keepers and its storms. " * 12


@pytest.fixture(scope="module")
def chain(start_chain) -> Chain:
    record = {
        "record_ids": "%DYNAMIC_METADATA(tokenext:record:tokenIds)%",
        "record_model": "%DYNAMIC_METADATA(tokenext:record:model)%",
    }
    return start_chain(ChainOptions(workers=3, access_log_fields=record))


def chat(chain: Chain, *messages: str, **fields) -> bytes:
    roles = ("user", "assistant")
    history = [{"role": roles[index % 2], "content": text} for index, text in enumerate(messages)]
    body = {"model": chain.options.model.name, "messages": history, "max_tokens": 4, **fields}
    return json.dumps(body).encode()


async def post(chain: Chain, body: bytes, path: str = "/v1/chat/completions", **options):
    """The answer, and what Envoy's access log says of the exchange."""
    request_id = str(uuid.uuid4())
    headers = {"x-request-id": request_id, **options.pop("headers", {})}
    answer = await exchange(f"{chain.url}{path}", body, headers=headers, **options)
    entries = await asyncio.to_thread(chain.access_log.wait_for, [request_id])
    return answer, entries[request_id]


async def test_the_worker_counts_exactly_the_ids_that_were_attached(chain):
    for body, path in (
        (chat(chain, "Hello there."), "/v1/chat/completions"),
        (chat(chain, "Hello.", "Hi, how can I help?", LONG), "/v1/chat/completions"),
        (
            json.dumps({"model": chain.options.model.name, "prompt": LONG, "max_tokens": 4}).encode(),
            "/v1/completions",
        ),
    ):
        answer, entry = await post(chain, body, path)
        assert answer.status == 200, answer.body
        assert entry.token_count
        assert entry.engine_exact
        assert answer.json()["usage"]["prompt_tokens"] == entry.token_count


async def test_metadata_reaches_the_epp_when_the_body_comes_300_ms_after_the_headers(chain):
    admin = chain.admin_urls["epp-adapter"]
    before = metrics.total(admin, "epp_adapter_records_total", outcome="used")
    answer, entry = await post(chain, chat(chain, "A slow client."), pause_seconds=0.3)
    assert answer.status == 200
    assert answer.json()["usage"]["prompt_tokens"] == entry.token_count
    assert await metrics.until(admin, before + 1, "epp_adapter_records_total", outcome="used") == before + 1


async def test_the_ids_are_off_the_metadata_once_they_are_read(chain):
    answer, entry = await post(chain, chat(chain, "Hello there."))
    assert answer.status == 200
    assert entry.token_count
    assert entry.extra == {"record_model": chain.options.model.name}


async def test_a_second_turn_goes_to_the_worker_that_holds_the_prefix(chain):
    for topic in ("bread", "ships", "stars"):
        first, entry = await post(chain, chat(chain, f"{topic}: {LONG}"))
        reply = first.json()["choices"][0]["message"]["content"]
        second, again = await post(chain, chat(chain, f"{topic}: {LONG}", reply, "Go on, please."))
        assert again.upstream == entry.upstream
        assert second.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


async def test_different_conversations_spread_over_the_workers(chain):
    bodies = [chat(chain, f"{uuid.uuid4()} {LONG}", max_tokens=16) for _ in range(9)]
    results = await asyncio.gather(*(post(chain, body) for body in bodies))
    assert {answer.status for answer, _ in results} == {200}
    assert len({entry.upstream for _, entry in results}) == 3


async def test_destination_and_served_endpoint_agree(chain):
    _, entry = await post(chain, chat(chain, "Where do I go?"))
    assert entry.destination
    assert entry.destination.split(",")[0] == entry.upstream


async def test_a_get_without_a_body_passes(chain):
    answer, entry = await post(chain, b"", "/v1/models", method="GET")
    assert answer.status == 200
    assert chain.options.model.name in [model["id"] for model in answer.json()["data"]]
    assert entry.token_count is None


async def test_an_unknown_model_passes_through_to_the_model_servers_own_error(chain):
    body = json.dumps({"model": "nobody", "messages": [{"role": "user", "content": "hi"}]}).encode()
    answer, entry = await post(chain, body)
    assert answer.status == 404
    assert entry.token_count is None
    assert entry.details == "via_upstream"


async def test_invalid_json_is_answered_by_the_model_server(chain):
    answer, entry = await post(chain, b'{"model": ')
    assert answer.status in (400, 422)
    assert entry.details == "via_upstream"


async def test_an_unknown_strategy_is_refused_with_the_names_of_those_there_are(chain):
    answer, _ = await post(chain, chat(chain, "hi"), headers={"x-routing-strategy": "fastest"})
    assert answer.status == 400
    assert answer.json()["error"]["code"] == "unknown_strategy"
    assert "round-robin" in answer.json()["error"]["message"]


async def test_a_client_cannot_pin_a_worker_or_hand_over_ids_of_its_own(chain):
    """A pin to a worker that does not exist would be a 400, and three ids would be counted as three."""
    body = chat(chain, LONG, nvext={"token_data": [1, 2, 3], "backend_instance_id": 1})
    pins = {"x-dynamo-worker-instance-id": "1", "x-worker-instance-id": "1", "x-dynamo-dp-rank": "7"}
    answer, entry = await post(chain, body, headers=pins)
    assert answer.status == 200, answer.body
    assert answer.json()["usage"]["prompt_tokens"] == entry.token_count > 3


async def test_bookings_are_freed_after_answers_aborts_and_errors(chain):
    admin = chain.admin_urls["epp-adapter"]
    stream = chat(chain, LONG, stream=True, max_tokens=400)
    await asyncio.gather(
        *(post(chain, chat(chain, f"{number} {LONG}")) for number in range(5)),
        *(
            exchange(f"{chain.url}/v1/chat/completions", stream, leave_after_seconds=0.02 * number)
            for number in range(10)
        ),
        post(chain, chat(chain, LONG, temperature="hot")),
    )
    assert await metrics.until(admin, 0, "epp_adapter_bookings_active") == 0


async def test_every_listening_port_is_on_loopback(chain):
    processes = {str(process.pid) for process in chain.processes.values()}
    listing = await asyncio.create_subprocess_exec(
        "python3", "-c", LISTENERS, *processes, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await listing.communicate()
    addresses = json.loads(output)
    assert len(addresses) >= 6
    assert [address for address in addresses if not address.startswith("127.")] == []


# Reads /proc, since the processes' own words are what is to be checked.
LISTENERS = r"""
import json, os, sys
wanted = set(sys.argv[1:])
sockets = set()
for pid in os.listdir("/proc"):
    if not pid.isdigit():
        continue
    try:
        parent = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]
        if pid in wanted or parent in wanted:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                link = os.readlink(f"/proc/{pid}/fd/{fd}")
                if link.startswith("socket:["):
                    sockets.add(link[8:-1])
    except OSError:
        pass
found = []
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").read().splitlines()[1:]:
        field = line.split()
        if field[3] == "0A" and field[9] in sockets:
            raw = bytes.fromhex(field[1].split(":")[0])
            found.append(".".join(map(str, raw[::-1])) if len(raw) == 4 else "tcp6:" + raw.hex())
print(json.dumps(found))
"""
