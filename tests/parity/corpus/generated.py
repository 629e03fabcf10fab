"""Generated OpenAI requests: every field that may decide a prompt, alone and together, mostly well-formed."""

import random
from collections.abc import Iterator
from typing import Any, Final

from tests.parity.corpus import tools as tooling
from tests.parity.corpus.case import CHAT, COMPLETION, Case
from tests.parity.corpus.json_text import Spelling, write
from tests.parity.corpus.text import hostile, prose, reasoning

__all__ = ["generated"]

_Object = dict[str, Any]

_SAMPLING: Final[tuple[_Object, ...]] = (
    {"temperature": 0.7},
    {"max_tokens": 16},
    {"max_completion_tokens": 5, "top_p": 0.9},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"seed": 7, "n": 1, "stop": ["\n"]},
    {"user": "u", "metadata": {"a": "b"}, "logprobs": True, "top_logprobs": 2},
    {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True, "min_tokens": 1},
    {"response_format": {"type": "json_object"}},
)
_UNKNOWN_FIELDS: Final[tuple[_Object, ...]] = (
    {"made_up_field": 1},
    {"documents": [{"title": "T", "text": "doc text"}]},
    {"chat_template": "{{ messages }}"},
    {"add_special_tokens": True},
    {"truncate_prompt_tokens": 5},
    {"mm_processor_kwargs": {"a": 1}},
    {"enable_thinking": False},
    {"thinking": {"type": "disabled"}},
)
_TEMPLATE_KWARGS: Final[tuple[_Object, ...]] = (
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"thinking": True},
    {"thinking": False},
    {"thinking_mode": "enabled"},
    {"enable_thinking": True, "thinking": False},
    {"enable_thinking": None},
    {"enable_thinking": "false"},
    {"reasoning_effort": "low"},
    {"date_string": "24 Dec 2025"},
    {"custom_instructions": "be brief", "xs": [1, 2.5, {"é": None}]},
    {"add_generation_prompt": False},
    {"bos_token": "<x>"},
    {"documents": [{"title": "Bäume", "text": "Der Wald."}, {"title": "", "text": "untitled one"}]},
    {},
)


def generated(seed: int, count: int) -> Iterator[Case]:
    """`count` requests. Case i depends on the seed and i alone, so a longer run begins with a shorter one."""
    for number in range(count):
        rng = random.Random(f"{seed}:{number}")
        name = f"generated-{seed}-{number:05d}"
        if rng.random() < 0.08:
            yield Case(name, "completion", COMPLETION, write(_completion(rng), Spelling.drawn(rng)))
        else:
            kind, request = _chat(rng)
            yield Case(name, kind, CHAT, write(request, Spelling.drawn(rng)))


def _chat(rng: random.Random) -> tuple[str, _Object]:
    kind = rng.choice(("plain", "plain", "tools", "tools", "parts", "thinking", "hostile", "odd", "continue"))
    speak = _speaker(rng, kind)
    request: _Object = {}
    tools = tooling.tools(rng) if kind == "tools" or rng.random() < 0.1 else None
    names = [tool["function"]["name"] for tool in tools] if tools else ["f"]
    messages = _messages(rng, kind, speak, names if tools else None)
    if kind == "odd":
        messages = _disturbed(rng, messages)
    if kind == "continue" and messages[-1]["role"] != "assistant":
        messages.append(
            {"role": "assistant", "content": _content(rng, kind, rng.choice((speak(), speak() + " ")))}
        )
    request["messages"] = messages
    if tools:
        request["tools"] = tools
        if rng.random() < 0.25:
            request["tool_choice"] = tooling.tool_choice(rng, names)
    _add_fields(rng, kind, request)
    keys = list(request)
    if rng.random() < 0.3:
        rng.shuffle(keys)
    return kind, {key: request[key] for key in keys}


def _add_fields(rng: random.Random, kind: str, request: _Object) -> None:
    if kind == "continue":
        request |= {"continue_final_message": True, "add_generation_prompt": rng.random() < 0.05}
    elif rng.random() < 0.05:
        request["add_generation_prompt"] = rng.choice((True, False, False))
    if kind == "thinking" or rng.random() < 0.05:
        field = rng.choice(("chat_template_kwargs", "chat_template_kwargs", "chat_template_args"))
        request[field] = rng.choice(_TEMPLATE_KWARGS)
        if rng.random() < 0.2:
            request["reasoning_effort"] = rng.choice(("none", "minimal", "low", "high"))
    if rng.random() < 0.3:
        request |= rng.choice(_SAMPLING)
    if kind == "odd" and rng.random() < 0.3:
        request |= rng.choice(_UNKNOWN_FIELDS)


