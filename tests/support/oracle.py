"""What a spec means, in plain PyTorch: hooks, replaced attributes and nothing else; the library is compared with it.

A point is recorded as a clone taken there and then: outputs when the call returns, inputs before it begins. A delivery
answers the student's calls in the order of the teacher's, and the original is not called. Where a record and a delivery
meet at one point, the record sees what was delivered.
"""

import copy
import dataclasses
import functools
import importlib
import inspect
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.support.cases import Case, Inputs, Spec

Records = dict[str, list[Any]]  # recorder name -> one value per call, in call order
Modules = Mapping[str, nn.Module] | nn.ModuleDict


@dataclass(frozen=True)
class OracleResult:
    """What one pass of teacher and student gives."""

    loss: Tensor | None  # to call backward on; None where neither the spec nor the student has a loss
    losses: dict[str, Tensor]
    output: Any  # what the student returned
    records: dict[str, Records]  # of the "student" and of the "teacher"


def run_with_hooks(
    student: nn.Module,
    teacher: nn.Module,
    spec: Spec,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    connectors: Modules,
    losses: Modules,
    *,
    always_copy: bool = False,
) -> OracleResult:
    """Run the teacher (frozen, in eval mode), then the student (in its own mode), then connectors and losses."""
    teacher.eval().requires_grad_(False)
    deliveries = spec.get("distill_deliveries", {})
    queues: dict[str, deque[Any]] = {name: deque() for name in deliveries}
    with (
        torch.no_grad(),
        delivering(teacher, deliveries, queues, override=False),
        recording(teacher, spec.get("teacher_recorders", {}), always_copy) as teacher_records,
    ):
        teacher(*args, **kwargs)
    with (
        delivering(student, deliveries, queues, override=True),
        recording(student, spec.get("student_recorders", {}), always_copy) as student_records,
    ):
        output = student(*args, **kwargs)

    records = {"student": student_records, "teacher": teacher_records}
    results: dict[str, Tensor] = {}
    for name, mapping in spec.get("loss_forward_mappings", {}).items():
        arguments = {argument: read(records, info, connectors) for argument, info in mapping.items()}
        results[name] = losses[name](**arguments)
    terms = [result for name, result in results.items() if "loss" in name]
    student_loss = own_loss(output)
    if student_loss is not None:
        terms.append(student_loss)
    return OracleResult(torch.stack(terms).sum() if terms else None, results, output, records)


def own_loss(output: object) -> Tensor | None:
    """Find the loss that the student itself returned: a key or an attribute called ``loss``."""
    return output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)


def read(records: dict[str, Records], info: Mapping[str, Any], connectors: Modules) -> Any:
    """Fetch one argument of a loss: ``record[record_idx] -> [data_idx] -> connector -> [connector_idx]``."""
    value = records["student" if info["from_student"] else "teacher"][info["recorder"]][info.get("record_idx", 0)]
    if info.get("data_idx") is not None:
        value = value[info["data_idx"]]
    if info.get("connector") is not None:
        value = connectors[info["connector"]](value)
    if info.get("connector_idx") is not None:
        value = value[info["connector_idx"]]
    return value


def clone(value: Any) -> Any:
    """Copy a nested value: every tensor cloned (gradients still flow), every container rebuilt."""
    return mapped(Tensor, torch.clone, value)


