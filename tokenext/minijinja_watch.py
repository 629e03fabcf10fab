"""Rewrites a chat template's syntax tree so that its renders note their doubts (minijinja_doubts.py)."""

from typing import Final, cast

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from tokenext import minijinja_doubts as doubts
from tokenext.loop_analysis import KEEP, MARK, PLACE, RECALL, REST
from tokenext.minijinja_doubts import WATCHERS, Watcher

__all__ = ["watch"]


def watch(environment: jinja2.Environment, parsed: nodes.Template, source: str) -> nodes.Template:
    """Rewrite a template's syntax tree so that its renders note their doubts."""
    environment.filters.update(WATCHERS)
    tree: nodes.Template = _Rewriter().visit(parsed)
    if "\r" in source:
        # P5: minijinja keeps the carriage returns of a source, jinja2 makes line ends of them.
        tree.body.insert(0, _doubt(1))
    tree.set_environment(environment)
    return tree


# Names of methods: what `x.name` may find besides a key.
_METHODS: Final = frozenset(
    name for kind in (dict, list, tuple, str, int, float) for name in dir(kind) if not name.startswith("_")
)
# Globals of one of the two languages only.
_OTHER_GLOBALS: Final = frozenset({"debug", "cycler", "joiner", "self", "super", "varargs", "kwargs"})

# What each filter that was compared asks to be looked at; None for nothing.
_FILTERS: Final[dict[str, Watcher | None]] = {
    **dict.fromkeys(("default", "d", "length", "count", "first", "last", "list", "items", "dictsort")),
    **dict.fromkeys(("batch", "slice", "sum", "abs", "int", "float", "tojson", "select", "reject")),
    **dict.fromkeys(("selectattr", "rejectattr", "map", "groupby")),
    **dict.fromkeys(("string", "trim", "replace", "safe"), doubts.joined),
    **dict.fromkeys(("upper", "lower"), doubts.cased),
    **dict.fromkeys(("title", "capitalize"), doubts.titled),
    **dict.fromkeys(("e", "escape"), doubts.escaped),
    **dict.fromkeys(("sort", "unique"), doubts.comparable),
    "join": doubts.all_joined,
    "indent": doubts.indented,
    "reverse": doubts.reversible,
    **dict.fromkeys((RECALL, REST, PLACE, MARK, KEEP)),  # ours; what they give was looked at when it was made
}
_TEXT_FILTERS: Final = frozenset({"string", "trim", "replace", "upper", "lower", "indent", "join", "tojson"})
# As the argument of `map`.
_MAPPED: Final[dict[str, Watcher | None]] = {
    **dict.fromkeys(("tojson", "length", "first", "last", "list", "default", "items", "abs", "int", "float")),
    **dict.fromkeys(("string", "trim"), doubts.all_joined),
}
_TESTS: Final[dict[str, Watcher | None]] = {
    **dict.fromkeys(("defined", "undefined", "none", "true", "false", "boolean", "string", "mapping")),
    **dict.fromkeys(("float", "equalto", "eq", "==", "ne", "!=", "sameas")),
    **dict.fromkeys(
        ("gt", "ge", "lt", "le", "greaterthan", "lessthan", ">", ">=", "<", "<=", "in"), doubts.compared
    ),
    **dict.fromkeys(("number", "integer", "odd", "even", "divisibleby"), doubts.is_counted),
    **dict.fromkeys(("lower", "upper"), doubts.is_cased),
    "sequence": doubts.is_in_sequence,
    "iterable": doubts.is_iterated,
}
_PLAIN_TESTS: Final = frozenset(name for name, look in _TESTS.items() if look is None)
_ORDER: Final = frozenset({"gt", "gteq", "lt", "lteq"})
_MEMBERSHIP: Final = frozenset({"in", "notin"})


