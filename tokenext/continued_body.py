"""A request body whose messages go on from a conversation that is known: only what is new in it is read.

Most of such a body was read with the turn before, byte for byte. What stands in front of its messages are a
few simple fields, nearly always; behind the messages that are known everything is read as it would be.
"""

import re
from dataclasses import dataclass
from typing import Final

from msgspec import Raw

from tokenext.json_object import JsonObject, NotAnObjectError, read
from tokenext.turns import Conversation, Remembered

__all__ = ["ContinuedBody", "go_on"]

# Up to the messages' own bracket: fields of one simple value, if any.
_OPENING: Final = re.compile(
    rb"""[ \t\r\n]* \{ [ \t\r\n]*
    (?: "[^"\\]*" [ \t\r\n]* : [ \t\r\n]* (?: "[^"\\]*" | [-+.\w]+ ) [ \t\r\n]* , [ \t\r\n]* )*
    (?P<messages> "messages" [ \t\r\n]* : [ \t\r\n]* ) (?=\[)""",
    re.VERBOSE,
)
_OPENING_BYTES: Final = 2_048
_MESSAGES: Final = "messages"
_FIRST: Final = b'{"messages":'
_EMPTY: Final = re.compile(rb"\[[ \t\r\n]*\]")
_SALT: Final = frozenset({"cache_salt"})  # such a request shares nothing with those that have none


@dataclass(frozen=True, slots=True)
class ContinuedBody(JsonObject):
    """A body without cache_salt. `before`: how its messages begin; `following`: an array of the rest."""

    before: Conversation
    following: bytes


def go_on(text: bytes, conversations: Remembered) -> ContinuedBody | None:
    """The body, or None where its messages are not known to go on, or it is no plain case."""
    opening = _OPENING.match(text, 0, _OPENING_BYTES)
    if opening is None:
        return None
    start = opening.end()
    before = conversations.find("", text, start)
    if before is None:
        return None
    known = start + len(before.text)
    # What begins alike is the same up to here, whatever follows: JSON is read from left to right.
    rest = text[known:].lstrip()
    is_longer = rest.startswith(b",")
    rest = rest.removeprefix(b",")
    try:
        ahead = read(text[: opening.start(_MESSAGES)].rstrip().removesuffix(b",") + b"}").fields
        following = bytes(read(b"%b[%b" % (_FIRST, rest)).fields[_MESSAGES])
        # The array that stands there, and not one of the same name behind it.
        if not rest.startswith(following[1:]):
            return None
        behind = read(b"{" + rest[len(following) - 1 :].lstrip().removeprefix(b",")).fields
    except NotAnObjectError:
        return None
    if is_longer == (_EMPTY.fullmatch(following) is not None):
        return None
    if _MESSAGES in behind or not _SALT.isdisjoint({*ahead, *behind}):
        return None
    messages = Raw(memoryview(text)[start : len(text) - len(rest) + len(following) - 1])
    return ContinuedBody(text, {**ahead, _MESSAGES: messages, **behind}, before, following)
