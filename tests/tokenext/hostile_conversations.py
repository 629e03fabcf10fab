"""Conversations that try to make a prefix cache wrong: whatever may stand at, in or across a cut.

Prompts are made here and not by a chat template: templates put things in order, and order is what a cache
gets right. The same seed gives the same conversations.
"""

# ruff: noqa: RUF001  # letters that look like others are the point

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Conversation", "Prompt", "Writer"]

_WORDS: Final = (
    *("the", "of", "a", "cache", "don't", "I'LL", "2024", "x=1;", "http://a.b/c?d=e", "...", "--", "[UNK]"),
    *(
        "naïve",
        "Straße",
        "ПРИВЕТ",
        "мир",
        "漢字かな",
        "한국어",
        "עברית",
        "हिन्दी",
        "ﬁ",
        "№",
        "½",
        "Ǆ",
        "İ",
        "ı",
    ),
    *(
        "😀",
        "👩\u200d👩\u200d👧",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "",
        "  ",
        "\u00a0",
        "\u2028",
        "\u200b",
        "\ufeff",
    ),
    *("\0", "\x85", "▁", "Ġ", "<0x0A>", "<", ">", "<|", "|>", "</", "\\n"),
)
# What composes with, joins to, or hides beside the last character of a cut token.
_EDGES: Final = (
    *("", " ", "  ", "\n", "\t", "\u3000", "\u00a0", "\u0301", "\u0338", "\u0327\u0301", "\u200d", "\u20e3"),
    *("\ufe0f", "\u1160", "\uac00", "\ud7a3", "_", "s", "'s", "1", "▁", "|", ">", "<", "|>", "<|", "/", "\0"),
)


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    isolation: str
    add_special_tokens: bool


@dataclass(slots=True)
class Conversation:
    system: str
    isolation: str
    turns: list[str] = field(default_factory=list)
    prompts_left: int = 1


class Writer:
    """Writes prompts of several conversations at a time, in turns: some go on, some go back."""

    def __init__(self, seed: int, *, cut_tokens: Sequence[str], added_tokens: Sequence[str]) -> None:
        self._random = random.Random(seed)
        self._cut_tokens = cut_tokens
        self._added_tokens = added_tokens
        self._systems = [self._text(size) for size in (0, 3, 40, 40, 200, 400)]
        self._open, self._close = self._random.choice(cut_tokens), self._random.choice(cut_tokens)
        self._live: list[Conversation] = []
        self.begun = 0

    def next(self) -> Prompt:
        """The next prompt of some conversation."""
        chance = self._random
        if len(self._live) < 8 or chance.random() < 0.02:
            self._begin()
        conversation = chance.choice(self._live)
        self._go_on(conversation)
        conversation.prompts_left -= 1
        if conversation.prompts_left <= 0:
            self._live.remove(conversation)
        return Prompt(
            text=self._render(conversation),
            isolation=conversation.isolation,
            add_special_tokens=chance.random() < 0.3,
        )

    def _begin(self) -> None:
        self.begun += 1
        chance = self._random
        conversation = Conversation(
            system=chance.choice(self._systems) if chance.random() < 0.7 else self._text(30),
            isolation=chance.choice(("", "", "", "salt", "pepper \ud800")),
            prompts_left=chance.choice((1, 2, 3, 5, 9)),
        )
        self._live.append(conversation)
        if chance.random() < 0.3 and len(self._live) > 1:  # a branch of another one, from somewhere
            other = chance.choice(self._live[:-1])
            conversation.system, conversation.isolation = other.system, other.isolation
            conversation.turns = other.turns[: chance.randint(0, len(other.turns))]

    def _go_on(self, conversation: Conversation) -> None:
        chance, turns = self._random, conversation.turns
        what = chance.random()
        if what < 0.12 and turns:  # an earlier turn is edited
            turns[chance.randrange(len(turns))] = self._message()
        elif what < 0.17 and turns:
            del turns[chance.randrange(len(turns)) :]
        elif what < 0.22:
            pass  # once more the same, as a retry is
        elif what < 0.26 and turns:  # what was thought is taken out, as templates do
            turns[-1] = turns[-1].partition("\n")[2]
        else:
            turns.extend(self._message() for _ in range(chance.choice((1, 2, 2, 2, 4))))
        if len(turns) > 24:
            del turns[:-4]

    def _render(self, conversation: Conversation) -> str:
        chance = self._random
        parts = [f"{self._open}system\n{conversation.system}{self._close}\n"]
        parts += [
            f"{self._open}{('user', 'assistant')[number % 2]}\n{turn}{self._close}\n"
            for number, turn in enumerate(conversation.turns)
        ]
        ending = chance.random()
        if ending < 0.6:
            parts.append(f"{self._open}assistant\n")
        elif ending < 0.75:  # a generation prompt that the next turn does not have
            token = chance.choice(self._cut_tokens)
            parts.append(f"{self._open}assistant\n{token}\n\n{token}\n\n")
        elif ending < 0.8:
            parts.append(self._text(2))
        text = "".join(parts)
        return text[: chance.randint(0, len(text))] if ending > 0.95 else text

    def _message(self) -> str:
        chance = self._random
        kind = chance.random()
        if kind < 0.06:
            return ""
        if kind < 0.065:
            return self._text(20) * chance.randint(20, 200)  # up to some 100,000 characters
        return self._text(chance.choice((1, 4, 12, 40, 120)))

    def _text(self, words: int) -> str:
        return "".join(self._piece() for _ in range(words))

    def _piece(self) -> str:
        chance = self._random
        kind = chance.random()
        if kind < 0.8:
            return chance.choice(_WORDS) + " "
        if kind < 0.92:
            tokens = self._cut_tokens if kind < 0.86 else self._added_tokens
            return chance.choice(_EDGES) + chance.choice(tokens) + chance.choice(_EDGES)
        if kind < 0.97:  # a part of a token, or two that overlap
            token = chance.choice(self._added_tokens)
            cut = chance.randint(0, len(token))
            return chance.choice((token[:cut], token[cut:], token[:cut] + token, token + token[cut:]))
        if kind < 0.99999:
            return chr(chance.choice((chance.randint(1, 0x2FF), chance.randint(0x300, 0xD7FF), 0x10FFFF)))
        return "\udfff"  # no Unicode: every engine refuses it
