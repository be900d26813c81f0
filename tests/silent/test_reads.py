"""What named functions and leaves read, set and fill, at every call and on values too: right, or refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError
from fxkd.patcher import patched
from tests.support.oracle import assert_same


class Context:
    """Is shared by the model and its layers."""

    def __init__(self) -> None:
        self.scale: Any = 1.0
        self.other: Any = 1.0


@dataclass
class Result:
    """Is filled in place."""

    h: Tensor
    n: int = 1


class Scaled(nn.Module):
    """Reads a shared object, a shared dict, a shared list and a number of its own."""

    def __init__(self, context: Context, config: dict[str, Any], kept: list[Any]) -> None:
        super().__init__()
        self.context, self.config, self.kept, self.scale = context, config, kept, 1.0
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.context.scale * self.config["scale"] * self.scale + sum(self.kept)


class Puts(nn.Module):
    """Sets something in a shared object."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context, self.fc = context, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.context.scale = x.shape[0] / 2
        return self.fc(x)


class Counts(nn.Module):
    """Runs on values alone, and fills what it is given."""

    def forward(self, x: Tensor, given: dict[str, Any]) -> Tensor:
        given["n"] += 1 + int(x.detach().sum().item() * 0)
        return x * 2


def needing_values(x: Tensor) -> float:
    return x.detach().sum().item() * 0


def filling_list(x: Tensor, kept: list[Any]) -> Tensor:
    kept.append(x * 3)
    return x * 2


def filling_dict(x: Tensor, given: dict[str, Any]) -> Tensor:
    given["n"] = 2
    return x * 2


def filling_inside(x: Tensor, given: dict[str, Any]) -> Tensor:
    given["kept"].append(x * (3 + needing_values(x)))
    return x * 2


def taking_out(x: Tensor, kept: list[Any]) -> Tensor:
    kept.pop()
    return x * 2


def giving_back(given: dict[str, Any]) -> dict[str, Any]:
    given["h"] = given["h"] * 2
    given["n"] = 3
    return given


