"""Which loops of a chat template say the same of a conversation's messages however it goes on.

A conversation comes again with every turn, longer by a few messages. Where the body of
`for message in messages` provably depends on nothing that lies behind a message, what it printed for the
first ones is printed again (loop_memory.py) instead of rendered again.

The proof is by syntax. Whatever a body may read falls into one of these kinds, or the loop is left as it is:
- the message itself, its place (`loop.first`, `loop.index`, ...) and the message in front: they stay;
- `loop.last`, and the message behind: they stay for all messages but the last one, which is rendered anew;
- a number that the place is compared with (`loop.index0 > ns.last_query_index`): the outcome stays for places
  before both the old number and the new one;
- other variables: their values are compared, old with new.
And it must do nothing but print: no assignment that outlives an iteration, and no call of what is not known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

__all__ = ["KEEP", "MARK", "PLACE", "RECALL", "REST", "Read", "remember_loops"]

# Names of filters (loop_memory.py) that no template can say.
RECALL: Final = "recall a loop"
REST: Final = "the rest of a loop"
PLACE: Final = "the place in a loop"
MARK: Final = "mark an iteration"
KEEP: Final = "keep a loop"

_PREFIX: Final = "__remembered_"
_LOOP: Final = "loop"
_PLACES: Final = frozenset({"index", "index0"})
_STABLE_PLACES: Final = _PLACES | {"first", "last", "nextitem", "depth", "depth0"}
_RAISING: Final = "raise_exception"
# Of text and objects; each gives a value and changes nothing.
_PURE_METHODS: Final = frozenset(
    {
        *("split", "rsplit", "splitlines", "strip", "lstrip", "rstrip", "replace", "startswith", "endswith"),
        *("upper", "lower", "title", "capitalize", "find", "rfind", "count", "join", "partition"),
        *("removeprefix", "removesuffix", "isdigit", "isspace", "items", "keys", "values", "get"),
    }
)
_CHANCE: Final = frozenset({"random"})
_PLAIN_NODES: Final = (
    *(nodes.Output, nodes.TemplateData, nodes.Const, nodes.If, nodes.Scope, nodes.Continue),
    *(nodes.Compare, nodes.Operand, nodes.Not, nodes.And, nodes.Or, nodes.CondExpr, nodes.Test),
    *(nodes.Filter, nodes.Slice, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg),
)


# A variable, and the one attribute of it that is read, or "" for all of it.
Read = tuple[str, str]


class _UnprovenError(Exception):
    """A loop about which nothing can be said."""


@dataclass(slots=True)
class _Reads:
    """What a loop's body reads beside its messages and their places."""

    values: set[Read] = field(default_factory=set)
    thresholds: set[Read] = field(default_factory=set)


def remember_loops(tree: nodes.Template) -> nodes.Template:
    """Put the memory's filters into the loops that allow it, in place. The tree must be as it was parsed."""
    taken = {name.name for name in tree.find_all(nodes.Name)}
    assigned = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    if _RAISING in assigned | macros or any(name.startswith(_PREFIX) for name in taken):
        return tree
    number = 0
    for body in _top_level(tree.body):
        for position, node in reversed(list(enumerate(body))):
            if isinstance(node, nodes.For):
                try:
                    body[position : position + 1] = _remembering(node, number)
                    number += 1
                except _UnprovenError:
                    continue
    return tree


def _top_level(body: list[nodes.Node]) -> Iterator[list[nodes.Node]]:
    """Where output goes straight to the prompt: the template, and the branches of its conditions."""
    yield body
    for node in body:
        if isinstance(node, nodes.If):
            for branch in (node, *node.elif_):
                yield from _top_level(branch.body)
            yield from _top_level(node.else_)


