"""A table of everything in a model that can be named as a point, with shapes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import nn

from fxkd.capture import Inputs, PointName
from fxkd.capture.structure import tensors
from fxkd.errors import PointError
from fxkd.watch import Call, watch

COLUMNS = ("kind", "path", "index", "shape", "dtype", "channels", "stride", "parameters")
NUMBERS = ("index", "channels", "stride", "parameters")
WIDEST = 60  # where a nested shape is cut
MOST = 8  # how many names the last line gives


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One call of something that a spec can name.

    Args:
        kind: The recorder's ``type``: ``ModuleOutputs``, ``FunctionOutputs`` or ``MethodOutputs``.
        path: What to write for ``source`` (or ``func_path``, ``method_path``).
        index: Which call it is, from 0 (``record_idx``).
        shape: The shape of the tensor it gave; for a tuple, list, dict or dataclass the shapes inside.
        dtype: The type of the tensors, if they have one in common.
        channels: Size along dim 1 of (N, C, H, W) and (N, C), along the last of (N, L, C).
        stride: Height of the example image over the height of what was given, both (N, C, H, W).
        parameters: How many numbers the module's parameters hold; None for functions and methods.
    """

    kind: str
    path: str
    index: int
    shape: Any
    dtype: torch.dtype | None
    channels: int | None
    stride: float | None
    parameters: int | None


class PointTable(Sequence[Point]):
    """The points of a model; prints as a table.

    Args:
        rows: The points.
        never_called: Paths of the modules that the run did not call.
    """

    def __init__(self, rows: Iterable[Point], never_called: Iterable[str] = ()) -> None:
        self.rows, self.never_called = tuple(rows), tuple(never_called)

    def find(self, text: str) -> "PointTable":
        """Give the part of the table whose paths contain ``text``."""
        rows = [row for row in self.rows if text in row.path]
        return PointTable(rows, [path for path in self.never_called if text in path])

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> "PointTable": ...
    def __getitem__(self, index: int | slice) -> "Point | PointTable":
        return PointTable(self.rows[index], self.never_called) if isinstance(index, slice) else self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        lines = [COLUMNS, *([_cell(name, getattr(row, name)) for name in COLUMNS] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join([*(_line(line, widths) for line in lines), *self._last_line()])

    __repr__ = __str__

    def _last_line(self) -> Iterator[str]:
        count = len(self.never_called)
        if count:
            more = f" and {count - MOST} more" if count > MOST else ""
            names = ", ".join(map(repr, self.never_called[:MOST])) + more
            yield f"{count} {'module is' if count == 1 else 'modules are'} never called: {names}"


def points(model: nn.Module, example_inputs: Any, *, ops: bool = False) -> PointTable:
    """List everything that a spec can name in ``model``: its modules, and the functions and methods its code calls.

    The model runs twice, in the mode it is in, on tensors without values; if it cannot, on the inputs themselves. It is
    left as it was, and so are its buffers, the random generators and the grad mode.

    Functions and methods are listed if they give a tensor and the model's own code calls them, torch's functions
    included (``F.softmax``, ``torch.cat``). The path of a function is where it is looked up; one reached through a
    module (``F.softmax``) is the same for all who reach it so, and is listed under the first of them. The path of a
    method goes by the class that defines it. ``index`` counts as a recorder does, over all callers. A shared module is
    listed under each of its names. Left out are methods of tensors (``x.softmax()``), properties, and what a function
    imports or defines inside itself.

    Args:
        model: Any module.
        example_inputs: A tuple of positionals, a dict of keywords, ``fxkd.Inputs`` or one tensor.
        ops: Whether to list operations too: ``layer1.0:add`` is what ``add`` gives in the forward of ``layer1.0``,
            which no module, function or method of the model's own may be called for.

    Raises:
        CaptureError: The model does not run on the inputs; says where.

    >>> table = points(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), torch.zeros(2, 3, 8, 8))
    >>> print(table)
    kind           path  index  shape         dtype    channels  stride  parameters
    ModuleOutputs  ''        0  (2, 8, 4, 4)  float32         8       2         224
    ModuleOutputs  0         0  (2, 8, 4, 4)  float32         8       2         224
    ModuleOutputs  1         0  (2, 8, 4, 4)  float32         8       2           0
    >>> table.find("1")[0].shape
    (2, 8, 4, 4)
    >>> print(points(nn.Sequential(nn.ReLU()), torch.zeros(2, 3), ops=True))
    kind           path    index  shape   dtype    channels  stride  parameters
    ModuleOutputs  ''          0  (2, 3)  float32         3       -           0
    ModuleOutputs  0           0  (2, 3)  float32         3       -           0
    ModuleOutputs  0:relu      0  (2, 3)  float32         3       -           -
    """
    if not isinstance(model, nn.Module):
        raise PointError(f"points are those of an nn.Module, not of a {type(model).__name__}.")
    inputs = Inputs.of(example_inputs)
    height = next((t.shape[2] for t in tensors((inputs.args, inputs.kwargs)) if t.dim() == 4), None)
    calls = watch(model, inputs, operations=ops)
    rows: list[Point] = []
    for path, module in model.named_modules(remove_duplicate=False):
        count = sum(parameter.numel() for parameter in module.parameters())
        rows += _rows(PointName("ModuleOutputs", path), calls.get(id(module), []), height, count)
    for name, given in calls.items():
        if isinstance(name, PointName):
            kind = "ModuleOutputs" if name.kind == "Operation" else name.kind
            rows += _rows(PointName(kind, name.path), given, height, None)
    return PointTable(rows, [path for path, module in model.named_modules() if id(module) not in calls])


def _rows(name: PointName, calls: list[Call], height: int | None, parameters: int | None) -> Iterator[Point]:
    for index, call in enumerate(calls):
        sizes = _sizes(call.shape)
        yield Point(
            kind=name.kind,
            path=name.path,
            index=index,
            shape=call.shape,
            dtype=next(iter(call.dtypes)) if len(call.dtypes) == 1 else None,
            channels=sizes[2 if len(sizes) == 3 else 1] if 2 <= len(sizes) <= 4 else None,
            stride=height / sizes[2] if height and len(sizes) == 4 and sizes[2] else None,
            parameters=parameters,
        )


def _sizes(shape: Any) -> list[int]:
    """Give the sizes of one tensor; nothing for what holds several."""
    is_one = isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)
    return list(shape) if is_one else []


def _cell(column: str, value: Any) -> str:
    """Write a value of a column: as plain text that is no wider than need be."""
    if value is None:
        return "-"
    if column == "path":
        return value or "''"
    if column == "stride":
        return f"{value:g}"
    text = str(value).removeprefix("torch.")
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _line(cells: Sequence[str], widths: list[int]) -> str:
    aligned = [
        cell.rjust(width) if column in NUMBERS else cell.ljust(width)
        for column, cell, width in zip(COLUMNS, cells, widths, strict=True)
    ]
    return "  ".join(aligned).rstrip()