def mapped(kind: type, function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to all of a kind in a nested value; dataclasses that torch's pytree does not know count too."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, kind):
            return function(leaf)
        if not dataclasses.is_dataclass(leaf) or isinstance(leaf, (type, Kept)):
            return leaf
        fields = {f.name: mapped(kind, function, getattr(leaf, f.name)) for f in dataclasses.fields(leaf)}
        return dataclasses.replace(leaf, **fields)

    return pytree.tree_map(one, value)


@dataclass(frozen=True)
class Kept:
    """A tensor as it was at a point: itself, while nobody has written to it, else the copy made there.

    The copy has the same value; reading the tensor itself where that is right leaves the order in which gradients are
    added up, and with it the last bit of the result, as without any recording.
    """

    tensor: Tensor
    version: int
    copy: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> "Kept":
        return cls(tensor, tensor._version, tensor.clone())

    def value(self, always_copy: bool) -> Tensor:
        return self.copy if always_copy or self.tensor._version != self.version else self.tensor


def keep(value: Any) -> Any:
    """Note a nested value at a point."""
    return mapped(Tensor, Kept.of, value)


# --- recorders


@contextmanager
def recording(
    model: nn.Module, recorders: Mapping[str, Mapping[str, str]], always_copy: bool = False
) -> Iterator[Records]:
    """Record every named point of ``model`` while inside; the values are there when it is left."""
    records: Records = {name: [] for name in recorders}
    with ExitStack() as stack:
        for name, recorder in recorders.items():
            stack.enter_context(RECORDERS[recorder["type"]](model, recorder["source"], records[name]))
        yield records
    for name, recorder in recorders.items():
        if recorder["type"] != "Parameter":
            records[name][:] = mapped(Kept, lambda kept: kept.value(always_copy), records[name])


@contextmanager
def module_outputs(model: nn.Module, source: str, values: list[Any]) -> Iterator[None]:
    """Record whatever the module returns."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        values.append(keep(output))

    handle = model.get_submodule(source).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def module_inputs(model: nn.Module, source: str, values: list[Any]) -> Iterator[None]:
    """Record the tuple of the positional arguments of the module."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        values.append(keep(args))

    handle = model.get_submodule(source).register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def function_outputs(model: nn.Module, source: str, values: list[Any]) -> Iterator[None]:
    """Record what the function or method returns."""
    owner, name = resolve(source)
    original = getattr(owner, name)

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        value = original(*args, **kwargs)
        values.append(keep(value))
        return value

    with patched(owner, name, replacement):
        yield


@contextmanager
def function_inputs(model: nn.Module, source: str, values: list[Any]) -> Iterator[None]:
    """Record the list of the positional arguments, then of the keywords given, in the order of the signature."""
    owner, name = resolve(source)
    original = getattr(owner, name)

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        values.append(keep([*args, *in_signature_order(original, kwargs)]))
        return original(*args, **kwargs)

    with patched(owner, name, replacement):
        yield


@contextmanager
def method_inputs(model: nn.Module, source: str, values: list[Any]) -> Iterator[None]:
    """Record the arguments of the method as those of a function, without ``self``."""
    owner, name = resolve(source)
    original = getattr(owner, name)

    @functools.wraps(original)
    def replacement(self: object, *args: Any, **kwargs: Any) -> Any:
        values.append(keep([*args, *in_signature_order(original, kwargs)]))
        return original(self, *args, **kwargs)

    with patched(owner, name, replacement):
        yield


@contextmanager
def parameter(model: nn.Module, source: str, values: list[Any]) -> Iterator[None]:
    """Record the live parameter."""
    values.append(model.get_parameter(source))
    yield


Recorder = Callable[[nn.Module, str, list[Any]], AbstractContextManager[None]]
RECORDERS: dict[str, Recorder] = {
    "ModuleOutputs": module_outputs,
    "ModuleInputs": module_inputs,
    "FunctionOutputs": function_outputs,
    "FunctionInputs": function_inputs,
    "MethodOutputs": function_outputs,
    "MethodInputs": method_inputs,
    "Parameter": parameter,
}


# --- deliveries


@contextmanager
def delivering(
    model: nn.Module, deliveries: Mapping[str, Mapping[str, Any]], queues: Mapping[str, deque[Any]], *, override: bool
) -> Iterator[None]:
    """Fill the queues from the calls made inside, or answer these calls from the queues (``override``)."""
    with ExitStack() as stack:
        for name, delivery in deliveries.items():
            owner, attribute = delivery_point(model, delivery)
            original = getattr(owner, attribute)
            limit = delivery["max_keep_data"]
            replacement = pop(original, queues[name]) if override else push(original, queues[name], limit)
            stack.enter_context(patched(owner, attribute, replacement))
        yield


def delivery_point(model: nn.Module, delivery: Mapping[str, Any]) -> tuple[object, str]:
    """Find the attribute to replace: a function of a file, a method of a class, the forward of one module."""
    match delivery["type"]:
        case "FunctionOutputs":
            return resolve(delivery["func_path"])
        case "MethodOutputs":
            return resolve(delivery["method_path"])
        case "ModuleOutputs":
            return model.get_submodule(delivery["source"]), "forward"
        case other:
            raise ValueError(f"unknown delivery {other!r}")


def push(original: Callable[..., Any], queue: deque[Any], limit: int) -> Callable[..., Any]:
    """Make the teacher's side of a delivery: call, and keep a copy of the result."""

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        if len(queue) >= limit:
            raise RuntimeError("push into a full queue")
        value = original(*args, **kwargs)
        queue.append(clone(value))
        return value

    return replacement


def pop(original: Callable[..., Any], queue: deque[Any]) -> Callable[..., Any]:
    """Make the student's side of a delivery: give the oldest value kept, and call nothing."""

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        if not queue:
            raise RuntimeError("pop from an empty queue")
        return queue.popleft()

    return replacement


# --- paths and attributes


def resolve(path: str) -> tuple[object, str]:
    """Split ``package.module.Class.name`` into the object that holds the last name, and that name."""
    *owners, name = path.split(".")
    for length in range(len(owners), 0, -1):
        try:
            module = importlib.import_module(".".join(owners[:length]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, owners[length:], module), name
    raise ModuleNotFoundError(path)


@contextmanager
def patched(owner: object, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Replace an attribute while inside; afterwards the owner is as before, also where it only inherited it."""
    missing = object()
    before = vars(owner).get(name, missing)
    has_no_self = isinstance(inspect.getattr_static(owner, name), (staticmethod, classmethod))
    setattr(owner, name, staticmethod(replacement) if has_no_self else replacement)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def in_signature_order(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """List the keywords given in the order of the signature; a builtin without one keeps the order of the call.

    Replacements are made with ``functools.wraps``, so the signature is found through any number of them.
    """
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:
        return list(kwargs.values())
    return [kwargs[name] for name in names if name in kwargs]


# --- training


class Result(Protocol):
    """What a step needs of one pass; the oracle's result has it."""

    @property
    def loss(self) -> Tensor | None: ...
    @property
    def losses(self) -> Mapping[str, Tensor]: ...
    @property
    def output(self) -> Any: ...
    @property
    def records(self) -> Any: ...


@dataclass(frozen=True)
class Step:
    """All that can be compared of one optimiser step; tensors are detached copies."""

    loss: Tensor | None
    losses: dict[str, Tensor]
    output: Any
    records: Any
    gradients: dict[str, Tensor | None]  # "student.fc.weight" -> gradient of this step; None where none arrived
    buffers: dict[str, Tensor]  # of all modules, after the step


@dataclass(frozen=True)
class Training:
    """All that can be compared of a short training."""

    steps: list[Step]
    parameters: dict[str, Tensor]  # of all modules, after the last step


def train_with_hooks(
    case: Case,
    spec: Spec,
    connectors: Modules,
    losses: Modules,
    steps: int = 3,
    *,
    batches: Sequence[Inputs] | None = None,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
    with_output: bool = False,
    always_copy: bool = False,
) -> Training:
    """Train copies of the case's models (or of those given) with hooks; nothing that was passed in changes."""
    student = case.build_student() if student is None else copy.deepcopy(student)
    teacher = case.build_teacher() if teacher is None else copy.deepcopy(teacher)
    connectors, losses = (nn.ModuleDict(copy.deepcopy(dict(given))) for given in (connectors, losses))

    def call(*args: Any, **kwargs: Any) -> OracleResult:
        return run_with_hooks(student, teacher, spec, args, kwargs, connectors, losses, always_copy=always_copy)

    return train(
        call,
        trained={"student": student, "connectors": connectors, "losses": losses},
        frozen={"teacher": teacher},
        batches=case.batches(steps) if batches is None else batches[:steps],
        seed=seed,
        with_output=with_output,
    )


def train(
    call: Callable[..., Result],
    *,
    trained: Mapping[str, nn.Module],
    frozen: Mapping[str, nn.Module],
    batches: Sequence[Inputs],
    seed: int = 0,
    with_output: bool = False,
) -> Training:
    """Take one step of SGD with momentum per batch on ``call(*args, **kwargs).loss``.

    All generators are seeded alike before each step. ``with_output`` adds :func:`energy` of the output to the loss, so
    that gradients reach every part of the student that its output depends on.
    """
    for module in trained.values():
        module.train()
    everything = {**trained, **frozen}
    parameters = named(trained, "named_parameters")
    optimiser = torch.optim.SGD(parameters.values(), lr=0.02, momentum=0.9)
    steps = []
    for number, (args, kwargs) in enumerate(batches):
        seed_everything(seed + number)
        result = call(*args, **kwargs)
        optimiser.zero_grad(set_to_none=True)
        objective(result, with_output=with_output).backward()
        step = Step(
            loss=snapshot(result.loss),
            losses=snapshot(dict(result.losses)),
            output=snapshot(result.output),
            records=snapshot(result.records),
            gradients={name: snapshot(value.grad) for name, value in parameters.items()},
            buffers=snapshot(named(everything, "named_buffers")),
        )
        optimiser.step()
        steps.append(step)
    return Training(steps, snapshot(named(everything, "named_parameters")))


def objective(result: Result, *, with_output: bool) -> Tensor:
    """Choose what to call backward on."""
    terms = [] if result.loss is None else [result.loss]
    if with_output:
        terms.append(energy(result.output))
    if not terms:
        raise ValueError("nothing to train on: no loss, and the output is left out")
    return torch.stack(terms).sum()


def energy(output: Any) -> Tensor:
    """Sum the mean squares of all floating point tensors in a nested output."""
    tensors = list[Tensor]()
    mapped(Tensor, lambda tensor: tensors.append(tensor) if tensor.is_floating_point() else None, output)
    return torch.stack([tensor.square().mean() for tensor in tensors]).sum()


def named(modules: Mapping[str, nn.Module], kind: str) -> dict[str, Tensor]:
    """Collect ``named_parameters`` or ``named_buffers`` of several modules, each under its module's name."""
    return {f"{name}.{path}": value for name, module in modules.items() for path, value in getattr(module, kind)()}


def snapshot(value: Any) -> Any:
    """Copy a nested value out of the autograd graph."""
    return mapped(Tensor, lambda tensor: tensor.detach().clone(), value)


def seed_everything(seed: int) -> None:
    """Seed the generators of torch, Python and numpy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


# --- comparison


def assert_same(a: Any, b: Any, rtol: float = 1e-6, *, atol: float = 0.0, path: str = "value") -> None:
    """Raise AssertionError at the first difference of two nested values, naming its path.

    Types and structure must be equal (a tuple may be of a class of its own),
    so must ints, floats, strings and integer tensors. For floating point tensors
    ``max|a - b| <= atol + rtol * max|a|``. A NaN is always a difference. Of modules only the types are compared.
    """
    if type(a) is not type(b) and not (type(a) is tuple and isinstance(b, tuple)):
        raise AssertionError(f"{path}: {type(a).__name__} and {type(b).__name__}")
    if isinstance(a, Tensor):
        assert_close(a, b, rtol, atol, path)
    elif isinstance(a, Mapping):
        if set(a) != set(b):
            raise AssertionError(f"{path}: keys {sorted(map(str, a))} and {sorted(map(str, b))}")
        for key in a:
            assert_same(a[key], b[key], rtol, atol=atol, path=f"{path}[{key!r}]")
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            raise AssertionError(f"{path}: lengths {len(a)} and {len(b)}")
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, rtol, atol=atol, path=f"{path}[{index}]")
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            left, right = getattr(a, field.name), getattr(b, field.name)
            assert_same(left, right, rtol, atol=atol, path=f"{path}.{field.name}")
    elif isinstance(a, np.ndarray):
        if a.dtype != b.dtype or not np.array_equal(a, b):
            raise AssertionError(f"{path}: {a!r} and {b!r}")
    elif type(a).__eq__ is object.__eq__ and hasattr(a, "__dict__") and not isinstance(a, nn.Module):
        assert_same(vars(a), vars(b), rtol, atol=atol, path=path)
    elif not isinstance(a, nn.Module) and a != b:
        raise AssertionError(f"{path}: {a!r} and {b!r}")


def assert_close(a: Tensor, b: Tensor, rtol: float, atol: float, path: str) -> None:
    """Compare two tensors as :func:`assert_same` says."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        raise AssertionError(f"{path}: {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}")
    if torch.equal(a, b):
        return
    if not a.is_floating_point():
        raise AssertionError(f"{path}: {int((a != b).sum())} of {a.numel()} elements differ")
    difference = torch.where(a == b, 0.0, (a - b).abs()).max().item()
    allowed = atol + rtol * a.abs().max().item()
    if not difference <= allowed:
        raise AssertionError(f"{path}: max|a - b| = {difference:.3g}, allowed {allowed:.3g}")
