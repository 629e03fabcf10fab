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


@dataclass(frozen=True, slots=True)
class IdsJson:
    """`text` is the JSON list of `ids`."""

    ids: TokenIds
    text: bytes


def ids_as_json(ids: TokenIds) -> bytes:
    """A JSON list from the packed bytes: no Python integer is made."""
    return orjson.dumps(_array(ids.packed).astype("=u4", copy=False), option=orjson.OPT_SERIALIZE_NUMPY)


def spelled(ids: TokenIds, before: IdsJson | None) -> IdsJson:
    """The ids as JSON. `before`: those of a prompt that may begin alike."""
    shared = 0 if before is None else _shared(before.ids, ids)
    if before is None or shared < _WORTH_RECALLING:
        return IdsJson(ids, ids_as_json(ids))
    # "[1,2,3,4]" without ",3,4]" is "[1,2".
    known = memoryview(before.text)[: len(before.text) - len(_ending(before.ids, shared))]
    return IdsJson(ids, b"".join((known, _ending(ids, shared))))


def _ending(ids: TokenIds, place: int) -> bytes:
    """What stands in the list behind the first `place` ids, of which there is at least one."""
    rest = TokenIds(ids.packed[place * BYTES_PER_ID :])
    return b"," + ids_as_json(rest)[1:] if rest else b"]"


def _array(packed: bytes) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    return np.frombuffer(packed, dtype="<u4")


def _shared(left: TokenIds, right: TokenIds) -> int:
    """How many ids both begin with."""
    count = min(len(left), len(right))
    differ = _array(left.packed)[:count] != _array(right.packed)[:count]
    place = int(differ.argmax()) if count else 0
    return place if count and differ[place] else count
