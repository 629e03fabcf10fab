"""A prompt's ids as a JSON list, from their packed bytes (docs/adr/0008).

Of a conversation that goes on only the new ids are spelled: the others stand there already.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from extproc.token_metadata import BYTES_PER_ID, TokenIds

__all__ = ["IdsJson", "ids_as_json", "spelled"]

_WORTH_RECALLING: Final = 1_024  # ids; fewer are spelled as fast as they are compared
# How many ids of the turn before are given up to find what both begin with: a template ends each prompt with
# a few of its own.
_GIVEN_UP: Final = (16, 128, 1_024, 8_192)


@dataclass(frozen=True, slots=True)
class IdsJson:
    """`text` is the JSON list of `ids`."""

    ids: TokenIds
    text: bytes


def ids_as_json(ids: TokenIds) -> bytes:
    """A JSON list from the packed bytes: no Python integer is made."""
    array = np.frombuffer(ids.packed, dtype="<u4").astype("=u4", copy=False)
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def spelled(ids: TokenIds, before: IdsJson | None) -> IdsJson:
    """The ids as JSON. `before`: those of a prompt that may begin alike."""
    shared = 0 if before is None else _shared(before.ids, ids)
    if before is None or not shared:
        return IdsJson(ids, ids_as_json(ids))
    # "[1,2,3,4]" without ",3,4]" is "[1,2".
    known = memoryview(before.text)[: len(before.text) - len(_ending(before.ids, shared))]
    return IdsJson(ids, b"".join((known, _ending(ids, shared))))


def _ending(ids: TokenIds, place: int) -> bytes:
    """What stands in the list behind the first `place` ids, of which there is at least one."""
    rest = TokenIds(ids.packed[place * BYTES_PER_ID :])
    return b"," + ids_as_json(rest)[1:] if rest else b"]"


def _shared(left: TokenIds, right: TokenIds) -> int:
    """So many ids both begin with, or some more; 0 where it is not worth it."""
    for given_up in _GIVEN_UP:
        count = len(left) - given_up
        if count < _WORTH_RECALLING:
            break
        if right.packed.startswith(left.packed[: count * BYTES_PER_ID]):
            return count
    return 0
