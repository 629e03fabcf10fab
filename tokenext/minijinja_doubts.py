"""Where jinja2 and minijinja, with which NVIDIA Dynamo renders, give other text: noted during a render.

A template that *can* do such a thing mostly does not, so the syntax tree is rewritten to look on and note: a
list that is printed, a float with an exponent that is joined to text, an `x.items` that is not called. What
looks on changes nothing. A prompt with a note is good to route by, and not proved to be Dynamo's own.

Each rule was seen at a Dynamo 1.6.1 frontend; the letters are those of tests/parity/RULES.md, section 7.
What is not known to be alike counts as different: filters, tests and methods are looked up in lists of those
that were compared, over every kind of value (`make parity MODELS=dialect`).
"""

import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, Final

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

__all__ = ["DOUBTS", "WATCHERS", "Doubts"]

Watcher = Callable[..., Any]

DOUBTS: Final = "the doubts"  # the name among a render's variables; no template can say it


class Doubts:
    """What one render came upon. Owned by whoever renders."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found = False


def _note(context: Context) -> None:
    doubts = context.parent.get(DOUBTS)
    if doubts is not None:
        doubts.found = True


# Both print these alike where they stand alone.
_PLAIN: Final = frozenset({str, Markup, int, bool, float, type(None)})


def _is_odd(value: object) -> bool:
    """P1, P2: whether text is made of it in another way. Floats are written without exponents there."""
    kind = type(value)
    if kind is float:
        return "e" in repr(value)
    return kind not in _PLAIN and not isinstance(value, Undefined)


@pass_context
def printed(context: Context, value: Any) -> Any:
    """P1: containers are printed in other words, and so is whatever else has no text of its own."""
    if type(value) is not str and type(value) not in _PLAIN and not isinstance(value, Undefined):
        _note(context)
    return value


@pass_context
def joined(context: Context, value: Any) -> Any:
    """P1, P2: what becomes part of a text."""
    if type(value) is not str and _is_odd(value):
        _note(context)
    return value


@pass_context
def all_joined(context: Context, values: Any) -> Any:
    if isinstance(values, Iterable) and not isinstance(values, str | Undefined):
        values = list(values)
        if any(map(_is_odd, values)):
            _note(context)
    return values


@pass_context
def attribute(context: Context, value: Any, name: str) -> Any:
    """P3: `x.items` without a call is a method to jinja2, and a key to minijinja."""
    if _has_method(value, name):
        _note(context)
    return context.environment.getattr(value, name)


@pass_context
def item(context: Context, value: Any, key: Any) -> Any:
    """P3: jinja2 finds the method where the key is missing. P4: keys that are neither text nor integers."""
    if type(key) is str:
        doubtful = _has_method(value, key) and not (isinstance(value, dict) and key in value)
    else:
        doubtful = type(key) is not int
    if doubtful:
        _note(context)
    return context.environment.getitem(value, key)


def _has_method(value: object, name: str) -> bool:
    return isinstance(value, str | dict | list | tuple | int | float) and hasattr(type(value), name)


@pass_context
def receiver(context: Context, value: Any, method: str) -> Any:
    """P4: a method of a text, list or object that is called."""
    if isinstance(value, str):
        doubtful = method not in _TEXT_METHODS and (
            method not in _METHODS_OF_SOME_TEXTS or not _METHODS_OF_SOME_TEXTS[method](value)
        )
        doubtful = doubtful or (method in {"upper", "lower"} and not _has_known_case(value))
    elif isinstance(value, dict):
        doubtful = method not in _OBJECT_METHODS
    else:
        doubtful = isinstance(value, list | tuple | int | float) and method not in _LIST_METHODS
    if doubtful:
        _note(context)
    return value


def _has_known_case(text: str) -> bool:
    """P6: minijinja may know letters that are unassigned here."""
    return text.isascii() or all(unicodedata.category(character) != "Cn" for character in text)


def _is_title_like(text: str) -> bool:
    """P4: `title` and `capitalize` differ behind apostrophes and digits, and for ligatures."""
    return text.isascii() and (text.replace(" ", "").isalpha() or not text)


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalpha()


def _is_some_ascii(text: str) -> bool:
    return bool(text) and text.isascii()


_TEXT_METHODS: Final = frozenset(
    {
        *("strip", "lstrip", "rstrip", "split", "splitlines", "startswith", "endswith", "replace", "count"),
        *("upper", "lower", "join"),
    }
)
# P4: offsets are counted in bytes; an empty text is all digits; `islower` is about every character.
_METHODS_OF_SOME_TEXTS: Final[dict[str, Callable[[str], bool]]] = {
    **dict.fromkeys(("find", "rfind", "index", "rindex"), str.isascii),
    **dict.fromkeys(("isdigit", "isalpha", "isalnum", "isnumeric", "isdecimal", "isspace"), _is_some_ascii),
    **dict.fromkeys(("isupper", "islower"), _is_word),
    **dict.fromkeys(("title", "capitalize"), _is_title_like),
}
_OBJECT_METHODS: Final = frozenset({"get", "items", "keys", "values"})
_LIST_METHODS: Final = frozenset({"count", "index"})


@pass_context
def cased(context: Context, value: Any) -> Any:
    """As `joined`, and P6: for `upper` and `lower`."""
    if _is_odd(value) or not _has_known_case(str(value)):
        _note(context)
    return value


@pass_context
def titled(context: Context, value: Any) -> Any:
    if not isinstance(value, str) or not _is_title_like(value):
        _note(context)
    return value


@pass_context
def escaped(context: Context, value: Any) -> Any:
    """P4: quotes and slashes are escaped by other names."""
    if _is_odd(value) or not {'"', "'", "/"}.isdisjoint(str(value)):
        _note(context)
    return value


@pass_context
def indented(context: Context, value: Any) -> Any:
    """P8: an empty line at the end goes, and a line ends with less than to Python."""
    if _is_odd(value) or str(value).splitlines() != str(value).split("\n"):
        _note(context)
    return value


@pass_context
def reversible(context: Context, value: Any) -> Any:
    """P8: an object is not reversed."""
    if isinstance(value, dict):
        _note(context)
    return value


@pass_context
def comparable(context: Context, values: Any) -> Any:
    """P4: 1 and true are different, and true is less than 0."""
    if isinstance(values, Iterable) and not isinstance(values, str | Undefined):
        values = values if isinstance(values, dict) else list(values)
        if any(isinstance(value, bool) for value in values):
            _note(context)
    return values


@pass_context
def compared(context: Context, value: Any) -> Any:
    """P4: as one value; for `<` and its like, and for `in`."""
    if isinstance(value, bool):
        _note(context)
    return value


@pass_context
def keyed(context: Context, value: Any) -> Any:
    """P4: the keys of an object that the template builds."""
    if any(type(key) is not str for key in value):
        _note(context)
    return value


@pass_context
def looped(context: Context, value: Any) -> Any:
    """P8: the number of a text's characters is not known to `loop`."""
    if isinstance(value, str):
        _note(context)
    return value


