"""Chats that vLLM must get ids for: each family is one thing that clients do."""

import random
from collections.abc import Iterator
from typing import Final

from tests.e2e_vllm.messages import Body, assistant, conversation, said, streamed, user
from tests.parity.corpus import tools as tooling
from tests.parity.corpus.text import prose, reasoning

__all__ = ["CHATS"]


def plain(rng: random.Random) -> Iterator[Body]:
    for _ in range(30):
        yield {"messages": [user(said(rng))]}


def system(rng: random.Random) -> Iterator[Body]:
    for number in range(20):
        role = "developer" if number % 5 == 4 else "system"
        yield {"messages": [{"role": role, "content": said(rng)}, *conversation(rng, 1 + number % 2)]}


def multi_turn(rng: random.Random) -> Iterator[Body]:
    for number in range(24):
        yield {"messages": conversation(rng, 2 + number % 6)}


_CHOICES: Final[tuple[Body, ...]] = (
    {},
    {"tool_choice": "auto"},
    {"tool_choice": "none"},
    {"parallel_tool_calls": False},
)


def tools(rng: random.Random) -> Iterator[Body]:
    """Offered, called, answered; also without any on offer, and with arguments as clients garble them."""
    for number in range(36):
        offered = _sound_tools(rng)
        names = [tool["function"]["name"] for tool in offered]
        messages = conversation(rng, 1)
        if number % 3:
            calls = [_call(rng, index, names) for index in range(1 + number % 2)]
            content = rng.choice((None, "", "Let me look."))
            messages.append(assistant(content, tool_calls=calls))
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": '{"n": 1.0}'} for call in calls
            ]
        body: Body = {"messages": messages}
        if number % 6 != 5:
            body["tools"] = offered
            body |= _CHOICES[number % len(_CHOICES)]
        yield body


def _sound_tools(rng: random.Random) -> list[Body]:
    """Tools that no engine refuses: a null name of a schema is the parity corpus's business."""
    return [
        {**tool, "function": {name: value for name, value in tool["function"].items() if value is not None}}
        for tool in tooling.tools(rng)
    ]


def _call(rng: random.Random, number: int, names: list[str]) -> Body:
    arguments = rng.choice(('{"b":1.50, "a":"é"}', '{"a":{"b":[1,null,true]}}', "", "{bad", "[1]", "{}"))
    function = {"name": rng.choice(names), "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function}


def thinking(rng: random.Random) -> Iterator[Body]:
    kwargs: tuple[Body, ...] = (
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"chat_template_kwargs": {"enable_thinking": None, "unknown": [1]}},
        {"reasoning_effort": "none"},
        {"reasoning_effort": "high"},
        {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
        {},
    )
    for number in range(28):
        thought = reasoning(rng)
        answer = (
            assistant(said(rng), reasoning_content=thought),
            assistant(said(rng), reasoning=thought),
            assistant(f"<think>\n{thought}\n</think>\n\n{said(rng)}"),
        )[number % 3]
        messages = [user(said(rng)), answer, user(said(rng))] if number % 2 else [user(said(rng))]
        yield {"messages": messages, **kwargs[number % len(kwargs)]}


def parts(rng: random.Random) -> Iterator[Body]:
    for number in range(20):
        texts = [{"type": "text", "text": said(rng)} for _ in range(number % 4)]
        history = (
            [user("Hello."), assistant([{"type": "text", "text": said(rng)}])] if number % 3 == 0 else []
        )
        yield {"messages": [*history, user([*texts, {"type": "text", "text": said(rng)}])]}


def unfinished(rng: random.Random) -> Iterator[Body]:
    for number in range(16):
        text = f"{prose(rng)}{('', ' ', '.', chr(10))[number % 4]}"
        messages = [user(said(rng)), assistant(text)]
        if number % 4 == 3:
            yield {"messages": messages, "add_generation_prompt": False}
        else:
            yield {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}


def answer_fields(rng: random.Random) -> Iterator[Body]:
    """Fields that say how to answer, and so leave the prompt alone."""
    for fields in (
        {"n": 2, "temperature": 1.0, "seed": 3},
        {"max_tokens": None, "max_completion_tokens": 3},
        {"temperature": 0, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1},
        {"stop": ["\n"], "stop_token_ids": [1], "include_stop_str_in_output": True},
        {"logprobs": True, "top_logprobs": 2},
        {"logit_bias": {"5": 1.0}, "presence_penalty": 0.1, "frequency_penalty": 0.1},
        {"response_format": {"type": "json_object"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "object"}},
            }
        },
        {"ignore_eos": True, "min_tokens": 1, "skip_special_tokens": False},
        {"cache_salt": "tenant-1"},
        {"priority": 0, "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
        {"kv_transfer_params": {"do_remote_decode": False}, "add_special_tokens": False},
        {"truncate_prompt_tokens": 8},
        {"truncate_prompt_tokens": 4000},
        {"prompt_logprobs": 1},
        {"name_of_nothing": None},
    ):
        yield {"messages": conversation(rng, 1), **fields}


def streamed_chats(rng: random.Random) -> Iterator[Body]:
    for number in range(6):
        for family in (plain, multi_turn, tools, thinking, parts, unfinished):
            yield streamed(list(family(rng))[number])


CHATS: Final = {
    "plain": plain,
    "system": system,
    "multi-turn": multi_turn,
    "tools": tools,
    "thinking": thinking,
    "content parts": parts,
    "continue_final_message": unfinished,
    "answer fields": answer_fields,
    "chat, streamed": streamed_chats,
}
