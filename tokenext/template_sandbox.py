"""The sandbox of untrusted chat templates: no way out, and bounds on everything (template_bounds.py).

jinja2's sandbox keeps a template from reaching Python. What it lacks is bounds: `for`, `+`, `~`, lists and
objects are compiled to plain Python. So the syntax tree is rewritten first, and each of those goes through
the budget of its render. Calls and `*`, `**` and `%` are jinja2's own hooks.

Attribute look-ups of dicts, text and loops take a short cut with the outcome of jinja2's rules. That saves
more than the bounds cost.
"""

from collections.abc import Callable, Iterable
from types import BuiltinMethodType
from typing import Any, Final, cast

from jinja2 import nodes
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from tokenext.template_bounds import MAX_ITEMS, Budget, RenderLimitError, formatted_size
from tokenext.template_code import DICT_NAMES, LOOP_NAMES
from tokenext.template_filters import ADD, BUDGET, BUILT, CONCATENATE, EACH, bounded_filters, budget_of
from tokenext.template_namespace import TemplateNamespace

__all__ = ["BoundedEnvironment"]

_TEXT_METHODS: Final = frozenset(
    name for name in dir(str) if not name.startswith("_") and name not in {"format", "format_map"}
)
_ABSENT: Final = object()


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Renders of its templates need a Budget under template_filters.BUDGET among their variables."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, *, max_chars: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_chars = max_chars
        self.filters.update(bounded_filters())
        # What macros and blocks put together.
        self.concat = _concatenation(max_chars)  # type: ignore[method-assign]  # jinja2 reads it so

    def bounded(self, tree: nodes.Template) -> nodes.Template:
        """Rewrite a syntax tree so that it keeps within its budget."""
        rewritten: nodes.Template = _Rewriter().visit(tree)
        rewritten.set_environment(self)
        return rewritten

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict:
            if attribute not in DICT_NAMES:
                try:
                    return obj[attribute]
                except KeyError:
                    return self.undefined(obj=obj, name=attribute)
        elif (kind is str and attribute in _TEXT_METHODS) or (
            kind is LoopContext and attribute in LOOP_NAMES
        ):
            return getattr(obj, attribute)
        elif kind is TemplateNamespace and not attribute.startswith("_"):
            value = getattr(obj, attribute, _ABSENT)
            if value is _ABSENT:
                return self.undefined(obj=obj, name=attribute)
            if type(value) is not BuiltinMethodType:
                return value
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = budget_of(context)
        if operator == "%":
            return left % right if type(left) is int else budget.remainder(left, right)
        return budget.multiply(left, right) if operator == "*" else budget.power(left, right)

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            named = args[0] if value.__name__ == "format_map" and args else kwargs
            if formatted_size(value.__self__, "{", args, named) > self._max_chars:
                raise RenderLimitError("too large a text")
            text: str = wrapped(*args, **kwargs)
            return text

        return bounded

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, PYI063
        # The names are jinja2's: an argument of a call may be named self.
        budget: Budget = __context.parent[BUDGET]
        budget.step()
        kind = type(__obj)
        if kind is BuiltinMethodType:
            args = _bounded_arguments(budget, __obj, args, kwargs)
            if isinstance(__obj.__self__, str | dict):
                # Nothing in it asks for the context or is unsafe to call: jinja2's search for that is spared.
                kwargs.pop("_loop_vars", None)
                kwargs.pop("_block_vars", None)
                return __obj(*args, **kwargs)
        elif kind is Macro:
            return __context.call(__obj, *args, **kwargs)
        elif kind is LoopContext and args:
            args = (budget.each(args[0]), *args[1:])
        result = super().call(__context, __obj, *args, **kwargs)
        budget.weigh(result)  # dict(a=x, b=x) builds, too
        return result


def _concatenation(max_chars: int) -> Callable[[Iterable[str]], str]:
    def concatenate(parts: Iterable[str]) -> str:
        texts = parts if isinstance(parts, list) else list(parts)
        if sum(map(len, texts)) > max_chars:
            raise RenderLimitError("too large a text")
        return "".join(texts)

    return concatenate


# Methods of builtin types that make much of little, in ways that no chat template needs.
_REFUSED_METHODS: Final = frozenset(
    {"translate", "maketrans", "fromkeys", "to_bytes", "from_bytes", "encode"}
)
_PADDING_METHODS: Final = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs"})
_SPLITTING_METHODS: Final = frozenset({"split", "rsplit", "splitlines"})


def _bounded_arguments(
    budget: Budget, method: BuiltinMethodType, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """The arguments of a builtin method, an iterator made a list. Raises RenderLimitError."""
    name, text = method.__name__, method.__self__
    if name in _REFUSED_METHODS:
        raise RenderLimitError("a method that templates may not use")
    if not isinstance(text, str):
        return args
    if name == "join" and args:
        items = list(budget.each(args[0]))
        budget.admit(sum(len(item) + len(text) for item in items if isinstance(item, str)))
        return (items,)
    if name == "replace" and args[1:]:
        budget.admit(len(text) + text.count(args[0]) * len(args[1]))
    elif name in _PADDING_METHODS:
        widths = [value for value in (*args, kwargs.get("tabsize")) if isinstance(value, int)]
        budget.admit(len(text) + sum(widths) * (1 + (text.count("\t") if name == "expandtabs" else 0)))
    elif name in _SPLITTING_METHODS and len(text) > MAX_ITEMS:
        separator = args[0] if args and isinstance(args[0], str) else None
        if separator is None or text.count(separator) > MAX_ITEMS:
            raise RenderLimitError("a list of too many pieces")
    return args


_LONG_CONSTANT: Final = 256


class _Rewriter(NodeTransformer):
    """Sends loops, sums and whatever is built through filters that know the budget."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # jinja2 names visitors so
        self.generic_visit(node)
        node.iter = _filter(cast("nodes.Expr", node.iter), EACH)
        return node

    def visit_Add(self, node: nodes.Add) -> nodes.Node:  # noqa: N802
        terms: list[nodes.Expr] = []
        left: nodes.Expr = node
        while isinstance(left, nodes.Add):
            terms.insert(0, left.right)
            left = left.left
        return self._sum(node, [left, *terms], ADD)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return self._sum(node, node.nodes, CONCATENATE)

    def _sum(self, node: nodes.Expr, terms: list[nodes.Expr], name: str) -> nodes.Node:
        """A sum that may grow, term by term; one of a single short constant and a value hardly does."""
        varying = [term for term in terms if not isinstance(term, nodes.Const)]
        constant = sum(len(str(term.value)) for term in terms if isinstance(term, nodes.Const))
        if len(varying) + (constant > _LONG_CONSTANT) < 2:  # noqa: PLR2004  # one term grows by itself no more
            return self.generic_visit(node)
        first, *rest = [cast("nodes.Expr", self.visit(term)) for term in terms]
        return _filter(first, name, rest)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._built(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._built(node, node.items) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._built(node, [part for pair in node.items for part in (pair.key, pair.value)])

    def _built(self, node: nodes.Expr, parts: list[nodes.Expr]) -> nodes.Node:
        if all(isinstance(part, nodes.Const) for part in parts):
            return node
        self.generic_visit(node)
        return _filter(node, BUILT)


def _filter(node: nodes.Expr, name: str, args: list[nodes.Expr] | None = None) -> nodes.Filter:
    return nodes.Filter(node, name, args or [], [], None, None, lineno=node.lineno)
