"""What is the engine's to do: requests whose ids tokenext must not hand over, and ids that clients plant."""

import random
from collections.abc import Iterator
from itertools import product
from typing import Final

from tests.e2e_vllm.messages import Body, conversation, user
from tests.e2e_vllm.model import MAX_LENGTH
from tests.e2e_vllm.request import Expected, Request, asking
from tests.parity.corpus.case import CHAT, COMPLETION
from tests.parity.corpus.text import prose

__all__ = ["left", "planted"]


_LONG: Final = "far too long " * MAX_LENGTH
_IMAGE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
_SOUND: Final = {"type": "input_audio", "input_audio": {}}

_CHATS: Final[dict[str, Body]] = {
    "echo": {"echo": True, "add_generation_prompt": False},
    "return_prompt_text": {"return_prompt_text": True},
    "over length": {"messages": [user(_LONG)]},
    "an image": {"messages": [user([_IMAGE])]},
    "text and sound": {"messages": [user([{"type": "text", "text": "a"}, _SOUND])]},
    "a chat_template": {"chat_template": "{{ messages[0].content }}"},
    "mm_processor_kwargs": {"mm_processor_kwargs": {"a": 1}},
    "an unknown field": {"field_from_the_future": True},
    "no messages": {"messages": []},
    "messages as a string": {"messages": "hello"},
    "an unknown role": {"messages": [user("a"), {"role": "critic", "content": "b"}]},
    "no tools in a list": {"tools": []},
    "tools as a string": {"tools": "all of them"},
    "an unknown model": {"model": "no-such-model"},
}
_COMPLETIONS: Final[dict[str, Body]] = {
    "several prompts": {"prompt": ["one", "two", "three"]},
    "several lists of ids": {"prompt": [[1, 2], [3]]},
    "a completion's echo": {"prompt": "Say it again.", "echo": True},
    "a completion over length": {"prompt": _LONG},
    "an empty prompt": {"prompt": ""},
    "a null prompt": {"prompt": None},
    "ids and words": {"prompt": [1, "two"]},
    "an id beyond the vocabulary": {"prompt": [999_999_999]},
}


def left(rng: random.Random) -> Iterator[Request]:
    """What vLLM must be left to tokenize, or to refuse in its own words."""
    for name, fields in _CHATS.items():
        yield _left(name, CHAT, {"messages": conversation(rng, 1), **fields})
    for name, fields in _COMPLETIONS.items():
        yield _left(name, COMPLETION, fields)


def _left(name: str, path: str, body: Body) -> Request:
    text = asking(body)
    return Request(name, "the engine's to do", path, Expected.LEFT, text, text)


# Other APIs where vLLM takes ids from the same place. They are not tokenized, and vLLM echoes nothing there.
_OTHER_APIS: Final[dict[str, Body]] = {
    "/v1/responses": {"input": "Hello there, friend.", "max_output_tokens": 2},
    "/v1/messages": {"messages": [user("Hello there, friend.")]},
}
_IDS: Final = list(range(1000, 1100))


def planted(rng: random.Random) -> Iterator[Request]:
    """A client's ids in the chain's places: they must not get past it. Past the chain they are left out."""
    chat: Body = {"messages": conversation(rng, 1)}
    asked: list[tuple[str, Body, Expected]] = [
        (CHAT, chat, Expected.HANDED),
        (COMPLETION, {"prompt": prose(rng)}, Expected.HANDED),
        # vLLM serves these, and tokenext makes no exact ids, or none at all, of them.
        (CHAT, {**chat, "field_from_the_future": 1}, Expected.LEFT),
        (CHAT, {"messages": [*chat["messages"], {"role": "critic", "content": "Hm."}]}, Expected.LEFT),
        *((path, body, Expected.LEFT) for path, body in _OTHER_APIS.items()),
    ]
    plants: tuple[tuple[Body, bool], ...] = (
        ({"kv_transfer_params": {"prompt_token_ids": _IDS}}, True),
        ({"kv_transfer_params": {"prompt_token_ids": _IDS, "do_remote_decode": False}}, True),
        # Fields that no vLLM knows make tokenext careful.
        ({"prompt_token_ids": _IDS, "input_ids": _IDS, "nvext": {"token_data": _IDS}}, False),
    )
    for (number, (path, body, expected)), (plant, known) in product(enumerate(asked), plants):
        yield Request(
            name=f"planted ids {number}: {' and '.join([*plant, *plant.get('kv_transfer_params', {})])}",
            kind="planted ids",
            path=path,
            expected=expected if known or expected is Expected.LEFT else Expected.ANY,
            sent=asking({**body, **plant}),
            past=asking(body),
            echoes=path not in _OTHER_APIS,
        )
