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
