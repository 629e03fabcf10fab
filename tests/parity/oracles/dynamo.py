"""NVIDIA Dynamo as the oracle: its own front end, asked for the ids it would send to a worker.

The annotation `query_instance_id:` makes the front end answer with `nvext.token_ids` and a worker, without
any inference. It wants the KV router and a worker that is registered: one mocker for each model. Events go
over NATS, since with ZMQ the mocker listens on all interfaces whatever it is told.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from loadtests.stack.dynamo_parts import BLOCK_SIZE, DynamoPlane, nats
from loadtests.stack.probes import LOOPBACK, free_ports, http_answers
from loadtests.stack.processes import ProcessSpec, StartError, Supervisor
from tests.parity.corpus.case import Case
from tests.parity.fetch import CACHE
from tests.parity.models import ParityModel
from tests.parity.oracles import Answer, OracleError

__all__ = ["DynamoOracle"]

_START_SECONDS: Final = 60.0
_MODEL_SECONDS: Final = 180.0  # a tokenizer of 33 MB takes its time
_ANSWER_SECONDS: Final = 120.0
_CONNECTIONS: Final = 4
_QUERY: Final = '"nvext": {"annotations": ["query_instance_id:"]}'


class DynamoOracle:
    """NATS, one front end, and one mocker worker for each model that was asked for."""

    name: Final = "dynamo 1.6.1"
    profile: Final = "dynamo"

    def __enter__(self) -> Self:
        folder = CACHE / "dynamo"
        folder.mkdir(parents=True, exist_ok=True)
        self._supervisor = Supervisor(CACHE / "logs")
        nats_port, self._port = free_ports(2)
        self._plane = DynamoPlane(nats_port, folder / f"discovery-{nats_port}")
        # It keeps copies of model files below the home directory: they go with the rest of the cache.
        self._env = {**self._plane.env, "HOME": str(folder)}
        try:
            self._start(nats(self._plane), _START_SECONDS)
            self._start(self._front_end(), _START_SECONDS)
        except BaseException:
            self._supervisor.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.stop()

    def answers(self, model: ParityModel, cases: Sequence[Case]) -> list[Answer]:
        if f"mocker-{model.name}" not in self._supervisor.processes:
            self._start(self._mocker(model), _MODEL_SECONDS)
        return asyncio.run(self._ask_all(model.name, cases))

    async def _ask_all(self, model: str, cases: Sequence[Case]) -> list[Answer]:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        turns = asyncio.Semaphore(_CONNECTIONS)
        async with aiohttp.ClientSession(f"http://{LOOPBACK}:{self._port}", timeout=timeout) as session:

            async def ask(case: Case) -> Answer:
                async with turns:
                    return await _ask(session, case.path, case.body(model, _QUERY).encode())

            try:
                return await asyncio.gather(*map(ask, cases))
            except (aiohttp.ClientError, TimeoutError) as error:
                raise OracleError(
                    f"the Dynamo front end is gone or stuck ({type(error).__name__}); see its log"
                ) from error

    def _front_end(self) -> ProcessSpec:
        return self._python(
            "dynamo-frontend",
            *("-m", "dynamo.frontend", "--http-host", LOOPBACK, "--http-port", str(self._port)),
            *("--router-mode", "kv", "--no-router-kv-events"),
            ready=http_answers(f"http://{LOOPBACK}:{self._port}/v1/models"),
        )

    def _mocker(self, model: ParityModel) -> ProcessSpec:
        def listed(body: bytes) -> bool:
            return any(entry.get("id") == model.name for entry in json.loads(body).get("data", ()))

        namespace = model.name.replace(".", "-")
        return self._python(
            f"mocker-{model.name}",
            *("-m", "dynamo.mocker", "--model-path", str(model.folder()), "--model-name", model.name),
            *("--endpoint", f"dyn://{namespace}.backend.generate", "--block-size", str(BLOCK_SIZE)),
            *("--num-gpu-blocks-override", "8192", "--kv-bytes-per-token", "114688", "--speedup-ratio", "0"),
            ready=http_answers(f"http://{LOOPBACK}:{self._port}/v1/models", having=listed),
        )

    def _python(self, name: str, *arguments: str, ready: Any) -> ProcessSpec:
        return ProcessSpec(name=name, command=(sys.executable, *arguments), env=self._env, ready=ready)

    def _start(self, spec: ProcessSpec, seconds: float) -> None:
        try:
            self._supervisor.wait_ready([self._supervisor.start(spec)], deadline_seconds=seconds)
        except (StartError, FileNotFoundError) as error:
            raise OracleError(f"{spec.name} did not start: {str(error).splitlines()[0]}") from error


async def _ask(session: aiohttp.ClientSession, path: str, body: bytes) -> Answer:
    headers = {"content-type": "application/json"}
    async with session.post(path, data=body, headers=headers) as response:
        text = await response.read()
        if response.status != 200:
            return Answer(None, f"{response.status} {_message(text)}")
        for extension in map(_extension, _documents(text, response.content_type)):
            if (ids := extension.get("token_ids")) is not None:
                return Answer(tuple(ids))
    raise OracleError("Dynamo answered without token_ids: is the KV router on?")


def _documents(text: bytes, content_type: str) -> Iterator[bytes]:
    """The one JSON document, or those of an event stream."""
    if content_type != "text/event-stream":
        yield text
        return
    for line in text.splitlines():
        if line.startswith(b"data: {"):
            yield line.removeprefix(b"data: ")


def _extension(document: bytes) -> Mapping[str, Any]:
    return json.loads(document).get("nvext") or {}


def _message(text: bytes) -> str:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text.decode(errors="replace")
    return str(message)[:300]
