"""The worker does not tokenize: ids that disagree with the text are the ones it counts."""

import json

import aiohttp
import pytest

from loadtests.stack.chain import ChainOptions
from tests.integration.raw_http import exchange

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def misled_chain(start_chain, tmp_path_factory):
    """A chain whose tokenext renders by another template than the worker's front end has."""
    template = tmp_path_factory.mktemp("template") / "other.jinja"
    template.write_text("{% for message in messages %}{{ message.content * 3 }}{% endfor %}")
    plain = ChainOptions()
    model = {
        "name": plain.model.name,
        "source": str(plain.model.folder),
        "handoff": "dynamo",
        "chat_template": str(template),
    }
    return start_chain(ChainOptions(workers=1, tokenext_settings={"models": [model]}))


async def test_the_worker_runs_on_our_ids_and_not_on_the_text(misled_chain):
    body = {
        "model": misled_chain.options.model.name,
        "messages": [{"role": "user", "content": "one two three four five"}],
        "max_tokens": 4,
    }
    through = await exchange(f"{misled_chain.url}/v1/chat/completions", json.dumps(body).encode())
    assert through.status == 200, through.body
    worker = misled_chain.workers[0]
    pin = {"x-dynamo-worker-instance-id": str(worker.instance_id)}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{worker.address}/v1/chat/completions", json=body, headers=pin) as past_us,
    ):
        own = (await past_us.json())["usage"]["prompt_tokens"]
    ours = through.json()["usage"]["prompt_tokens"]
    assert ours != own
    (record,) = [entry for entry in misled_chain.access_log.entries() if entry.token_count]
    assert record.token_count == ours
