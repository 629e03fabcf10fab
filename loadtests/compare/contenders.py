"""The targets that can be compared on one machine: each is a local stack with caches of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from loadtests.stack.chain import ChainOptions, Part
from loadtests.stack.dynamo_parts import BLOCK_SIZE, ENDPOINT
from loadtests.stack.model_source import Model

__all__ = ["CONTENDERS", "Contender"]


@dataclass(frozen=True, slots=True)
class Contender:
    """`says` is for the reader of a report; `options` are its ChainOptions beside those that all have."""

    says: str
    options: Mapping[str, Any]

    def chain_options(self, model: Model, *, workers: int, speedup: float, blocks: int) -> ChainOptions:
        pace = ("--speedup-ratio", str(speedup), "--num-gpu-blocks-override", str(blocks))
        return ChainOptions(model=model, workers=workers, mocker_arguments=pace, **self.options)


_BARE: Final = {"tokenext": Part.ABSENT, "epp": Part.ABSENT}
_STRATEGIES: Final = {
    "round-robin": {"kind": "round-robin"},
    "internal": {
        "kind": "internal",
        "block_size": BLOCK_SIZE,
        "kv_events": {"kind": "dynamo", "endpoint": ENDPOINT},
    },
    "dynamo": {"kind": "dynamo", "endpoint": ENDPOINT, "block_size": BLOCK_SIZE, "discovery": "file"},
}


def _chain(strategy: str) -> Mapping[str, Any]:
    chosen = {strategy: _STRATEGIES[strategy]}
    return {"epp_settings": {"strategies": chosen, "default_strategy": strategy, "fallback": []}}


def _frontend(tokenizer: str) -> Mapping[str, Any]:
    arguments = ("--tokenizer", tokenizer)
    return {**_BARE, "frontend_router_mode": "kv", "frontend_arguments": arguments}


CONTENDERS: Final[Mapping[str, Contender]] = {
    "envoy": Contender("plain Envoy; the front ends tokenize, and share requests out in turn", _BARE),
    "empty": Contender(
        "the same, with two ext_procs in Envoy that let everything pass",
        {"tokenext": Part.PASSING, "epp": Part.PASSING},
    ),
    "chain-round-robin": Contender("our chain, routing in turn", _chain("round-robin")),
    "chain-internal": Contender("our chain, routing by its own scheduler and KV events", _chain("internal")),
    "chain-dynamo": Contender("our chain, routing by Dynamo's KV router", _chain("dynamo")),
    "frontend-kv": Contender(
        "Dynamo's front ends behind plain Envoy tokenize (HF) and route by KV themselves",
        _frontend("default"),
    ),
    "frontend-kv-fastokens": Contender("the same, tokenizing with fastokens", _frontend("fastokens")),
}
