"""What the session promises, mode by mode."""

import json

import pytest

from extproc.errors import (
    BodyTooLargeError,
    MisuseError,
    NoReadyEndpointError,
    PeerProtocolError,
)
from extproc.events import (
    BodyMode,
    RequestReady,
    ResponseChunk,
    ResponseStarted,
    ResponseTrailers,
    StaticMetadata,
)
from extproc.replies import MAX_CHUNK_BYTES
from extproc.session import Session, SessionOptions, StreamedDecision
from extproc.transitions import RequestState, ResponseState
from extproc.verdict import NO_EDIT, PASS, ResponseEdit, Verdict
from tests.extproc.envoy_messages import (
    feed,
    header_changes,
    kinds,
    metadata_of,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    response_trailers,
    streamed_body,
    with_metadata,
    with_modes,
)

RECORD = {"tokenext": {"record": {"model": "m"}}}
HEADERS = {":method": "POST", ":path": "/v1/chat/completions?x=1", "content-length": "3"}
EVERY_MODE = list(BodyMode)


def session_of(
    *,
    limit: int = 1000,
    streamed: StreamedDecision = StreamedDecision.AT_END,
    assumed: BodyMode = BodyMode.FULL_DUPLEX_STREAMED,
) -> Session:
    return Session(SessionOptions(max_body_bytes=limit, streamed_decision=streamed, assumed_mode=assumed))


def opened(mode: BodyMode, *, end: bool = False, response: BodyMode = BodyMode.NONE):
    return with_modes(request_headers(HEADERS, end=end), mode, response)


def ready(step) -> RequestReady:
    assert isinstance(step.event, RequestReady)
    return step.event


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("streamed", StreamedDecision)
def test_a_request_without_a_body_is_decided_at_once_and_answered_on_its_headers(mode, streamed):
    session = session_of(streamed=streamed)
    step = session.receive(opened(mode, end=True))
    assert step.replies == ()
    event = ready(step)
    assert event.body == b""
    assert event.headers.path == "/v1/chat/completions"
    assert event.headers.method == "POST"
    assert not event.body_replaceable
    (answer,) = session.release(Verdict(set_headers={"x-a": "1"}, metadata=RECORD))
    assert answer.WhichOneof("response") == "request_headers"
    assert header_changes(answer).set == {"x-a": "1"}
    assert metadata_of(answer) == RECORD
    assert session.request_state is RequestState.DONE


def test_none_is_decided_at_the_headers_without_a_body():
    session = session_of()
    event = ready(session.receive(opened(BodyMode.NONE)))
    assert event.body is None
    assert event.headers_mutable
    assert kinds(session.release(PASS)) == ["request_headers"]
    assert kinds(session.receive(request_trailers()).replies) == ["request_trailers"]


