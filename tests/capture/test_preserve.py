"""A capture leaves no trace, whether it succeeds or fails."""

import builtins
import contextlib
import copy
import gc
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

import fxkd
from fxkd.capture import PointName
from fxkd.capture.preserve import preserved
from fxkd.errors import CaptureError
from tests.capture.replay import captured
from tests.support.oracle import assert_same


def offset(x: Tensor) -> Tensor:
    """A function to name, so that the model runs on real values too."""
    return x + torch.rand(()) * random.random() * float(np.random.rand())


class Restless(nn.Module):
    """Writes to everything it holds."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.register_buffer("center", torch.zeros(4))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long), persistent=False)
        self.fails = fails
        self.calls = 0
        self.last: Any = None
        self.items: list[Any] = []
        self.table: dict[str, Any] = {"a": 1}
        self.ordered: OrderedDict[str, Any] = OrderedDict(a=1)
        self.names = {"x"}
        self.holder = SimpleNamespace(count=0, kept=None)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.norm(x))
        self.calls += 1
        self.last = x
        self.items.append(x)
        self.table["b"] = x
        self.ordered["b"] = x
        self.names.add("y")
        self.holder.count += 1
        self.holder.kept = x
        self.new = x
        self.center.add_(x.detach().mean(0))
        self.seen += 1
        was_training = self.training
        self.norm.eval()
        self.eval()
        self.train(was_training)
        x = offset(self.body(x)) + torch.rand(4)
        if self.fails:
            raise ValueError("on purpose")
        return x


def batch(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def whole_state(model: nn.Module) -> dict[str, Any]:
    """Take down all that may change, by value and by identity."""
    held = {name: dict(module.__dict__) for name, module in model.named_modules()}
    return {
        "identities": {name: {key: id(value) for key, value in state.items()} for name, state in held.items()},
        "containers": {
            name: {key: repr(value) for key, value in state.items() if isinstance(value, (dict, list, set, int, deque))}
            for name, state in held.items()
        },
        "tensors": {key: (id(held), held.detach().clone()) for key, held in model.state_dict(keep_vars=True).items()},
        "hidden": {key: (id(value), value.clone()) for key, value in model.named_buffers()},
        "gradients": [parameter.grad for parameter in model.parameters()],
        "flags": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "drawn": (torch.get_rng_state(), str(random.getstate()), str(np.random.get_state())),
        "process": [
            torch.is_grad_enabled(), id(builtins.range), id(nn.Module.__call__),
            id(torch.autograd.Function.__dict__.get("apply")), id(vars(torch.no_grad)["__enter__"]),
            id(vars(torch.no_grad)["__exit__"]), id(vars(torch.set_grad_enabled)["__init__"]),
            id(vars(torch.autocast)["__enter__"]), id(vars(torch.enable_grad)["__exit__"]), id(globals()["offset"]),
            "apply" in vars(torch.autograd.Function), "__call__" in vars(nn.Module),
        ],
    }  # fmt: skip


NAMED = [PointName("FunctionOutputs", f"{__name__}.offset")]
OPENED = [PointName("ModuleOutputs", "body.0")]


@pytest.mark.parametrize("points", [[], OPENED, NAMED, NAMED + OPENED], ids=["root", "module", "function", "both"])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("train", "grad"), [(True, True), (False, False)])
def test_the_model_is_as_before(fails: bool, points: list[PointName], grad: bool, train: bool) -> None:
    model = Restless(fails).train(train)
    model.body[1].eval()
    hook = model.body.register_forward_hook(lambda module, args, output: None)
    model.body[0].weight.grad = torch.ones(4, 4)
    before = whole_state(model)
    with torch.set_grad_enabled(grad):
        before["process"][0] = grad
        error: Exception | None = None
        try:
            captured(model, batch(3), points=points)
        except (CaptureError, ValueError) as caught:
            error = caught
        after = whole_state(model)
    # without the named function the draw outside of it is refused
    assert (error is None) is (bool(NAMED[0] in points) and not fails)
    assert_same(before, after)
    hook.remove()


def test_it_runs_afterwards_as_before() -> None:
    model = Restless(False)
    own = copy.deepcopy(model)
    captured(model, batch(3), points=NAMED)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = own(batch(5))
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    assert_same(expected, model(batch(5)))


def test_random_states_are_as_before_after_capture() -> None:
    model = Restless(False)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    expected = torch.rand(()), random.random(), np.random.rand()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    captured(model, batch(3), points=NAMED)
    assert (torch.rand(()), random.random(), np.random.rand()) == expected


# What a model may keep its values in

KEEPERS: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Any]]] = {
    "list": (list, lambda kept, x: kept.append(x)),
    "dict": (dict, lambda kept, x: kept.update(x=x)),
    "set": (set, lambda kept, x: kept.add(x)),
    "deque": (lambda: deque(maxlen=3), lambda kept, x: kept.append(x)),
    "defaultdict": (lambda: defaultdict(list), lambda kept, x: kept["x"].append(x)),
    "counter": (Counter, lambda kept, x: kept.update([x])),
    "dict_of_lists": (lambda: {"x": []}, lambda kept, x: kept["x"].append(x)),
    "list_of_dicts": (lambda: [{}], lambda kept, x: kept[0].update(x=x)),
    "object": (SimpleNamespace, lambda kept, x: setattr(kept, "x", x)),
    "object_with_list": (lambda: SimpleNamespace(items=[]), lambda kept, x: kept.items.append(x)),
    "object_in_object": (lambda: SimpleNamespace(a=SimpleNamespace()), lambda kept, x: setattr(kept.a, "x", x)),
    "object_in_list": (lambda: [SimpleNamespace()], lambda kept, x: setattr(kept[0], "x", x)),
    "slots": (lambda: Slots(), lambda kept, x: setattr(kept, "x", x)),
}


class Slots:
    """Has no ``__dict__``."""

    __slots__ = ("x",)

    def __init__(self) -> None:
        self.x: Any = None


class Keeps(nn.Module):
    """Keeps what it sees."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.kept = KEEPERS[name][0]()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        KEEPERS[self.name][1](self.kept, x * 2)
        return x + 1