def _remembering(loop: nodes.For, number: int) -> list[nodes.Node]:
    """The loop and what stands around it. Raises _UnprovenError."""
    target, items = loop.target, loop.iter
    if not isinstance(target, nodes.Name) or not isinstance(items, nodes.Name):
        raise _UnprovenError
    if loop.recursive or loop.test is not None or loop.else_:
        raise _UnprovenError
    reads = _Reads()
    body = _Body(items.name, target.name, reads)
    for node in loop.body:
        body.visit(node, own_loop=True, first_excluded=False)
    count, text = (nodes.Name(f"{_PREFIX}{what}_{number}", "store") for what in ("count", "text"))
    # Not as variables, which would change where jinja2 looks them up: the filter asks the context.
    asked = [
        nodes.Const(each) for each in (number, tuple(sorted(reads.values)), tuple(sorted(reads.thresholds)))
    ]
    recalled = nodes.Assign(nodes.Tuple([count, text], "store"), _filter(items, RECALL, list(asked)))
    known = nodes.Name(count.name, "load")
    mark = nodes.ExprStmt(_filter(known, MARK, [nodes.Const(number)]))
    loop.body = [mark, *(_Places(known).visit(node) for node in loop.body)]
    loop.iter = _filter(items, REST, [known])
    around: list[nodes.Node] = [recalled, nodes.Output([nodes.Name(text.name, "load")]), loop]
    around.append(nodes.ExprStmt(_filter(known, KEEP, [nodes.Const(number)])))
    for node in around:
        node.set_lineno(loop.lineno)
    return around


def _filter(node: nodes.Expr, name: str, arguments: list[nodes.Expr]) -> nodes.Filter:
    return nodes.Filter(node, name, arguments, [], None, None)


class _Places(NodeTransformer):
    """Counts the places of a loop from its first message, though it goes over the rest of them."""

    def __init__(self, known: nodes.Name) -> None:
        self._known = known

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802  # jinja2 names visitors so
        node.iter = self.visit(node.iter)
        return node  # inside, `loop` is that loop

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Expr:  # noqa: N802
        if not _is_name(node.node, _LOOP):
            return self.generic_visit(node)  # type: ignore[return-value]  # it gives back what it is given
        if node.attr in _PLACES:
            return _filter(node, PLACE, [self._known])
        return nodes.And(node, nodes.Not(self._known)) if node.attr == "first" else node