class TestBuffered:
    def collected(self, session, body=b"abc", *, end=True):
        first = session.receive(opened(BodyMode.BUFFERED))
        assert kinds(first.replies) == ["request_headers"]
        assert first.event is None
        return ready(session.receive(request_body(body, end=end)))

    @pytest.mark.parametrize("end", [True, False])
    def test_the_headers_go_on_at_once_and_everything_hangs_on_the_body_reply(self, end):
        session = session_of()
        event = self.collected(session, end=end)
        assert event.body == b"abc"
        assert event.body_replaceable
        verdict = Verdict(
            set_headers={"x-a": "1"}, remove_headers=("x-b",), body=b"longer", metadata=RECORD,
            clear_route_cache=True,
        )  # fmt: skip
        (answer,) = session.release(verdict)
        common = answer.request_body.response
        assert common.body_mutation.body == b"longer"
        assert common.clear_route_cache
        assert header_changes(answer).set == {"x-a": "1", "content-length": "6"}
        assert header_changes(answer).removed == ["x-b"]
        assert metadata_of(answer) == RECORD

    def test_an_untouched_body_is_not_sent_back(self):
        session = session_of()
        self.collected(session)
        (answer,) = session.release(PASS)
        assert not answer.request_body.response.HasField("body_mutation")
        assert header_changes(answer).set == {}

    def test_a_new_body_that_is_empty_clears_the_old_one(self):
        session = session_of()
        self.collected(session)
        (answer,) = session.release(Verdict(body=b""))
        assert answer.request_body.response.body_mutation.clear_body
        assert header_changes(answer).set == {"content-length": "0"}

    @pytest.mark.parametrize("end", [True, False])
    def test_a_body_over_the_limit_is_decided_without_it(self, end):
        session = session_of(limit=2)
        event = self.collected(session, end=end)
        assert event.oversize
        assert event.body is None
        assert not event.body_replaceable
        assert kinds(session.release(PASS)) == ["request_body"]

    def test_a_body_of_exactly_the_limit_is_collected(self):
        assert self.collected(session_of(limit=3), b"abc").body == b"abc"

    def test_trailers_without_a_body_can_still_carry_metadata_but_no_headers(self):
        session = session_of()
        session.receive(opened(BodyMode.BUFFERED))
        event = ready(session.receive(request_trailers()))
        assert event.body == b""
        assert not event.headers_mutable
        with pytest.raises(MisuseError, match="headers have left"):
            session.release(Verdict(remove_headers=("x-b",)))
        (answer,) = session.release(Verdict(metadata=RECORD))
        assert answer.WhichOneof("response") == "request_trailers"
        assert metadata_of(answer) == RECORD

    def test_trailers_after_the_body_are_acknowledged(self):
        session = session_of()
        self.collected(session, end=False)
        session.release(PASS)
        assert kinds(session.receive(request_trailers()).replies) == ["request_trailers"]

    def test_a_second_end_of_stream_is_acknowledged_and_decides_nothing(self):
        session = session_of()
        self.collected(session)
        session.release(PASS)
        step = session.receive(request_body(b"", end=True))
        assert step.event is None
        assert kinds(step.replies) == ["request_body"]


