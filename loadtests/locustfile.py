"""Locust users for OpenAI-compatible servers. `make load` runs them; so does locust itself:

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 --model qwen3 --workload chat

A streamed reply is three series: `ttft` until its first piece of text, `itl` between pieces, and the request
itself until its end. `make load-ui` shows them live. Distributed: start one with `--master`, and others with
`--worker --master-host HOST`; a user's seed follows from its number and its worker's, so no two are alike.
"""

import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

from loadtests.load import corpus, samples, trace
from loadtests.load.samples import Sample
from loadtests.load.stream_times import StreamError, StreamTimes
from loadtests.load.workloads import WORKLOADS, Ask, Shape
from loadtests.stack.client import Usage


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
    group.add_argument("--asks", type=int, default=0, help="requests of each user, who then ends; 0: no end")
    group.add_argument("--trace", default="", help="replay this trace (Mooncake's form), not the workload")
    group.add_argument("--trace-speed", type=float, default=1.0, help="2: in half the time")
    group.add_argument("--samples", default="", help="write a line for each request to this file")


@dataclass(slots=True)
class Shared:
    """What the users of one process have in common."""

    shape: Shape
    entries: tuple[trace.Entry, ...] = ()
    replayed: Iterator[Ask] | None = None
    samples: BinaryIO | None = None
    began: float = 0.0
    numbers: Iterator[int] = field(default_factory=itertools.count)
    running: int = 0


@events.init.add_listener
def _share(environment: Environment, **_: object) -> None:
    """Read corpus and trace once, before anybody is asked anything."""
    options = environment.parsed_options
    environment.shared = Shared(  # type: ignore[attr-defined]  # locust's place for what users share
        Shape(
            corpus=corpus.load(Path(options.corpus)) if options.corpus else corpus.own(),
            seed=options.seed,
            think_seconds=options.think_seconds,
            stream_share=options.stream_share,
            abort_share=options.abort_share,
            max_tokens=options.max_tokens,
        ),
        entries=trace.read(Path(options.trace)) if options.trace else (),
        samples=Path(options.samples).open("wb") if options.samples else None,  # noqa: SIM115  # until the end
    )


@events.test_start.add_listener
def _begin(environment: Environment, **_: object) -> None:
    options, shared = environment.parsed_options, _shared(environment)
    shared.began = time.perf_counter()
    if shared.entries:
        runner: Any = environment.runner
        asks = trace.asks(
            shared.entries, shared.shape.corpus, seed=options.seed, speed=options.trace_speed,
            max_tokens=options.max_tokens,
        )  # fmt: skip
        # Distributed, each worker sends its part of the trace.
        shared.replayed = itertools.islice(
            asks, getattr(runner, "worker_index", 0), None, getattr(runner, "worker_count", None) or 1
        )
    if options.warm_up_seconds > 0 and environment.runner is not None:
        import gevent  # noqa: PLC0415  # only where locust has set it up

        gevent.spawn_later(options.warm_up_seconds, environment.stats.reset_all)


@events.test_stop.add_listener
def _end(environment: Environment, **_: object) -> None:
    shared = _shared(environment)
    if shared.samples is not None:
        shared.samples.flush()


def _shared(environment: Any) -> Shared:
    shared: Shared = environment.shared
    return shared


@dataclass(slots=True)
class Answer:
    """What became of one request."""

    times: StreamTimes = field(default_factory=StreamTimes)
    usage: Usage | None = None
    left: bool = False
    failure: str = ""
    seconds: float = 0.0


