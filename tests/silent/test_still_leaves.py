"""What is compared of a leaf only once holds as long as nothing moves: leaves that change themselves, resets, draws."""

import copy
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError


class Flips(nn.Module):
    """Does something else at every second call, unless it is put back."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.kept = True, [1]

    def forward(self, x: Tensor) -> Tensor:
        y = x * (2 if self.on else 3) + self.kept[0]
        self.on = not self.on
        self.kept[0] += 1
        return y


class Plain(nn.Module):
    """Reads what somebody else sets."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.kept = 1, [1]  # small numbers are one object each

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.kept[0]


class Draws(nn.Module):
    """Multiplies with a number of Python's."""

    def forward(self, x: Tensor) -> Tensor:
        return x * random.random()


class Net(nn.Module):
    """A point, and a leaf around whose call the forward does something."""

    def __init__(self, leaf: nn.Module, around: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.leaf, self.around = nn.Linear(4, 4), leaf, around

    def forward(self, x: Tensor) -> Tensor:
        return self.around(self.leaf, self.fc(x))


def reset_before(leaf: nn.Module, x: Tensor) -> Tensor:
    leaf.on = True
    leaf.kept[0] = 1
    return leaf(x)


def reset_behind(leaf: nn.Module, x: Tensor) -> Tensor:
    y = leaf(x)
    leaf.on = True
    leaf.kept[0] = 1
    return y


def for_a_while(leaf: nn.Module, x: Tensor) -> Tensor:
    leaf.scale = 5.0
    y = leaf(x)
    leaf.scale = 1
    return y + leaf(x)


def in_a_list(leaf: nn.Module, x: Tensor) -> Tensor:
    leaf.kept[0] = 4.0
    y = leaf(x)
    leaf.kept[0] = 1
    return y + leaf(x)


def twice_and_between(leaf: nn.Module, x: Tensor) -> Tensor:
    y = leaf(x)
    leaf.scale = 5.0
    y = y + leaf(x)
    leaf.scale = 1
    return y


class Moves(nn.Module):
    """Sets something in its part, which others call too."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        y = self.part(x)
        self.part.scale = 5
        return y


class Shares(nn.Module):
    """Sets back in a leaf what another leaf has set."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.part = nn.Linear(4, 4), Plain()
        self.moves = Moves(self.part)

    def forward(self, x: Tensor) -> Tensor:
        y = self.moves(self.part(self.fc(x)))
        self.part.scale = 1
        return self.part(y)


class Context:
    """What leaves are given, and hold."""

    def __init__(self) -> None:
        self.scale = 1.0


class Takes(nn.Module):
    """Reads what it is given."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x * context.scale


class Sets(nn.Module):
    """Sets something in what it is given."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        context.scale = 3.0
        return x + 1


class Holds(nn.Module):
    """Reads what it holds."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def forward(self, x: Tensor) -> Tensor:
        return x * self.context.scale


class Given(nn.Module):
    """Gives an object to leaves, that one of them holds."""

    def __init__(self, around: Callable[["Given", Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.context, self.around = nn.Linear(4, 4), Context(), around
        self.takes, self.sets, self.holds = Takes(), Sets(), Holds(self.context)

    def forward(self, x: Tensor) -> Tensor:
        return self.around(self, self.fc(x))


def set_before_two(model: Given, x: Tensor) -> Tensor:
    model.context.scale = 2.0
    return model.holds(model.takes(x, model.context))


def set_behind_the_only_call(model: Given, x: Tensor) -> Tensor:
    y = model.takes(x, model.context)
    model.context.scale = 2.0
    return y


def hooked_for_a_while(model: Given, x: Tensor) -> Tensor:
    handle = model.holds.register_forward_hook(lambda module, args, value: value * 2)
    y = model.holds(x)
    handle.remove()
    return y


def set_by_a_leaf_and_set_back(model: Given, x: Tensor) -> Tensor:
    y = model.sets(model.holds(x), model.context)
    model.context.scale = 1.0
    return model.holds(y)


@pytest.mark.parametrize("around", [set_before_two, set_by_a_leaf_and_set_back, hooked_for_a_while])
def test_what_is_set_in_what_leaves_are_given(around: Callable[..., Tensor]) -> None:
    assert_same_steps(Given(around))


def test_what_is_set_behind_the_only_call_is_refused() -> None:
    with pytest.raises(CaptureError, match="does something else at the second call"):
        fxkd.record(Given(set_behind_the_only_call), ["fc"], example_inputs=torch.randn(2, 4))


@pytest.mark.parametrize("around", [for_a_while, in_a_list, twice_and_between])
def test_what_is_set_around_a_leaf_is_set_at_every_step(around: Callable[..., Tensor]) -> None:
    assert_same_steps(Net(Plain(), around))


@pytest.mark.parametrize("around", [reset_before, reset_behind])
def test_what_a_leaf_sets_and_the_forward_sets_back(around: Callable[..., Tensor]) -> None:
    assert_same_steps(Net(Flips(), around))


def test_what_one_leaf_sets_in_another_and_the_forward_sets_back() -> None:
    assert_same_steps(Shares())


def assert_same_steps(model: nn.Module) -> None:
    torch.manual_seed(0)
    plain = copy.deepcopy(model)
    recorded = fxkd.record(model, ["fc"], example_inputs=torch.randn(2, 4))
    for batch in (2, 5, 2):
        x = torch.randn(batch, 4)
        torch.testing.assert_close(recorded(x)[0], plain(x))


def test_leaves_draw_at_every_step() -> None:
    model = Net(Draws(), lambda leaf, x: leaf(x) + leaf(x))
    recorded = fxkd.record(model, ["fc"], example_inputs=torch.randn(2, 4))
    for seed, batch in enumerate((2, 5, 2)):
        x = torch.randn(batch, 4)
        random.seed(seed)
        wanted = model(x)
        random.seed(seed)
        torch.testing.assert_close(recorded(x)[0], wanted)


@pytest.mark.parametrize("leaf", [Draws, Plain])
def test_a_draw_beside_leaves_is_refused(leaf: type[nn.Module]) -> None:
    model = Net(leaf(), lambda leaf, x: leaf(x) * random.random())
    state = random.getstate()
    with pytest.raises(CaptureError, match=r"random numbers gives at .*test_still_leaves.py"):
        fxkd.record(model, ["fc"], example_inputs=torch.randn(2, 4))
    assert random.getstate() == state
