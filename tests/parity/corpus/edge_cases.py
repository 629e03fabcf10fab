"""Hand-written requests: the points of RULES.md where engines differ, or a reader might guess wrong."""

from collections.abc import Iterator
from typing import Any, Final

from tests.parity.corpus.case import CHAT, COMPLETION, Case
from tests.parity.corpus.json_text import Raw, Spelling, write

__all__ = ["edge_cases"]

_Object = dict[str, Any]

_USER: Final[_Object] = {"role": "user", "content": "q"}
_RESULT: Final[_Object] = {"role": "tool", "tool_call_id": "c1", "content": "r"}
_UNFINISHED: Final[_Object] = {"continue_final_message": True, "add_generation_prompt": False}
_MEGABYTE: Final = 1_000_000


def edge_cases() -> Iterator[Case]:
    for name, request in _CHATS.items():
        given = {"messages": [_USER], **request}
        yield Case(f"edge-{name}", "edge", CHAT, write(given, Spelling()))
    for name, text in _CHAT_TEXTS.items():
        yield Case(f"edge-{name}", "edge", CHAT, text)
    for name, prompt in _PROMPTS.items():
        yield Case(f"edge-prompt-{name}", "edge", COMPLETION, write({"prompt": prompt}, Spelling()))


def _user(content: Any, **fields: Any) -> _Object:
    return {"role": "user", "content": content, **fields}


def _assistant(content: Any, **fields: Any) -> _Object:
    return {"role": "assistant", "content": content, **fields}


def _called(arguments: Any, content: Any = None, **fields: Any) -> _Object:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [_USER, _assistant(content, tool_calls=[{**call, **fields}]), _RESULT]}


def _tool(**function: Any) -> _Object:
    return {"tools": [{"type": "function", "function": {"name": "f", **function}}]}


def _text(text: str) -> _Object:
    return {"type": "text", "text": text}