class TestFullDuplex:
    MODE = BodyMode.FULL_DUPLEX_STREAMED

    def test_nothing_is_answered_before_the_end_and_metadata_hangs_on_the_headers_reply(self):
        session = session_of()
        steps = feed(session, [opened(self.MODE), request_body(b"ab"), request_body(b"c", end=True)])
        assert [step.replies for step in steps] == [(), (), ()]
        assert ready(steps[-1]).body == b"abc"
        replies = session.release(Verdict(set_headers={"x-a": "1"}, metadata=RECORD))
        assert kinds(replies) == ["request_headers", "request_body", "request_body"]
        assert metadata_of(replies[0]) == RECORD
        assert header_changes(replies[0]).set == {"x-a": "1"}
        assert streamed_body(replies) == (b"abc", [False, True])
        assert all(not reply.HasField("dynamic_metadata") for reply in replies[1:])

    def test_end_of_stream_may_be_an_empty_chunk_of_its_own(self):
        session = session_of()
        feed(session, [opened(self.MODE), request_body(b"abc"), request_body(b"", end=True)])
        assert streamed_body(session.release(PASS)) == (b"abc", [True])

    def test_an_empty_body_is_one_empty_last_chunk(self):
        session = session_of()
        feed(session, [opened(self.MODE), request_body(b"", end=True)])
        assert streamed_body(session.release(PASS)) == (b"", [True])

    def test_chunks_sent_back_are_never_over_the_limit(self):
        session = session_of(limit=1_000_000)
        body = bytes(range(256)) * 1000
        feed(session, [opened(self.MODE), request_body(body, end=True)])
        replies = session.release(PASS)
        sent, marks = streamed_body(replies)
        assert sent == body
        assert marks == [False] * 4 + [True]
        sizes = [len(r.request_body.response.body_mutation.streamed_response.body) for r in replies[1:]]
        assert max(sizes) == MAX_CHUNK_BYTES

    def test_trailers_end_the_request_and_follow_the_body_back(self):
        session = session_of()
        steps = feed(session, [opened(self.MODE), request_body(b"abc"), request_trailers()])
        assert ready(steps[-1]).body == b"abc"
        replies = session.release(PASS)
        assert kinds(replies) == ["request_headers", "request_body", "request_trailers"]
        assert streamed_body(replies) == (b"abc", [False])

    def test_a_new_body_takes_the_place_of_the_old_with_its_length(self):
        session = session_of()
        feed(session, [opened(self.MODE), request_body(b"abc", end=True)])
        replies = session.release(Verdict(body=b"longer"))
        assert streamed_body(replies) == (b"longer", [True])
        assert header_changes(replies[0]).set == {"content-length": "6"}

    def test_a_chunked_request_gets_no_content_length(self):
        session = session_of()
        start = with_modes(request_headers({":path": "/"}), self.MODE)
        feed(session, [start, request_body(b"abc", end=True)])
        assert header_changes(session.release(Verdict(body=b"longer"))[0]).set == {}

    def test_a_body_over_the_limit_is_decided_early_and_relayed_whole(self):
        session = session_of(limit=4)
        steps = feed(session, [opened(self.MODE), request_body(b"abc"), request_body(b"de")])
        event = ready(steps[-1])
        assert event.oversize
        assert event.body is None
        replies = session.release(PASS)
        assert session.request_state is RequestState.RELAYING
        replies += session.receive(request_body(b"fg")).replies
        replies += session.receive(request_body(b"h", end=True)).replies
        assert streamed_body(replies) == (b"abcdefgh", [False, False, False, True])
        assert session.receive(request_body(b"", end=True)).replies == ()

    def test_a_relayed_body_may_end_in_trailers(self):
        session = session_of(limit=1)
        feed(session, [opened(self.MODE), request_body(b"abc")])
        session.release(PASS)
        assert kinds(session.receive(request_trailers()).replies) == ["request_trailers"]

    @pytest.mark.parametrize(
        ("late", "back", "marks"),
        [
            (request_body(b"f", end=True), b"abcdef", [False, False, True]),
            (request_trailers(), b"abcde", [False, False]),
        ],
    )
    def test_chunks_that_come_while_an_early_decision_is_awaited_are_not_lost(self, late, back, marks):
        session = session_of(limit=2)
        feed(session, [opened(self.MODE), request_body(b"abc"), request_body(b"de"), late])
        replies = session.release(PASS)
        assert streamed_body(replies) == (back, marks)
        assert session.request_state is RequestState.DONE

    def test_more_chunks_may_come_while_an_early_decision_is_awaited(self):
        session = session_of(limit=2)
        feed(session, [opened(self.MODE), request_body(b"abc"), request_body(b"de")])
        assert streamed_body(session.release(PASS)) == (b"abcde", [False, False])

    def test_a_last_chunk_over_the_limit_is_decided_as_oversize_and_sent_back(self):
        session = session_of(limit=2)
        steps = feed(session, [opened(self.MODE), request_body(b"abc", end=True)])
        assert ready(steps[-1]).oversize
        assert streamed_body(session.release(PASS)) == (b"abc", [True])

    @pytest.mark.parametrize("late", [request_body(b"", end=True), request_body(b"x"), request_trailers()])
    def test_a_second_end_of_stream_is_swallowed_before_and_after_the_verdict(self, late):
        session = session_of()
        feed(session, [opened(self.MODE), request_body(b"abc", end=True)])
        assert session.receive(late).event is None
        assert streamed_body(session.release(PASS)) == (b"abc", [True])
        assert session.receive(late).replies == ()


