"""Deliveries: the documented examples, the queue, and what is said when it is full or empty."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from fxkd.eager import (
    FunctionOutputsDelivery,
    MethodInputsRecorder,
    MethodOutputsDelivery,
    MethodOutputsRecorder,
    ModuleInputsRecorder,
    ModuleOutputsDelivery,
    ModuleOutputsRecorder,
)
from fxkd.errors import PointError, SpecError
from fxkd.patcher import own
from tests.eager import toy_module
from tests.eager.toy_module import BatchMixup, SubToy, Toy

TOY = "tests.eager.toy_module"


def test_documented_case_1_one_output() -> None:
    delivery = FunctionOutputsDelivery(max_keep_data=1, func_path=f"{TOY}.toy_func")

    delivery.override_data = False
    with delivery:
        output_teacher = toy_module.toy_func()

    delivery.override_data = True
    with delivery:
        output_student = toy_module.toy_func()

    assert output_teacher == output_student


def test_documented_case_2_several_outputs_first_in_first_out() -> None:
    delivery = FunctionOutputsDelivery(max_keep_data=2, func_path=f"{TOY}.toy_func")

    delivery.override_data = False
    with delivery:
        output1_teacher = toy_module.toy_func()
        output2_teacher = toy_module.toy_func()

    delivery.override_data = True
    with delivery:
        output1_student = toy_module.toy_func()
        output2_student = toy_module.toy_func()

    assert output1_teacher == output1_student
    assert output2_teacher == output2_student


def test_documented_mixup_is_aligned() -> None:
    augments = BatchMixup()
    images, labels = torch.randn(8, 3, 4, 4), torch.randn(8)
    delivery = MethodOutputsDelivery(max_keep_data=1, method_path=f"{TOY}.BatchMixup.__call__")

    delivery.override_data = False
    with delivery:
        images_teacher, labels_teacher = augments(images, labels)

    delivery.override_data = True
    with delivery:
        images_student, labels_student = augments(images, labels)

    assert torch.equal(labels_teacher, labels_student)
    assert torch.equal(images_teacher, images_student)
    assert not torch.equal(augments(images, labels)[0], images_teacher)


def test_the_original_is_not_called_while_overriding() -> None:
    delivery = FunctionOutputsDelivery(f"{TOY}.count", 1)
    values: list[int] = []
    with delivery:
        toy_module.count(values)
    delivery.override_data = True
    with delivery:
        assert toy_module.count(values) == 1
    assert values == [0]


def test_the_queue_outlives_the_context() -> None:
    delivery = FunctionOutputsDelivery(f"{TOY}.scale", 3)
    with delivery:
        toy_module.scale(1)
    with delivery:
        toy_module.scale(2)
    delivery.override_data = True
    with delivery:
        assert toy_module.scale(9) == 2
    with delivery:
        assert toy_module.scale(9) == 4


def test_full_and_empty() -> None:
    delivery = FunctionOutputsDelivery(f"{TOY}.count", 1)
    values: list[int] = []
    with delivery:
        toy_module.count(values)
        with pytest.raises(
            PointError, match=r"push into a full queue, .*max_keep_data=1 times .*raise it, or set over"
        ):
            toy_module.count(values)
    assert values == [0], "refused before it is called"
    delivery.override_data = True
    with delivery:
        toy_module.count(values)
        with pytest.raises(PointError, match=r"pop from an empty queue, .*first run the model that gives them"):
            toy_module.count(values)


def test_full_in_a_nested_call() -> None:
    delivery = FunctionOutputsDelivery(f"{TOY}.countdown", 1)
    with delivery, pytest.raises(PointError, match="push into a full queue"):
        toy_module.countdown(1)


@pytest.mark.parametrize("path", ["Toy.static", "Toy.named", "SubToy.static", "SubToy.named", "SubToy.double"])
def test_static_class_and_inherited_methods(path: str) -> None:
    name = path.split(".")[1]
    delivery = MethodOutputsDelivery(f"{TOY}.{path}", 1)
    with delivery:
        teacher = getattr(SubToy(), name)(1)
    delivery.override_data = True
    with delivery:
        assert getattr(SubToy(), name)(2) == teacher
    assert getattr(SubToy(), name)(2) != teacher


def test_recorders_of_a_delivered_method_see_what_was_delivered() -> None:
    delivery = MethodOutputsDelivery(f"{TOY}.Toy.double", 1)
    outputs, inputs = MethodOutputsRecorder(f"{TOY}.Toy.double"), MethodInputsRecorder(f"{TOY}.Toy.double")
    with outputs, delivery, inputs:
        Toy().double(4)
    delivery.override_data = True
    with outputs, delivery, inputs:
        Toy().double(5)
    assert outputs.data_buffer == [8]
    assert inputs.data_buffer == [[5]]


def test_two_deliveries_of_one_function_stay_in_step() -> None:
    first, second = FunctionOutputsDelivery(f"{TOY}.scale", 1), FunctionOutputsDelivery(f"{TOY}.scale", 1)
    for _ in range(2):
        first.override_data = second.override_data = False
        with first, second:
            toy_module.scale(1)
        first.override_data = second.override_data = True
        with first, second:
            assert toy_module.scale(5) == 2
    first.override_data = False
    second.push(7)
    with first, second:
        assert toy_module.scale(5) == 7
    assert list(first.data_queue) == [7]


class Tripled(nn.Module):
    def forward(self, x: float) -> float:
        return x * 3


def test_module_delivery() -> None:
    teacher, student = nn.Sequential(Tripled(), nn.Identity()), nn.Sequential(Tripled(), nn.Identity())
    delivery = ModuleOutputsDelivery("0", max_keep_data=1)
    outputs, inputs = ModuleOutputsRecorder("0"), ModuleInputsRecorder("0")
    delivery.initialize(teacher)
    delivery.initialize(teacher)
    with delivery:
        assert teacher(2) == 6
        assert own(student[0], "forward") is not own(teacher[0], "forward")
    delivery.override_data = True
    for one in (delivery, outputs, inputs):
        one.initialize(student)
    with outputs, delivery, inputs:
        assert student(5) == 6
    assert (outputs.data_buffer, inputs.data_buffer) == ([6], [(5,)])
    assert "forward" not in vars(student[0])
    assert "forward" not in vars(teacher[0])


@pytest.mark.parametrize("number", [0, -1, True, 1.0, None])
def test_max_keep_data_is_checked(number: Any) -> None:
    with pytest.raises(SpecError, match=rf"max_keep_data of the delivery of 'a.b' is a number from 1, not {number}"):
        FunctionOutputsDelivery("a.b", number)


def test_errors_of_use() -> None:
    with pytest.raises(PointError, match="at least one dot"):
        FunctionOutputsDelivery("toy_func", 1)
    with pytest.raises(PointError, match="at least two dots"):
        MethodOutputsDelivery("Toy.toy_func", 1)
    delivery = ModuleOutputsDelivery("fc", 1)
    with pytest.raises(PointError, match=r"delivery ModuleOutputs of 'fc' does not know its model: call initialize"):
        delivery.__enter__()
    with pytest.raises(PointError, match="no module 'fc' in Identity"):
        delivery.initialize(nn.Identity())
    twice = FunctionOutputsDelivery("math.sqrt", 1)
    with twice, pytest.raises(PointError, match="is entered already"):
        twice.__enter__()


def test_copies_and_pickles_begin_empty() -> None:
    delivery = MethodOutputsDelivery(f"{TOY}.Toy.toy_func", 1)
    with delivery:
        Toy().toy_func()
    for same in (copy.deepcopy(delivery), pickle.loads(pickle.dumps(delivery))):
        assert len(same.data_queue) == 0
        with same:
            Toy().toy_func()
        assert len(same.data_queue) == 1
