"""One cell of the matrix: fxkd and plain PyTorch in one surrounding, and how far apart they are."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import FxkdError
from tests.matrix.models import CLASSES, Net
from tests.matrix.specs import ROWS
from tests.support.oracle import energy, named, seed_everything
from tests.support.plain import Plain, Several

Batch = tuple[tuple[Tensor, ...], dict[str, Tensor]]
STEPS = 2
SMALLEST = 1e-9  # what is smaller all over is rounding: the gradient of a bias in front of a norm


@dataclass(frozen=True, kw_only=True)
class Surrounding:
    """What training goes on in.

    Args:
        dtype: Of weights and images.
        allowed: The largest difference relative to the largest element of a tensor.
        checkpoints: Whether the student's blocks are checkpointed.
        options: Further options of ``prepare``.
        last: Whether the channels lie last in memory.
        autocast: The type that computations are made in.
        copies: Whether copies of the student run between a step and its backward.
        accumulates: Whether the gradients of several steps are summed.
        processes: How many there are.
    """

    dtype: torch.dtype = torch.float64
    allowed: float = 1e-10
    checkpoints: bool = False
    options: Mapping[str, Any] | None = None
    last: bool = False
    autocast: torch.dtype | None = None
    copies: bool = False
    accumulates: bool = False
    processes: int = 1

    def around(self) -> AbstractContextManager[Any]:
        """Give what each step runs in."""
        return torch.autocast("cpu", self.autocast) if self.autocast else nullcontext()

    def placed(self, module: nn.Module) -> nn.Module:
        """Bring a model to its type and order of memory."""
        return module.to(memory_format=torch.channels_last) if self.last else module


SURROUNDINGS: dict[str, Surrounding] = {
    "graph": Surrounding(),
    "compiled": Surrounding(options={"compile": {"backend": "aot_eager", "fullgraph": True}}),
    "checkpointing": Surrounding(checkpoints=True),
    "bf16 autocast": Surrounding(dtype=torch.float32, allowed=1e-2, autocast=torch.bfloat16),
    "EMA copy": Surrounding(copies=True),
    "DDP, 2 processes": Surrounding(processes=2),
    "accumulation": Surrounding(accumulates=True),
    "channels last": Surrounding(last=True),
}


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    """Make what is built inside of one type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass
class Pair:
    """The same parts twice: in a distiller, and for plain PyTorch."""

    surrounding: Surrounding
    distiller: fxkd.Distiller
    plain: Plain
    has_labels: bool

    @classmethod
    def of(cls, row: str, surrounding: Surrounding) -> "Pair":
        """Build both."""
        spec, teacher = ROWS[row].spec(), ROWS[row].teachers()
        student = Net(4, 0, is_checkpointed=surrounding.checkpoints)
        surrounding.placed(student)
        for model in teacher.values() if isinstance(teacher, dict) else [teacher] if teacher is not None else []:
            surrounding.placed(model.eval().requires_grad_(False))
        own, own_teacher = copy.deepcopy((student, teacher))
        own_teacher = Several(own_teacher) if isinstance(own_teacher, dict) else own_teacher
        seed_everything(0)
        distiller = fxkd.prepare(student, teacher, spec, verify=False, **(surrounding.options or {}))
        parts = copy.deepcopy((distiller.connectors, distiller.losses, distiller.student_loss))
        return cls(surrounding, distiller, Plain(own, own_teacher, spec, *parts), "inputs" in spec)

    def batch(self, number: int) -> Batch:
        """Make a batch; it has another size each time."""
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(3 + number % 3, 3, 8, 8, generator=generator)
        labels = torch.randint(CLASSES, (len(x),), generator=generator)
        x = x.contiguous(memory_format=torch.channels_last) if self.surrounding.last else x
        return (x,), {"labels": labels} if self.has_labels else {}

    @property
    def parts(self) -> dict[str, dict[str, nn.Module]]:
        """What trains, by who has it."""
        held = {"fxkd": self.distiller, "plain": self.plain}
        return {
            name: {"student": one.student, "connectors": one.connectors, "losses": one.losses}
            for name, one in held.items()
        }