class ChainUser(FastHttpUser):
    """One user, visit after visit."""

    connection_timeout = 10.0
    network_timeout = 120.0

    def on_start(self) -> None:
        environment: Any = self.environment
        self._options = environment.parsed_options
        self._common = _shared(environment)
        self._common.running += 1
        worker = getattr(environment.runner, "worker_index", 0)
        self._draw = random.Random(f"{self._common.shape.seed} user {worker}.{next(self._common.numbers)}")
        self._workload = WORKLOADS[self._options.workload]
        self._asks: Iterator[Ask] = iter(())
        self._sent = 0

    def on_stop(self) -> None:
        """The run ends with its last user, where users end by themselves."""
        self._common.running -= 1
        if not self._common.running and (self._options.asks or self._options.trace):
            import gevent  # noqa: PLC0415  # as above

            gevent.spawn(self.environment.runner.quit)

    @task
    def ask(self) -> None:
        """The next request; a new visit where the last one is over."""
        ask = self._next()
        late = self._wait(ask)
        body = json.dumps({"model": self._options.model, **ask.body}).encode()
        began = time.perf_counter()
        answer = self._send(ask, body, began)
        for series, each in (("ttft", answer.times.first), *(("itl", gap) for gap in answer.times.gaps)):
            if each is not None:
                self._note(series, ask.name, each)
        self._keep(ask, answer, len(body), began - self._common.began, late)

    def _next(self) -> Ask:
        if self._common.replayed is not None:
            ask = next(self._common.replayed, None)
            if ask is None:
                raise StopUser
            return ask
        if self._options.asks and self._sent >= self._options.asks:
            raise StopUser
        self._sent += 1
        ask = next(self._asks, None)
        if ask is None:
            self._asks = self._workload(self._common.shape, self._draw)
            ask = next(self._asks)
        return ask

    def _wait(self, ask: Ask) -> float:
        """Until it is to be sent; returns how much too late that is."""
        if ask.due_seconds is None:
            time.sleep(ask.think_seconds)  # gevent's: other users go on
            return 0.0
        ahead = self._common.began + ask.due_seconds - time.perf_counter()
        time.sleep(max(0.0, ahead))
        return max(0.0, -ahead)

    def _send(self, ask: Ask, body: bytes, began: float) -> Answer:
        answer = Answer()
        streamed = bool(ask.body.get("stream"))
        with self.client.post(
            ask.path,
            data=body,
            headers={"content-type": "application/json"},
            name=ask.name,
            stream=streamed,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                answer.failure = f"status {response.status_code}"
            elif streamed:
                self._stream(ask, response, answer, began)
            else:
                answer.usage = _usage(response.content)
            answer.seconds = time.perf_counter() - began
            if answer.failure:
                response.failure(answer.failure)
            else:
                response.success()
            if streamed:
                response.request_meta["response_time"] = answer.seconds * 1e3
        return answer

    @staticmethod
    def _stream(ask: Ask, response: Any, answer: Answer, began: float) -> None:
        times, stream = answer.times, response.stream
        try:
            # By lines: `read` waits until it has as many bytes as it was asked for.
            while line := stream.readline(b"\n"):
                times.feed(bytes(line), time.perf_counter() - began)
                pieces = len(times.gaps) + (times.first is not None)
                if ask.abort_after is not None and pieces >= ask.abort_after:
                    stream.release()
                    answer.left = True
                    return
            times.end()
            answer.usage = times.usage
        except StreamError as error:
            answer.failure = str(error)
        except OSError as error:
            answer.failure = f"the connection failed: {type(error).__name__}"

    def _note(self, series: str, name: str, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type=series, name=name, response_time=seconds * 1e3, response_length=0, exception=None
        )

    def _keep(self, ask: Ask, answer: Answer, body_bytes: int, at: float, late: float) -> None:
        warm_up = self._options.warm_up_seconds
        if self._common.samples is None or at < warm_up:
            return
        usage = answer.usage
        sample = Sample(
            at=round(at - warm_up, 4),
            name=ask.name,
            seconds=round(answer.seconds, 5),
            body_bytes=body_bytes,
            first=None if answer.times.first is None else round(answer.times.first, 5),
            gaps_us=tuple(round(gap * 1e6) for gap in answer.times.gaps[: samples.MAX_GAPS]),
            prompt_tokens=usage.prompt_tokens if usage else 0,
            cached_tokens=usage.cached_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            late=round(late, 4),
            left=answer.left,
            failure=answer.failure,
        )
        self._common.samples.write(samples.write_line(sample))


def _usage(body: bytes | None) -> Usage | None:
    try:
        document = json.loads(body or b"")
        return Usage.parse(document["usage"])
    except (ValueError, KeyError, TypeError):
        return None
