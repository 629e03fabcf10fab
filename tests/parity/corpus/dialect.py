"""Every piece of template language done to every kind of value: where jinja2 and minijinja might differ.

The pieces are the lines of templates/dialect.jinja; a request chooses one by template argument.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.parity.corpus.case import CHAT, Case
from tests.parity.corpus.json_text import Raw, Spelling, write

__all__ = ["TEMPLATE", "dialect"]

TEMPLATE: Final = "dialect.jinja"

_PIECE: Final = re.compile(r"^\{% if n == (\d+) %\}(.*)\{% endif %\}$", re.MULTILINE)
_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -7, 3, 2**40, Raw("18446744073709551616")),
    *(0.0, 1.5, -2.5, 2.0, Raw("1e16"), 1e-7, Raw("-0")),
    *("", "a", "banana", " padded\n", 'it\'s <b>"q"</b> & /', "Straße é漢\U0001f600 ﬁ"),
    *("e\u0301\x1c\x85\u2028x", "\x1c\x1f y \x1d\x1e\x85", "ABC", "abc def\r\nghi\n"),
    *("12", "1.5", "x1e\u0303", "%s %d", "{0}"),
    *([], ["a", "B", "c"], [1, 2.5, None, True], [3, 1, 2], ["x", ["y", {"z": 1}]], [[1, 2], [3, 4]]),
    [{"a": 1, "items": 2}, {"a": "b"}, {"q": None}],
    [{"a": {"b": 1}}],
    [True, 1, 1.0, "1"],
    {},
    {"a": 1},
    {"b": "x", "a": {"b": [1.5, "é'\"\n\u0301"]}},
    {"items": "i", "keys": None, "values": [], "get": 1, "title": "t", "count": 2},
    {"B": 2, "a": 1, "": 0},
)


def dialect(templates: Path) -> Iterator[Case]:
    """A request for every piece and value. `templates` is the folder of our templates."""
    pieces = _PIECE.findall((templates / TEMPLATE).read_text("utf-8"))
    for number, piece in pieces:
        uses = _VALUES if re.search(r"\bv\b", piece) else _VALUES[:1]
        for position, value in enumerate(uses):
            request = {
                "messages": [{"role": "user", "content": "q"}],
                "chat_template_kwargs": {"n": int(number), "v": value},
            }
            yield Case(f"dialect-{number}-{position}", piece, CHAT, write(request, Spelling()))
