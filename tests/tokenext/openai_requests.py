"""OpenAI requests of every kind, as a hypothesis strategy: all fields that decide a prompt, sound and broken.

`requests` gives (api, body) with hostile text in every place that takes text, `megabytes` those with one
megabyte of one character. `spelled` writes a body as JSON, in one of the ways that clients do.
"""

import json
from typing import Any, Final

from hypothesis import strategies as st

from tokenext.openai import Api

__all__ = ["hostile_texts", "megabytes", "requests", "spelled"]

_MEGABYTE: Final = 1_000_000
_SPECIAL: Final = (
    *("<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<|eot_id|>", "</s>", "<s>", "[INST]"),
    *("<tool_call>", "</tool_call>", "<think>", "</think>", "<end_of_turn>", "CONTINUE_FINAL_MESSAGE_TAG "),
)
_FORMS: Final = ("e\u0301", "\u00e9", "\u212b", "\ufb01", "\u1100\u1161", "\uac00")  # mixed normal forms
_ODD: Final = ("\0", "\r\n", "\t", "\n", " ", "\ufeff", "\u2028", "\U0001f600", "\U0010ffff", "\ue000")
_CODE: Final = ("{{ messages }}", "{% for i in range(9) %}", '"', "\\", "'", "<b>&amp;")
_PIECES: Final = ("", "hi", *_SPECIAL, *_FORMS, *_ODD, *_CODE, "x-anthropic-billing-header: a\nb")

# Nearly all are short: one megabyte of one character is there, but not often.
hostile_texts: Final = st.one_of(
    st.lists(st.sampled_from(_PIECES), max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["", "a" * 5000, "\n" * 999, "\u00e9" * 999]),
    # Half a surrogate pair makes the whole body unreadable, so there are few.
    st.integers(0, 39).map(lambda chance: "plain" if chance else "a\ud800"),
)
_megabytes: Final = st.sampled_from(["a", " ", "<", "\u00e9", "\0", "0"]).map(
    lambda letter: letter * _MEGABYTE
)

_numbers: Final = st.sampled_from([0, -1, 1.5, -0.0, 1e20, 2**64, -(2**63) - 1, 10**30, 1e-7])
_json: Final = st.recursive(
    st.none() | st.booleans() | _numbers | hostile_texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "type", "items", "b"]), inner)
    ),
    max_leaves=6,
)
_broken: Final = st.one_of(_json, st.just([[[]]]), st.just({}))


