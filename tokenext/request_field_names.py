"""Top-level fields of requests that say how tokens are sampled or answered, and so never change a prompt."""

from typing import Final

__all__ = ["CHAT_FIELDS", "COMPLETION_FIELDS", "VLLM_CHAT_FIELDS", "VLLM_COMPLETION_FIELDS"]

# OpenAI API reference: chat: create, completions: create. Engines ignore those that they do not implement.
_OPENAI_FIELDS: Final = frozenset(
    {
        *("model", "stream", "stream_options", "user", "n", "seed", "stop", "max_tokens", "logit_bias"),
        *("temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs"),
    }
)
CHAT_FIELDS: Final = _OPENAI_FIELDS | {
    *("max_completion_tokens", "top_logprobs", "parallel_tool_calls", "response_format", "metadata"),
    *("store", "service_tier", "safety_identifier", "prompt_cache_key", "modalities", "verbosity"),
    *("prediction", "web_search_options", "audio"),
}
COMPLETION_FIELDS: Final = _OPENAI_FIELDS | {"best_of", "echo"}

# vLLM 0.32: ChatCompletionRequest and CompletionRequest (entrypoints/openai/*/protocol.py). Fields of
# Dynamo's are here too, since vLLM passes over every field that it does not know.
_VLLM_FIELDS: Final = frozenset(
    {
        *("use_beam_search", "top_k", "min_p", "repetition_penalty", "watermarking", "length_penalty"),
        *("stop_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens"),
        *("spaces_between_special_tokens", "prompt_logprobs", "logprob_token_ids", "allowed_token_ids"),
        *("bad_words", "structured_outputs", "priority", "request_id", "session_id", "cache_salt"),
        *("return_tokens_as_token_ids", "return_token_ids", "return_token_offsets", "mm_payload"),
        *("return_mm_kwargs", "routed_experts_prompt_start", "kv_transfer_params", "ec_transfer_params"),
        *("vllm_xargs", "repetition_detection", "stream_interval", "thinking_token_budget"),
        *("response_format", "metadata", "nvext"),
        *("guided_json", "guided_regex", "guided_grammar", "guided_choice"),
    }
)
VLLM_CHAT_FIELDS: Final = (
    CHAT_FIELDS | _VLLM_FIELDS | {"include_reasoning", "echo", "return_prompt_text", "chat_template_args"}
)
VLLM_COMPLETION_FIELDS: Final = COMPLETION_FIELDS | _VLLM_FIELDS
