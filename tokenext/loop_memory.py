"""What loops over a conversation's messages printed, for the next turn of the conversation.

loop_analysis.py finds the loops and proves what may change their output; here stand the filters that it puts
into them. A loop is printed from memory up to the first message that is not the very same, or the first
variable that has another value, and never beyond the last message but one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from jinja2 import pass_context
from jinja2.runtime import Context
from jinja2.utils import missing

from tokenext.loop_analysis import KEEP, MARK, PLACE, RECALL, REST, Read
from tokenext.template_namespace import TemplateNamespace

__all__ = ["MEMORY", "LoopMemory", "LoopRecord", "memory_filters"]

# The name of a render's memory among its variables: one that no template can say.
MEMORY: Final = "the memory"

_Values = bytes | None
_OVERLAP: Final = 64  # more than anything that is looked for in a prompt


@dataclass(frozen=True, slots=True)
class LoopRecord:
    """One loop's output over `items`, but for the last one. `starts`: where that of each begins in `text`.

    `values` and `thresholds` are what the variables were that it read; None where they cannot be compared.
    """

    items: Sequence[Any]
    values: _Values
    thresholds: tuple[int, ...] | None
    starts: list[int]
    text: str


@dataclass(slots=True)
class _Opening:
    """A loop that is being rendered. `pieces`: how many pieces stood in the output when each item began."""

    record: LoopRecord  # without text yet; `starts` has what was recalled
    recalled: str
    pieces: list[int] = field(default_factory=list)


class LoopMemory:
    """One render's view: what is known of the conversation's loops, and what it adds.

    `output` gets every piece of the prompt as soon as the template gives it. Owned by the rendering thread.
    """

    def __init__(self, known: Mapping[int, LoopRecord]) -> None:
        self._known = known
        self._openings: dict[int, _Opening] = {}
        self._recalled: dict[int, str] = {}  # by their places in `output`
        self.output: list[str] = []
        self.kept: dict[int, LoopRecord] = {}
        self.recalled = 0  # items

    def recall(
        self, number: int, items: Any, values: _Values, thresholds: tuple[int, ...] | None
    ) -> tuple[int, str]:
        """How many items need not be rendered, and what they print."""
        if type(items) is not list or values is None or thresholds is None:
            return 0, ""
        record = self._known.get(number)
        count = 0 if record is None else _unchanged(record, items, values, thresholds)
        starts: list[int] = []
        text = ""
        if record is not None and count:
            starts, text = record.starts[:count], record.text[: record.starts[count]]
        self.recalled += count
        self._recalled[len(self.output)] = text  # the template prints it next
        self._openings[number] = _Opening(LoopRecord(items, values, thresholds, starts, ""), text)
        return count, text

    def printed_anew(self) -> str:
        """The prompt without what was recalled, but for its ends: nothing that begins there is overlooked."""
        recalled = self._recalled
        return "".join(
            piece[-_OVERLAP:] if recalled.get(place) is piece else piece
            for place, piece in enumerate(self.output)
        )

    def mark(self, number: int) -> None:
        """An item's output begins."""
        if opening := self._openings.get(number):
            opening.pieces.append(len(self.output))

    def keep(self, number: int) -> None:
        """The loop is over."""
        opening = self._openings.pop(number, None)
        if opening is None or not opening.pieces:
            return
        record, output = opening.record, self.output
        length = len(opening.recalled)
        done = opening.pieces[0]
        for begin in opening.pieces:
            length += sum(map(len, output[done:begin]))
            record.starts.append(length)
            done = begin
        # Of the last item, which is always rendered anew, nothing is kept.
        text = opening.recalled + "".join(output[opening.pieces[0] : done])
        self.kept[number] = LoopRecord(record.items, record.values, record.thresholds, record.starts, text)


def _unchanged(record: LoopRecord, items: list[Any], values: bytes, thresholds: tuple[int, ...]) -> int:
    """How many of the first items print what they printed."""
    if record.values != values or record.thresholds is None or len(record.thresholds) != len(thresholds):
        return 0
    count = min(len(items), len(record.items), len(record.starts)) - 1
    for old, new in zip(record.thresholds, thresholds, strict=True):
        if old != new:
            count = min(count, old - 1, new - 1)  # less one, since `loop.index` counts from 1
    for place in range(count):
        old_item, item = record.items[place], items[place]
        if old_item is not item and not _same(old_item, item):
            return max(place - 1, 0)  # the one before may have looked behind itself
    return max(count, 0)


def _same(old: Any, new: Any) -> bool:
    """Equal to the last bit: 1, 1.0 and true are three things."""
    try:
        return orjson.dumps(old) == orjson.dumps(new)
    except (TypeError, orjson.JSONEncodeError):
        return False


@pass_context
def _recall(
    context: Context, items: Any, number: int, values: tuple[Read, ...], thresholds: tuple[Read, ...]
) -> tuple[int, str]:
    memory: LoopMemory | None = context.parent.get(MEMORY)
    if memory is None:
        return 0, ""
    numbers = tuple(_read(context, each) for each in thresholds)
    compared = tuple(number for number in numbers if type(number) is int)
    return memory.recall(
        number, items, _fingerprint(context, values), compared if len(compared) == len(numbers) else None
    )


def _fingerprint(context: Context, reads: tuple[Read, ...]) -> _Values:
    try:
        return b"\n".join(
            b"" if (value := _read(context, each)) is missing else orjson.dumps(value) for each in reads
        )
    except (TypeError, orjson.JSONEncodeError):  # a macro, a namespace in a namespace: not to be compared
        return None


def _read(context: Context, read: Read) -> Any:
    name, attribute = read
    value = context.resolve_or_missing(name)
    if type(value) is TemplateNamespace:
        return vars(value).get(attribute, missing) if attribute else vars(value)
    return value


@pass_context
def _mark(context: Context, known: int, number: int) -> None:
    del known
    memory: LoopMemory | None = context.parent.get(MEMORY)
    if memory is not None:
        memory.mark(number)


@pass_context
def _keep(context: Context, known: int, number: int) -> None:
    del known
    memory: LoopMemory | None = context.parent.get(MEMORY)
    if memory is not None:
        memory.keep(number)


def _rest(items: Any, known: int) -> Any:
    return items[known:] if known else items


def _place(place: int, known: int) -> int:
    return place + known


def memory_filters() -> dict[str, Any]:
    """The filters by the names that loop_analysis.py uses."""
    return {RECALL: _recall, MARK: _mark, KEEP: _keep, REST: _rest, PLACE: _place}
