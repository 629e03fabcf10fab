"""The render API over its real HTTP port: answers, refusals, limits."""

import asyncio
import json
import time
from datetime import UTC, datetime

import pytest

from tests.tokenext.http_ports import CHAT_PATH, COMPLETION_PATH, serving
from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tests.tokenext.models import fake_model
from tokenext.chat_template import ChatTemplates
from tokenext.engine import FakeEngine
from tokenext.observer import Outcome
from tokenext.render_api.sampling import Sampling
from tokenext.vllm_profile import VllmProfile
from tokenext.vocabulary import FakeVocabulary

RENDERED = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def chat(content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}]}


CHAT = chat("hi")


class SlowEngine(FakeEngine):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def encode(self, text, *, add_special_tokens, isolation=""):
        time.sleep(self.seconds)
        return super().encode(text, add_special_tokens=add_special_tokens, isolation=isolation)


async def test_a_chat_is_rendered_into_one_object_with_all_keys_of_vllms():
    async with serving() as port:
        status, answer, _ = await port.post(CHAT_PATH, {**CHAT, "temperature": 0.5}, x_request_id="mine")
    assert (status, answer["request_id"]) == (200, "chatcmpl-mine")
    assert bytes(answer["token_ids"]).decode() == RENDERED
    assert answer["sampling_params"]["temperature"] == 0.5
    assert answer["sampling_params"]["max_tokens"] == 200 - len(answer["token_ids"])
    assert list(answer) == [
        *(
            "request_id",
            "token_ids",
            "token_offsets",
            "features",
            "content_parts",
            "sampling_params",
            "model",
        ),
        *("reasoning_ended", "reasoning_parser_kwargs", "return_token_ids", "output_mode", "stream"),
        *("stream_options", "cache_salt", "priority", "kv_transfer_params", "ec_transfer_params"),
    ]


async def test_completions_are_a_list_also_of_one_and_number_their_ids_from_two_on():
    async with serving() as port:
        _, one, _ = await port.post(COMPLETION_PATH, {"prompt": "ab", "request_id": "r"})
        _, two, _ = await port.post(COMPLETION_PATH, {"prompt": ["ab", "c"], "request_id": "r"})
        _, ids, _ = await port.post(COMPLETION_PATH, {"prompt": [[5, 6], [7]], "model": "alias"})
    assert [(each["request_id"], each["token_ids"]) for each in one] == [("cmpl-r", [256, 97, 98])]
    assert [(each["request_id"], each["token_ids"]) for each in two] == [
        ("cmpl-r-0", [256, 97, 98]),
        ("cmpl-r-1", [256, 99]),
    ]
    assert [each["token_ids"] for each in ids] == [[5, 6], [7]]


async def test_a_completions_bound_is_vllms_default_unless_said_and_never_more_than_the_context_has_left():
    async with serving() as port:
        answers = [
            (await port.post(COMPLETION_PATH, {"prompt": "x" * 190, **more}))[1][0]["sampling_params"]
            for more in ({}, {"max_tokens": 3}, {"max_tokens": 100})
        ]
    assert [each.get("max_tokens") for each in answers] == [9, 3, 9]


async def test_what_the_request_leaves_out_is_sampled_by_the_models_defaults():
    defaults = {"temperature": 0.6, "top_k": 20, "max_tokens": 50}
    model = fake_model("m", sampling_defaults=defaults, max_model_len=200)
    async with serving(model) as port:
        plain = (await port.post(CHAT_PATH, CHAT))[1]["sampling_params"]
        own = (await port.post(CHAT_PATH, {**CHAT, "temperature": 0.9, "top_k": 0}))[1]["sampling_params"]
        completion = (await port.post(COMPLETION_PATH, {"prompt": "ab"}))[1][0]["sampling_params"]
    assert {name: plain[name] for name in defaults} == defaults
    assert (own["temperature"], own.get("top_k", 0), own["max_tokens"]) == (0.9, 0, 50)
    # Its bound has a default of its own, 16, which is not written.
    assert (completion["temperature"], completion["top_k"], completion.get("max_tokens")) == (0.6, 20, None)


async def test_ids_of_the_clients_own_take_the_place_of_a_rendered_chat():
    async with serving() as port:
        _, answer, _ = await port.post(
            CHAT_PATH, {**CHAT, "kv_transfer_params": {"prompt_token_ids": [4, 2]}}
        )
    assert answer["token_ids"] == [4, 2]