class TestStreamed:
    MODE = BodyMode.STREAMED

    def test_decided_at_the_end_every_chunk_passes_and_the_last_waits_for_the_verdict(self):
        session = session_of()
        steps = feed(session, [opened(self.MODE), request_body(b"ab"), request_body(b"c", end=True)])
        assert [kinds(step.replies) for step in steps] == [["request_headers"], ["request_body"], []]
        event = ready(steps[-1])
        assert event.body == b"abc"
        assert not event.body_replaceable
        assert not event.headers_mutable
        with pytest.raises(MisuseError, match="new body"):
            session.release(Verdict(body=b"x"))
        (answer,) = session.release(Verdict(metadata=RECORD))
        assert answer.WhichOneof("response") == "request_body"
        assert metadata_of(answer) == RECORD

    def test_decided_at_the_end_trailers_wait_for_the_verdict(self):
        session = session_of()
        steps = feed(session, [opened(self.MODE), request_body(b"abc"), request_trailers()])
        assert ready(steps[-1]).body == b"abc"
        assert kinds(session.release(PASS)) == ["request_trailers"]

    def test_decided_at_the_end_an_oversize_body_passes_chunk_by_chunk(self):
        session = session_of(limit=2)
        steps = feed(
            session,
            [opened(self.MODE), request_body(b"abc"), request_body(b"d"), request_body(b"", end=True)],
        )
        assert [kinds(step.replies) for step in steps[1:3]] == [["request_body"], ["request_body"]]
        assert ready(steps[-1]).oversize
        assert ready(steps[-1]).body is None

    def test_decided_at_the_headers_the_body_follows_untouched(self):
        session = session_of(streamed=StreamedDecision.AT_HEADERS)
        event = ready(session.receive(opened(self.MODE)))
        assert event.body is None
        assert event.headers_mutable
        assert kinds(session.release(Verdict(set_headers={"x-a": "1"}))) == ["request_headers"]
        steps = feed(
            session, [request_body(b"ab"), request_body(b"c", end=True), request_body(b"", end=True)]
        )
        assert [kinds(step.replies) for step in steps] == [["request_body"]] * 3
        assert kinds(session.receive(request_trailers()).replies) == ["request_trailers"]

    def test_decided_at_the_headers_trailers_may_end_the_body(self):
        session = session_of(streamed=StreamedDecision.AT_HEADERS)
        session.receive(opened(self.MODE))
        session.release(PASS)
        assert kinds(session.receive(request_trailers()).replies) == ["request_trailers"]
        assert session.request_state is RequestState.DONE


class TestReject:
    @pytest.mark.parametrize("mode", EVERY_MODE)
    def test_the_client_gets_status_reason_headers_and_a_json_error(self, mode):
        session = session_of()
        session.receive(opened(mode, end=True))
        error = NoReadyEndpointError("no endpoint is ready", headers={"retry-after": "1"})
        (answer,) = session.reject(error)
        assert answer.immediate_response.status.code == 503
        assert header_changes(answer).set == {"content-type": "application/json", "retry-after": "1"}
        assert json.loads(answer.immediate_response.body) == {
            "error": {
                "message": "no endpoint is ready",
                "type": "server_error",
                "code": "no_ready_endpoint",
            }
        }
        assert answer.immediate_response.details == "chain_no_ready_endpoint"

    def test_a_client_error_says_so(self):
        session = session_of()
        session.receive(opened(BodyMode.NONE))
        (answer,) = session.reject(BodyTooLargeError("too large"))
        assert json.loads(answer.immediate_response.body)["error"]["type"] == "invalid_request_error"

    def test_whatever_is_still_on_its_way_is_ignored(self):
        session = session_of()
        feed(session, [opened(BodyMode.FULL_DUPLEX_STREAMED), request_body(b"abc", end=True)])
        session.reject(BodyTooLargeError("too large"))
        late = [
            request_body(b"x"), request_body(b"", end=True), request_trailers(),
            response_headers(), response_body(b"x"), response_trailers(),
        ]  # fmt: skip
        assert [(step.replies, step.event) for step in feed(session, late)] == [((), None)] * 6
        assert session.reject(BodyTooLargeError("too large")) == ()
        with pytest.raises(MisuseError, match="CLOSED"):
            session.release(PASS)

    def test_a_response_that_has_begun_cannot_be_rejected(self):
        session = session_of()
        session.receive(opened(BodyMode.NONE))
        session.release(PASS)
        session.receive(response_headers())
        with pytest.raises(MisuseError, match="after the response began"):
            session.reject(BodyTooLargeError("too large"))


