"""Properties of the session over message sequences that Envoy may send, and over ones it may not."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.errors import BadRequestError, MisuseError, PeerProtocolError
from extproc.events import BodyMode, RequestReady
from extproc.session import Session, SessionOptions, StreamedDecision
from extproc.transitions import REQUEST, RequestState
from extproc.verdict import NO_EDIT, PASS, Verdict
from tests.extproc.envoy_messages import (
    kinds,
    metadata_of,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    response_trailers,
    streamed_body,
    with_modes,
)

METADATA = {"tokenext": {"record": "r"}}

chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@dataclass
class Transcript:
    session: Session
    replies: list
    decided: list
    owed: int = 0  # messages that Envoy waits to see answered, outside full duplex


def play(session: Session, messages, verdict: Verdict) -> Transcript:
    """Drive a session as the server does: replies first, then the verdict or the acknowledgement."""
    transcript = Transcript(session, [], [])
    for message in messages:
        step = session.receive(message)
        transcript.replies += step.replies
        if isinstance(step.event, RequestReady):
            transcript.decided.append(step.event)
            usable = verdict if step.event.headers_mutable else Verdict(metadata=verdict.metadata)
            usable = usable if step.event.body_replaceable else Verdict(metadata=usable.metadata)
            transcript.replies += session.release(usable)
        elif step.event is not None:
            transcript.replies += session.acknowledge(NO_EDIT)
    return transcript


@st.composite
def full_duplex_requests(draw):
    """Headers, chunks, and an end that is a marked chunk, an empty one, or trailers; maybe repeated."""
    body = draw(chunks)
    messages = [with_modes(request_headers({":path": "/"}), BodyMode.FULL_DUPLEX_STREAMED)]
    ending = draw(st.sampled_from(["marked", "empty", "trailers"]))
    marked = ending == "marked" and bool(body)
    messages += [
        request_body(chunk, end=marked and index == len(body) - 1) for index, chunk in enumerate(body)
    ]
    if ending == "trailers":
        messages.append(request_trailers())
    elif not marked:
        messages.append(request_body(b"", end=True))
    if ending != "trailers" and draw(st.booleans()):
        messages.append(request_body(b"", end=True))
    return b"".join(body), ending == "trailers", messages


@given(full_duplex_requests(), st.integers(0, 120))
def test_full_duplex_sends_every_byte_back_once_in_order_whatever_the_limit(request, limit):
    body, trailers, messages = request
    transcript = play(Session(SessionOptions(max_body_bytes=limit)), messages, Verdict(metadata=METADATA))
    sent, marks = streamed_body(transcript.replies)
    assert sent == body
    assert marks.count(True) == (0 if trailers else 1)
    assert trailers or marks[-1]
    assert kinds(transcript.replies).count("request_trailers") == int(trailers)
    assert kinds(transcript.replies)[0] == "request_headers"
    assert metadata_of(transcript.replies[0]) == METADATA
    (event,) = transcript.decided
    assert event.oversize == (len(body) > limit)
    assert event.body == (None if event.oversize else body)


@given(full_duplex_requests(), st.binary(max_size=100))
def test_full_duplex_sends_a_new_body_instead_of_the_old_one(request, new_body):
    _, _, messages = request
    transcript = play(Session(SessionOptions()), messages, Verdict(body=new_body))
    assert streamed_body(transcript.replies)[0] == new_body


@st.composite
def answered_requests(draw):
    """A whole exchange in a mode in which Envoy waits for one reply to each of its messages."""
    mode = draw(st.sampled_from([BodyMode.NONE, BodyMode.BUFFERED, BodyMode.STREAMED]))
    body = draw(chunks)
    bodiless = mode is BodyMode.NONE or not body
    end_at_headers = bodiless and draw(st.booleans())
    messages = [with_modes(request_headers({":path": "/"}, end=end_at_headers), mode, BodyMode.STREAMED)]
    trailers = not end_at_headers and (bodiless or draw(st.booleans()))
    if mode is BodyMode.BUFFERED and body:
        messages.append(request_body(b"".join(body), end=not trailers))
    elif mode is BodyMode.STREAMED:
        messages += [
            request_body(chunk, end=not trailers and index == len(body) - 1)
            for index, chunk in enumerate(body)
        ]
    if trailers:
        messages.append(request_trailers())
    messages.append(response_headers())
    messages += [response_body(chunk) for chunk in draw(chunks)]
    messages.append(draw(st.sampled_from([response_body(b"", end=True), response_trailers()])))
    return messages


@given(answered_requests(), st.sampled_from(StreamedDecision), st.integers(0, 120))
def test_outside_full_duplex_every_message_gets_exactly_one_reply_of_its_kind(messages, streamed, limit):
    session = Session(SessionOptions(max_body_bytes=limit, streamed_decision=streamed))
    transcript = play(session, messages, Verdict(set_headers={"x-a": "1"}, metadata=METADATA))
    assert kinds(transcript.replies) == [message.WhichOneof("request") for message in messages]
    assert len(transcript.decided) == 1
    carriers = [reply for reply in transcript.replies if reply.HasField("dynamic_metadata")]
    assert [metadata_of(reply) for reply in carriers] == [METADATA]


def anything(mode: BodyMode):
    messages = [
        lambda: request_headers({":path": "/"}),
        lambda: request_headers({":path": "/"}, end=True),
        lambda: request_body(b"abc"),
        lambda: request_body(b"abc", end=True),
        request_trailers,
        response_headers,
        lambda: response_headers(end=True),
        lambda: response_body(b"abc"),
        lambda: response_body(b"", end=True),
        response_trailers,
    ]
    return st.tuples(st.just(mode), st.lists(st.sampled_from(messages), min_size=1, max_size=12))


@settings(max_examples=400)
@given(
    st.sampled_from(BodyMode).flatmap(anything),
    st.sampled_from(StreamedDecision),
    st.sampled_from(["release", "reject", "nothing"]),
    st.integers(0, 8),
)
def test_no_sequence_whatsoever_escapes_the_table(sequence, streamed, answer, limit):
    """Any order of any messages is served or refused by PeerProtocolError; nothing else is ever raised."""
    mode, makers = sequence
    session = Session(SessionOptions(max_body_bytes=limit, streamed_decision=streamed))
    decisions = 0
    for index, make in enumerate(makers):
        message = make()
        if index == 0:
            with_modes(message, mode, mode)
        try:
            step = session.receive(message)
        except PeerProtocolError:
            return
        if isinstance(step.event, RequestReady):
            decisions += 1
            if answer == "release":
                session.release(PASS)
            elif answer == "reject":
                session.reject(BadRequestError("no"))
        elif step.event is not None:
            session.acknowledge(NO_EDIT)
        assert decisions <= 1


@given(full_duplex_requests())
def test_a_second_release_is_always_refused(request):
    session = Session(SessionOptions())
    play(session, request[2], PASS)
    with pytest.raises(MisuseError):
        session.release(PASS)


@pytest.mark.parametrize("plan", REQUEST)
def test_every_state_of_a_plan_can_be_reached_or_is_set_by_a_call(plan):
    set_by_calls = {
        RequestState.RELAYING, RequestState.DONE, RequestState.ABANDONED, RequestState.CLOSED,
    }  # fmt: skip
    reached = {state for _, state in REQUEST[plan].values()} | {RequestState.IDLE} | set_by_calls
    assert {state for state, _ in REQUEST[plan]} <= reached