def _often(sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Sound most of the time, so that requests with many fields get past the first check."""
    return st.integers(0, 79).flatmap(lambda chance: sound if chance else _broken)


def _fields(
    always: dict[str, st.SearchStrategy[Any]], sometimes: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(always, optional=sometimes)


_text_part: Final = _fields(
    {"type": st.just("text"), "text": _often(hostile_texts)}, {"cache_control": _json}
)
_media_part: Final = st.sampled_from(
    [
        {"type": "image_url", "image_url": {"url": "data:,x"}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "refusal", "refusal": "no"},
        {"type": "text", "text": "a", "uuid": "u"},
        "text",
        {"text": "no type"},
    ]
)
_parts: Final = st.lists(st.integers(0, 19).flatmap(lambda n: _text_part if n else _media_part), max_size=3)
_contents: Final = hostile_texts | hostile_texts | _parts | st.none()
_arguments: Final = st.one_of(
    st.dictionaries(st.sampled_from(["a", "b", "é"]), _json, max_size=3).map(json.dumps),
    st.sampled_from(
        ["", " ", "{}", '{"a":1,"a":2}', "no json", "[1]", "null", '{"a":NaN}', '{"a":1e400}', "{" * 2000]
    ),
    hostile_texts,
)
_calls: Final = st.lists(
    _fields(
        {
            "id": _often(hostile_texts),
            "type": _often(st.just("function")),
            "function": _often(
                _fields({"name": st.just("f"), "arguments": _often(_arguments)}, {"x": _json})
            ),
        },
        {"index": _numbers},
    ),
    max_size=2,
)
_messages: Final = st.lists(
    _fields(
        {
            "role": _often(
                st.sampled_from(
                    ["system", "developer", "user", "assistant", "user", "assistant", "tool", "function"]
                )
            )
        },
        {
            "content": _often(_contents),
            "name": _often(hostile_texts | st.none()),
            "tool_call_id": _often(hostile_texts | st.none()),
            "tool_calls": _often(_calls | st.none()),
            "reasoning": _often(hostile_texts | st.none()),
            "reasoning_content": _often(hostile_texts | st.none()),
            "refusal": st.none() | hostile_texts,
            "thinking": _json,
            "tools": _json,
            "foo": _json,
        },
    ),
    max_size=4,
)
_schemas: Final = _fields({}, {"type": st.just("object"), "properties": _json, "required": _json, "x": _json})
_tools: Final = st.lists(
    _fields(
        {
            "type": _often(st.just("function")),
            "function": _often(
                _fields(
                    {"name": _often(hostile_texts)},
                    {
                        "description": st.none() | hostile_texts,
                        "parameters": st.none() | _schemas,
                        "strict": st.none() | st.booleans(),
                        "x": _json,
                    },
                )
            ),
        },
        {"defer_loading": st.booleans() | st.none(), "x": _json},
    ),
    max_size=2,
)
_ARGUMENTS: Final = (
    *("enable_thinking", "thinking", "thinking_mode", "reasoning_effort", "foo", "bos_token", "tools"),
    *("messages", "documents", "chat_template", "tokenize", "add_generation_prompt", "range"),
)
_kwargs: Final = st.dictionaries(st.sampled_from(_ARGUMENTS), _json, max_size=3)
_NAMED: Final = {"type": "function", "function": {"name": "f"}}
_shared: Final[dict[str, st.SearchStrategy[Any]]] = {
    "stream": st.booleans(),
    "max_tokens": _numbers,
    "temperature": _numbers,
    "echo": st.booleans(),
    "cache_salt": hostile_texts,
    "truncate_prompt_tokens": _often(st.integers(-2, 50)),
    "truncation_side": _often(st.sampled_from(["left", "right"])),
    "add_special_tokens": _often(st.booleans()),
    "nvext": _often(st.dictionaries(st.sampled_from(["token_data", "dp_rank", "agent_hints"]), _json)),
    "kv_transfer_params": _often(
        st.dictionaries(st.sampled_from(["prompt_token_ids", "do_remote_prefill"]), _json)
    ),
    "prompt_token_ids": _json,
    "input_ids": _json,
    "prompt_embeds": hostile_texts,
    "made_up": _json,
}
_models: Final = _often(st.sampled_from(["m", "alias", "lora"]))
_chats: Final = _fields(
    {"model": _models, "messages": _often(_messages)},
    {
        **_shared,
        "tools": _often(_tools | st.none()),
        "tool_choice": _often(st.sampled_from(["none", "auto", "required", None, _NAMED])),
        "chat_template_kwargs": _often(_kwargs | st.none()),
        "chat_template_args": _often(_kwargs),
        "chat_template": hostile_texts,
        "documents": _often(
            st.lists(st.dictionaries(st.sampled_from(["title", "text"]), hostile_texts), max_size=2)
        ),
        "reasoning_effort": _often(st.sampled_from(["none", "low", "high", None])),
        "add_generation_prompt": _often(st.booleans() | st.none()),
        "continue_final_message": _often(st.booleans()),
        "return_prompt_text": st.booleans(),
    },
)
_ids: Final = st.lists(st.integers(0, 300) | _numbers, max_size=5)
_prompts: Final = st.one_of(
    hostile_texts,
    hostile_texts.map(lambda text: [text]),
    st.lists(hostile_texts, max_size=3),
    _ids,
    _ids.map(lambda ids: [ids]),
    st.lists(_ids, max_size=2),
)
_completions: Final = _fields(
    {"model": _models, "prompt": _often(_prompts)}, {**_shared, "suffix": st.none() | hostile_texts}
)
megabytes: Final = st.one_of(
    _megabytes.map(lambda text: (Api.CHAT, {"model": "m", "messages": [{"role": "user", "content": text}]})),
    _megabytes.map(lambda text: (Api.COMPLETION, {"model": "m", "prompt": text})),
)
_usual: Final = st.one_of(
    st.tuples(st.just(Api.CHAT), _chats),
    st.tuples(st.just(Api.CHAT), _chats),
    st.tuples(st.just(Api.COMPLETION), _completions),
)
requests: Final = st.integers(0, 199).flatmap(lambda chance: _usual if chance else megabytes)


@st.composite
def spelled(draw: st.DrawFn, body: dict[str, Any]) -> bytes:
    """The body as JSON: escaped or not, tight or wide. Half a surrogate pair can only be escaped."""
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")]))
    if draw(st.booleans()):
        return json.dumps(body, separators=separators).encode()
    text = json.dumps(body, ensure_ascii=False, separators=separators)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=separators).encode()