async def test_texts_and_chats_are_tokenized_and_ids_are_text_again():
    async with serving() as port:
        _, text, _ = await port.post("/tokenize", {"prompt": "ab", "return_token_strs": True})
        _, chat, _ = await port.post("/tokenize", CHAT)
        _, none, _ = await port.post("/tokenize", {"prompt": "", "add_special_tokens": False})
        _, back, _ = await port.post("/detokenize", {"tokens": [104, 105]})
    assert text == {
        "count": 3,
        "max_model_len": 200,
        "tokens": [256, 97, 98],
        "token_strs": ["<s>", "a", "b"],
    }
    assert bytes(chat["tokens"]).decode() == RENDERED
    assert (none["count"], none["tokens"]) == (0, [])
    assert back == {"prompt": "hi"}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT_PATH, b"", (400, "Bad Request", "body")),
        (CHAT_PATH, b"[]", (400, "Bad Request", "body")),
        (CHAT_PATH, {"messages": []}, (400, "BadRequestError", None)),
        (CHAT_PATH, {"messages": "x"}, (400, "Bad Request", "body.messages")),
        (CHAT_PATH, {**CHAT, "model": "unknown"}, (404, "NotFoundError", "model")),
        (CHAT_PATH, {**CHAT, "tools": []}, (400, "BadRequestError", "tools")),
        (CHAT_PATH, {**CHAT, "tool_choice": "auto"}, (400, "BadRequestError", "tool_choice")),
        (CHAT_PATH, {**CHAT, "continue_final_message": True}, (400, "BadRequestError", None)),
        (CHAT_PATH, {**CHAT, "temperature": 9}, (400, "BadRequestError", "temperature")),
        (CHAT_PATH, {**CHAT, "temperature": "hot"}, (400, "Bad Request", "body.temperature")),
        (CHAT_PATH, {**CHAT, "stop": list("abcde")}, (400, "Bad Request", "body.stop")),
        (CHAT_PATH, {**CHAT, "max_tokens": 201}, (400, "BadRequestError", "max_tokens")),
        (CHAT_PATH, {**CHAT, "cache_salt": "a/b"}, (400, "BadRequestError", "cache_salt")),
        (CHAT_PATH, {**CHAT, "chat_template": "x"}, (400, "BadRequestError", None)),
        (
            CHAT_PATH,
            {"messages": [{"role": "user", "content": "x" * 300}]},
            (400, "BadRequestError", "input_tokens"),
        ),
        (
            CHAT_PATH,
            chat([{"type": "image_url", "image_url": {"url": "x"}}]),
            (400, "BadRequestError", None),
        ),
        (COMPLETION_PATH, {"prompt": ""}, (400, "BadRequestError", "prompt")),
        (COMPLETION_PATH, {"prompt": ["a", ""]}, (400, "BadRequestError", None)),
        (COMPLETION_PATH, {"prompt": ["a", [1]]}, (400, "Bad Request", "body.prompt.0")),
        (COMPLETION_PATH, {"prompt": [-1]}, (400, "Bad Request", "body.prompt.0")),
        ("/tokenize", {"prompt": ["a"]}, (400, "Bad Request", "body.prompt")),
        ("/detokenize", {"tokens": [1, 1.5]}, (400, "Bad Request", "body.tokens.1")),
        ("/detokenize", {"tokens": [2**32]}, (400, "BadRequestError", None)),
        ("/tokenize", b'{"prompt":"' + b"x" * 100_000 + b'"}', (413, "RequestEntityTooLarge", None)),
    ],
)
async def test_a_request_is_refused_in_vllms_shape(path, body, expected):
    async with serving() as port:
        status, answer, headers = await port.post(path, body)
    error = answer["error"]
    assert (status, error["type"], error["param"]) == expected
    assert error["code"] == status
    assert "retry-after" not in headers


async def test_without_a_json_content_type_nothing_is_read():
    async with serving() as port:
        status, answer, _ = await port.post("/tokenize", {"prompt": "x"}, content_type="text/plain")
    assert (status, answer["error"]["param"]) == (400, None)


async def test_among_several_models_a_request_must_name_one():
    async with serving(fake_model("a"), fake_model("b")) as port:
        assert (await port.post("/tokenize", {"prompt": "x"}))[0] == 404
        assert (await port.post("/tokenize", {"prompt": "x", "model": "b"}))[0] == 200
        _, listed = await port.get("/v1/models")
    assert [each["id"] for each in json.loads(listed)["data"]] == ["a", "b"]


async def test_over_capacity_every_request_is_answered_by_its_deadline_or_refused_at_once():
    slow = fake_model("m", engine=SlowEngine(0.05))
    async with serving(slow, max_queued=2, deadline=1.0) as port:
        began = time.monotonic()
        answers = await asyncio.gather(*(port.post("/tokenize", {"prompt": "x"}) for _ in range(24)))
        took = time.monotonic() - began
    refused = [(answer, headers) for status, answer, headers in answers if status == 503]
    assert {status for status, *_ in answers} == {200, 503}
    assert len(refused) >= 12
    assert all(headers["retry-after"] == "1" for _, headers in refused)
    assert {answer["error"]["type"] for answer, _ in refused} == {"ServiceUnavailableError"}
    assert took < 1.0
    reasons = [each.reason for each in port.observer.records if each.outcome is Outcome.PASSED]
    assert reasons == ["queue_full"] * len(refused)


