"""The graph as it grows: every tensor of the run has a node, found by the tensor's identity."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fxkd.capture.anew import Form, Handed, filled
from fxkd.capture.captured import PointCall, bundle
from fxkd.capture.guards import guard
from fxkd.capture.lines import current_line
from fxkd.capture.structure import leaves, parts, storages, tensors
from fxkd.capture.tracked import Tracked, track
from fxkd.errors import CaptureError

NUMBERS_AND_TEXT = (int, float, complex, bool, str, bytes)
CONSTANTS = (
    *NUMBERS_AND_TEXT,
    type(None),
    type(...),
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    range,
)


class LeakedTensor(Exception):
    """Tensors go into what is one node, or get out of it, by a side way: it must be opened; modules or functions."""

    def __init__(self, *takers: str) -> None:
        super().__init__(*takers)
        self.takers = takers


class MadeUnseen(CaptureError):
    """A tensor was made where nothing is recorded: by code below torch's functions, or in an earlier call."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was made by code that torch functions do not show; name the function that makes it as a point, "
            "or use backend='eager'"
        )
        self.what = what


class PlacedGraph(fx.Graph):
    """A graph whose nodes know in which module's forward they were made: ``node.meta["inside"]``, a path."""

    inside: str = ""

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["inside"] = self.inside
        return node