class TestResponse:
    @pytest.mark.parametrize("mode", EVERY_MODE)
    def test_a_request_is_told_how_its_response_will_be_seen(self, mode):
        step = session_of().receive(opened(BodyMode.NONE, response=mode))
        assert step.event.response_body is mode

    def served(self, response: BodyMode) -> Session:
        session = session_of()
        session.receive(opened(BodyMode.NONE, response=response))
        session.release(PASS)
        return session

    @pytest.mark.parametrize("mode", EVERY_MODE)
    def test_headers_body_and_trailers_are_reported_then_acknowledged(self, mode):
        session = self.served(mode)
        started = session.receive(response_headers("404"))
        assert started.replies == ()
        assert isinstance(started.event, ResponseStarted)
        assert started.event.status == 404
        (answer,) = session.acknowledge(ResponseEdit(set_headers={"x-a": "1"}, remove_headers=("x-b",)))
        assert (header_changes(answer).set, header_changes(answer).removed) == ({"x-a": "1"}, ["x-b"])
        assert session.receive(response_body(b"abc")).event == ResponseChunk(b"abc", end_of_stream=False)
        replies = session.acknowledge(NO_EDIT)
        assert kinds(replies) == ["response_body"]
        if mode is BodyMode.FULL_DUPLEX_STREAMED:
            assert streamed_body(replies, "response_body") == (b"abc", [False])
        else:
            assert not replies[0].response_body.response.HasField("body_mutation")
        assert session.receive(response_trailers()).event == ResponseTrailers()
        assert kinds(session.acknowledge(NO_EDIT)) == ["response_trailers"]
        assert session.response_state is ResponseState.DONE

    @pytest.mark.parametrize(
        ("mode", "length"), [(BodyMode.BUFFERED, {"content-length": "6"}), (BodyMode.STREAMED, {})]
    )
    def test_an_edited_piece_is_sent_and_a_whole_body_gets_its_length(self, mode, length):
        session = self.served(mode)
        session.receive(response_headers())
        session.acknowledge(NO_EDIT)
        session.receive(response_body(b"abc", end=True))
        (answer,) = session.acknowledge(ResponseEdit(body=b"longer"))
        assert answer.response_body.response.body_mutation.body == b"longer"
        assert header_changes(answer).set == length

    def test_an_edited_piece_in_full_duplex_replaces_the_original(self):
        session = self.served(BodyMode.FULL_DUPLEX_STREAMED)
        session.receive(response_body(b"abc", end=True))
        replies = session.acknowledge(ResponseEdit(body=b"longer"))
        assert streamed_body(replies, "response_body") == (b"longer", [True])

    def test_pieces_may_be_missing(self):
        assert isinstance(self.served(BodyMode.NONE).receive(response_trailers()).event, ResponseTrailers)
        session = self.served(BodyMode.STREAMED)
        assert isinstance(session.receive(response_body(b"a")).event, ResponseChunk)
        headers_only = self.served(BodyMode.NONE)
        headers_only.receive(response_headers(end=True))
        assert headers_only.response_state is ResponseState.DONE

    def test_a_second_end_of_stream_is_acknowledged_except_in_full_duplex(self):
        for mode, expected in ((BodyMode.STREAMED, ["response_body"]), (BodyMode.FULL_DUPLEX_STREAMED, [])):
            session = self.served(mode)
            session.receive(response_body(b"a", end=True))
            session.acknowledge(NO_EDIT)
            step = session.receive(response_body(b"", end=True))
            assert (step.event, kinds(step.replies)) == (None, expected)

    @pytest.mark.parametrize("status", ["", "abc", "²"])
    def test_a_status_that_is_no_number_is_zero(self, status):
        event = self.served(BodyMode.NONE).receive(response_headers(status)).event
        assert isinstance(event, ResponseStarted)
        assert event.status == 0

    def test_a_stream_may_start_with_a_response(self):
        session = session_of()
        first = with_modes(response_headers("400", end=True), BodyMode.FULL_DUPLEX_STREAMED)
        assert isinstance(session.receive(first).event, ResponseStarted)
        assert kinds(session.acknowledge(NO_EDIT)) == ["response_headers"]
        assert session.request_state is RequestState.ABANDONED

    @pytest.mark.parametrize("mode", [BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED])
    def test_a_response_before_the_verdict_makes_the_verdict_moot(self, mode):
        session = session_of()
        feed(session, [opened(mode), request_body(b"abc", end=True)])
        session.receive(response_headers("504"))
        session.acknowledge(NO_EDIT)
        assert session.release(Verdict(metadata=RECORD)) == ()
        assert session.reject(BodyTooLargeError("too large")) == ()
        assert session.receive(request_body(b"", end=True)).replies == ()

    def test_a_response_may_begin_while_the_request_is_still_relayed(self):
        session = session_of(limit=1)
        feed(session, [opened(BodyMode.FULL_DUPLEX_STREAMED), request_body(b"abc")])
        session.release(PASS)
        session.receive(response_headers("413"))
        session.acknowledge(NO_EDIT)
        assert streamed_body(session.receive(request_body(b"d", end=True)).replies) == (b"d", [True])


