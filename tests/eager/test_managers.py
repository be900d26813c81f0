"""Managers: the documented examples, configs, and all problems in one error."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from fxkd.eager import DistillDeliveryManager, FunctionOutputsRecorder, RecorderManager
from fxkd.errors import PointError, SpecError
from tests.eager import toy_module
from tests.eager.toy_module import BatchMixup, Toy, ToyModel

TOY = "tests.eager.toy_module"


def test_documented_manager_of_modules_and_a_method() -> None:
    manager = RecorderManager(
        {
            "conv1_rec": {"type": "ModuleOutputs", "source": "conv1"},
            "conv2_rec": {"type": "ModuleOutputs", "source": "conv2"},
            "func_rec": {"type": "MethodOutputs", "source": f"{TOY}.Toy.toy_func"},
        }
    )
    model = ToyModel()
    manager.initialize(model)
    x = torch.rand(1, 1, 1, 1)
    with manager:
        out = model(x)

    conv2_out = manager.get_recorder("conv2_rec").get_record_data()
    func_out = manager.get_recorder("func_rec").get_record_data()
    assert torch.equal(conv2_out, model.conv2(model.conv1(x)))
    assert torch.equal(out, conv2_out + func_out)
    assert 0 <= func_out <= 1000000


@pytest.mark.parametrize("as_list", [False, True])
def test_documented_manager_of_deliveries(as_list: bool) -> None:
    config = {"type": "MethodOutputs", "max_keep_data": 1, "method_path": f"{TOY}.BatchMixup.__call__"}
    manager = DistillDeliveryManager([config] if as_list else {"mixup": config})
    assert list(manager.deliveries) == ["0" if as_list else "mixup"]
    augments, images, labels = BatchMixup(), torch.randn(8, 3, 4, 4), torch.randn(8)

    manager.override_data = False
    with manager:
        images_teacher, labels_teacher = augments(images, labels)

    manager.override_data = True
    assert manager.override_data
    with manager:
        images_student, labels_student = augments(images, labels)

    assert torch.equal(labels_teacher, labels_student)
    assert torch.equal(images_teacher, images_student)


def test_a_list_of_recorders_is_named_by_position() -> None:
    manager = RecorderManager([{"type": "Parameter", "source": "weight"}, {"type": "ModuleInputs", "source": ""}])
    assert list(manager.recorders) == ["0", "1"]
    assert manager.get_recorder("1").name == "1"


def test_nothing_to_manage() -> None:
    for manager in (RecorderManager(), RecorderManager({}), DistillDeliveryManager(), DistillDeliveryManager([])):
        manager.initialize(nn.Identity())
        with manager:
            pass


def test_inputs_and_outputs_of_one_function_and_one_method_record_and_restore() -> None:
    function, method = toy_module.scale, Toy.double
    manager = RecorderManager(
        {
            "f_in": {"type": "FunctionInputs", "source": f"{TOY}.scale"},
            "f_out": {"type": "FunctionOutputs", "source": f"{TOY}.scale", "clone": True},
            "m_in": {"type": "MethodInputs", "source": f"{TOY}.Toy.double"},
            "m_out": {"type": "MethodOutputs", "source": f"{TOY}.Toy.double"},
        }
    )
    with manager:
        toy_module.scale(1)
        Toy().double(3)
    assert [one.data_buffer for one in manager.recorders.values()] == [[[1]], [2], [[3]], [6]]
    assert toy_module.scale is function
    assert Toy.double is method


def test_a_failure_while_entering_undoes_what_was_entered() -> None:
    before = toy_module.toy_func
    manager = RecorderManager(
        {
            "first": {"type": "FunctionOutputs", "source": f"{TOY}.toy_func"},
            "second": {"type": "FunctionOutputs", "source": f"{TOY}.no_such_function"},
        }
    )
    with pytest.raises(PointError, match="has no 'no_such_function'"):
        manager.__enter__()
    assert toy_module.toy_func is before
    assert not manager.get_recorder("first").recording


def test_a_failure_inside_restores() -> None:
    before = toy_module.toy_func
    with pytest.raises(KeyError), RecorderManager([{"type": "FunctionOutputs", "source": f"{TOY}.toy_func"}]):
        raise KeyError
    assert toy_module.toy_func is before


def test_get_recorder() -> None:
    manager = RecorderManager({"feat": {"type": "Parameter", "source": "weight"}}, where="student_recorders")
    with pytest.raises(
        PointError, match=r"student_recorders: no recorder 'feet', there are 'feat'. Did you mean 'feat'"
    ):
        manager.get_recorder("feet")
    with pytest.raises(PointError, match="no recorder 'feat', there are none"):
        RecorderManager().get_recorder("feat")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"type": "ModuleOutput", "source": "fc"},
            "recorders.feat.type: no type 'ModuleOutput', .*Did you mean 'Modul",
        ),
        ({"source": "fc"}, "recorders.feat: expected a dict with 'type', one of 'ModuleOutputs'"),
        ("fc", "recorders.feat: expected a dict with 'type', .*got 'fc'"),
        ({"type": "Parameter"}, "recorders.feat: needs 'source'."),
        (
            {"type": "Parameter", "sources": "fc"},
            "recorders.feat.sources: unknown key, there are 'source', 'clone'. Did you mean 'source'",
        ),
        ({"type": "MethodOutputs", "source": "a.b"}, "recorders.feat: 'a.b' is not a path .*two dots"),
        ({"type": ["a"], "source": "a.b"}, "recorders.feat.type: no type"),
    ],
)
def test_config_errors(config: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        RecorderManager({"feat": config})


def test_all_problems_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        DistillDeliveryManager(
            {
                "a": {"type": "Parameter", "func_path": "a.b", "max_keep_data": 1},
                "b": {"type": "FunctionOutputs", "func_path": "a.b"},
                "c": {"type": "FunctionOutputs", "func_path": "a", "max_keep_data": 1, "_scope_": "mmrazor"},
            }
        )
    places = [problem.split(": ")[0] for problem in caught.value.problems]
    assert places == ["distill_deliveries.a.type", "distill_deliveries.b", "distill_deliveries.c"]
    with pytest.raises(SpecError, match="recorders: expected a mapping of names to configs, got 'fc'"):
        RecorderManager("fc")  # type: ignore[arg-type]


def test_all_missing_modules_come_at_once() -> None:
    manager = RecorderManager(
        {"a": {"type": "ModuleOutputs", "source": "cnv1"}, "b": {"type": "Parameter", "source": "conv2.wight"}}
    )
    with pytest.raises(PointError) as caught:
        manager.initialize(ToyModel())
    first, second = str(caught.value).splitlines()
    assert first.startswith("recorders.a.source: no module 'cnv1' in ToyModel")
    assert second.endswith("'conv2' (Conv2d) has 'weight', 'bias'. Did you mean 'conv2.weight'?")


def test_module_deliveries_are_managed() -> None:
    teacher, student = nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity())
    manager = DistillDeliveryManager([{"type": "ModuleOutputs", "source": "0", "max_keep_data": 1}])
    manager.initialize(teacher)
    with manager:
        teacher(1)
    manager.override_data = True
    manager.initialize(student)
    with manager:
        assert student(2) == 1
    with pytest.raises(PointError, match=r"distill_deliveries.0.source: no module '0' in Identity"):
        manager.initialize(nn.Identity())


def test_copies_and_pickles() -> None:
    model = ToyModel()
    manager = RecorderManager([{"type": "ModuleOutputs", "source": "conv1"}])
    deliveries = DistillDeliveryManager(
        [{"type": "MethodOutputs", "method_path": f"{TOY}.Toy.toy_func", "max_keep_data": 1}]
    )
    manager.initialize(model)
    with manager, deliveries:
        model(torch.ones(1, 1, 1, 1))
    for same_model, same, others in (
        copy.deepcopy((model, manager, deliveries)),
        pickle.loads(pickle.dumps((model, manager, deliveries))),
    ):
        with same, others:
            same_model(torch.ones(1, 1, 1, 1))
        assert len(same.get_recorder("0").data_buffer) == 1


def test_a_manager_beside_a_recorder_of_the_same_function() -> None:
    manager, recorder = RecorderManager([{"type": "FunctionOutputs", "source": f"{TOY}.scale"}]), None
    with manager:
        recorder = FunctionOutputsRecorder(f"{TOY}.scale")
        with recorder:
            toy_module.scale(1)
        toy_module.scale(2)
        with pytest.raises(PointError, match=r"recorder '0' .*is recording already"):
            manager.__enter__()
    assert recorder.data_buffer == [2]
    assert manager.get_recorder("0").data_buffer == [2, 4]