def giving_two(x: Tensor, given: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    given["h"] = x * 3
    return x * 2, given


def changing(result: Result) -> Result:
    result.h, result.n = result.h * 2, 5
    return result


def setting(x: Tensor, context: Context) -> Tensor:
    context.scale = 5.0 + needing_values(x)
    return x * 2


def scaling(x: Tensor, context: Context) -> Tensor:
    return x * context.scale


def filling_on_values(x: Tensor, kept: list[Any]) -> Tensor:
    kept.append(x * (3 + needing_values(x)))
    return x * 2


def raising(x: Tensor) -> Tensor:
    if x.detach().sum().item() < 1e9:
        raise ValueError("too small")
    return x * 2


class Model(nn.Module):
    """A layer, then what a test gives."""

    def __init__(self, after: Callable[["Model", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.context, self.config, self.kept = Context(), {"scale": 1.0}, [0.0]
        self.fc, self.puts, self.counts = nn.Linear(4, 4), Puts(self.context), Counts()
        self.scaled = Scaled(self.context, self.config, self.kept)
        self.scale, self.last, self.count = 1.0, torch.zeros(1), 1
        self.after = after

    def read_at_second(self, x: Tensor, second: bool) -> Tensor:
        return x * self.scale if second else x

    def read_after_value(self, x: Tensor) -> Tensor:
        return x * (1 + needing_values(x)) * self.scale

    def read_below(self, x: Tensor, second: bool) -> Tensor:
        return self.read_after_value(x) if second else x * (1 + needing_values(x))

    def read_on_values(self, x: Tensor) -> Tensor:
        return x * self.scale if needing_values(x) > 1 else x

    def read_vars(self, x: Tensor) -> Tensor:
        return x * vars(self)["scale"]

    def read_dict(self, x: Tensor) -> Tensor:
        return x * self.__dict__["scale"]

    def read_object(self, x: Tensor) -> Tensor:
        return x * (1 + needing_values(x)) * self.context.scale

    def set_after_value(self, x: Tensor) -> Tensor:
        self.count = 5 + int(needing_values(x))
        return x * 2

    def set_at_second(self, x: Tensor, second: bool) -> Tensor:
        self.count = 5 if second else self.count
        return x * 2

    def set_object(self, x: Tensor) -> Tensor:
        self.context.scale = 5.0 + needing_values(x)
        return x * 2

    def mean(self, x: Tensor) -> Tensor:
        self.last = x.detach().mean()
        return x * 2

    def counted(self, x: Tensor, what: str) -> tuple[Tensor, Tensor | None]:
        if what == "number":
            self.count += 1
        elif what == "tensor":
            self.last.add_(1)
        elif what == "object":
            self.context.other += 1
        else:
            self.config["scale"] += 1
        count = self.count + float(self.last) + self.context.other + self.config["scale"]
        return x * count, x if count > 5 else None

    def average(self, x: Tensor) -> Tensor:
        self.last = self.last * 0.5 + x.detach().mean() + needing_values(x)
        return x * 2

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.fc(x))


def second_reads(model: Model, h: Tensor) -> Tensor:
    h = model.read_at_second(h, False)
    model.scale = 5.0
    return model.read_at_second(h, True)


def reads_after_value(model: Model, h: Tensor) -> Tensor:
    model.scale = 5.0
    return model.read_after_value(h)


def reads_below(model: Model, h: Tensor) -> Tensor:
    h = model.read_below(h, False)
    model.scale = 5.0
    return model.read_below(h, True)


def might_read(model: Model, h: Tensor) -> Tensor:
    model.scale = 5.0
    return model.read_on_values(h)


def reads_vars(model: Model, h: Tensor) -> Tensor:
    model.scale = 5.0
    return model.read_vars(h)


def reads_dict(model: Model, h: Tensor) -> Tensor:
    model.scale = 5.0
    return model.read_dict(h)


def reads_object(model: Model, h: Tensor) -> Tensor:
    model.context.scale = 5.0
    return model.read_object(h)


def set_for_next(model: Model, h: Tensor) -> Tensor:
    h = model.read_after_value(h)
    model.scale = 5.0
    return h


def sets_after_value(model: Model, h: Tensor) -> Tensor:
    return model.set_after_value(h) * model.count


def sets_at_second(model: Model, h: Tensor) -> Tensor:
    return model.set_at_second(model.set_at_second(h, False), True) * model.count


def sets_object(model: Model, h: Tensor) -> Tensor:
    return model.set_object(h) * model.context.scale


def sets_given_object(model: Model, h: Tensor) -> Tensor:
    return setting(h, model.context) * model.context.scale


def replaces_tensor(model: Model, h: Tensor) -> Tensor:
    last, model.last = model.last, h.detach().mean()
    return h + last


def sets_unread(model: Model, h: Tensor) -> Tensor:
    model.context.other = 5.0
    return scaling(h, model.context)


def sets_for_forward(model: Model, h: Tensor) -> Tensor:
    return model.mean(h) + model.last


def fills_list(model: Model, h: Tensor) -> Tensor:
    kept: list[Tensor] = []
    return filling_list(h, kept) + sum(kept)


def fills_keyword(model: Model, h: Tensor) -> Tensor:
    kept: list[Tensor] = []
    return filling_list(h, kept=kept) + sum(kept)


def fills_on_values(model: Model, h: Tensor) -> Tensor:
    kept: list[Tensor] = []
    return filling_on_values(h, kept) + sum(kept)


def fills_own(model: Model, h: Tensor) -> Tensor:
    model.kept.clear()
    return filling_list(h, model.kept) + sum(model.kept)


def fills_dict(model: Model, h: Tensor) -> Tensor:
    given = {"n": 1}
    return filling_dict(h, given) * given["n"]


def fills_inside(model: Model, h: Tensor) -> Tensor:
    given: dict[str, list[Tensor]] = {"kept": []}
    return filling_inside(h, given) + sum(given["kept"])


def takes_out(model: Model, h: Tensor) -> Tensor:
    kept = [h, h]
    return taking_out(h, kept) * len(kept)


def leaf_fills(model: Model, h: Tensor) -> Tensor:
    given = {"n": 1}
    return model.counts(h, given) * given["n"]


def catches(model: Model, h: Tensor) -> Tensor:
    try:
        return raising(h)
    except ValueError:
        return h * 5


def gives_back(model: Model, h: Tensor) -> Tensor:
    given = {"h": h}
    giving_back(given)
    return given["h"] * given["n"]


def gives_back_itself(model: Model, h: Tensor) -> Tensor:
    given = {"h": h}
    again = giving_back(given)
    again["n"] += 1
    return again["h"] * given["n"]


def gives_two(model: Model, h: Tensor) -> Tensor:
    given: dict[str, Tensor] = {}
    two, _ = giving_two(h, given)
    return two + given["h"]


def changes_fields(model: Model, h: Tensor) -> Tensor:
    result = Result(h)
    changing(result)
    return result.h * result.n


def leaf_reads_object(model: Model, h: Tensor) -> Tensor:
    model.context.scale = 3.0
    return model.scaled(h)


def leaf_reads_size(model: Model, h: Tensor) -> Tensor:
    model.context.scale = h.shape[0] / 2
    return model.scaled(h)


def leaf_reads_value(model: Model, h: Tensor) -> Tensor:
    model.context.scale = h.sigmoid()
    return model.scaled(h)


def leaf_reads_dict(model: Model, h: Tensor) -> Tensor:
    model.config["scale"] = 3.0
    return model.scaled(h)


def leaf_reads_list(model: Model, h: Tensor) -> Tensor:
    model.kept.clear()
    model.kept.append(h * 2)
    return model.scaled(h)


def leaf_reads_what_a_leaf_set(model: Model, h: Tensor) -> Tensor:
    return model.scaled(model.puts(h))


def averages(model: Model, h: Tensor) -> Tensor:
    return model.average(h - model.last)


def leaf_for_next(model: Model, h: Tensor) -> Tensor:
    h = model.scaled(h)
    model.context.scale = 3.0
    return h


def number_of_leaf_for_next(model: Model, h: Tensor) -> Tensor:
    h = model.scaled(h)
    model.scaled.scale = 3.0
    return h


FC = {"type": "ModuleOutputs", "source": "fc"}


def method(name: str) -> dict[str, Any]:
    return {"type": "MethodOutputs", "source": f"{__name__}.Model.{name}"}


def function(name: str) -> dict[str, Any]:
    return {"type": "FunctionOutputs", "source": f"{__name__}.{name}"}


FILLED = r"changes what it is given \(list\), which a graph does not see: let it give back what it makes"
BEFORE, NEXT = "sets {} before it calls '.*', which reads it", "sets {} after it calls '.*', which reads it at the next"
READ = r"' sets '{}', which the forward reads after that"
REFUSED = {
    reads_after_value: (method("read_after_value"), BEFORE.format("scale")),
    reads_below: (method("read_below"), BEFORE.format("scale")),
    might_read: (method("read_on_values"), BEFORE.format("scale")),
    reads_object: (method("read_object"), BEFORE.format("context")),
    set_for_next: (method("read_after_value"), NEXT.format("scale")),
    sets_after_value: (method("set_after_value"), "set_after_value" + READ.format("count")),
    sets_object: (method("set_object"), "set_object" + READ.format("context")),
    sets_given_object: (function("setting"), "setting" + READ.format("context")),
    fills_inside: (function("filling_inside"), "filling_inside' " + FILLED),
    fills_on_values: (function("filling_on_values"), "filling_on_values' " + FILLED),
    leaf_fills: (FC, r"a Counts runs on values alone and changes what it is given \(dict\)"),
    catches: (function("raising"), r"raising' raises ValueError at .*test_reads\.py.*the function that catches it"),
    leaf_for_next: (FC, "does something else at the second call"),
    number_of_leaf_for_next: (FC, r"reads and changes 'scaled\.scale'"),
    replaces_tensor: (FC, "reads and changes 'last'"),
}
RIGHT = {
    second_reads: method("read_at_second"),
    reads_vars: method("read_vars"),
    reads_dict: method("read_dict"),
    sets_at_second: method("set_at_second"),
    sets_unread: function("scaling"),
    sets_for_forward: method("mean"),
    fills_list: function("filling_list"),
    fills_keyword: function("filling_list"),
    fills_own: function("filling_list"),
    fills_dict: function("filling_dict"),
    takes_out: function("taking_out"),
    gives_back: function("giving_back"),
    gives_back_itself: function("giving_back"),
    gives_two: function("giving_two"),
    changes_fields: function("changing"),
    leaf_reads_object: FC,
    leaf_reads_size: FC,
    leaf_reads_value: FC,
    leaf_reads_dict: FC,
    leaf_reads_list: FC,
    leaf_reads_what_a_leaf_set: FC,
    averages: method("average"),
}


def x(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("after", REFUSED, ids=lambda after: after.__name__)
def test_what_a_graph_would_not_see_is_refused(after: Callable[[Model, Tensor], Tensor]) -> None:
    point, message = REFUSED[after]
    with pytest.raises(CaptureError, match=message):
        fxkd.record(Model(after), {"point": point}, x(2))


@pytest.mark.parametrize("after", RIGHT, ids=lambda after: after.__name__)
def test_what_is_read_and_filled_is_right(after: Callable[[Model, Tensor], Tensor]) -> None:
    plain, model = Model(after), Model(after)
    recorded = fxkd.record(model, {"point": RIGHT[after], "fc": FC}, x(2))
    for n in (2, 5, 2):
        hidden: list[Tensor] = []
        handle = plain.fc.register_forward_hook(lambda _, given, out, hidden=hidden: hidden.append(out))
        wanted = plain(x(n))
        handle.remove()
        output, records = recorded(x(n))
        assert_same(wanted, output)
        assert_same(hidden, records["fc"])
        plain.zero_grad(), model.zero_grad()
        wanted.square().sum().backward()
        output.square().sum().backward()
        assert_same([p.grad for p in plain.parameters()], [p.grad for p in model.parameters()])


def test_a_record_of_what_is_given_back_is_that_of_the_call() -> None:
    seen: list[Any] = []

    def keep(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda given: seen.append(dict(original(given)))

    module = __import__(__name__, fromlist=["giving_back"])
    with patched(module, "giving_back", keep):
        Model(gives_back)(x(2))
    records = fxkd.record(Model(gives_back), {"point": function("giving_back")}, x(2))(x(2))[1]
    assert_same(seen[0]["h"], records["point"][0]["h"])
    assert records["point"][0]["n"] == 3


def test_a_number_read_by_way_of_the_dict_is_read_anew() -> None:
    model = Model(lambda model, h: h * vars(model)["scale"] * model.__dict__["count"])
    recorded = fxkd.record(model, {"point": FC}, x(2))
    model.scale, model.count = 3.0, 2
    assert_same(model(x(2)), recorded(x(2))[0])


@pytest.mark.parametrize("what", ["number", "tensor", "object", "dict"])
def test_what_a_function_keeps_is_put_back_where_a_guard_fails(what: str) -> None:
    def after(model: Model, h: Tensor) -> Tensor:
        one, other = model.counted(h, what)
        return one if other is None else one + other

    plain, model = Model(after), Model(after)
    recorded = fxkd.record(model, {"point": method("counted")}, x(2))
    for n in (2, 2, 5, 2, 5):
        assert_same(plain(x(n)), recorded(x(n))[0])
    assert (model.count, model.context.other, model.config) == (plain.count, plain.context.other, plain.config)
    assert_same(plain.last, model.last)
