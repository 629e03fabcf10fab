"""The reference picker's series on real parts: what is told of a stream depends on what Envoy shows of it."""

import aiohttp
import pytest

from loadtests.stack.chain import Chain, ChainOptions
from loadtests.stack.envoy_config import BodyMode
from tests.integration import metrics

pytestmark = pytest.mark.integration

TOKENS = 12
STREAMS = 3


async def ask(chain: Chain) -> None:
    """Some streams of so many tokens each, with the usage at their end."""
    body = {
        "model": chain.options.model.name,
        "messages": [{"role": "user", "content": "words " * 100}],
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with aiohttp.ClientSession() as session:
        for _ in range(STREAMS):
            async with session.post(f"{chain.url}/v1/chat/completions", json=body) as response:
                assert response.status == 200
                assert (await response.read()).rstrip().endswith(b"data: [DONE]")


async def told(chain: Chain, series: str, **labels: str) -> float:
    url = chain.admin_urls["epp-adapter"]
    assert await metrics.until(url, STREAMS, "llm_d_epp_request_total") == STREAMS
    return metrics.total(url, f"llm_d_epp_{series}", **labels)


@pytest.mark.parametrize("mode", [BodyMode.STREAMED, BodyMode.FULL_DUPLEX_STREAMED])
async def test_of_a_stream_that_is_shown_first_token_gaps_and_tokens_are_told(start_chain, mode):
    # At a real pace, or all pieces come as one.
    pace = ("--speedup-ratio", "1")
    chain = start_chain(ChainOptions(workers=1, epp_response_body=mode, mocker_arguments=pace))
    await ask(chain)
    assert await told(chain, "request_ttft_seconds_count", streaming="true") == STREAMS
    assert await told(chain, "request_streaming_tpot_seconds_count") == STREAMS
    assert await told(chain, "request_output_tokens_sum") == STREAMS * TOKENS
    assert await told(chain, "request_streaming_itl_seconds_count") >= STREAMS
    assert await told(chain, "response_size_bytes_count") == STREAMS
    first, whole = [await told(chain, f"request_{what}_seconds_sum") for what in ("ttft", "duration")]
    gaps = await told(chain, "request_streaming_itl_seconds_sum")
    assert 0 < first < whole
    assert first + gaps <= whole
    assert await told(chain, "request_running") == 0


async def test_of_a_stream_that_is_not_shown_none_of_it_is_made_up(start_chain):
    chain = start_chain(ChainOptions(workers=1))
    await ask(chain)
    assert await told(chain, "request_size_bytes_count") == STREAMS
    for series in ("request_ttft_seconds_count", "request_streaming_itl_seconds_count",
                   "request_output_tokens_count", "response_size_bytes_count"):  # fmt: skip
        assert await told(chain, series) == 0
