"""Messages beside OpenAI's shape, and what a vLLM 0.32.0 render server made of each (Qwen3's template).

`make e2e-render` asks them of both servers anew.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

__all__ = ["ODD_MESSAGES", "Seen"]

USER: Final = {"role": "user", "content": "hi"}


class Seen(Enum):
    TAKEN = "ids"
    REFUSED = "400, for what the messages are"
    LATER = "400, from the template or the tokenizer"


ODD_MESSAGES: Final[Mapping[str, tuple[list[Any], Seen]]] = {
    "unknown role": ([{"role": "critic", "content": "s"}, USER], Seen.TAKEN),
    "unknown role parts": (
        [{"role": "critic", "content": [{"type": "text", "text": "s"}]}, USER],
        Seen.TAKEN,
    ),
    "unknown role null": ([{"role": "critic", "content": None}, USER], Seen.REFUSED),
    "unknown role missing": ([{"role": "critic"}, USER], Seen.TAKEN),
    "unknown role tools": (
        [
            {
                "role": "critic",
                "content": "x",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            USER,
        ],
        Seen.TAKEN,
    ),
    "unknown role bad calls": ([{"role": "critic", "content": "x", "tool_calls": 5}, USER], Seen.REFUSED),
    "unknown role reasoning int": ([{"role": "critic", "content": "x", "reasoning": 5}, USER], Seen.REFUSED),
    "unknown role reasoning list": (
        [{"role": "critic", "content": "x", "reasoning": ["a"]}, USER],
        Seen.REFUSED,
    ),
    "unknown role name int": ([{"role": "critic", "content": "x", "name": 5}, USER], Seen.REFUSED),
    "unknown role name null": ([{"role": "critic", "content": "x", "name": None}, USER], Seen.REFUSED),
    "unknown role tcid int": ([{"role": "critic", "content": "x", "tool_call_id": 5}, USER], Seen.REFUSED),
    "unknown role tools field 5": ([{"role": "critic", "content": "x", "tools": 5}, USER], Seen.REFUSED),
    "unknown role task 5": ([{"role": "critic", "content": "x", "task": 5}, USER], Seen.REFUSED),
    "unknown refusal int": ([{"role": "critic", "content": "x", "refusal": 5}, USER], Seen.TAKEN),
    "unknown role rc int": ([{"role": "critic", "content": "x", "reasoning_content": 5}, USER], Seen.REFUSED),
    "empty role": ([{"role": "", "content": "x"}, USER], Seen.TAKEN),
    "last unknown": ([USER, {"role": "critic", "content": "x"}], Seen.TAKEN),
    "only unknown": ([{"role": "critic", "content": "x"}], Seen.TAKEN),
    "harmony": (
        [{"role": "critic", "content": [{"type": "text", "text": "x"}], "author": {"role": "user"}}, USER],
        Seen.TAKEN,
    ),
    "refusal part": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, USER],
        Seen.TAKEN,
    ),
    "refusal part user": ([{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}], Seen.TAKEN),
    "refusal part int": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": 5}]}, USER],
        Seen.REFUSED,
    ),
    "refusal part missing": ([{"role": "assistant", "content": [{"type": "refusal"}]}, USER], Seen.REFUSED),
    "refusal part null": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": None}]}, USER],
        Seen.REFUSED,
    ),
    "thinking part": (
        [
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": "c"}],
            },
            USER,
        ],
        Seen.TAKEN,
    ),
    "thinking part null": (
        [
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": None}, {"type": "text", "text": "c"}],
            },
            USER,
        ],
        Seen.TAKEN,
    ),
    "thinking part missing": (
        [{"role": "assistant", "content": [{"type": "thinking"}, {"type": "text", "text": "c"}]}, USER],
        Seen.TAKEN,
    ),
    "input_text": ([{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}], Seen.REFUSED),
    "output_text": (
        [{"role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}, USER],
        Seen.REFUSED,
    ),
    "input_text null": ([{"role": "user", "content": [{"type": "input_text", "text": None}]}], Seen.REFUSED),
    "tool_reference": (
        [{"role": "tool", "tool_call_id": "1", "content": [{"type": "tool_reference", "name": "f"}]}, USER],
        Seen.TAKEN,
    ),
    "tool_reference user": (
        [{"role": "user", "content": [{"type": "tool_reference", "name": "f"}]}, USER],
        Seen.TAKEN,
    ),
    "tool_reference noname": ([{"role": "user", "content": [{"type": "tool_reference"}]}, USER], Seen.TAKEN),
    "str part": ([{"role": "user", "content": ["hi", "there"]}], Seen.REFUSED),
    "str+dict": ([{"role": "user", "content": ["hi", {"type": "text", "text": "there"}]}], Seen.TAKEN),
    "str part system": (
        [{"role": "system", "content": ["x-anthropic-billing-header: a\nrest"]}, USER],
        Seen.REFUSED,
    ),
    "str part assistant": ([{"role": "assistant", "content": ["hi"]}, USER], Seen.REFUSED),
    "text missing": ([{"role": "user", "content": [{"type": "text"}]}], Seen.REFUSED),
    "text null": ([{"role": "user", "content": [{"type": "text", "text": None}]}], Seen.REFUSED),
    "text int": ([{"role": "user", "content": [{"type": "text", "text": 5}]}], Seen.REFUSED),
    "text list": ([{"role": "user", "content": [{"type": "text", "text": ["x"]}]}], Seen.REFUSED),
    "no type": ([{"role": "user", "content": [{"text": "x"}]}], Seen.REFUSED),
    "type null": ([{"role": "user", "content": [{"type": None, "text": "x"}]}], Seen.REFUSED),
    "type 5": ([{"role": "user", "content": [{"type": 5, "text": "x"}]}], Seen.REFUSED),
    "type unknown": ([{"role": "user", "content": [{"type": "foo", "text": "x"}]}], Seen.REFUSED),
    "text uuid null": (
        [{"role": "user", "content": [{"type": "text", "text": "x", "uuid": None}]}],
        Seen.TAKEN,
    ),
    "text uuid": ([{"role": "user", "content": [{"type": "text", "text": "x", "uuid": "u"}]}], Seen.REFUSED),
    "text image_url null": (
        [{"role": "user", "content": [{"type": "text", "text": "x", "image_url": None}]}],
        Seen.TAKEN,
    ),
    "text image_url": (
        [{"role": "user", "content": [{"type": "text", "text": "x", "image_url": "http://x"}]}],
        Seen.TAKEN,
    ),
    "empty parts": ([{"role": "user", "content": []}, USER], Seen.TAKEN),
    "part null": ([{"role": "user", "content": [None]}], Seen.REFUSED),
    "part 5": ([{"role": "user", "content": [5]}], Seen.REFUSED),
    "content dict": ([{"role": "user", "content": {"type": "text", "text": "x"}}], Seen.REFUSED),
    "content 5": ([{"role": "user", "content": 5}], Seen.REFUSED),
    "reasoning list": (
        [USER, {"role": "assistant", "content": "c", "reasoning_content": ["r", "", "s"]}, USER],
        Seen.TAKEN,
    ),
    "reasoning list last": (
        [USER, {"role": "assistant", "content": "c", "reasoning_content": ["r", "", "s"]}],
        Seen.LATER,
    ),
    "reasoning list shown": (
        [
            USER,
            {
                "role": "assistant",
                "content": "c",
                "reasoning": ["r", "", "s"],
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ],
        Seen.LATER,
    ),
    "reasoning int": ([USER, {"role": "assistant", "content": "c", "reasoning": 5}, USER], Seen.TAKEN),
    "reasoning int shown": ([USER, {"role": "assistant", "content": "c", "reasoning": 5}], Seen.LATER),
    "reasoning dict shown": (
        [USER, {"role": "assistant", "content": "c", "reasoning": {"a": 1}}],
        Seen.LATER,
    ),
    "reasoning true shown": ([USER, {"role": "assistant", "content": "c", "reasoning": True}], Seen.LATER),
    "reasoning false shown": ([USER, {"role": "assistant", "content": "c", "reasoning": False}], Seen.LATER),
    "reasoning user int": ([{"role": "user", "content": "x", "reasoning": 5}], Seen.TAKEN),
    "name int": ([{"role": "user", "content": "x", "name": 5}], Seen.REFUSED),
    "name null": ([{"role": "user", "content": "x", "name": None}], Seen.REFUSED),
    "name list assistant": ([USER, {"role": "assistant", "content": "c", "name": ["x"]}, USER], Seen.REFUSED),
    "refusal int assistant": ([USER, {"role": "assistant", "content": "c", "refusal": 5}, USER], Seen.TAKEN),
    "refusal int user": ([{"role": "user", "content": "x", "refusal": 5}], Seen.TAKEN),
    "tcid int tool": ([USER, {"role": "tool", "content": "x", "tool_call_id": 5}, USER], Seen.REFUSED),
    "tcid int user": ([{"role": "user", "content": "x", "tool_call_id": 5}], Seen.TAKEN),
    "tool no tcid": ([USER, {"role": "tool", "content": "x"}, USER], Seen.TAKEN),
    "calls null": ([USER, {"role": "assistant", "content": "c", "tool_calls": None}, USER], Seen.TAKEN),
    "calls empty": ([USER, {"role": "assistant", "content": "c", "tool_calls": []}, USER], Seen.TAKEN),
    "calls user": ([{"role": "user", "content": "x", "tool_calls": 5}], Seen.REFUSED),
    "calls user list": ([{"role": "user", "content": "x", "tool_calls": [{"foo": 1}]}], Seen.TAKEN),
    "calls no id": (
        [
            USER,
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            USER,
        ],
        Seen.REFUSED,
    ),
    "calls custom": (
        [
            USER,
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f", "input": "x"}}],
            },
            USER,
        ],
        Seen.REFUSED,
    ),
    "calls args dict": (
        [
            USER,
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
                ],
            },
            USER,
        ],
        Seen.REFUSED,
    ),
    "calls args none": (
        [
            USER,
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}],
            },
            USER,
        ],
        Seen.REFUSED,
    ),
    "calls args null": (
        [
            USER,
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": None}}],
            },
            USER,
        ],
        Seen.REFUSED,
    ),
    "calls no type": (
        [
            USER,
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
            },
            USER,
        ],
        Seen.REFUSED,
    ),
    "calls int": ([USER, {"role": "assistant", "content": "c", "tool_calls": 5}, USER], Seen.REFUSED),
    "calls dict": ([USER, {"role": "assistant", "content": "c", "tool_calls": {"a": 1}}, USER], Seen.REFUSED),
    "function null content": ([USER, {"role": "function", "content": None, "name": "f"}, USER], Seen.TAKEN),
    "function no name": ([USER, {"role": "function", "content": "x"}, USER], Seen.TAKEN),
    "no role": ([{"content": "x"}], Seen.REFUSED),
    "role int": ([{"role": 5, "content": "x"}], Seen.REFUSED),
    "role null": ([{"role": None, "content": "x"}], Seen.REFUSED),
    "message str": (["hi"], Seen.REFUSED),
    "task": ([{"role": "user", "content": "x", "task": "t"}], Seen.TAKEN),
    "developer": ([{"role": "developer", "content": "x"}, USER], Seen.TAKEN),
    "developer tools 5": ([{"role": "developer", "content": "x", "tools": 5}, USER], Seen.TAKEN),
    "audio assistant": (
        [USER, {"role": "assistant", "content": "c", "audio": {"id": "x"}}, USER],
        Seen.TAKEN,
    ),
    "audio assistant bad": ([USER, {"role": "assistant", "content": "c", "audio": 5}, USER], Seen.TAKEN),
    "function_call bad": (
        [USER, {"role": "assistant", "content": "c", "function_call": 5}, USER],
        Seen.TAKEN,
    ),
    "cpb": (
        [{"role": "user", "content": [{"type": "text", "text": "x", "prompt_cache_breakpoint": 5}]}],
        Seen.REFUSED,
    ),
    "unknown critic refusal part": (
        [{"role": "critic", "content": [{"type": "refusal", "refusal": "no"}]}, USER],
        Seen.TAKEN,
    ),
    "extra": ([{"role": "user", "content": "x", "foo": [1]}], Seen.TAKEN),
    "image": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x"}}]}],
        Seen.REFUSED,
    ),
    "file": ([{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}], Seen.REFUSED),
    "sur reasoning": (
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "c", "reasoning": "a\ud800"},
            {"role": "user", "content": "x"},
        ],
        Seen.TAKEN,
    ),
    "sur reasoning shown": (
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "c", "reasoning": "a\ud800"}],
        Seen.LATER,
    ),
    "sur extra": ([{"role": "user", "content": "x", "foo": "\ud800"}], Seen.TAKEN),
    "sur key": ([{"role": "user", "content": "x", "f\ud800": "1"}], Seen.REFUSED),
    "sur content": ([{"role": "user", "content": "x\ud800"}], Seen.LATER),
    "sur part": ([{"role": "user", "content": [{"type": "text", "text": "x\ud800"}]}], Seen.LATER),
    "sur part extra": (
        [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": "\ud800"}]}],
        Seen.TAKEN,
    ),
    "sur name": ([{"role": "user", "content": "x", "name": "\ud800"}], Seen.TAKEN),
    "sur role": ([{"role": "u\ud800", "content": "x"}], Seen.TAKEN),
    "sur refusal": (
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "c", "refusal": "a\ud800"},
            {"role": "user", "content": "x"},
        ],
        Seen.TAKEN,
    ),
    "sur tcid": (
        [
            {"role": "user", "content": "x"},
            {"role": "tool", "content": "c", "tool_call_id": "a\ud800"},
            {"role": "user", "content": "x"},
        ],
        Seen.TAKEN,
    ),
    "sur call id": (
        [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [
                    {"id": "\ud800", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "user", "content": "x"},
        ],
        Seen.TAKEN,
    ),
    "sur call name": (
        [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f\ud800", "arguments": "{}"}}
                ],
            },
            {"role": "user", "content": "x"},
        ],
        Seen.LATER,
    ),
    "sur critic reasoning": (
        [{"role": "critic", "content": "x", "reasoning": "\ud800"}, {"role": "user", "content": "x"}],
        Seen.TAKEN,
    ),
    "sur user reasoning": (
        [{"role": "user", "content": "x", "reasoning": "\ud800"}, {"role": "user", "content": "x"}],
        Seen.TAKEN,
    ),
    "nan extra": ([{"role": "user", "content": "x", "foo": float("nan")}], Seen.TAKEN),
    "sur user tcid": ([{"role": "user", "content": "x", "tool_call_id": "\ud800"}], Seen.TAKEN),
}
