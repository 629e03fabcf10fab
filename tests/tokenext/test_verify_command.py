"""`tokenext verify` against servers that answer as engines do."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tokenext import engine_server
from tests.tokenext.engine_server import Ids, serving
from tokenext.__main__ import main
from tokenext.commands.command import now
from tokenext.declined import Declined
from tokenext.handoff import Handoff
from tokenext.loading import load_model
from tokenext.openai import Api, parse, read_body
from tokenext.settings import ModelSettings


@contextmanager
def engine(*routes: tuple[str, engine_server.Answer]) -> Iterator[str]:
    """A server on a thread of its own, since the command has a loop of its own."""
    started: list[str] = []
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with serving(*routes) as url:
            started.append(url)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def config(tmp_path: Path, model_dir: Path) -> Path:
    return write(tmp_path / "tokenext.yaml", model_dir)


def write(path: Path, model_dir: Path, **fields: object) -> Path:
    model = {"name": "m", "aliases": ["org/M"], "source": str(model_dir), "handoff": "dynamo", **fields}
    path.write_text(json.dumps({"listen": "127.0.0.1:1", "models": [model]}))
    return path


@pytest.fixture
def right(model_dir: Path) -> Ids:
    """The ids that our own model computes, which stand for an engine's."""
    model = load_model(
        ModelSettings("m", str(model_dir), handoff=Handoff.DYNAMO), "m", source="test", now=now
    ).model

    def ids(body: dict) -> list[int]:
        api = Api.COMPLETION if "prompt" in body else Api.CHAT
        text = json.dumps({name: value for name, value in body.items() if name != "nvext"})
        request = parse(api, read_body(text.encode()))
        prompt = model.profile.completion(request) if "prompt" in body else model.profile.chat(request)
        encoded = model.engine.encode(prompt.text, add_special_tokens=prompt.add_special_tokens)
        return encoded.as_array().tolist()

    return ids


def lenient(ids: Ids) -> Ids:
    """What we decline has some ids there, too."""

    def found(body: dict) -> list[int]:
        try:
            return ids(body)
        except Declined:
            return [1]

    return found


def verify(config: Path, url: str | None, *arguments: str) -> int:
    where = [] if url is None else ["--engine", url]
    output = ["--output", str(config.with_name("mismatch.json"))]
    return main(["verify", "--config", str(config), "--model", "m", *where, *output, *arguments])


@pytest.mark.parametrize(
    ("routes", "kind"),
    [
        (engine_server.dynamo, []),
        (engine_server.vllm_render, ["--kind", "vllm"]),
        (engine_server.vllm_tokenize, ["--kind", "vllm"]),
    ],
)
def test_an_engine_that_agrees_is_clean(config, right, capsys, routes, kind):
    with engine(*routes(lenient(right))) as url:
        assert verify(config, url, *kind) == 0
    told = capsys.readouterr().out
    assert "   1  one user message " in told
    assert f"m at {url}: clean: " in told
    assert "mismatch" not in told
    assert not config.with_name("mismatch.json").exists()


def differing(ids: Ids, when: Callable[[dict], bool]) -> Ids:
    return lambda body: [*ids(body), 7] if when(body) else ids(body)


def test_probes_that_agree_are_no_proof_of_a_tokenizer(tmp_path, model_dir, right, capsys):
    config = write(tmp_path / "vllm.yaml", model_dir, handoff="vllm")
    with engine(*engine_server.vllm_tokenize(lenient(right))) as url:
        verify(config, url)
    told = capsys.readouterr().out
    assert "ids are not handed over (tokenizer): " in told
    assert "`tokenext bundle`" in told


def test_a_mismatch_is_in_a_file_and_its_text_nowhere_else(config, right, capsys):
    with engine(*engine_server.dynamo(differing(lenient(right), lambda body: "prompt" in body))) as url:
        assert verify(config, url) == 1
    told = capsys.readouterr()
    path = config.with_name("mismatch.json")
    assert "The smallest mismatch, probe " in told.out
    assert str(path) in told.out
    kept = json.loads(path.read_text())
    assert kept["path"] == "/v1/completions"
    assert kept["theirs"] == [*kept["ours"], 7]
    assert kept["first_difference"] == len(kept["ours"])
    assert json.loads(kept["request"])["prompt"] not in told.out + told.err


def test_an_engine_that_is_not_there_is_one_line(config, capsys):
    assert verify(config, "http://127.0.0.1:9") == 2
    told = capsys.readouterr().err
    assert told.startswith("tokenext: http://127.0.0.1:9 cannot be reached")
    assert told.count("\n") == 1


def test_the_engine_of_the_settings_file_is_asked(config, model_dir, right):
    with engine(*engine_server.dynamo(lenient(right))) as url:
        write(config, model_dir, verify={"engine": url})
        assert verify(config, None) == 0


def test_the_engine_is_asked_by_the_name_it_knows(config, right, capsys):
    asked = set()

    def ids(body: dict) -> list[int]:
        asked.add(body["model"])
        return lenient(right)(body)

    with engine(*engine_server.dynamo(ids)) as url:
        assert verify(config, url, "--model", "org/M") == 0
        assert verify(config, url, "--engine-model", "served") == 0
        assert verify(config, url, "--engine-model", "unknown") == 2
    assert asked == {"org/M", "served"}
    assert "does not know the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "x", "--engine", "http://127.0.0.1:9"], "has no model 'x'; it has m"),
        ([], "--engine is needed: m has no `verify` in the settings file"),
        (["--engine", "127.0.0.1:8000"], "--engine: must be a URL, as in http://127.0.0.1:8000"),
    ],
)
def test_unusable_arguments_are_one_line(config, capsys, arguments, expected):
    assert verify(config, None, *arguments) == 2
    assert capsys.readouterr().err.endswith(f"{expected}\n")
