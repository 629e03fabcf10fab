"""Bodies arrive as they were sent, in every mode, whatever their size."""

import hashlib
import random

import pytest

from loadtests.stack.chain import ChainOptions, Upstream
from loadtests.stack.envoy_config import BodyMode
from tests.integration.raw_http import exchange

pytestmark = pytest.mark.integration

SIZES = {"1 B": 1, "1 KB": 1_000, "100 KB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000}
MODES = {
    "buffered, none": (BodyMode.BUFFERED, BodyMode.NONE),
    "buffered, full duplex": (BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED),
    "full duplex, full duplex": (BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED),
    "full duplex, none": (BodyMode.FULL_DUPLEX_STREAMED, BodyMode.NONE),
    "streamed, streamed": (BodyMode.STREAMED, BodyMode.STREAMED),
}


@pytest.fixture(scope="module", params=MODES)
def echo_chain(request, start_chain):
    tokenext_body, epp_body = MODES[request.param]
    return start_chain(
        ChainOptions(workers=1, upstream=Upstream.ECHO, tokenext_body=tokenext_body, epp_body=epp_body)
    )


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/anything"])
async def test_a_body_nobody_rewrites_arrives_byte_for_byte(echo_chain, path, size):
    body = random.Random(size).randbytes(size)
    answer = await exchange(f"{echo_chain.url}{path}", body)
    assert answer.status == 200, answer.body
    report = answer.json()
    assert report["length"] == size
    assert report["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("pause", [0.0, 0.3])
async def test_a_tokenized_body_without_hand_off_arrives_byte_for_byte(echo_chain, pause):
    text = "x y " * 50_000
    body = b'{"messages": [{"role": "user", "content": "%s"}],  "model": "%s"}' % (
        text.encode(),
        echo_chain.options.model.name.encode(),
    )
    answer = await exchange(f"{echo_chain.url}/v1/chat/completions", body, pause_seconds=pause)
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


async def test_a_request_without_a_body_passes(echo_chain):
    answer = await exchange(f"{echo_chain.url}/v1/models", method="GET")
    assert (answer.status, answer.json()["method"]) == (200, "GET")


async def test_a_streamed_response_passes_whole(echo_chain):
    answer = await exchange(f"{echo_chain.url}/anything?sse=5&interval_ms=20", b"{}")
    assert answer.body.count(b"data: ") == 6
    assert answer.body.endswith(b"data: [DONE]\n\n")