async def test_requests_over_the_bound_are_refused_before_their_bodies_are_read():
    slow = fake_model("m", engine=SlowEngine(0.3))
    async with serving(slow, max_requests=2) as port:
        answers = await asyncio.gather(*(port.post("/tokenize", {"prompt": "x"}) for _ in range(6)))
        assert sorted(status for status, *_ in answers) == [200, 200, 503, 503, 503, 503]
        assert (port.limits.refused, port.limits.open) == (4, 0)


async def test_while_the_process_is_busy_a_request_is_refused_before_its_body_has_come():
    async with serving(busy=lambda: True) as port:
        host, _, number = port.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(number))
        writer.write(b"POST /tokenize HTTP/1.1\r\nhost: t\r\ncontent-length: 50000\r\n\r\n")
        async with asyncio.timeout(2):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in head
        assert (port.limits.refused, port.limits.open, port.observer.records) == (1, 0, [])


async def test_a_client_that_leaves_gives_its_place_back():
    slow = fake_model("m", engine=SlowEngine(0.2))
    async with serving(slow) as port:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await port.post("/tokenize", {"prompt": "x"})
        async with asyncio.timeout(3):
            while port.limits.open or port.pool.held:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.02)
        assert (await port.post("/tokenize", {"prompt": "x"}))[0] == 200


async def test_what_there_is_not_is_said_as_vllm_does():
    async with serving() as port:
        assert await port.get("/nothing") == (404, b'{"detail":"Not Found"}')
        assert await port.get("/tokenize") == (405, b'{"detail":"Method Not Allowed"}')
        assert await port.get("/health") == (200, b"")
        assert json.loads((await port.get("/version"))[1]) == {"version": "7"}
        assert json.loads((await port.get("/openapi.json"))[1])["openapi"] == "3.1.0"


async def test_a_bug_of_ours_is_a_500_in_vllms_shape_and_ends_nothing_else():
    class Broken(FakeVocabulary):
        def text(self, ids):
            raise RuntimeError("a bug")

    async with serving(fake_model("m", vocabulary=Broken())) as port:
        status, answer, _ = await port.post("/detokenize", {"tokens": [1]}, connection="close")
        assert (status, answer["error"]["type"]) == (500, "InternalServerError")
        assert (await port.post("/tokenize", {"prompt": "x"}))[0] == 200
        assert port.limits.open == 0


async def test_the_document_describes_every_field_that_is_read_by_the_type_it_is_read_into():
    async with serving() as port:
        document = json.loads((await port.get("/openapi.json"))[1])
    for path in (CHAT_PATH, COMPLETION_PATH):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert {*Sampling.__struct_fields__, "request_id", "cache_salt"} <= set(body["properties"])
    assert "$ref" not in json.dumps(document)


async def test_what_is_asked_of_the_vocabulary_waits_in_the_queue_too_and_is_refused_when_it_is_full():
    class Slow(FakeVocabulary):
        def text(self, ids):
            time.sleep(0.2)
            return super().text(ids)

    async with serving(fake_model("m", vocabulary=Slow()), max_queued=1) as port:
        answers = await asyncio.gather(*(port.post("/detokenize", {"tokens": [104]}) for _ in range(6)))
    assert sorted(status for status, *_ in answers) == [200, 200, 503, 503, 503, 503]
    assert {headers["retry-after"] for status, _, headers in answers if status == 503} == {"1"}


async def test_the_requests_traceparent_is_on_record():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving() as port:
        for path, body in ((CHAT_PATH, CHAT), ("/tokenize", CHAT)):
            assert (await port.post(path, body, traceparent=parent))[0] == 200
        assert [each.traceparent for each in port.observer.records] == [parent, parent]


@pytest.mark.parametrize("around", [{}, {"model": "m", "stream": False}, {"cache_salt": "s"}, {"n": 1}])
async def test_a_conversation_that_goes_on_is_answered_as_if_it_were_new(around):
    templates = ChatTemplates({"default": CHAT_TEMPLATE}, now=lambda: datetime.now(UTC))
    model = fake_model("m", profile=VllmProfile(templates, special_tokens={}, template_kwargs={}))
    said = [{"role": "user", "content": "Once more. " * 300}, {"role": "assistant", "content": "Well?"}]
    turns = [
        said[:1],
        [*said, *said[:1]],
        [*said, {"role": "user", "content": "Other."}],
        [*said, *said, *said],
    ]
    known = []
    async with serving(model) as port:
        for messages in turns:
            known.append((await port.post(CHAT_PATH, {"messages": messages, **around}))[1]["token_ids"])
            tokenized = (await port.post("/tokenize", {"messages": messages, **around}))[1]
            assert tokenized["tokens"] == known[-1]
            assert tokenized["count"] == len(known[-1])
    for messages, ids in zip(turns, known, strict=True):
        async with serving(model) as port:
            assert (await port.post(CHAT_PATH, {"messages": messages, **around}))[1]["token_ids"] == ids