@pass_context
def divided(context: Context, left: Any, right: Any) -> Any:
    """P4: remainders and floors of negative numbers and of floats; zero; and text, for which `%` formats."""
    if type(left) is not int or type(right) is not int or left < 0 or right <= 0:
        _note(context)
    return left


@pass_context
def is_in_sequence(context: Context, value: Any) -> Any:
    """P4: texts and objects are no sequences."""
    if isinstance(value, str | dict):
        _note(context)
    return value


@pass_context
def is_iterated(context: Context, value: Any) -> Any:
    """P8: none is iterable."""
    if value is None:
        _note(context)
    return value


@pass_context
def is_cased(context: Context, value: Any) -> Any:
    if not isinstance(value, str) or not _is_word(value):
        _note(context)
    return value


@pass_context
def is_counted(context: Context, value: Any) -> Any:
    """P4, P8: a boolean is no number, and large floats are rounded."""
    if isinstance(value, bool | float):
        _note(context)
    return value


@pass_context
def doubtful(context: Context, value: Any) -> Any:
    _note(context)
    return value


#: Filters that look on, by names that no template can say.
WATCHERS: Final[dict[str, Watcher]] = {
    f"watch {watcher.__name__}": watcher
    for watcher in (
        *(printed, joined, all_joined, attribute, item, receiver, cased, titled, escaped, indented),
        *(reversible, comparable, compared, keyed, looped, divided),
        *(is_in_sequence, is_iterated, is_cased, is_counted, doubtful),
    )
}
