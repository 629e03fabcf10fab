"""The Python that templates are compiled to, with short cuts where chat templates spend their time.

jinja2 compiles `message.role` to a call of the environment, which in a sandbox is several more. Nearly always
`message` is a dict, or `loop` the loop of its name: then the generated code looks there itself. What it finds
is what the environment would have given, and all else is left to the environment.
"""

from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import LoopContext

__all__ = ["DICT_NAMES", "LOOP_NAMES", "ShortCuts"]

# Every name that a dict answers to by itself: for these jinja2's own rules decide.
DICT_NAMES: Final = frozenset(dir(dict))
LOOP_NAMES: Final = frozenset(name for name in dir(LoopContext) if not name.startswith("_"))


class ShortCuts(CodeGenerator):
    """For environments where `x.y` of a dict is its item `y`, and the missing is false and not defined.

    The environment's `namespace_type` is what its `namespace()` makes; its names are attributes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._conditions: set[int] = set()  # by identity: the syntax tree lives as long as its generator
        self._namespaces: set[str] = set()

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802  # jinja2 names visitors so
        short_cut = _loop_attribute(node, frame) or self._of_namespace(node, frame) or self._item(node, frame)
        self.write(short_cut)
        super().visit_Getattr(node, frame)
        self.write(short_cut and ")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        short_cut = self._item(node, frame)
        self.write(short_cut)
        super().visit_Getitem(node, frame)
        self.write(short_cut and ")")

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:  # noqa: N802
        lookup = _lookup(node.node, frame) if node.name == "defined" else None
        self.write("" if lookup is None else f"(False if {_missing(*lookup)} else ")
        super().visit_Test(node, frame)
        self.write("" if lookup is None else ")")

    def visit_Assign(self, node: nodes.Assign, frame: Frame) -> None:  # noqa: N802
        made = node.node.node if isinstance(node.node, nodes.Call) else None
        if isinstance(made, nodes.Name) and made.name == "namespace" and isinstance(node.target, nodes.Name):
            self._namespaces.add(node.target.name)
        super().visit_Assign(node, frame)

    def visit_If(self, node: nodes.If, frame: Frame) -> None:  # noqa: N802
        self._conditions.update(id(each.test) for each in (node, *node.elif_))
        super().visit_If(node, frame)

    def _of_namespace(self, node: nodes.Getattr, frame: Frame) -> str:
        owner = node.node
        if not isinstance(owner, nodes.Name) or owner.name not in self._namespaces:
            return ""
        variable = frame.symbols.ref(owner.name)
        names = f"{variable}.__dict__"
        return (
            f"({names}[{node.attr!r}] if type({variable}) is environment.namespace_type "
            f"and {node.attr!r} in {names} else "
        )

    def _item(self, node: nodes.Expr, frame: Frame) -> str:
        lookup = _lookup(node, frame)
        if lookup is None:
            return ""
        # A condition is spared the object that jinja2 makes to say what is missing.
        false = f"False if {_missing(*lookup)} else " if id(node) in self._conditions else ""
        variable, key = lookup
        return f"({false}{variable}[{key!r}] if type({variable}) is dict and {key!r} in {variable} else "


def _lookup(node: nodes.Node, frame: Frame) -> tuple[str, str] | None:
    """The variable and the key of `x.key` or `x["key"]`."""
    if isinstance(node, nodes.Getattr) and node.attr not in DICT_NAMES:
        key = node.attr
    elif (
        isinstance(node, nodes.Getitem)
        and isinstance(node.arg, nodes.Const)
        and isinstance(node.arg.value, str)
        and node.arg.value not in DICT_NAMES
    ):
        key = node.arg.value
    else:
        return None
    return (frame.symbols.ref(node.node.name), key) if isinstance(node.node, nodes.Name) else None


def _missing(variable: str, key: str) -> str:
    return f"type({variable}) is dict and {key!r} not in {variable}"


def _loop_attribute(node: nodes.Getattr, frame: Frame) -> str:
    owner = node.node
    if not isinstance(owner, nodes.Name) or owner.name != "loop" or node.attr not in LOOP_NAMES:
        return ""
    variable = frame.symbols.ref(owner.name)
    return f"({variable}.{node.attr} if type({variable}) is LoopContext else "
