"""The command line, and one whole process over gRPC."""

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.error import HTTPError

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc import token_metadata
from tests.extproc.certificates import NAME, Files, Issued
from tests.tokenext.served import Process, send
from tokenext.__main__ import main

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


@pytest.fixture
def config(tmp_path: Path, model_dir: Path) -> Path:
    path = tmp_path / "tokenext.yaml"
    write(path, model_dir)
    return path


def write(path: Path, source: Path, *, names: tuple[str, ...] = ("m",), **extra: object) -> None:
    models = [{"name": name, "source": str(source), "handoff": "dynamo"} for name in names]
    path.write_text(json.dumps({"listen": f"unix:{path.parent}/s", "models": models, **extra}))


class TestCommandLine:
    def test_check_tells_what_it_loaded(self, config, capsys):
        assert main(["serve", "--config", str(config), "--check"]) == 0
        told = capsys.readouterr().out
        assert "m: fastokens, agrees with the reference" in told
        assert "hand-off dynamo, sha256:" in told
        assert "  prefix cache on: cuts behind 5 added tokens" in told

    def test_check_tells_that_nothing_is_kept_where_that_is_set(self, config, model_dir, capsys):
        write(config, model_dir, prefix_cache={"budget_bytes": 0})
        assert main(["serve", "--config", str(config), "--check"]) == 0
        assert "  prefix cache off: it has no budget" in capsys.readouterr().out

    @pytest.mark.parametrize("check", [True, False])
    def test_unusable_settings_are_one_line_that_says_where(self, config, model_dir, capsys, check):
        write(config, model_dir, admin="nowhere")
        status = main(["serve", "--config", str(config), *(["--check"] if check else [])])
        assert status == (1 if check else 2)
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err == f"tokenext: {config}: admin: must be host:port, as in 127.0.0.1:9000\n"

    @pytest.mark.parametrize(
        ("content", "problem"),
        [(None, "is missing"), (b"{", "is no usable tokenizer"), (b"", "is no usable")],
    )
    def test_a_model_without_a_sound_tokenizer_does_not_start_and_is_named(
        self, tmp_path, model_dir, capsys, content, problem
    ):
        broken = shutil.copytree(model_dir, tmp_path / "broken")
        (broken / "tokenizer.json").unlink()
        if content is not None:
            (broken / "tokenizer.json").write_bytes(content)
        write(tmp_path / "t.yaml", broken)
        assert main(["serve", "--config", str(tmp_path / "t.yaml")]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(f"tokenext: {broken}/tokenizer.json: {problem}")
        assert told.err.count("\n") == 1

    def test_a_missing_file_is_named(self, capsys):
        assert main(["serve", "--config", "/no/such.yaml"]) == 2
        assert (
            capsys.readouterr().err == "tokenext: /no/such.yaml: cannot be read: No such file or directory\n"
        )

    def test_a_bad_address_on_the_command_line_is_named(self, config, capsys):
        assert main(["serve", "--config", str(config), "--listen", "here"]) == 2
        assert capsys.readouterr().err.startswith("tokenext: --listen: here: must be unix:/path or host:port")

    def test_an_address_in_use_is_an_error_not_a_trace(self, config, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            assert main(["serve", "--config", str(config), "--admin", address]) == 2
        assert capsys.readouterr().err.startswith(f"tokenext: admin: cannot listen on {address}: ")

    @pytest.mark.parametrize("check", [True, False])
    def test_a_certificate_that_is_missing_is_named(self, config, model_dir, capsys, check):
        write(config, model_dir, tls={"listen": "127.0.0.1:0", "certificate": "tls.crt", "key": "tls.key"})
        status = main(["serve", "--config", str(config), *(["--check"] if check else [])])
        assert status == (1 if check else 2)
        told = capsys.readouterr().err
        assert told.startswith(f"tokenext: {config}: tls: the files cannot be used: ")
        assert told.endswith("/tls.crt'\n")

    def test_an_admin_token_that_is_missing_is_named(self, config, model_dir, capsys):
        write(config, model_dir, admin_token_file="token")
        assert main(["serve", "--config", str(config)]) == 2
        told = capsys.readouterr().err
        token = config.parent / "token"
        assert told.startswith(f"tokenext: {config}: admin_token_file: {token} cannot be read: ")

    def test_help_shows_a_settings_file(self, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["serve", "--help"])
        assert caught.value.code == 0
        told = capsys.readouterr().out
        assert "listen: 127.0.0.1:9000" in told
        assert "SIGHUP" in told


@pytest.fixture
def process(config: Path) -> Iterator[Process]:
    process = Process(config)
    try:
        process.line("serving")
        yield process
    finally:
        process.close()


@pytest.fixture
async def channel(process: Process) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(process.address) as channel:
        yield channel


@pytest.mark.integration
async def test_ext_proc_is_served_over_tls_too(config, model_dir):
    files, issued = Files(config.parent), Issued()
    files.write(issued)
    write(config, model_dir, tls={"listen": "127.0.0.1:0", "certificate": "tls.crt", "key": "tls.key"})
    process = Process(config)
    try:
        address = process.line("serving")["tls_address"]
        credentials = grpc.ssl_channel_credentials(issued.certificate)
        named = [("grpc.ssl_target_name_override", NAME)]
        async with grpc.aio.secure_channel(address, credentials, named) as channel:
            _, answer = await send(channel, BODY)
        assert "tokenext" in answer.dynamic_metadata.fields
    finally:
        process.close()


@pytest.mark.integration
async def test_the_log_keeps_to_its_share_of_exchanges(config, model_dir):
    write(config, model_dir, log={"exchange_ratio": 0.5})
    process = Process(config)
    try:
        process.line("serving")
        async with grpc.aio.insecure_channel(process.address) as channel:
            for _ in range(3):
                await send(channel, BODY)
        process.signal(signal.SIGTERM)
        told = [json.loads(line) for line in process.rest()]
        assert [line["message"] for line in told] == ["exchange", "stopped"]
        assert {"time", "level", "logger", "message", "outcome", "microseconds"} <= told[0].keys()
    finally:
        process.close()


@pytest.mark.integration
def test_an_admin_port_with_a_token_answers_nobody_else(config, model_dir):
    (config.parent / "token").write_text("s3cret")
    write(config, model_dir, admin_token_file="token")
    process = Process(config)
    try:
        process.line("serving")
        with pytest.raises(HTTPError, match="401"):
            process.metrics()
    finally:
        process.close()


@pytest.mark.integration
class TestServing:
    async def test_a_request_is_tokenized_counted_and_logged(self, process, channel):
        _, answer = await send(channel, BODY)
        metadata = json_format.MessageToDict(answer.dynamic_metadata)
        record = token_metadata.decode(metadata["tokenext"]["record"])
        body = answer.request_body.response.body_mutation.body
        assert json.loads(body)["nvext"]["token_data"] == record.token_ids.as_array().tolist()
        told = await asyncio.to_thread(process.line, "exchange")
        assert (told["model"], told["outcome"]) == ("m", "tokenized")
        metrics = await asyncio.to_thread(process.metrics)
        assert 'tokenext_requests_total{model="m",outcome="tokenized",reason=""} 1.0' in metrics
        assert "tokenext_queue_requests 0.0" in metrics

    async def test_it_is_ready_when_its_models_are_loaded(self, process, channel):
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="readiness"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async def test_a_reload_brings_new_models_and_a_bad_one_changes_nothing(
        self, process, channel, model_dir
    ):
        other = BODY.replace(b'"m"', b'"n"')
        assert not (await send(channel, other))[1].HasField("dynamic_metadata")
        write(process.config, model_dir, names=("m", "n"))
        process.signal(signal.SIGHUP)
        await asyncio.to_thread(process.line, "reloaded")
        assert (await send(channel, other))[1].HasField("dynamic_metadata")
        process.config.write_text("models: 3")
        process.signal(signal.SIGHUP)
        told = await asyncio.to_thread(process.line, "reload_failed")
        assert told["problem"].startswith(f"{process.config}: ")
        assert (await send(channel, other))[1].HasField("dynamic_metadata")
        metrics = await asyncio.to_thread(process.metrics)
        assert 'tokenext_reloads_total{outcome="failed"} 1.0' in metrics
        assert 'tokenext_reloads_total{outcome="loaded"} 1.0' in metrics

    async def test_a_prompt_that_was_seen_is_not_encoded_again_not_even_after_a_reload(
        self, process, channel
    ):
        message = {"role": "user", "content": "Once upon a time, " * 200}
        body = json.dumps({"model": "m", "messages": [message]}).encode()
        first = (await send(channel, body))[1].dynamic_metadata
        process.signal(signal.SIGHUP)
        await asyncio.to_thread(process.line, "reloaded")
        assert (await send(channel, body))[1].dynamic_metadata == first
        metrics = await asyncio.to_thread(process.metrics)
        assert 'tokenext_prefix_cache_lookups_total{outcome="miss"} 1.0' in metrics
        assert 'tokenext_prefix_cache_lookups_total{outcome="hit"} 1.0' in metrics

    async def test_it_stops_when_told_to(self, process):
        assert await asyncio.to_thread(process.stop) == 0
        assert process.line("stopped").keys() == {"time", "level", "logger", "message"}