def _messages(rng: random.Random, kind: str, speak: Any, names: list[str] | None) -> list[_Object]:
    messages: list[_Object] = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": _content(rng, kind, speak())})
    elif rng.random() < 0.06:
        messages.append({"role": "developer", "content": _content(rng, kind, speak())})
    for turn in range(rng.choice((1, 1, 2, 3, 6))):
        if turn:
            messages += _answer(rng, kind, speak, names)
        user: _Object = {"role": "user", "content": _content(rng, kind, speak())}
        if rng.random() < 0.05:
            user["name"] = rng.choice(("bob", "Ann_B"))
        messages.append(user)
    if names and rng.random() < 0.3:  # the client comes back with results
        messages += _answer(rng, kind, speak, names)[:-1]
    return messages


def _answer(rng: random.Random, kind: str, speak: Any, names: list[str] | None) -> list[_Object]:
    """An assistant's turn: perhaps calls of tools with their results, and then always text."""
    messages: list[_Object] = []
    while names and rng.random() < 0.5 and len(messages) < 8:
        calls = [tooling.tool_call(rng, number, names) for number in range(rng.choice((1, 1, 2)))]
        caller: _Object = {
            "role": "assistant",
            "content": rng.choice((None, None, "", speak())),
            "tool_calls": calls,
        }
        if rng.random() < 0.15:
            del caller["content"]
        if rng.random() < 0.2:
            caller["reasoning_content"] = reasoning(rng)
        messages.append(caller)
        for call in calls:
            result = rng.choice((speak(), '{"ok": true, "n": 1.0}', "42", ""))
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": _content(rng, kind, result)}
            )
    answer: _Object = {"role": "assistant", "content": _content(rng, kind, speak())}
    if kind == "thinking" and rng.random() < 0.6:
        answer[rng.choice(("reasoning_content", "reasoning_content", "reasoning"))] = reasoning(rng)
    elif kind == "thinking" and rng.random() < 0.5:
        answer["content"] = f"<think>\n{reasoning(rng)}\n</think>\n\n{speak()}"
    return [*messages, answer]


def _disturbed(rng: random.Random, messages: list[_Object]) -> list[_Object]:
    """Out of order, or with something that does not belong there."""
    position = rng.randrange(len(messages) + 1)
    extra: _Object = rng.choice(
        (
            {"role": "system", "content": prose(rng, 5)},
            {"role": "user", "content": prose(rng, 5)},
            {"role": "assistant", "content": prose(rng, 5)},
            {"role": "assistant", "content": None},
            {"role": "assistant", "content": "x", "tool_calls": []},
            {"role": "assistant", "content": "x", "refusal": "no"},
            {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": '{"a": 1}'}},
            {"role": "user", "content": "x", "made_up": {"a": 1}},
            {"role": "user", "content": []},
            {"role": "user", "content": None},
            {"role": "critic", "content": "x"},
            {"role": "function", "name": "f", "content": "x"},
            {"role": "assistant", "content": "x", "reasoning_content": ["one", "", "two"]},
            {"content": prose(rng, 3), "role": "user"},
        )
    )
    return [*messages[:position], extra, *messages[position:]]


def _speaker(rng: random.Random, kind: str) -> Any:
    share = 0.7 if kind == "hostile" else 0.03
    return lambda: hostile(rng) if rng.random() < share else prose(rng)


def _content(rng: random.Random, kind: str, text: str) -> Any:
    if kind != "parts" and rng.random() > 0.02:
        return text
    if rng.random() < 0.3:
        return text
    parts: list[_Object] = [{"type": "text", "text": text}]
    while rng.random() < 0.4:
        parts.append({"type": "text", "text": rng.choice((prose(rng, 4), "", " x "))})
    if rng.random() < 0.1:
        parts[0] = {"text": parts[0]["text"], "type": "text", "cache_control": {"type": "ephemeral"}}
    return parts


def _completion(rng: random.Random) -> _Object:
    text = hostile(rng) if rng.random() < 0.3 else prose(rng)
    prompt: Any = text
    draw = rng.random()
    if draw < 0.1:
        prompt = rng.choice(([text], [text, "b"], [1, 2, 3], [[1, 2], [3]], "", [], [[]]))
    request: _Object = {"prompt": prompt, "max_tokens": 4}
    if rng.random() < 0.2:
        request |= rng.choice(
            ({"echo": True}, {"suffix": "x"}, {"n": 1}, {"add_special_tokens": False}, {"user": "u"})
        )
    return request