def difference(row: str, surrounding: str) -> float | str:
    """Give the largest difference of all values and gradients, or what refuses the spec."""
    how = SURROUNDINGS[surrounding]
    with default_type(how.dtype):
        try:
            pair = Pair.of(row, how)
            return compare(pair, pair.distiller, pair.plain)
        except FxkdError as error:
            return f"refused: {error}"


def compare(
    pair: Pair,
    call: Callable[..., Any],
    plain: Callable[..., Any],
    exchange: Callable[[dict[str, Tensor]], None] = lambda gradients: None,
    first: int = 0,
) -> float:
    """Take steps with both; ``exchange`` is what processes do with the gradients of the reference."""
    worst = 0.0
    for number in range(first, first + STEPS):
        found = step(pair, call, "fxkd", pair.batch(number), copies=pair.surrounding.copies)
        wanted = step(pair, plain, "plain", pair.batch(number))
        exchange({name: value for name, value in wanted.items() if name.startswith("gradient ")})
        worst = max(worst, apart(wanted, found))
        for parts in pair.parts.values():
            update(parts, zero=not pair.surrounding.accumulates)
    return worst


def step(pair: Pair, call: Callable[..., Any], who: str, batch: Batch, *, copies: bool = False) -> dict[str, Tensor]:
    """Run forward and backward; give all values."""
    (args, kwargs), parts = batch, pair.parts[who]
    others = [copy.deepcopy(parts["student"]), copy.deepcopy(pair.distiller).student] if copies else []
    seed_everything(0)
    with pair.surrounding.around():
        out = call(*args, **kwargs)
        for other in others:
            with torch.no_grad():
                other(*args)
    check_surrounding(pair, out, who)
    (out.loss + energy(out.output)).backward()
    values = {f"loss {name}": value for name, value in out.losses.items()}
    values |= {"loss": out.loss, "output": out.output}
    values |= {f"gradient {n}": p.grad for n, p in named(parts, "named_parameters").items() if p.grad is not None}
    values |= {f"buffer {n}": b for n, b in named(parts, "named_buffers").items() if b.is_floating_point()}
    return {name: value.detach().clone() for name, value in values.items()}


def check_surrounding(pair: Pair, out: Any, who: str) -> None:
    """See that the step ran in its surrounding, as equal results alone do not show it."""
    how, student = pair.surrounding, pair.parts[who]["student"]
    assert out.output.dtype is (how.autocast or how.dtype)
    assert student.blocks[0].is_checkpointed is how.checkpoints
    assert student.blocks[0].body[0].weight.is_contiguous(memory_format=torch.channels_last) is how.last
    assert how.processes == (torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1)
    if who == "fxkd":
        compiled = [program.compiled is not None for program in pair.distiller.programs]
        assert compiled == [bool(how.options)] * len(compiled) != []


def update(parts: Mapping[str, nn.Module], *, zero: bool) -> None:
    """Go a step along the gradients."""
    for parameter in named(parts, "named_parameters").values():
        if zero and parameter.grad is not None:
            parameter.data.add_(parameter.grad, alpha=-0.01)
            parameter.grad = None


def apart(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """Give the largest difference, relative to the largest element of each tensor.

    Raises:
        AssertionError: One has a value that the other has not.
    """
    assert wanted.keys() == found.keys(), wanted.keys() ^ found.keys()
    assert any(name.startswith("gradient ") for name in wanted)
    return max(relative(wanted[name], found[name]) for name in wanted)


def relative(wanted: Tensor, found: Tensor) -> float:
    """Give the largest difference of two tensors relative to the largest element."""
    assert (wanted.shape, wanted.dtype) == (found.shape, found.dtype)
    if torch.equal(wanted, found):
        return 0.0
    distance, size = (wanted - found).abs().max().item(), wanted.abs().max().item()
    return distance / max(size, SMALLEST) if distance == distance else float("inf")