class Tape:
    """An fx graph under construction.

    Args:
        name: First part of every target.
        attributes: The model's tensors (as seen in the run) and their places.
        modules: The model's modules and their places.
        mode: The mode whose tensors stand for real ones.
    """

    def __init__(
        self, name: str, attributes: dict[int, tuple[Tensor, str]], modules: dict[int, str], mode: FakeTensorMode
    ) -> None:
        self.name = name
        self.mode = mode
        self.graph = PlacedGraph()
        self.attributes = attributes
        self.modules = modules
        self.constants = nn.Module()
        self.listening = False
        self.written_down: dict[str, bytes] = {}
        self.handed: dict[int, Handed] = {}
        self.taker: str | None = None  # the leaf or function whose arguments are being written
        self.notes: list[str] = []
        self.written: list[str] = []
        self.reads: dict[tuple[int, str], nn.Module] = {}
        self.unseen: dict[tuple[int, str], Callable[[str], NoReturn]] = {}  # what named functions set; how to refuse it
        self.unseen_below: dict[int, Callable[[str], NoReturn]] = {}
        self.made_in_leaf: dict[int, tuple[Tensor, str]] = {}
        self._nodes: dict[int, tuple[Any, fx.Node]] = {}
        self._decided: set[tuple[Any, ...]] = set()

    # Values to nodes

    def placeholder(self, name: str, value: Tensor) -> None:
        """Add a free input."""
        self.bind(value, self.graph.placeholder(name))

    def bind(self, value: Any, node: fx.Node) -> Any:
        """Make ``node`` stand for ``value`` and for every tensor inside it; give what the program sees of it."""
        node.meta.setdefault("val", value)
        node.meta.setdefault("storages", storages(value))
        if isinstance(value, Tensor):
            self._nodes[id(value)] = (value, node)
            return value
        for part, reach, key in parts(value):
            if tensors(part):
                self.bind(part, self._reach(node, reach, key, part))
        return value

    def _reach(self, node: fx.Node, reach: Callable[..., Any], key: Any, part: Any) -> fx.Node:
        found = self.graph.call_function(reach, (node, key))
        found.meta.update(val=part, storages=storages(part))
        return found

    def remember(self, value: Any, node: fx.Node) -> None:
        """Make ``node`` stand for an object that is no tensor."""
        self._nodes[id(value)] = (value, node)

    def node_of(self, value: Any) -> fx.Node | None:
        """Give the node that stands for ``value``, if one does."""
        held, node = self._nodes.get(id(value), (None, None))
        return node if held is value else None

    def knows(self, value: Tensor) -> bool:
        """Tell whether ``value`` is a tensor of the program: computed, given, or hanging on the model."""
        return self.node_of(value) is not None or id(value) in self.attributes

    def argument(self, value: Any) -> Any:
        """Turn a value of the run into an argument of a node."""
        if isinstance(value, Tracked):
            return value.node
        if isinstance(value, Tensor):
            return self.node_of(value) or self._tensor_from_elsewhere(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._named_tuple(value)
        if type(value) in (tuple, torch.Size):
            return tuple(map(self.argument, value))
        if type(value) is list:
            return [self.argument(item) for item in value]
        if type(value) is dict:
            return {key: self.argument(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*map(self.argument, (value.start, value.stop, value.step)))
        if isinstance(value, CONSTANTS):
            return _plain(value)
        return self._object(value)

    def _named_tuple(self, value: Any) -> Any:
        """Make a named tuple of values of the run anew from its fields: a graph finds its class in no other way."""
        fields = tuple(map(self.argument, value))
        if not any(isinstance(leaf, (Tensor, Tracked)) for leaf in leaves(tuple(value))):
            return type(value)(*fields)
        made = self.graph.call_function(type(value), fields)
        made.meta.update(val=value, storages=storages(value))
        return made

    def _object(self, value: Any) -> Any:
        """Turn something that is neither tensor nor plain data into an argument."""
        known = self.node_of(value)
        if known is not None:
            self._note_taker(value)
            return known
        if isinstance(value, nn.Module) and id(value) in self.modules:
            return self._attribute(value, self.modules[id(value)])
        content = {key: part for part, _, key in parts(value)}
        if content and any(isinstance(leaf, (Tensor, Tracked)) for leaf in leaves(content)):
            return self.rebuild(value, content)
        return self._lift(value, f"object {type(value).__name__}")

    def rebuild(self, value: Any, content: dict[Any, Any]) -> fx.Node:
        """Make an output object (a dataclass, a dict of its own class) anew from its fields."""
        arguments = self.argument(content)
        if isinstance(value, (list, tuple)):
            made = self.graph.call_function(type(value), (list(arguments.values()),))
        elif isinstance(value, dict) and not dataclasses.is_dataclass(value):
            made = self.graph.call_function(type(value), (arguments,))
        else:
            made = self.graph.call_function(type(value), (), arguments)
        made.meta.update(val=value, storages=storages(value))
        return made

    def _tensor_from_elsewhere(self, value: Tensor) -> fx.Node:
        if id(value) in self.attributes:
            return self._attribute(value, self.attributes[id(value)][1])
        if id(value) in self.made_in_leaf:
            raise LeakedTensor(self.made_in_leaf[id(value)][1])
        if isinstance(value, FakeTensor):
            raise MadeUnseen(f"a tensor of shape {tuple(value.shape)} used at {current_line()}")
        return self._lift(value, f"tensor of shape {tuple(value.shape)}")

    def _attribute(self, value: Any, place: str) -> fx.Node:
        node = self._nodes.get(id(value), (None, None))[1]
        if node is None:
            node = self.graph.create_node("get_attr", f"{self.name}.{place}" if place else self.name)
            node.meta.update(val=value, storages=storages(value))
            self._nodes[id(value)] = (value, node)
        return node

    def _lift(self, value: Any, what: str) -> fx.Node:
        """Hang what the run met outside the model on the graph's own holder of constants."""
        key = f"constant_{len(self.notes)}"
        if isinstance(value, Tensor):
            self.constants.register_buffer(key, value, persistent=False)
        else:
            form = Form.of(value)
            if form is not None and form.tensors:
                return self._filled(value, form, key)
            self._keep(key, value, form)
        self.notes.append(f"a {what} from outside the model is used as a constant at {current_line()}")
        node = self.graph.create_node("get_attr", f"{self.name}_constants.{key}")
        node.meta.update(val=value, storages=storages(value))
        self._nodes[id(value)] = (value, node)
        return node

    def _keep(self, key: str, value: Any, form: Form | None) -> None:
        setattr(self.constants, key, value)
        if form is None:
            return
        for number in form.numbers:
            number.pin()
        self.handed[id(value)] = Handed(value, form, {self.taker} if self.taker is not None else set())
        self.written_down[key] = form.written

    def _filled(self, value: Any, form: Form, key: str) -> fx.Node:
        """Put a cache that holds tensors of the run together anew; what takes it as one node is opened instead."""
        if self.taker is not None:
            raise LeakedTensor(self.taker)
        for number in form.numbers:
            number.pin()
        setattr(self.constants, key, form.written)
        self.notes.append(f"a {type(value).__name__} is put together anew at each call")
        written = self.graph.create_node("get_attr", f"{self.name}_constants.{key}")
        made = self.graph.call_function(filled, (written, tuple(map(self.argument, form.tensors))))
        made.meta.update(val=value, storages=storages(form.tensors))
        self.remember(value, made)
        return made

    def refuse_changed(self) -> None:
        """Open what took a cache as one node if other code puts something into it too: only one of both is seen."""
        for handed in self.handed.values():
            if not handed.is_as_left():
                raise LeakedTensor(*handed.takers, *([self.taker] if self.taker is not None else []))

    def _note_taker(self, value: Any) -> None:
        self.refuse_changed()
        handed = self.handed.get(id(value))
        if handed is not None and handed.value is value and self.taker is not None:
            handed.takers.add(self.taker)

    def left(self) -> None:
        """Take note of how a leaf left the caches that leaves are given."""
        for handed in self.handed.values():
            handed.form = Form.of(handed.value) or handed.form

    def note_anew(self, key: str) -> None:
        """Say of an object that it is no constant: the forward makes it at each call."""
        place = int(key.rpartition("_")[2])
        line = self.notes[place].partition(" at ")[2]
        self.notes[place] = f"a {type(getattr(self.constants, key)).__name__} is made anew at each call, for {line}"

    # Calls

    def emit(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
    ) -> fx.Node:
        """Add a call of ``target`` on values of the run."""
        return self.graph.call_function(target, self.argument(tuple(args)), self.argument(dict(kwargs or {})))

    def number(self, value: Any, make: Callable[[], fx.Node]) -> Any:
        """Give a number of the run a node of its own."""
        return track(value, self, make)

    def decide(self, left: Any, comparison: str, right: Any) -> None:
        """Add a guard: the program went on as it did because the comparison holds."""
        key = (self.argument(left), comparison, self.argument(right))
        if key not in self._decided:
            self._decided.add(key)
            self.graph.call_function(guard, (*key, current_line()))

    def decide_that(self, node: fx.Node, value: bool) -> None:
        """Add a guard: the program was told that what ``node`` gives is ``value``."""
        self.graph.call_function(guard, (node, "==", value, current_line()))

    def mark(self, value: Any, call: PointCall) -> None:
        """Let one node hold the value of a point's call: its own, or a bundle of several."""
        argument = self.argument(value)
        if not isinstance(argument, fx.Node) or self._is_settled_after(argument):
            argument = self.graph.call_function(bundle, (argument,))
            argument.meta.update(val=value, storages=storages(value))
        argument.meta["calls"] = (*argument.meta.get("calls", ()), call)

    def _is_settled_after(self, node: fx.Node) -> bool:
        """Tell whether a node of its own must hold the value now.

        It must if the memory of ``node`` was written to since, or if since then something was decided, as that may be
        which value it is to be.
        """
        later, memory = node.next, node.meta.get("storages", frozenset())
        while later.op != "root":
            if later.target is guard or memory & later.meta.get("mutates", frozenset()):
                return True
            later = later.next
        return False


def _plain(value: Any) -> Any:
    """Take the number out of a numpy scalar: it is written into the code of the graph."""
    return value.item() if type(value).__module__ == "numpy" else value
