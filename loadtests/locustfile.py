"""Locust users for OpenAI-compatible servers. `make load` runs them; so does locust itself:

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 --model qwen3 --workload chat

A streamed reply is three series: `ttft` until its first piece of text, `itl` between pieces, and the request
itself until its end. `make load-ui` shows them live. Distributed: start one with `--master`, and others with
`--worker --master-host HOST`; a user's seed follows from its number and its worker's, so no two are alike.
"""

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.load import corpus
from loadtests.load.stream_times import StreamError, StreamTimes
from loadtests.load.workloads import WORKLOADS, Ask, Shape


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("load", "What is asked (python -m loadtests.load --help says more)")
    group.add_argument("--model", default="stack-model", help="the model's name in requests")
    group.add_argument("--workload", default="mixed", choices=list(WORKLOADS), help="what users do")
    group.add_argument(
        "--corpus", default="", help="conversations, ShareGPT-style JSON; default: a small own one"
    )
    group.add_argument("--seed", type=int, default=1, help="of everything that is drawn")
    group.add_argument("--think-seconds", type=float, default=1.0, help="mean pause before a request")
    group.add_argument("--stream-share", type=float, default=1.0, help="share of replies that are streamed")
    group.add_argument(
        "--abort-share", type=float, default=0.0, help="share of streams that the client leaves"
    )
    group.add_argument("--max-tokens", type=int, default=64, help="of each reply")
    group.add_argument("--warm-up-seconds", type=float, default=0.0, help="at first, which no series counts")


@events.init.add_listener
def _shape(environment: Environment, **_: object) -> None:
    """Read the corpus once, before anybody is asked anything."""
    options = environment.parsed_options
    environment.shape = Shape(  # type: ignore[attr-defined]  # locust's place for what users share
        corpus=corpus.load(Path(options.corpus)) if options.corpus else corpus.own(),
        seed=options.seed,
        think_seconds=options.think_seconds,
        stream_share=options.stream_share,
        abort_share=options.abort_share,
        max_tokens=options.max_tokens,
    )
    environment.numbers = itertools.count()  # type: ignore[attr-defined]


@events.test_start.add_listener
def _forget_the_warm_up(environment: Environment, **_: object) -> None:
    seconds = environment.parsed_options.warm_up_seconds
    if seconds > 0 and environment.runner is not None:
        import gevent  # noqa: PLC0415  # only where locust has set it up

        gevent.spawn_later(seconds, environment.stats.reset_all)


class ChainUser(FastHttpUser):
    """One user, visit after visit."""

    connection_timeout = 10.0
    network_timeout = 120.0

    def on_start(self) -> None:
        environment: Any = self.environment
        self._shape: Shape = environment.shape
        worker = getattr(environment.runner, "worker_index", 0)
        self._draw = random.Random(f"{self._shape.seed} user {worker}.{next(environment.numbers)}")
        self._workload = WORKLOADS[environment.parsed_options.workload]
        self._asks: Iterator[Ask] = iter(())

    @task
    def visit(self) -> None:
        """The next request; a new visit where the last one is over."""
        ask = next(self._asks, None)
        if ask is None:
            self._asks = self._workload(self._shape, self._draw)
            ask = next(self._asks)
        time.sleep(ask.think_seconds)  # gevent's: other users go on
        body = {"model": self.environment.parsed_options.model, **ask.body}
        if "stream" in body:
            self._stream(ask, body)
        else:
            with self.client.post(ask.path, json=body, name=ask.name, catch_response=True) as response:
                if response.status_code != 200:
                    response.failure(f"status {response.status_code}")

    def _stream(self, ask: Ask, body: dict[str, Any]) -> None:
        times, started = StreamTimes(), time.perf_counter()
        with self.client.post(
            ask.path, json=body, name=ask.name, stream=True, catch_response=True
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            try:
                left = self._read(ask, response, times, started)
                if not left:
                    times.end()
            except StreamError as error:
                response.failure(str(error))
            except OSError as error:
                response.failure(f"the connection failed: {type(error).__name__}")
            else:
                response.success()
            response.request_meta["response_time"] = (time.perf_counter() - started) * 1e3
        if times.first is not None:
            self._note("ttft", ask.name, times.first)
        for gap in times.gaps:
            self._note("itl", ask.name, gap)

    @staticmethod
    def _read(ask: Ask, response: Any, times: StreamTimes, started: float) -> bool:
        """Whether the client left before the end, as it wanted to."""
        stream = response.stream
        # By lines: `read` waits until it has as many bytes as it was asked for.
        while line := stream.readline(b"\n"):
            times.feed(bytes(line), time.perf_counter() - started)
            pieces = len(times.gaps) + (times.first is not None)
            if ask.abort_after is not None and pieces >= ask.abort_after:
                stream.release()
                return True
        return False

    def _note(self, series: str, name: str, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type=series, name=name, response_time=seconds * 1e3, response_length=0, exception=None
        )
