"""In whatever order recorders and deliveries are entered: the same records, and everything is put back."""

from contextlib import ExitStack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fxkd.eager import (
    FunctionInputsRecorder,
    FunctionOutputsDelivery,
    FunctionOutputsRecorder,
    MethodInputsRecorder,
    MethodOutputsDelivery,
    MethodOutputsRecorder,
    ModuleInputsRecorder,
    ModuleOutputsDelivery,
    ModuleOutputsRecorder,
)
from fxkd.eager.deliveries import Delivery
from fxkd.eager.recorder import Recorder
from fxkd.patcher import own
from tests.eager import toy_module
from tests.eager.toy_module import SubToy, Toy

TOY = "tests.eager.toy_module"


class Scale(nn.Module):
    def forward(self, x: float) -> float:
        return toy_module.scale(x)  # type: ignore[no-any-return]


TARGETS: list[tuple[Any, str]] = [
    (toy_module, "scale"),
    *((owner, name) for owner in (Toy, SubToy) for name in ("double", "static", "named")),
    (Scale, "forward"),
]
METHODS = ["Toy.double", "SubToy.double", "Toy.static", "SubToy.static", "Toy.named", "SubToy.named"]
METHODS += ["Toy.twice", "Toy.Inner.triple"]


def recorders(model: nn.Module) -> list[Recorder]:
    made: list[Recorder] = [kind("") for kind in (ModuleInputsRecorder, ModuleOutputsRecorder)]
    made += [
        kind(f"{TOY}.scale", clone=clone)
        for kind in (FunctionInputsRecorder, FunctionOutputsRecorder)
        for clone in (False, True)
    ]
    made += [kind(f"{TOY}.{path}") for kind in (MethodInputsRecorder, MethodOutputsRecorder) for path in METHODS]
    made += [kind(f"{__name__}.Scale.forward") for kind in (MethodInputsRecorder, MethodOutputsRecorder)]
    for one in made:
        one.initialize(model)
    return made


def deliveries(model: nn.Module) -> list[Delivery]:
    made: list[Delivery] = [FunctionOutputsDelivery(f"{TOY}.scale", 9), ModuleOutputsDelivery("", 9)]
    made += [MethodOutputsDelivery(f"{TOY}.{path}", 9) for path in METHODS]
    for number, one in enumerate(made):
        one.initialize(model)
        one.data_queue.extend(range(100 * number, 100 * number + 5))
    return made


def calls(model: nn.Module) -> list[Any]:
    toy = SubToy()
    results = [toy_module.scale(3, shift=1), model(4), toy.double(5, factor=3), Toy().double(6), toy.twice(2)]
    return [*results, toy.static(7), Toy.static(8), toy.named(9), Toy.named(1), Toy.Inner().triple(2)]


def run(chosen: list[int], overriding: set[int]) -> tuple[list[Any], list[Any]]:
    """Enter the chosen ones in the order given; give what the calls returned and what each holds afterwards."""
    model = Scale()
    everything: list[Recorder | Delivery] = [*recorders(model), *deliveries(model)]
    before = [own(owner, name) for owner, name in TARGETS]
    for number in overriding:
        one = everything[number]
        if isinstance(one, Delivery):
            one.override_data = True
    with ExitStack() as stack:
        for number in chosen:
            stack.enter_context(everything[number])
        results = calls(model)
    assert all(own(owner, name) is was for (owner, name), was in zip(TARGETS, before, strict=True))
    assert "forward" not in vars(model)
    assert not model._forward_hooks
    return results, [list(one.data_buffer if isinstance(one, Recorder) else one.data_queue) for one in everything]


COUNT = len(recorders(Scale())) + len(deliveries(Scale()))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_order_of_entering_does_not_matter(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, COUNT - 1), unique=True))
    overriding = data.draw(st.sets(st.integers(0, COUNT - 1)))
    shuffled = data.draw(st.permutations(chosen))
    assert run(chosen, overriding) == run(list(shuffled), overriding)
