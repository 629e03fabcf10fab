"""What is fuzzed, by name: each takes any bytes, and raises only where a promise is broken.

Errors that are part of a reader's contract are caught here; whatever else comes out of it is a finding.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from google.protobuf.message import DecodeError

from epp_adapter.endpoints import canonical_address, parse_subset_hint
from epp_adapter.engine_metrics import ENGINES, read_load
from epp_adapter.kv_events import KvEventError
from epp_adapter.kv_events_dynamo import DynamoEventStream, decode_message
from epp_adapter.kv_events_vllm import VllmEventStream
from epp_adapter.records.body_ids import read_body_ids
from epp_adapter.request_model import read_request_body
from epp_adapter.response_body import ModelNameRestorer, UsageReader
from epp_adapter.routing.prefix_index import PrefixIndex
from extproc import token_metadata
from extproc.errors import OverloadedError, PeerProtocolError
from extproc.events import RequestReady
from extproc.session import Session, SessionOptions, StreamedDecision
from extproc.token_metadata import RecordError
from extproc.verdict import NO_EDIT, PASS, Verdict
from loadtests.stack.sse import EventParser
from tokenext.conversations import Conversations
from tokenext.declined import Declined
from tokenext.handoff import strip
from tokenext.json_object import NotAnObjectError, read
from tokenext.openai import Api, ChatRequest, parse, read_body
from tokenext.turns import Conversation

__all__ = ["TARGETS"]

_FORBIDDEN: Final = ("prompt_token_ids", "input_ids", "routed_dp_rank")


def _pieces(data: bytes) -> Iterator[bytes]:
    """Cut into pieces, each as long as the byte before it says."""
    at = 0
    while at < len(data):
        size = data[at] + 1
        yield data[at + 1 : at + 1 + size]
        at += 1 + size


def session(data: bytes) -> None:
    """Any messages in any order: answered, or refused as the peer's fault."""
    how = data[0] if data else 0
    served = Session(
        SessionOptions(
            max_body_bytes=64,
            streamed_decision=StreamedDecision.AT_HEADERS if how & 1 else StreamedDecision.AT_END,
        )
    )
    for piece in _pieces(data[1:]):
        try:
            step = served.receive(ProcessingRequest.FromString(piece))
        except (DecodeError, PeerProtocolError):
            return
        replies = list(step.replies)
        if isinstance(step.event, RequestReady):
            new = Verdict(body=b"new") if how & 2 and step.event.body_replaceable else PASS
            replies += served.reject(OverloadedError("no")) if how & 4 else served.release(new)
        elif step.event is not None:
            replies += served.acknowledge(NO_EDIT)
        for reply in replies:
            assert reply.WhichOneof("response")
            reply.SerializeToString()


def record(data: bytes) -> None:
    """A record is read whole or refused; what was read means the same when it is written again."""
    with suppress(RecordError, ValueError, RecursionError):
        found = token_metadata.decode(json.loads(data))
        assert token_metadata.decode(token_metadata.encode(found)) == found


def request(data: bytes) -> None:
    """A body is parsed or declined, with a memory of conversations and without; both mean the same."""
    memory = Conversations(1 << 16)
    for api in Api:
        answers: list[object] = []
        for conversations in (None, memory, memory):
            try:
                asked = parse(api, read_body(data, conversations), conversations)
                answers.append(asked)
                if isinstance(asked, ChatRequest):
                    turn = Conversation(asked.turn.text, asked.turn.messages, {}, asked.turn.plain)
                    memory.keep(asked.turn.isolation, turn, asked.turn.before)
            except Declined as declined:
                answers.append(declined.reason)
        assert answers.count(answers[0]) == len(answers)


def stripped(data: bytes) -> None:
    """What only the chain may set is gone, what is left is JSON, and a second time changes nothing."""
    try:
        body = read(data)
        json.loads(data)
    except (NotAnObjectError, ValueError, RecursionError):
        return
    text = strip(body)
    once = json.loads(text)
    assert not any(name in once for name in _FORBIDDEN)
    assert strip(read(text)) == text


def body_ids(data: bytes) -> None:
    """The picker's reader of ids in bodies: a record, nothing, or a fault."""
    for path in ("/v1/chat/completions", "/v1/completions"):
        with suppress(RecordError):
            read_body_ids(path, data)


def rewritten(data: bytes) -> None:
    """The picker's reader of a model's name: nothing, or a body that then names another model."""
    found = read_request_body(data)
    if found is not None and found.model is not None:
        again = read_request_body(found.with_model("another"))
        assert again is not None
        assert again.model == "another"


def events(data: bytes) -> None:
    """Server-sent events are the same wherever the stream is cut, and usage is read without a word."""
    cut = data[0] if data else 0
    stream = data[1:]
    whole = EventParser().feed(stream)
    parts = EventParser()
    assert [*parts.feed(stream[:cut]), *parts.feed(stream[cut:])] == whole
    for streamed in (True, False):
        reader = UsageReader(events=streamed)
        reader.feed(stream[:cut], end=False)
        reader.feed(stream[cut:], end=True)


def restored(data: bytes) -> None:
    """A body in which the served model does not stand passes as it is, wherever it is cut."""
    cut = data[0] if data else 0
    body = data[1:]
    restorer = ModelNameRestorer("served-model", "asked-model")
    passed = restorer.feed(body[:cut], end=False) + restorer.feed(body[cut:], end=True)
    if b"served-model" not in body and b"\\u" not in body:
        assert passed == body


def kv_events(data: bytes) -> None:
    """Messages of Dynamo and of vLLM: applied, or counted as malformed."""
    with suppress(KvEventError):
        decode_message(data)
    index = PrefixIndex(max_blocks=64)
    dynamo = DynamoEventStream(index, lambda *_: None)
    vllm = VllmEventStream("127.0.0.1:8000", index, block_size=4, observe=lambda *_: None)
    for number, piece in enumerate((data, data[: len(data) // 2], data)):
        dynamo.receive(piece)
        vllm.receive(number, piece)


def metrics_page(data: bytes) -> None:
    """A model server's page of metrics, whatever stands in it."""
    for engine in ENGINES.values():
        load = read_load(data, engine, 1.0)
        if load is not None:
            assert load.waiting >= 0
            assert load.running >= 0


def hint(data: bytes) -> None:
    """A subset hint allows what it names, and an address has one spelling."""
    text = data.decode("utf-8", "replace")
    parse_subset_hint(text)
    with suppress(ValueError):
        assert canonical_address(canonical_address(text)) == canonical_address(text)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "session": session,
    "record": record,
    "request": request,
    "stripped": stripped,
    "body-ids": body_ids,
    "rewritten": rewritten,
    "events": events,
    "restored": restored,
    "kv-events": kv_events,
    "metrics-page": metrics_page,
    "hint": hint,
}
