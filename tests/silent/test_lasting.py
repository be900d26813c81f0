"""What a forward sets in an object, or in its module, before a node takes it: opened, or refused; never lost."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError
from tests.support.oracle import assert_same


class Context:
    """Stays from call to call."""

    def __init__(self) -> None:
        self.scale: Any = 1.0
        self.inner: dict[str, Any] = {"scale": 1.0}

    def times(self, x: Tensor) -> Tensor:
        return x * self.scale


class Takes(nn.Module):
    """Reads what it is given."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x * context.scale * context.inner["scale"]


class Sets(nn.Module):
    """Sets something in what it is given."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        context.scale = 3.0
        return x + 1


class Block(nn.Module):
    """Has a method beside its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def scaled(self, x: Tensor) -> Tensor:
        return x * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class Model(nn.Module):
    """A layer, then what a test gives."""

    def __init__(self, after: Callable[["Model", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.takes, self.sets, self.block = nn.Linear(4, 4), Takes(), Sets(), Block()
        self.config = {"scale": 1.0}
        self.context, self.scale, self.last, self.count = Context(), 1.0, torch.zeros(1), 0
        self.after = after

    def scaled(self, x: Tensor) -> Tensor:
        return x * self.scale

    def shifted(self, x: Tensor) -> Tensor:
        return x + self.last

    def configured(self, x: Tensor) -> Tensor:
        return x * self.config["scale"]

    def counted(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * (self.count % 2 + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.fc(x))


def in_object(model: Model, h: Tensor) -> Tensor:
    model.context.scale = 2.0
    return model.takes(h, model.context)


def below_object(model: Model, h: Tensor) -> Tensor:
    model.context.inner["scale"] = 2.0
    return model.takes(h, model.context)


def value_in_object(model: Model, h: Tensor) -> Tensor:
    model.context.scale = h.sigmoid()
    return model.takes(h, model.context)


def by_leaf(model: Model, h: Tensor) -> Tensor:
    return model.takes(model.sets(h, model.context), model.context)


def object_method(model: Model, h: Tensor) -> Tensor:
    model.context.scale = 2.0
    return model.context.times(h)


def number(model: Model, h: Tensor) -> Tensor:
    model.scale = 2.0
    return model.scaled(h)


def size(model: Model, h: Tensor) -> Tensor:
    model.scale = h.shape[0] / 2  # two rows: what it is
    return model.scaled(h)


def value(model: Model, h: Tensor) -> Tensor:
    model.last = h.detach().mean()
    return model.shifted(h)


def not_read(model: Model, h: Tensor) -> Tensor:
    model.last = h.detach().mean()
    return model.scaled(h)


def same_again(model: Model, h: Tensor) -> Tensor:
    model.scale = 1.0
    return model.scaled(h)


def below_module(model: Model, h: Tensor) -> Tensor:
    model.config["scale"] = 2.0
    return model.configured(h)


def after_it_ran_whole(model: Model, h: Tensor) -> Tensor:
    h = model.block(h)
    model.block.scale = 2.0
    return model.block.scaled(h)


def set_by_function(model: Model, h: Tensor) -> Tensor:
    return model.counted(h) * model.count


def counts(model: Model, h: Tensor) -> Tensor:
    return model.counted(model.counted(h))


def outputs(method: str) -> dict[str, Any]:
    return {"type": "MethodOutputs", "source": f"{__name__}.{method}"}


FC = {"type": "ModuleOutputs", "source": "fc"}
CASES = {
    in_object: FC,
    below_object: FC,
    value_in_object: FC,
    by_leaf: FC,
    not_read: outputs("Model.scaled"),
    same_again: outputs("Model.scaled"),
    counts: outputs("Model.counted"),
    object_method: outputs("Context.times"),
    number: outputs("Model.scaled"),
    size: outputs("Model.scaled"),
    value: outputs("Model.shifted"),
    below_module: outputs("Model.configured"),
    after_it_ran_whole: outputs("Block.scaled"),
}


def x(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("after", CASES, ids=lambda after: after.__name__)
@pytest.mark.parametrize("is_named", [True, False], ids=["point", "layer"])
def test_what_is_set_before_counts(after: Callable[[Model, Tensor], Tensor], is_named: bool) -> None:
    recorded = fxkd.record(Model(after), {"point": CASES[after] if is_named else FC}, x(2))
    for n in (2, 5, 2):
        plain = Model(after)
        assert_same(plain(x(n)), recorded(x(n))[0])
        for name in ("context", "scale", "last", "count"):  # as they are before the first call
            setattr(recorded.model, name, getattr(Model(after), name))


@pytest.mark.parametrize("point", [FC, outputs("Model.counted")], ids=["module", "method"])
def test_what_a_function_leaves_to_the_forward_is_refused(point: dict[str, Any]) -> None:
    with pytest.raises(CaptureError, match="reads and changes 'count'"):
        fxkd.record(Model(set_by_function), {"point": point}, x(2))
