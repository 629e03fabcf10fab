"""Every field that the render endpoints read, with values that are taken and values that are refused."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.e2e_render.asked import CHAT, COMPLETION, TOKENIZE, Asked, asking

__all__ = ["field_families"]

_Body = Mapping[str, Any]

HELLO: Final = [{"role": "user", "content": "Say hello to the keepers of the lighthouse."}]
FUNCTION: Final = {
    "name": "count_ships",
    "description": "How many ships passed.",
    "parameters": {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]},
}
TOOLS: Final = [{"type": "function", "function": FUNCTION}]
PICTURE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SCHEMA: Final = {"name": "ship", "schema": {"type": "object"}}

# Of both APIs.
SHARED: Final[tuple[_Body, ...]] = (
    *(
        {"max_tokens": each}
        for each in (1, 7, 16, 4096, 4097, 0, -1, None, "9", 5.0, 5.5, "x", True, [], 10**30)
    ),
    *({"temperature": each} for each in (0, 0.001, 0.5, 1, 2, 2.5, -1, "0.5", "hot", None, True, [])),
    *({"top_p": each} for each in (1, 0.3, 0, -0.5, 2, None, "x")),
    *({"top_k": each} for each in (-1, 0, 20, -5, None, "4", "x", 1.5)),
    *({"min_p": each} for each in (0, 0.5, 2, None)),
    *({"presence_penalty": each} for each in (0.5, 3, -2, None)),
    *({"frequency_penalty": each} for each in (-0.5, -3)),
    *({"repetition_penalty": each} for each in (1.1, 0, None)),
    *({"n": each} for each in (1, 2, 0, -1, 16384, 100_000, "2", "x")),
    *({"seed": each} for each in (0, 42, -1, 2**63 - 1, 2**63, "x", None)),
    *(
        {"stop": each}
        for each in ("END", ["END", "STOP!"], [], "", [""], None, 5, list("abcd"), list("abcde"))
    ),
    {"stop": ["END"], "include_stop_str_in_output": True},
    *({"stop_token_ids": each} for each in ([1, 2, 1], [], None, ["x"], "x")),
    *({"min_tokens": each} for each in (0, 3, -1)),
    *({"min_tokens": each} for each in (600, 5000)),  # above the model's own bound, and any
    {"min_tokens": 9, "max_tokens": 3},
    {"temperature": 0, "top_p": 0.5},
    {"min_tokens": 3, "max_tokens": 9},
    *({"prompt_logprobs": each} for each in (0, 1, -1, -2, None)),
    {"prompt_logprobs": 1, "stream": True},
    *(
        {"logit_bias": each}
        for each in ({"5": 1.5, "6": 500}, {"x": 1}, {}, None, {"999999999": 1}, {"5": "x"})
    ),
    *({"bad_words": each} for each in (["rude"], [""], [], None)),
    *({"allowed_token_ids": each} for each in ([1, 2], [], None)),
    *({name: each} for name in ("ignore_eos", "skip_special_tokens") for each in (True, False)),
    *({"spaces_between_special_tokens": each} for each in (False, True)),
    {"include_stop_str_in_output": True},
    *({"stream": each} for each in (True, False, None, "maybe", "true")),
    *({"stream": True, "stream_options": each} for each in ({}, {"include_usage": True}, None)),
    {"stream_options": {"include_usage": True}},
    {"stream": True, "stream_interval": 4},
    *(
        {"cache_salt": each}
        for each in ("tenant-1", "", "a/b", "a@b", "a\\b", "a\0b", "é" * 128, "a" * 129, 5, None)
    ),
    *({"priority": each} for each in (-3, 0, 4, "high", "4")),
    *({"response_format": each} for each in ({"type": "text"}, {"type": "json_object"}, None)),
    {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "x"}},
    *({"structured_outputs": each} for each in ({"choice": ["a", "b"]}, {"regex": "("}, {"grammar": "x"})),
    {"structured_outputs": {"json": {"type": "object"}}},
    {"structured_outputs": {"choice": ["a"], "regex": "a"}},
    {"guided_json": {"type": "object"}},
    {"thinking_token_budget": 10},
    {"repetition_detection": {"max_pattern_size": 4, "min_count": 2}},
    {"vllm_xargs": {"a": 1, "b": ["x"]}},
    {"kv_transfer_params": {"do_remote_decode": True}},
    {"kv_transfer_params": {}},
    {"ec_transfer_params": {"a": 1}},
    {"kv_transfer_params": {"a": 1}, "vllm_xargs": {"b": 2}},
    {"routed_experts_prompt_start": 2},
    {"watermarking": True},
    {"use_beam_search": True, "n": 2},
    *({"truncate_prompt_tokens": each} for each in (1, 4, 4000, -1, 0, -2, 5000, None, "x")),
    *({"truncate_prompt_tokens": 4, "truncation_side": each} for each in ("left", "right", "middle", None)),
    *({"request_id": each} for each in ("mine-1", "", 5, None)),
    {"user": "ann", "session_id": "s1", "metadata": {"a": "b"}, "service_tier": "auto", "whatever": 1},
    {"return_token_ids": True, "return_tokens_as_token_ids": True},
    *({"return_token_offsets": each} for each in (True, False)),
    {"truncate_prompt_tokens": 4, "return_token_offsets": True},
    {"add_special_tokens": False},
    *({"model": each} for each in ("", None, "nope", 7)),
)

CHAT_ONLY: Final[tuple[_Body, ...]] = (
    *({"max_completion_tokens": each} for each in (6, 5000, None)),
    {"max_tokens": 5, "max_completion_tokens": 6},
    {"n": None},
    *({"logprobs": True, "top_logprobs": each} for each in (None, 0, 3, 100, -1, -2)),
    *({"logprobs": each} for each in (True, False, 3, None)),
    {"top_logprobs": 3},
    {"logprobs": True, "logprob_token_ids": [1, 2]},
    {"tools": TOOLS},
    *({"tools": TOOLS, "tool_choice": each} for each in ("auto", "none", "required", None, "maybe!")),
    *(
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": each}}}
        for each in ("count_ships", "f")
    ),
    {"tools": TOOLS, "parallel_tool_calls": False},
    {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]},
    *({"tool_choice": each} for each in ("auto", "none", None)),
    *({"tools": each} for each in ([], None, "x", [{"type": "function"}], [{"function": {"name": "f"}}])),
    {"tools": [{"type": "function", "x": 1, "function": {"name": "f", "y": 2}}]},
    *({"chat_template_kwargs": {"enable_thinking": each}} for each in (True, False)),
    {"enable_thinking": False},
    *({"chat_template_kwargs": each} for each in ({"nothing": 1}, [1], None, {"tools": TOOLS})),
    *({"chat_template_kwargs": {name: False}} for name in ("add_generation_prompt", "tokenize")),
    {"chat_template_kwargs": {"chat_template": "x"}},
    *({"chat_template": each} for each in ("{{ messages }}", None)),
    *({"reasoning_effort": each} for each in ("none", "low", "high", "max", "huge", None)),
    {"documents": [{"title": "t", "text": "x"}]},
    {"add_special_tokens": True},
    *({"include_reasoning": each} for each in (True, False)),
    *({"add_generation_prompt": each} for each in (False, True, "x")),
    *({"continue_final_message": True, **each} for each in ({}, {"add_generation_prompt": True})),
    {"continue_final_message": True, "add_generation_prompt": False},
    {"echo": True},
    {"mm_processor_kwargs": {"a": 1}},
    {"media_io_kwargs": {"image": {"a": 1}}},
    *(
        {"kv_transfer_params": {"prompt_token_ids": each}}
        for each in ([9707, 11, 1879], [], [999_999], [-1], "x")
    ),
    {"kv_transfer_params": {"prompt_token_ids": [9707, 11], "a": 1}},
    {"kv_transfer_params": {"prompt_token_ids": [9707, 11]}, "echo": True},
    *({"messages": each} for each in ([], None, "Hello", ["Hello"], [{"content": "x"}], [{"role": "user"}])),
    *(
        {"messages": [{"role": "user", "content": each}]}
        for each in (None, "", 5, [], ["x"], [{"text": "x"}])
    ),
    *({"messages": [{"role": each, "content": "x"}]} for each in (5, "system", "assistant")),
    {"messages": [{"role": "narrator", "content": "Once"}, *HELLO]},
    {"messages": [{"role": "user", "name": "ann", "content": "Hi"}]},
    {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]},
    {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, *HELLO]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, PICTURE]}]},
    {"messages": [{"role": "user", "content": [{"type": "smell", "smell": "x"}]}]},
    {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}],
            }
        ]
    },
    *({"messages": [{"role": "user", "content": "a" + " a" * count}]} for count in (4086, 4087, 4088, 5000)),
    {"messages": [{"role": "user", "content": "a" + " a" * 4080}], "max_tokens": 100},
    {"messages": [{"role": "user", "content": "word " * 120_000}]},
    {"messages": [{"role": "user", "content": "word " * 5000}], "truncate_prompt_tokens": 8},
    {"messages": [{"role": "user", "content": "word " * 5000}], "truncate_prompt_tokens": -1},
    # Two faults: which one is told.
    *(
        {"model": "nope", **each}
        for each in ({"temperature": 9}, {"tools": []}, {"messages": []}, {"n": "x"}, {"chat_template": "x"})
    ),
    {"messages": [{"role": "user", "content": "word " * 5000}], "temperature": 9},
    *({"max_tokens": 5000, **each} for each in ({"messages": []}, {"temperature": 9})),
    {"tools": [], "n": "x"},
    {"use_beam_search": True, "messages": []},
)

COMPLETION_ONLY: Final[tuple[_Body, ...]] = (
    {"max_completion_tokens": 7},
    {"n": None},
    *({"logprobs": each} for each in (0, 5, True, -1, -2, "x", None)),
    *({"echo": True, **each} for each in ({}, {"logprobs": 2}, {"max_tokens": 0}, {"prompt": [9707, 11]})),
    *({"suffix": each} for each in (" end", None)),
    {"suffix": " end", "echo": True},
    {"best_of": 3},
    {"prompt_embeds": "AAAA"},
    *({"add_special_tokens": each} for each in (True, "x", None)),
    {"kv_transfer_params": {"prompt_token_ids": [9707, 11, 1879]}},
    {"messages": HELLO, "tools": []},
    *({"prompt": each} for each in ("", None, [], [""], ["a", ""], [[]], [[1], []], 5, {"prompt": "x"})),
    *({"prompt": each} for each in (["a"], ["a", "bc"], [9707, 11], [[9707, 11]], [[1, 2], [3]], "  \n")),
    *(
        {"prompt": each}
        for each in (["a", 5], [[1], "a"], [1, "a"], [1.0, 2.0], [1.5], [True, False], ["1", "2"])
    ),
    *(
        {"prompt": each}
        for each in ([-1], [151_935], [151_936], [10**9], [2**32 - 1], [2**32], [2**70], [[2**70], [1]])
    ),
    *({"prompt": each} for each in ("<|im_start|>user\nHi<|im_end|>", ["a"] * 1024, ["a"] * 1025)),
    *({"prompt": [1] * count} for count in (4095, 4096, 4097)),
    *({"prompt": text} for text in ("word " * 5000, "word " * 120_000, ["a", "word " * 5000])),
    {"prompt": [1, 2, 3, 4], "truncate_prompt_tokens": 2},
    {"prompt": ["one two three", "four"], "truncate_prompt_tokens": 2, "truncation_side": "right"},
    {"prompt": [9707, 11], "return_token_offsets": True},
    {"prompt": ["a", "b"], "request_id": "mine-1", "max_tokens": 3},
)

TOKENIZING: Final[tuple[_Body, ...]] = (
    *({"prompt": each} for each in ("Hello, world", "", "<|im_start|>user", "word " * 5000)),
    *({"prompt": each} for each in (None, ["Hello"], [1, 2], 5)),
    *({"prompt": "x", "add_special_tokens": each} for each in (True, False, "perhaps")),
    *({"prompt": "Hello, wörld 👋\n", "return_token_strs": each} for each in (True, False, None, "x")),
    {"prompt": "x", "whatever": 1},
    *({"prompt": "x", "model": each} for each in ("", None, "nope", 7)),
    {"messages": HELLO, "prompt": "Bye"},
    {"messages": HELLO},
    {"messages": HELLO, "return_token_strs": True},
    *({"messages": HELLO, "add_generation_prompt": each} for each in (True, False)),
    *(
        {"messages": HELLO, "continue_final_message": True, "add_generation_prompt": each}
        for each in (True, False)
    ),
    {"messages": HELLO, "continue_final_message": True},
    *({"messages": HELLO, "tools": each} for each in (TOOLS, [], None, "x")),
    {"messages": HELLO, "tools": TOOLS, "tool_choice": "maybe!"},
    *({"messages": HELLO, "chat_template_kwargs": {"enable_thinking": each}} for each in (True, False)),
    {"messages": HELLO, "reasoning_effort": "none"},
    {"messages": HELLO, "truncate_prompt_tokens": 2, "max_tokens": 99_999, "temperature": 9},
    {"messages": HELLO, "chat_template": "x"},
    {"messages": HELLO, "kv_transfer_params": {"prompt_token_ids": [1]}},
    *({"messages": each} for each in ([], "x", None)),
    {"messages": [{"role": "user", "content": "a" + " a" * 5000}]},
    {"messages": [{"role": "user", "content": [PICTURE]}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        ]
    },
    {"messages": [*HELLO, {"role": "assistant", "content": "4", "reasoning_content": "easy"}]},
    {"messages": [*HELLO, {"role": "assistant", "content": "4", "reasoning": "easy"}]},
    {"x": 1},
)


def field_families() -> Iterator[Asked]:
    prompt: _Body = {"prompt": "The keepers of the lighthouse wrote down every ship."}
    for kind, path, base, variants in (
        ("chat fields", CHAT, {"messages": HELLO}, (*SHARED, *CHAT_ONLY)),
        ("completion fields", COMPLETION, prompt, (*SHARED, *COMPLETION_ONLY)),
        ("tokenize", TOKENIZE, {}, TOKENIZING),
    ):
        for number, fields in enumerate(variants):
            yield asking(kind, f"{kind} {number}: {_told(fields)}", path, {**base, **fields})


def _told(fields: _Body) -> str:
    text = ", ".join(f"{name} {value!r}" for name, value in fields.items())
    return text if len(text) <= 120 else f"{text[:117]}..."  # for a person to find it