class _Body:
    """Goes through a loop's body. Raises _UnprovenError at the first thing that it knows nothing of."""

    def __init__(self, items: str, target: str, reads: _Reads) -> None:
        self._items = items
        self._target = target
        self._reads = reads

    def visit(self, node: nodes.Node, *, own_loop: bool, first_excluded: bool) -> None:  # noqa: C901, PLR0912  # a table
        """`own_loop`: `loop` is that of the body. `first_excluded`: not evaluated for the first message."""
        state = {"own_loop": own_loop, "first_excluded": first_excluded}
        if isinstance(node, nodes.Name):
            self._name(node, own_loop=own_loop)
        elif isinstance(node, nodes.Getattr) and _is_name(node.node, _LOOP):
            self._place(node, own_loop=own_loop)
        elif isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
            self._name(node.node, own_loop=own_loop, attribute=node.attr)
        elif isinstance(node, nodes.Getitem) and _is_name(node.node, self._items):
            self._neighbour(node.arg, own_loop=own_loop, first_excluded=first_excluded)
        elif isinstance(node, nodes.Call):
            self._call(node, **state)
        elif isinstance(node, nodes.For):
            self._inner_loop(node, **state)
        elif isinstance(node, nodes.Assign):
            if not isinstance(node.target, nodes.Name) or node.target.name in {self._items, self._target}:
                raise _UnprovenError
            self.visit(node.node, **state)
        elif isinstance(node, nodes.Compare) and own_loop and (threshold := _threshold(node)):
            self._reads.thresholds.add(threshold)
        elif isinstance(node, nodes.And | nodes.Or):
            excluding = own_loop and _excludes_first(node)
            self.visit(node.left, **state)
            self.visit(node.right, own_loop=own_loop, first_excluded=first_excluded or excluding)
        elif isinstance(node, nodes.Filter) and node.name in _CHANCE:
            raise _UnprovenError
        elif isinstance(node, (nodes.Getattr, nodes.Getitem, *_PLAIN_NODES)):
            for child in node.iter_child_nodes():
                self.visit(child, **state)
        else:
            raise _UnprovenError

    def _name(self, node: nodes.Name, *, own_loop: bool, attribute: str = "") -> None:
        if node.name == self._items or (node.name == _LOOP and own_loop):
            raise _UnprovenError
        if node.ctx == "load" and node.name not in (self._target, _LOOP):
            self._reads.values.add((node.name, attribute))

    def _place(self, node: nodes.Getattr, *, own_loop: bool) -> None:
        if own_loop and node.attr not in _STABLE_PLACES:
            raise _UnprovenError

    def _neighbour(self, place: nodes.Node, *, own_loop: bool, first_excluded: bool) -> None:
        """`messages[loop.index0 + 1]` and the like. Before the first message stands the last one."""
        if not own_loop:
            raise _UnprovenError
        if _is_index0(place) or _is_number(place, 0):
            return
        beside = (
            isinstance(place, nodes.Add | nodes.Sub) and _is_index0(place.left) and _is_number(place.right, 1)
        )
        if not beside or not (isinstance(place, nodes.Add) or first_excluded):
            raise _UnprovenError

    def _call(self, node: nodes.Call, *, own_loop: bool, first_excluded: bool) -> None:
        called = node.node
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise _UnprovenError
        if isinstance(called, nodes.Getattr) and called.attr in _PURE_METHODS:
            self.visit(called.node, own_loop=own_loop, first_excluded=first_excluded)
        elif not _is_name(called, _RAISING):
            raise _UnprovenError
        for argument in (*node.args, *node.kwargs):
            self.visit(argument, own_loop=own_loop, first_excluded=first_excluded)

    def _inner_loop(self, node: nodes.For, *, own_loop: bool, first_excluded: bool) -> None:
        if node.recursive:
            raise _UnprovenError
        self.visit(node.iter, own_loop=own_loop, first_excluded=first_excluded)
        targets = [
            name.name
            for name in (node.target, *node.target.find_all(nodes.Name))
            if isinstance(name, nodes.Name)
        ]
        if {self._items, self._target, _LOOP}.intersection(targets):
            raise _UnprovenError
        inner: Sequence[nodes.Node] = (
            *node.body,
            *node.else_,
            *([node.test] if node.test is not None else []),
        )
        for child in inner:
            self.visit(child, own_loop=False, first_excluded=first_excluded)


def _is_name(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


def _is_index0(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Getattr) and node.attr == "index0" and _is_name(node.node, _LOOP)


def _is_number(node: nodes.Node, number: int) -> bool:
    return isinstance(node, nodes.Const) and type(node.value) is int and node.value == number


def _threshold(node: nodes.Compare) -> Read | None:
    """The variable of `loop.index0 > variable`, either way round."""
    if len(node.ops) != 1 or node.ops[0].op in {"in", "notin"}:
        return None
    left, right = node.expr, node.ops[0].expr
    for place, other in ((left, right), (right, left)):
        if isinstance(place, nodes.Getattr) and place.attr in _PLACES and _is_name(place.node, _LOOP):
            if isinstance(other, nodes.Name) and other.name != _LOOP:
                return other.name, ""
            if isinstance(other, nodes.Getattr) and isinstance(other.node, nodes.Name):
                return (other.node.name, other.attr) if other.node.name != _LOOP else None
    return None


def _excludes_first(node: nodes.And | nodes.Or) -> bool:
    """Whether the right side is evaluated only behind the first message: `loop.first or ...`."""
    left: nodes.Node = node.left
    if isinstance(node, nodes.And):
        if not isinstance(left, nodes.Not):
            return False
        left = left.node
    return isinstance(left, nodes.Getattr) and left.attr == "first" and _is_name(left.node, _LOOP)