class TestMetadata:
    def test_values_come_as_json_types(self):
        session = session_of()
        values = {"a": {"b": [1.0, "x", None, True]}, "n": None}
        event = ready(session.receive(with_metadata(opened(BodyMode.NONE), "ns", values)))
        assert event.metadata.get("ns", "a") == values["a"]
        assert event.metadata.get("ns", "n") is None
        assert event.metadata.get("ns", "absent") is None
        assert event.metadata.get("absent", "a") is None

    def test_the_first_message_that_has_a_key_wins_and_later_ones_fill_gaps(self):
        session = session_of()
        session.receive(with_metadata(opened(BodyMode.FULL_DUPLEX_STREAMED), "ns", {"a": "first"}))
        last = with_metadata(request_body(b"", end=True), "ns", {"a": "later", "b": "new"})
        event = ready(session.receive(last))
        assert event.metadata.get("ns", "a") == "first"
        assert event.metadata.get("ns", "b") == "new"

    def test_the_fake_behaves_alike(self):
        fake = StaticMetadata({"ns": {"a": 1}})
        assert (fake.get("ns", "a"), fake.get("ns", "b"), fake.get("x", "a")) == (1, None, None)


class TestHeaders:
    def test_repeated_headers_are_joined_and_bytes_that_are_no_utf8_survive(self):
        message = with_modes(request_headers([("x-a", "1"), ("x-a", "2")]), BodyMode.NONE)
        message.request_headers.headers.headers.add(key="x-b", raw_value=b"\xff")
        message.request_headers.headers.headers.add(key="x-c", value="old style")
        event = ready(session_of().receive(message))
        assert event.headers["x-a"] == "1,2"
        assert event.headers["x-b"].encode("utf-8", "surrogateescape") == b"\xff"
        assert event.headers["x-c"] == "old style"
        assert (len(event.headers), list(event.headers)) == (3, ["x-a", "x-b", "x-c"])
        assert event.headers.lines == 4


class TestPeerErrors:
    @pytest.mark.parametrize("mode", ["BUFFERED_PARTIAL", "GRPC"])
    def test_a_mode_that_is_not_served_is_refused_by_the_name_of_its_setting(self, mode):
        with pytest.raises(PeerProtocolError, match="request_body_mode"):
            session_of().receive(with_modes(request_headers(), mode))
        with pytest.raises(PeerProtocolError, match="response_body_mode"):
            session_of().receive(with_modes(request_headers(), BodyMode.NONE, mode))

    def test_a_peer_that_names_no_mode_is_served_in_the_assumed_one(self):
        assert session_of().receive(request_headers()).event is None
        assert session_of(assumed=BodyMode.NONE).receive(request_headers()).event is not None

    def test_a_message_without_content_is_refused(self):
        with pytest.raises(PeerProtocolError, match="carries no"):
            session_of().receive(with_modes(type(request_headers())(), BodyMode.NONE))

    def test_a_missing_row_is_a_protocol_error_that_names_the_order(self):
        session = session_of()
        session.receive(opened(BodyMode.NONE))
        with pytest.raises(PeerProtocolError, match="request HEADERS in state DECIDING of NONE"):
            session.receive(request_headers())
        with pytest.raises(PeerProtocolError, match="response HEADERS in state OPEN"):
            feed_response_headers_twice()


def feed_response_headers_twice() -> None:
    session = session_of()
    session.receive(with_modes(response_headers(), BodyMode.NONE))
    session.acknowledge(NO_EDIT)
    session.receive(response_headers())


class TestMisuse:
    def test_release_without_a_decision_due_is_refused(self):
        session = session_of()
        with pytest.raises(MisuseError, match="IDLE"):
            session.release(PASS)
        session.receive(opened(BodyMode.NONE))
        session.release(PASS)
        with pytest.raises(MisuseError, match="DONE"):
            session.release(PASS)

    def test_a_response_piece_must_be_acknowledged_before_the_next_message(self):
        session = session_of()
        session.receive(with_modes(response_headers(), BodyMode.NONE))
        with pytest.raises(MisuseError, match="before acknowledge"):
            session.receive(response_trailers())
        session.acknowledge(NO_EDIT)
        with pytest.raises(MisuseError, match="without a response event"):
            session.acknowledge(NO_EDIT)
