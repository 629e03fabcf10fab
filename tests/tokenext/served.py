"""`tokenext serve` as a process, and what Envoy sends it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc.aio
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as ext_proc_grpc

__all__ = ["Process", "send"]


class Process:
    """A running `tokenext serve`."""

    def __init__(self, config: Path) -> None:
        self.config = config
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.admin = f"127.0.0.1:{free.getsockname()[1]}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tokenext", "serve", "--config", str(config), "--admin", self.admin],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        self.address = f"unix:{config.parent}/s"

    def line(self, message: str) -> dict:
        """The next line of the log that tells of this."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if told["message"] == message:
                return told
        raise AssertionError(f"the process ended without {message}")

    def rest(self) -> list[str]:
        """All lines to the end of the process."""
        assert self._process.stdout is not None
        return list(self._process.stdout)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5) as response:
            return response.read().decode()

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self._process.wait(10)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


async def send(channel: grpc.aio.Channel, body: bytes) -> list[ext_proc.ProcessingResponse]:
    """One buffered request as Envoy sends it; both answers."""
    mode = processing_mode_pb2.ProcessingMode
    headers = ext_proc.ProcessingRequest(
        protocol_config=ext_proc.ProtocolConfiguration(request_body_mode=mode.BUFFERED)
    )
    for name, value in {":method": "POST", ":path": "/v1/chat/completions"}.items():
        headers.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    whole = ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(body=body, end_of_stream=True))
    stream = ext_proc_grpc.ExternalProcessorStub(channel).Process()
    answers = []
    for message in (headers, whole):
        await stream.write(message)
        answers.append(await asyncio.wait_for(stream.read(), 10))
    await stream.done_writing()
    return answers