class _Rewriter(NodeTransformer):
    """The names of its methods are jinja2's."""

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [each if _is_text(each) else _look(each, doubts.printed) for each in node.nodes]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [each if _is_text(each) else _look(each, doubts.joined) for each in node.nodes]
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802
        return _look(node, doubts.doubtful) if node.ctx == "load" and node.name in _OTHER_GLOBALS else node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        called = node.node
        if isinstance(called, nodes.Getattr):
            # A method that is called is a method in both: what it is called on is looked at.
            called.node = _look(self._visited(called.node), doubts.receiver, nodes.Const(called.attr))
        else:
            node.node = self._visited(called)
        node.args = [self._visited(argument) for argument in node.args]
        for keyword in node.kwargs:
            keyword.value = self._visited(keyword.value)
        node.dyn_args = node.dyn_args and self._visited(node.dyn_args)
        node.dyn_kwargs = node.dyn_kwargs and self._visited(node.dyn_kwargs)
        if isinstance(called, nodes.Name) and called.name == "loop":
            node.args = [_look(argument, doubts.looped) for argument in node.args]
        return node

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _look(node.node, doubts.attribute, nodes.Const(node.attr)) if node.attr in _METHODS else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        key = node.arg
        if isinstance(key, nodes.Slice):
            return node if _is_known_slice(key) else _look(node, doubts.doubtful)
        known = isinstance(key, nodes.Const) and type(key.value) in {str, int} and key.value not in _METHODS
        return node if known else _look(node.node, doubts.item, key)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        look = _FILTERS.get(node.name, doubts.doubtful)
        if not _has_known_arguments(node):
            look = doubts.doubtful
        elif node.name == "map" and node.args:
            look = _MAPPED[_text_of(node.args[0])]
        elif node.name == "replace":
            node.args = [each if _is_text(each) else _look(each, doubts.joined) for each in node.args]
        if look is not None and node.node is not None:
            node.node = _look(node.node, look)
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.filter.name not in _TEXT_FILTERS:
            node.body.insert(0, _doubt(node.lineno))
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        look = _TESTS.get(node.name, doubts.doubtful)
        if look is not None:
            node.node = _look(node.node, look)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        operators = {operand.op for operand in node.ops}
        if operators & (_ORDER | _MEMBERSHIP):
            node.expr = _look(node.expr, doubts.compared)
        for operand in node.ops:
            if operand.op in _ORDER:
                operand.expr = _look(operand.expr, doubts.compared)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        known = all(
            isinstance(pair.key, nodes.Const) and isinstance(pair.key.value, str) for pair in node.items
        )
        return node if known else _look(node, doubts.keyed)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _look(node.iter, doubts.looped)
        return node

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier) -> nodes.Node:  # noqa: N802
        # `autoescape`, which escapes as `escape` does.
        self.generic_visit(node)
        node.body.insert(0, _doubt(node.lineno))
        return node

    def visit_Mod(self, node: nodes.Mod) -> nodes.Node:  # noqa: N802
        return self._division(node)

    def visit_FloorDiv(self, node: nodes.FloorDiv) -> nodes.Node:  # noqa: N802
        return self._division(node)

    def _division(self, node: nodes.BinExpr) -> nodes.Node:
        self.generic_visit(node)
        # The right side is evaluated twice, which nothing can tell: templates change nothing on the way.
        node.left = _look(node.left, doubts.divided, node.right)
        return node

    def _visited(self, node: nodes.Node) -> nodes.Expr:
        return cast("nodes.Expr", self.visit(node))


def _is_text(node: nodes.Node) -> bool:
    """Whether an expression gives text whatever its parts are: then there is nothing to look at."""
    if isinstance(node, nodes.Const):
        return isinstance(node.value, str)
    if isinstance(node, nodes.Add):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, nodes.TemplateData | nodes.Concat) or (
        isinstance(node, nodes.Filter) and node.name in _TEXT_FILTERS
    )


def _is_known_slice(node: nodes.Slice) -> bool:
    """P8: a step backwards was found alike over the whole only."""
    if node.step is None or (node.start is None and node.stop is None):
        return True
    return isinstance(node.step, nodes.Const) and node.step.value > 0


def _has_known_arguments(node: nodes.Filter) -> bool:
    """Whether a filter was compared with such arguments."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return False
    names = {keyword.key for keyword in node.kwargs}
    if node.name == "tojson":
        return not node.args and all(_is_known_layout(keyword) for keyword in node.kwargs)
    if node.name == "map":
        if node.args:
            return len(node.args) == 1 and not names and _text_of(node.args[0]) in _MAPPED
        return names == {"attribute"} and _is_key(node.kwargs[0].value)
    if node.name in {"select", "reject"}:
        return not names and (not node.args or _text_of(node.args[0]) in _PLAIN_TESTS)
    if node.name in {"selectattr", "rejectattr"}:
        known = not names and bool(node.args) and _is_key(node.args[0])
        return known and (len(node.args) == 1 or _text_of(node.args[1]) in _PLAIN_TESTS)
    if node.name in {"sort", "unique", "dictsort", "sum"}:
        return not node.args and not names
    if node.name == "groupby":
        return len(node.args) == 1 and not names and _is_key(node.args[0])
    return True


def _is_known_layout(keyword: nodes.Pair | nodes.Keyword) -> bool:
    """Of `tojson`: Dynamo's looks at `indent` only, where it is a number or none."""
    if not isinstance(keyword.value, nodes.Const):
        return False
    value = keyword.value.value
    if keyword.key == "indent":
        return value is None or (type(value) is int and value >= 0)
    return keyword.key in {"ensure_ascii", "sort_keys"} and value is False


def _is_key(node: nodes.Node) -> bool:
    """P3: whether an argument that is a path can lead to keys only."""
    path = _text_of(node)
    return bool(path) and _METHODS.isdisjoint(path.split("."))


def _text_of(node: nodes.Node) -> str:
    return node.value if isinstance(node, nodes.Const) and isinstance(node.value, str) else ""


def _look(node: nodes.Node, watcher: Watcher, argument: nodes.Expr | None = None) -> nodes.Filter:
    arguments = [] if argument is None else [argument]
    name = f"watch {watcher.__name__}"
    return nodes.Filter(cast("nodes.Expr", node), name, arguments, [], None, None, lineno=node.lineno)


def _doubt(line: int) -> nodes.Output:
    return nodes.Output([_look(nodes.Const("", lineno=line), doubts.doubtful)], lineno=line)