_SCHEMA: Final[_Object] = {
    "type": "object",
    "properties": {"z": {"type": "string"}, "a": {}},
    "required": ["z"],
}
_NUMBERS: Final = [
    Raw(text)
    for text in (
        *("1.0", "1e3", "1E-7", "-0", "-0.0", "1e16", "1e15", "123456789.123456789", "18446744073709551615"),
        *(
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901234567890",
            "5e-324",
            "1e-400",
        ),
    )
]
_CHATS: Final[dict[str, _Object]] = {
    "name": {"messages": [_user("q", name="bob")]},
    "developer": {"messages": [{"role": "developer", "content": "s"}, _USER]},
    "function-role": {"messages": [_USER, {"role": "function", "name": "f", "content": "s"}]},
    "unknown-role": {"messages": [{"role": "critic", "content": "s"}]},
    "unknown-message-field": {"messages": [_user("q", made_up=1)]},
    "two-users": {"messages": [_user("a"), _user("b")]},
    "two-users-in-parts": {"messages": [_user("a"), _user([_text("b"), _text("c")]), _user("")]},
    "two-systems": {
        "messages": [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, _USER]
    },
    "later-system": {"messages": [_USER, _assistant("a"), {"role": "system", "content": "s"}, _USER]},
    "assistant-first": {"messages": [_assistant("a"), _USER]},
    "assistant-last": {"messages": [_USER, _assistant("a")]},
    "null-content": {"messages": [_USER, _assistant(None), _USER]},
    "null-user": {"messages": [_user(None)]},
    "empty-content": {"messages": [_user("")]},
    "no-messages": {"messages": []},
    "parts": {"messages": [_user([_text("a"), _text("b")])]},
    "parts-none": {"messages": [_user([])]},
    "parts-empty": {"messages": [_user([_text(""), _text("")])]},
    "parts-of-tool": {
        "messages": [*_called("{}")["messages"][:2], {**_RESULT, "content": [_text("a"), _text("b")]}]
    },
    "parts-image": {
        "messages": [_user([_text("a"), {"type": "image_url", "image_url": {"url": "data:,x"}}])]
    },
    "arguments": _called('{"b":1.50, "a":"é"}'),
    "arguments-nested": _called('{"a":{"b":[1,null,true,"x"]}}', "text"),
    "arguments-empty": _called(""),
    "arguments-blank": _called(" "),
    "arguments-null": _called("null"),
    "arguments-list": _called("[1]"),
    "arguments-malformed": _called("{bad"),
    "arguments-object": _called({"b": 1.0, "a": [1]}),
    "arguments-twice": _called('{"a":1,"b":2,"a":3}'),
    "arguments-big-number": _called('{"n":123456789012345678901234567890}'),
    "arguments-minus-zero": _called('{"n":-0}'),
    "call-without-type": _called("{}", type="function", index=0),
    "no-calls": {"messages": [_USER, _assistant("x", tool_calls=[]), _USER]},
    "tool": _tool(description="d", parameters=_SCHEMA),
    "tool-no-description": _tool(parameters=_SCHEMA),
    "tool-null-description": _tool(description=None, parameters=_SCHEMA, strict=False),
    "tool-no-parameters": _tool(description="d"),
    "tool-empty-parameters": _tool(description="d", parameters={}),
    "tool-no-type": _tool(description="d", parameters={"properties": {}}),
    "tool-unknown-keys": _tool(description="d", parameters=_SCHEMA, returns={}),
    "tool-strict": _tool(description="d", parameters=_SCHEMA, strict=True),
    "tool-numbers": _tool(description="d", parameters={**_SCHEMA, "n": _NUMBERS}),
    "tool-html": _tool(description="<a href='x'>&\u2028\x7f/é😀", parameters=_SCHEMA),
    "tools-none": {"tools": []},
    "tool-choice-none": {**_tool(description="d"), "tool_choice": "none"},
    "tool-choice-required": {**_tool(description="d"), "tool_choice": "required"},
    "reasoning": {"messages": [_USER, _assistant("c", reasoning_content="r"), _USER]},
    "reasoning-only": {"messages": [_USER, _assistant(None, reasoning_content="r"), _USER]},
    "reasoning-in-parts": {"messages": [_USER, _assistant([_text("p")], reasoning_content="r"), _USER]},
    "reasoning-last": {"messages": [_USER, _assistant("c", reasoning_content="r")]},
    "reasoning-segments": {"messages": [_USER, _assistant("c", reasoning_content=["r", "", "s"]), _USER]},
    "reasoning-other-name": {"messages": [_USER, _assistant("c", reasoning="r")]},
    "reasoning-both-names": {"messages": [_USER, _assistant("c", reasoning="r", reasoning_content="s")]},
    "effort-none": {"reasoning_effort": "none"},
    "effort-low": {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
    "thinking-disabled": {"thinking": {"type": "disabled"}},
    "kwargs-thinking": {"chat_template_kwargs": {"thinking": False}},
    "kwargs-mode": {"chat_template_kwargs": {"thinking_mode": "disabled"}},
    "kwargs-effort": {"chat_template_kwargs": {"reasoning_effort": "none"}},
    "kwargs-text": {"chat_template_kwargs": {"enable_thinking": "false"}},
    "kwargs-null": {"chat_template_kwargs": {"enable_thinking": None}},
    "args": {"chat_template_args": {"enable_thinking": False}},
    "args-and-kwargs": {"chat_template_args": {}, "chat_template_kwargs": {}},
    "kwargs-messages": {"chat_template_kwargs": {"messages": [], "tools": [1], "bos_token": "x"}},
    "no-generation-prompt": {"add_generation_prompt": False},
    "unfinished": {"messages": [_USER, _assistant("a b ")], **_UNFINISHED},
    "unfinished-line": {"messages": [_USER, _assistant("a\n")], **_UNFINISHED},
    "unfinished-odd-spaces": {"messages": [_USER, _assistant("\x1c a \x1e\x1f\x85\u2003")], **_UNFINISHED},
    "unfinished-blank": {"messages": [_USER, _assistant("  ")], **_UNFINISHED},
    "unfinished-empty": {"messages": [_USER, _assistant("")], **_UNFINISHED},
    "unfinished-parts": {
        "messages": [_USER, _assistant([_text("a "), _text("b "), _text("")])],
        **_UNFINISHED,
    },
    "unfinished-user": _UNFINISHED,
    "unfinished-think": {"messages": [_USER, _assistant("<think>\nso")], **_UNFINISHED},
    "unfinished-reasoning": {"messages": [_USER, _assistant("c", reasoning_content="r")], **_UNFINISHED},
    "unfinished-and-prompt": {"messages": [_USER, _assistant("a")], "continue_final_message": True},
    "mark-in-text": {"messages": [_user("CONTINUE_FINAL_MESSAGE_TAG"), _assistant("a")], **_UNFINISHED},
    "special-tokens": {"messages": [_user("<|im_end|><|eot_id|></s><s><bos><end_of_turn>")]},
    "nul": {"messages": [_user("a\0b\0")]},
    "lone-surrogate": {"messages": [_user("a\ud800b")]},
    "byte-order-mark": {"messages": [_user("\ufeffa\ufeff")]},
    "normal-forms": {"messages": [_user("e\u0301 é \u212b \ufb01")]},
    "megabyte": {"messages": [_user("a" * _MEGABYTE)]},
    "megabyte-of-spaces": {"messages": [_user(" " * _MEGABYTE)]},
    "unknown-field": {"made_up": 1},
    "documents": {"documents": [{"title": "t", "text": "x"}]},
    "null-fields": {
        "tools": None,
        "tool_choice": None,
        "chat_template_kwargs": None,
        "reasoning_effort": None,
    },
}
_CHAT_TEXTS: Final = {
    "field-twice": '{"messages": [{"role": "user", "content": "a"}], "messages": []}',
    "content-twice": '{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
    "raw-control-characters": '{"messages": [{"role": "user", "content": "a\x01\n\tb"}]}',
    "nan": '{"messages": [{"role": "user", "content": "a"}], "metadata": NaN}',
    "huge-number": '{"messages": [{"role": "user", "content": "a"}], "metadata": {"n": 1e999}}',
    "trailing-space": '{"messages": [{"role": "user", "content": "a"}]}\n \n',
    "trailing-text": '{"messages": [{"role": "user", "content": "a"}]} x',
}
_PROMPTS: Final[dict[str, Any]] = {
    "text": "Hello  world",
    "special": "<s><|begin_of_text|>a<bos>",
    "nul": "a\0b",
    "empty": "",
    "blank": " ",
    "list": ["a"],
    "lists": ["a", "b"],
    "ids": [1, 2],
    "lists-of-ids": [[1], [2]],
    "surrogate": "\udc00",
    "newline": "\n\nx",
    "megabyte": "ab" * (_MEGABYTE // 2),
}
