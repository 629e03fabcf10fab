"""jinja2's filters as an untrusted chat template may use them: nothing they make is out of bounds.

Most of jinja2's filters give no more than they take and stay as they are. Here stand the others. Filters that
take quadratic time, or whose outcome an engine cannot share, are refused when a render comes upon them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import jinja2
from jinja2 import filters, pass_context
from jinja2.runtime import Context

from tokenext.template_bounds import MAX_ITEMS, Budget, RenderLimitError, formatted_size

__all__ = ["BUDGET", "EACH", "bounded_filters", "budget_of", "to_json"]

Filter = Callable[..., Any]

# The name of a render's budget among its variables, and of what the syntax tree is rewritten with: names that
# no template can say.
BUDGET: Final = "the budget"
EACH: Final = "each item"
ADD: Final = "add up"
CONCATENATE: Final = "concatenate"
BUILT: Final = "built here"


def budget_of(context: Context) -> Budget:
    """The budget of the render that a context belongs to."""
    budget: Budget = context.parent[BUDGET]
    return budget


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """json.dumps as it is: jinja2's own filter escapes <, >, & and ' for HTML, which no model expects."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def bounded_filters() -> dict[str, Filter]:
    """All filters of an untrusted template by name."""
    refused = dict.fromkeys(_REFUSED, _refuse)
    measured = {name: _measured(filters.FILTERS[name]) for name in _GROWING}
    lazy = {name: _stepping(filters.FILTERS[name]) for name in _LAZY}
    return {**filters.FILTERS, **refused, **measured, **lazy, **_OWN}


# Regular expressions of quadratic time, chance, and layouts of object addresses.
_REFUSED: Final = ("striptags", "urlize", "wordwrap", "pprint", "xmlattr", "random")
# These give more than they take, but only a few times as much in one go.
_GROWING: Final = ("e", "escape", "forceescape", "urlencode", "string", "groupby", "sort", "dictsort")
# These give their items one by one, each at a cost of its own.
_LAZY: Final = ("map", "select", "selectattr", "reject", "rejectattr", "unique")
_MAX_WIDTH: Final = 10_000


def _refuse(*_: object, **__: object) -> None:
    raise RenderLimitError("a filter that templates may not use")


def _called(function: Filter, context: Context, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a filter of jinja2's with the first argument that it asks for."""
    wanted = getattr(function, "jinja_pass_arg", None)
    first = {
        None: (),
        "context": (context,),
        "eval_context": (context.eval_ctx,),
        "environment": (context.environment,),
    }[None if wanted is None else wanted.name]
    return function(*first, *args, **kwargs)


def _measured(function: Filter) -> Filter:
    @pass_context
    def measured(context: Context, *args: Any, **kwargs: Any) -> Any:
        result = _called(function, context, args, kwargs)
        budget = budget_of(context)
        budget.admit(len(result) if isinstance(result, str) else budget.weigh(result))
        return result

    return measured


def _stepping(function: Filter) -> Filter:
    @pass_context
    def stepping(context: Context, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return budget_of(context).each(_called(function, context, args, kwargs))

    return stepping


@pass_context
def _each(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    return budget_of(context).each(items)


@pass_context
def _add(context: Context, *terms: Any) -> Any:
    return context.parent[BUDGET].add(*terms)


@pass_context
def _concatenate(context: Context, *terms: Any) -> str:
    return budget_of(context).concatenate(*terms)


@pass_context
def _built(context: Context, value: Any) -> Any:
    budget_of(context).weigh(value)
    return value


@pass_context
def _to_json(context: Context, value: object, *args: Any, **kwargs: Any) -> str:
    layout = dict(zip(("ensure_ascii", "indent"), args, strict=False)) | kwargs
    if layout.get("indent") is not None:
        _require_width(layout["indent"] if isinstance(layout["indent"], int) else len(layout["indent"]))
        budget_of(context).admit(_indented_size(value, int(layout["indent"]), 0))
    return to_json(value, *args, **kwargs)


def _indented_size(value: object, indent: int, depth: int) -> int:
    if isinstance(value, dict):
        inner = (_indented_size(item, indent, depth + 1) + len(str(key)) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inner = (_indented_size(item, indent, depth + 1) for item in value)
    else:
        return len(value) if isinstance(value, str) else 1
    return sum(inner) + (len(value) + 1) * (indent * (depth + 1) + 4)


@pass_context
def _list(context: Context, value: Any) -> list[Any]:
    if isinstance(value, str) and len(value) > MAX_ITEMS:
        raise RenderLimitError("a list of too many characters")
    items = list(value)
    budget_of(context).weigh(items)
    return items


@pass_context
def _join(context: Context, value: Iterable[Any], d: Any = "", attribute: Any = None) -> str:
    items: Iterable[Any] = budget_of(context).each(value)
    if attribute is not None:
        items = map(filters.make_attrgetter(context.environment, attribute), items)
    texts = list(map(str, items))
    separator = str(d)
    budget_of(context).admit(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


@pass_context
def _replace(context: Context, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(s), str(old), str(new)
    budget_of(context).admit(len(text) + text.count(old) * len(new))
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def _indent(context: Context, s: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    size = len(width) if isinstance(width, str) else int(width)
    _require_width(size)
    budget_of(context).admit(len(str(s)) + (len(str(s).splitlines()) + 1) * size)
    return filters.do_indent(str(s), width, first, blank)


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    budget_of(context).admit(formatted_size(str(value), "%", args, kwargs))
    return filters.do_format(value, *args, **kwargs)


def _center(value: Any, width: int = 80) -> str:
    _require_width(width)
    return filters.do_center(str(value), width)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    _require_width(precision)
    return filters.do_round(value, precision, method)


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> Iterator[Any]:
    _require_width(linecount)
    return filters.do_batch(value, linecount, fill_with)


def _slice(value: Any, slices: int, fill_with: Any = None) -> Iterator[Any]:
    _require_width(slices)
    return filters.sync_do_slice(value, slices, fill_with)


@pass_context
def _sum(context: Context, iterable: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    numbers: Iterable[Any] = budget_of(context).each(iterable)
    if attribute is not None:
        numbers = map(filters.make_attrgetter(context.environment, attribute), numbers)
    total = start
    for number in numbers:
        if not isinstance(number, int | float) or not isinstance(total, int | float):
            raise jinja2.TemplateError("only numbers have a sum")
        total += number
    return total


def _require_width(width: int) -> None:
    if not 0 <= abs(width) <= _MAX_WIDTH:
        raise RenderLimitError("too wide a layout")


_OWN: Final[Mapping[str, Filter]] = {
    EACH: _each,
    ADD: _add,
    CONCATENATE: _concatenate,
    BUILT: _built,
    "tojson": _to_json,
    "list": _list,
    "join": _join,
    "replace": _replace,
    "indent": _indent,
    "format": _format,
    "center": _center,
    "round": _round,
    "batch": _batch,
    "slice": _slice,
    "sum": _sum,
}
