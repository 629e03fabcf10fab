"""What the demo says: conversations whose turns carry all that went before, and a completion that grows."""

from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["Chat", "Completion", "Conversation", "conversations"]

CHAT_PATH: Final = "/v1/chat/completions"
COMPLETION_PATH: Final = "/v1/completions"

Body = dict[str, object]
Message = dict[str, object]

WEATHER_TOOL: Final[Body] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now or on a given day.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "day": {"type": "string", "enum": ["today", "tomorrow"]},
            },
            "required": ["city"],
        },
    },
}


class Conversation(Protocol):
    """One client's sequence of requests; each begins with all of the one before it."""

    name: str
    path: str

    @property
    def turns(self) -> int: ...

    def body(self, turn: int) -> Body:
        """The request of this turn, without model and limits."""
        ...

    def heard(self, turn: int, text: str) -> None:
        """Take what the model answered into the next turn's request."""
        ...


@dataclass(slots=True)
class Chat:
    """`script` holds, per turn, the messages that the user's side adds.

    Where a turn begins with an assistant's message of its own (a tool call), it stands for the model's
    answer: the stack's workers make up text and never call a tool.
    """

    name: str
    history: list[Message]
    script: tuple[tuple[Message, ...], ...]
    tools: tuple[Body, ...] = ()
    path: str = CHAT_PATH

    @property
    def turns(self) -> int:
        return len(self.script)

    def body(self, turn: int) -> Body:
        self.history.extend(self.script[turn])
        body: Body = {"messages": list(self.history)}
        if self.tools:
            body["tools"] = list(self.tools)
        return body

    def heard(self, turn: int, text: str) -> None:
        following = self.script[turn + 1] if turn + 1 < self.turns else ()
        if not (following and following[0]["role"] == "assistant"):
            self.history.append({"role": "assistant", "content": text})


@dataclass(slots=True)
class Completion:
    """A text that grows by the model's words and by `script`."""

    name: str
    script: tuple[str, ...]
    text: str = ""
    path: str = COMPLETION_PATH

    @property
    def turns(self) -> int:
        return len(self.script)

    def body(self, turn: int) -> Body:
        self.text += self.script[turn]
        return {"prompt": self.text}

    def heard(self, turn: int, text: str) -> None:
        del turn
        self.text += text


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def conversations() -> list[Conversation]:
    """Fresh ones, since they remember what was said."""
    guide = (
        "You are a guide for people who walk in the mountains. You know the paths, the huts and the trains. "
        "Answer in a few plain sentences, say how long a walk takes, and warn of what is dangerous. When you "
        "do not know something, say so, and name somebody who might know."
    )
    baker = (
        "You teach people to bake bread at home with what they have. Give weights in grams and times in "
        "minutes. Ask about the oven before you name a temperature, and explain in one sentence why each "
        "step is there."
    )
    agent = (
        "You are a travel agent. Use the tools you are given before you answer, and never guess the weather. "
        "Write times as hours and minutes, and prices in euros."
    )
    story = (
        "Once upon a time there was a lighthouse on a small island, and in the lighthouse lived a keeper who "
        "counted ships. Every evening he wrote the number into a book, and every morning he read"
    )
    return [
        Chat(
            "mountains",
            [{"role": "system", "content": guide}],
            (
                (_user("Two of us want to walk to the lake on Saturday. When should we start?"),),
                (_user("And what do we do if it rains in the afternoon?"),),
                (_user("Is there a hut near the lake where we could stay overnight?"),),
            ),
        ),
        Chat(
            "bread",
            [{"role": "system", "content": baker}],
            (
                (_user("I have flour, salt, a little yeast and a small oven. Where do I begin?"),),
                (_user("The dough is very sticky. Did I make a mistake?"),),
            ),
        ),
        Chat(
            "travel, with tools",
            [{"role": "system", "content": agent}],
            (
                (_user("Should I take an umbrella to Paris tomorrow?"),),
                (
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [
                            {
                                "id": "call_1",
                                "type": "function",
                                "function": {
                                    "name": "get_weather",
                                    "arguments": '{"city": "Paris", "day": "tomorrow"}',
                                },
                            }
                        ],
                    },
                    {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "rain", "degrees": 14}'},
                ),
                (_user("And is it any better in Lisbon?"),),
            ),
            tools=(WEATHER_TOOL,),
        ),
        Completion(
            "story",
            (
                story,
                "\nOne winter no ship came for a week, and so the keeper",
            ),
        ),
    ]
