"""A request as the next turn of a conversation, and what the turn before it left behind."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from extproc.token_metadata import TokenIds
from extproc.verdict import JsonValue
from tokenext.ids_json import IdsJson, spelled
from tokenext.loop_memory import LoopMemory, LoopRecord
from tokenext.minijinja_doubts import Doubts

__all__ = ["Conversation", "Remembered", "Template", "Turn", "without"]

Messages = tuple[Mapping[str, JsonValue], ...]
Loops = Mapping[int, LoopRecord]

_MESSAGE_BYTES: Final = 700  # of a parsed message beside its text
_NO_LOOPS: Final[Loops] = {}


class Template(Protocol):
    """What a Turn has rendered (chat_template.py). `memory.output` gets every piece of the prompt, too."""

    memory_key: str  # templates with one key render, and doubt, alike

    def render(
        self,
        messages: Sequence[Mapping[str, JsonValue]],
        variables: Mapping[str, JsonValue],
        doubts: Doubts | None = None,
        memory: LoopMemory | None = None,
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Conversation:
    """A turn that is remembered. `text` are its messages as JSON, without the closing bracket.

    `loops`: what templates printed over them, by the template's `memory_key`. `plain` is that of MessageList.
    `ids`: those of its prompt, where an engine was given them.
    """

    text: bytes
    messages: Messages
    loops: Mapping[str, Loops]
    plain: bool = False
    ids: IdsJson | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes: as JSON, as messages, what was printed of them, and the ids."""
        printed = sum(
            sys.getsizeof(record.text) for loops in self.loops.values() for record in loops.values()
        )
        spelled = 0 if self.ids is None else len(self.ids.text) + len(self.ids.ids.packed)
        texts = len(self.text) + max(printed, len(self.text)) + printed
        return texts + spelled + _MESSAGE_BYTES * len(self.messages)


class Remembered(Protocol):
    """Where turns are kept (conversations.py). Thread-safe."""

    def find(self, isolation: str, text: bytes, start: int = 0) -> Conversation | None:
        """The longest remembered turn that the JSON array of messages goes on from that begins at `start`."""

    def keep(self, isolation: str, conversation: Conversation, before: Conversation | None) -> None:
        """Remember a turn, in the place of the one before."""


@dataclass(slots=True)
class Turn:
    """One request's place in its conversation. Without `conversations` nothing is remembered of it.

    Owned by whoever has the request: the event loop, then a worker thread. What a turn leaves behind is
    remembered when it is told to `keep`.
    """

    conversations: Remembered | None = None
    isolation: str = ""
    text: bytes = b""  # of the messages, without the closing bracket
    messages: Messages = ()
    plain: bool = False
    before: Conversation | None = None
    _loops: Mapping[str, Loops] | None = None
    _ids: IdsJson | None = None

    def render(
        self,
        template: Template,
        messages: Sequence[Mapping[str, JsonValue]],
        variables: Mapping[str, JsonValue],
        doubts: Doubts | None = None,
        *,
        dropped: str = "",
    ) -> str:
        """As the template does, from memory where that is the same. Raises Declined.

        `dropped` is a character that prompts do not have: where the template prints it, it is left out.
        """
        if self.conversations is None:
            return without(dropped, template.render(messages, variables, doubts))
        key = dropped + template.memory_key
        memory = LoopMemory(_NO_LOOPS if self.before is None else self.before.loops.get(key, _NO_LOOPS))
        prompt = template.render(messages, variables, doubts, memory)
        # Where there is doubt nothing is kept: the doubt must be found again the next time. Nor is what has
        # the dropped character, so that what is recalled need not be searched for it.
        dropping = bool(dropped) and dropped in memory.printed_anew()
        kept = not (dropping or (doubts is not None and doubts.found))
        self._loops = {key: memory.kept} if kept else {}
        return without(dropped, prompt) if dropping else prompt

    def ids_json(self, ids: TokenIds) -> bytes:
        """The prompt's ids as a JSON list; what the turn before has of them is not spelled again."""
        self._ids = spelled(ids, None if self.before is None else self.before.ids)
        return self._ids.text

    def keep(self) -> None:
        """Remember the turn, once it was rendered, in the place of the one before."""
        if self.conversations is None or self._loops is None:
            return
        turn = Conversation(self.text, self.messages, self._loops, self.plain, self._ids)
        self.conversations.keep(self.isolation, turn, self.before)


def without(dropped: str, prompt: str) -> str:
    """The prompt without a character; "" for none."""
    return prompt.replace(dropped, "") if dropped and dropped in prompt else prompt
