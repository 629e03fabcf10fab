"""What a user asks, request by request: the same for the same seed, whoever answers.

A session is one user's visit. What the assistant said before is scripted, and not what the server under test
answered: prompts are then equal on every target, and a comparison compares one thing.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from loadtests.load.corpus import Corpus
from loadtests.load.lengths import LENGTHS, Lengths

__all__ = ["CHAT_PATH", "WORKLOADS", "Ask", "Shape", "Workload", "text_of"]

CHAT_PATH: Final = "/v1/chat/completions"
COMPLETION_PATH: Final = "/v1/completions"
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `body` lacks the model. `think_seconds`: what passes before the user sends it.

    `abort_after`: the client leaves after so many pieces of text; None: it stays. `due_seconds`: when it is
    to be sent, counted from the run's begin; None: whenever its user comes to it.
    """

    name: str
    path: str
    body: Mapping[str, Any]
    think_seconds: float
    abort_after: int | None = None
    due_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """How a workload is drawn. Shares are from 0 to 1; `think_seconds` is a mean, drawn exponentially.

    `groups`: how many system prompts are shared, by everybody in workload `shared`.
    """

    corpus: Corpus
    seed: int = 1
    turns: tuple[int, int] = (2, 6)
    groups: int = 8
    think_seconds: float = 1.0
    stream_share: float = 1.0
    abort_share: float = 0.0
    max_tokens: int = 64
    lengths: Mapping[str, Lengths] = field(default_factory=lambda: LENGTHS)


# A session, from its own source of chance.
Workload = Callable[[Shape, random.Random], Iterator[Ask]]


def text_of(shape: Shape, what: str, draw: random.Random) -> str:
    """A text of the named length, made of what the corpus says, that begins like no other."""
    wanted = shape.lengths[what](draw)
    texts = shape.corpus.texts
    pieces = [f"{draw.getrandbits(32):08x}"]
    length = len(pieces[0])
    while length < wanted:
        pieces.append(draw.choice(texts))
        length += len(pieces[-1]) + 1
    return " ".join(pieces)[:wanted]


def _ask(
    shape: Shape, draw: random.Random, name: str, body: Mapping[str, Any], *, path: str = CHAT_PATH
) -> Ask:
    streamed = draw.random() < shape.stream_share
    aborted = streamed and draw.random() < shape.abort_share
    limits: dict[str, Any] = {"max_tokens": shape.max_tokens}
    if streamed:
        limits |= {"stream": True, "stream_options": {"include_usage": True}}
    return Ask(
        name=name,
        path=path,
        body={**body, **limits},
        think_seconds=draw.expovariate(1 / shape.think_seconds) if shape.think_seconds else 0.0,
        abort_after=draw.randint(1, max(1, shape.max_tokens // 2)) if aborted else None,
    )


def _conversation(shape: Shape, draw: random.Random, name: str, system: str) -> Iterator[Ask]:
    """Turns that each begin with all that was said before. Whoever talks, the corpus' words are its own."""
    messages: list[Message] = [{"role": "system", "content": system}]
    talk = draw.choice(shape.corpus.talks)
    for number in range(draw.randint(*shape.turns)):
        said = talk[2 * number] if 2 * number < len(talk) else text_of(shape, "question", draw)
        messages.append({"role": "user", "content": said})
        yield _ask(shape, draw, name, {"messages": list(messages)})
        answered = talk[2 * number + 1] if 2 * number + 1 < len(talk) else text_of(shape, "reply", draw)
        messages.append({"role": "assistant", "content": answered})


def chat(shape: Shape, draw: random.Random) -> Iterator[Ask]:
    """Conversations of their own, with a growing history."""
    return _conversation(shape, draw, "chat", text_of(shape, "system", draw))


def shared(shape: Shape, draw: random.Random) -> Iterator[Ask]:
    """Conversations under one of a few long system prompts: what routing by prefixes is for."""
    group = min(int(draw.expovariate(4 / shape.groups)), shape.groups - 1)  # a few have most of the users
    system = text_of(shape, "shared-system", random.Random(f"{shape.seed} group {group}"))
    return _conversation(shape, draw, "shared", system)


_TOOLS: Final = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": says,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string", "description": f"The {argument}"}},
                "required": [argument],
            },
        },
    }
    for name, says, argument in (
        ("search", "Find pages that answer a question.", "query"),
        ("read_file", "Read a file of the project.", "path"),
        ("run", "Run a command and return what it prints.", "command"),
    )
)


def agent(shape: Shape, draw: random.Random) -> Iterator[Ask]:
    """A loop that calls a tool, reads what it says, and asks again, without a pause to think."""
    system = text_of(shape, "system", random.Random(f"{shape.seed} agent"))  # all agents are one program
    messages: list[Message] = [
        {"role": "system", "content": system},
        {"role": "user", "content": text_of(shape, "question", draw)},
    ]
    hurried = replace(shape, think_seconds=0.0)
    for number in range(draw.randint(*shape.turns)):
        yield _ask(hurried, draw, "agent", {"messages": list(messages), "tools": list(_TOOLS)})
        called = draw.choice(_TOOLS)["function"]
        argument = called["parameters"]["required"][0]  # type: ignore[index]  # as written above
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": called["name"], "arguments": f'{{"{argument}": "step {number}"}}'},  # type: ignore[index]
        }
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append(
            {"role": "tool", "tool_call_id": call["id"], "content": text_of(shape, "tool-output", draw)}
        )


def documents(shape: Shape, draw: random.Random) -> Iterator[Ask]:
    """A long document, then questions about it."""
    document = text_of(shape, "document", draw)
    messages: list[Message] = []
    for number in range(draw.randint(*shape.turns)):
        question = text_of(shape, "question", draw)
        said = f"{document}\n\n{question}" if number == 0 else question
        messages.append({"role": "user", "content": said})
        yield _ask(shape, draw, "documents", {"messages": list(messages)})
        messages.append({"role": "assistant", "content": text_of(shape, "reply", draw)})


def completions(shape: Shape, draw: random.Random) -> Iterator[Ask]:
    """Plain text to go on from, longer each time."""
    prompt = text_of(shape, "system", draw)
    for _ in range(draw.randint(*shape.turns)):
        yield _ask(shape, draw, "completions", {"prompt": prompt}, path=COMPLETION_PATH)
        prompt = f"{prompt} {text_of(shape, 'reply', draw)}"


def mixed(shape: Shape, draw: random.Random) -> Iterator[Ask]:
    """Visits of all kinds, chats most of all."""
    kinds = (chat, shared, agent, documents, completions)
    (kind,) = draw.choices(kinds, weights=(5, 3, 2, 1, 1))
    return kind(shape, draw)


WORKLOADS: Final[Mapping[str, Workload]] = {
    each.__name__: each for each in (chat, shared, agent, documents, completions, mixed)
}