def reachable(value: Any) -> list[Any]:
    """List everything inside a value, through containers and objects."""
    if isinstance(value, dict):
        return [part for key, item in value.items() for part in (*reachable(key), *reachable(item))]
    if isinstance(value, (list, tuple, set, deque)):
        return [part for item in value for part in reachable(item)]
    if hasattr(value, "__dict__") and not isinstance(value, Tensor):
        return reachable(vars(value))
    if isinstance(value, Slots):
        return [value.x]
    return [value]


@pytest.mark.parametrize("name", KEEPERS)
@pytest.mark.parametrize("leaf", [False, True])
def test_no_fake_tensor_stays_behind(name: str, leaf: bool) -> None:
    model: nn.Module = Keeps(name)
    kept = model.kept
    captured(nn.Sequential(model) if leaf else model, batch(2))
    assert model.kept is kept
    assert not [part for part in reachable(kept) if isinstance(part, FakeTensor)]


def test_a_keeper_made_in_forward_is_gone() -> None:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.layer = nn.Linear(4, 4)
            self.register_buffer("made", x.detach() * 2)
            return x

    model = Late()
    captured(model, batch(2))
    assert not model._modules
    assert not model._buffers


class WritesParameters(nn.Module):
    """Clips its weight and moves a plain tensor before use."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((4,), 3.0))
        self.plain = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.clamp_(-1, 1)
        self.plain.add_(1)
        return offset(x * self.weight + self.plain)


def test_parameters_that_forward_writes_are_as_before() -> None:
    model = WritesParameters()
    captured(model, batch(2), points=NAMED)
    assert torch.equal(model.weight, torch.full((4,), 3.0))
    assert torch.equal(model.plain, torch.zeros(4))


class WritesInput(nn.Module):
    """Works on its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return offset(x.mul_(2))


def test_the_example_inputs_are_as_before() -> None:
    x = batch(2)
    captured(WritesInput(), x, points=NAMED)
    assert torch.equal(x, batch(2))


def test_buffers_that_did_not_move_are_not_touched() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4)).eval()
    versions = [buffer._version for buffer in model.buffers()]
    with preserved(model, values=True):
        pass
    assert [buffer._version for buffer in model.buffers()] == versions


def test_no_gradient_is_made() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    x = batch(2).requires_grad_(True)
    captured(model, x)
    assert x.grad is None
    assert not [leaf for leaf in pytree.tree_leaves(list(model.parameters())) if leaf.grad is not None]


def test_uninitialised_generators_of_numpy_are_kept() -> None:
    np.random.seed(3)
    np.random.standard_normal()  # one more lies ready
    before = np.random.get_state()
    captured(nn.Sequential(nn.Linear(4, 4)), batch(2))
    assert str(np.random.get_state()) == str(before)


@pytest.mark.parametrize("was_enabled", [True, False])
def test_garbage_is_looked_for_as_before(was_enabled: bool) -> None:
    seen = []

    class Asks(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(gc.isenabled())
            return super().forward(x)

    try:
        (gc.enable if was_enabled else gc.disable)()
        fxkd.record(Asks(2, 2), [""], example_inputs=torch.ones(1, 2))
        assert gc.isenabled() is was_enabled
        with pytest.raises(CaptureError):
            fxkd.record(Refused(2, 2), [""], example_inputs=torch.ones(1, 2))
        assert gc.isenabled() is was_enabled
    finally:
        gc.enable()
    assert seen
    assert not any(seen)


class Refused(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


def written_by_data(model: Any, x: Tensor) -> Tensor:
    """Write to a parameter in a way that torch does not count."""
    model.body[0].weight.data.mul_(2)
    with torch.no_grad():
        model.body[0].bias.add_(1)
    return x + 1


class Writes(nn.Module):
    """Lets a named function write to its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(written_by_data(self, x))


def test_parameters_are_put_back_however_they_are_written_to() -> None:
    model = Writes()
    before = copy.deepcopy(model.state_dict())
    with contextlib.suppress(CaptureError):
        captured(model, torch.randn(3, 4), points=[PointName("FunctionOutputs", f"{__name__}.written_by_data")])
    assert_same(dict(before), dict(model.state_dict()), 0.0)
