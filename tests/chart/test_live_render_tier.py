"""tokenext alone, as the chart renders it, gives its ids to pickers that are not the chart's, on loopback."""

import asyncio
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from extproc.token_metadata import TokenRecord
from extproc.tokenization import Prompt
from extproc.tokenization_client import TokenizationClient
from tests.chart.live import HERE, MODEL, live_tier, local

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "How far is it to the hut?"}]})


def told(release, folder, pattern):
    """What NOTES tell a picker's owner, as an address on loopback."""
    (found,) = re.findall(pattern, local(release.notes, folder), re.MULTILINE)
    return found


def rendered(url, body=BODY):
    """Status and document of one chat's render."""
    request = urllib.request.Request(
        f"{url}/v1/chat/completions/render", body.encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def ids_by_grpc(address):
    async with TokenizationClient(address) as tokenext:
        prompt = Prompt("/v1/chat/completions", BODY.encode())
        (answer,) = await tokenext.tokenize([prompt], deadline_seconds=30)
    assert isinstance(answer, TokenRecord), answer
    return list(answer.token_ids.as_array())


async def test_whoever_asks_where_the_notes_say_gets_the_same_ids_over_http_and_grpc(tmp_path):
    async with live_tier(tmp_path, {}) as release:
        url = told(release, tmp_path, r"DYN_EPP_VLLM_RENDER_URL=(\S+)$")
        assert url == told(release, tmp_path, r'vllm: {url: "(\S+)"}')
        status, document = await asyncio.to_thread(rendered, url)
        assert status == 200
        assert document["model"] == MODEL
        assert len(document["token_ids"]) > 5
        address = told(release, tmp_path, r"^ +(127\.0\.0\.1:\d+)$")
        assert await ids_by_grpc(address) == document["token_ids"]
        assert (await asyncio.to_thread(rendered, url, BODY.replace(MODEL, "another")))[0] == 404


async def test_the_helm_test_of_the_tier_passes_while_it_serves_and_fails_when_it_does_not(tmp_path):
    def helm_test(release):
        (container,) = release.one("Pod", "-test")["spec"]["containers"]
        (script,) = container["args"]
        return subprocess.run(
            [sys.executable, "-c", local(script, tmp_path)],
            env=HERE,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    async with live_tier(tmp_path, {}) as release:
        ran = await asyncio.to_thread(helm_test, release)
        assert ran.returncode == 0, ran.stderr
        assert re.search(r"^[1-9]\d* token ids$", ran.stdout, re.MULTILINE), ran.stdout
    assert (await asyncio.to_thread(helm_test, release)).returncode != 0
