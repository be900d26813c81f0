"""Recorders: what a record is, when it is taken, and what is said when there is none."""

import copy
import pickle
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fxkd.eager import (
    CallInputs,
    FunctionInputsRecorder,
    FunctionOutputsRecorder,
    MethodInputsRecorder,
    MethodOutputsRecorder,
    ModuleInputsRecorder,
    ModuleOutputsRecorder,
    ParameterRecorder,
)
from fxkd.eager.recorder import Recorder
from fxkd.errors import PointError
from tests.eager import toy_module
from tests.eager.toy_module import Mask, Shift, SubToy, Toy, TwiceModel

TOY = "tests.eager.toy_module"


def recorded(recorder: Recorder, call: Callable[[], Any]) -> list[Any]:
    with recorder:
        call()
    return recorder.data_buffer


def on_model(recorder: Recorder, model: nn.Module, *args: Any, **kwargs: Any) -> list[Any]:
    recorder.initialize(model)
    return recorded(recorder, lambda: model(*args, **kwargs))


@pytest.mark.parametrize("source", ["conv1", "alias"])
def test_documented_module_recorder_of_a_convolution_called_twice(source: str) -> None:
    model, x = TwiceModel(), torch.randn(1, 1, 1, 1)
    r1 = ModuleOutputsRecorder(source)
    r1.initialize(model)
    with r1:
        model(x)
    assert torch.equal(r1.data_buffer[0], model.conv1(x))
    assert torch.equal(r1.data_buffer[1], model.conv1(x + 1))
    assert r1.data_buffer[0].requires_grad
    assert len(r1.data_buffer) == 2


def test_entering_begins_anew_and_leaving_keeps() -> None:
    model, recorder = nn.Identity(), ModuleOutputsRecorder("")
    recorder.initialize(model)
    recorder.initialize(model)
    assert recorded(recorder, lambda: (model(1), model(2))) == [1, 2]
    model(3)
    assert recorder.data_buffer == [1, 2]
    seen = [recorder.recording]
    with recorder:
        seen += [recorder.recording, recorder.data_buffer == []]
    assert [*seen, recorder.recording] == [False, True, True, False]
    assert not model._forward_hooks


def test_the_record_is_the_object_itself() -> None:
    value = [torch.zeros(1)]
    assert on_model(ModuleOutputsRecorder(""), nn.Identity(), value)[0] is value
    assert on_model(ModuleInputsRecorder(""), nn.Identity(), value)[0][0] is value


def test_hooks_go_away_after_a_failure() -> None:
    model, recorder = nn.Linear(2, 2), ModuleInputsRecorder("", clone=True)
    recorder.initialize(model)
    with pytest.raises(RuntimeError), recorder:
        model(torch.zeros(3))
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert recorder.data_buffer == []


def test_module_inputs() -> None:
    model, recorder = Mask(), ModuleInputsRecorder("")
    assert on_model(recorder, model, 1, 2) == [(1, 2)]
    assert type(recorder.get_record_data()) is tuple
    assert on_model(recorder, model, 1, mask=2) == [(1,)]
    assert recorder.get_record_data(data_idx=0) == 1
    assert recorder.get_record_data(data_idx="mask") == 2
    assert recorder.get_record_data().kwargs == {"mask": 2}


def test_module_inputs_of_keywords_only() -> None:
    recorder = ModuleInputsRecorder("")
    on_model(recorder, Mask(), x=1, mask=2)
    message = "the record is of a call with keywords only: use data_idx='x' or data_idx='mask'"
    with pytest.raises(PointError, match=message):
        recorder.get_record_data(data_idx=0)
    with pytest.raises(PointError, match=r"the record has 'x', 'mask'. Did you mean 'mask'"):
        recorder.get_record_data(data_idx="masks")
    on_model(recorder, Mask(), 1, mask=2)
    with pytest.raises(PointError, match="the record is 1 positional value and keywords: use 0, or data_idx='mask'"):
        recorder.get_record_data(data_idx=1)


def test_call_inputs_keep_their_keywords() -> None:
    inputs = CallInputs((1, torch.ones(1)), {"mask": torch.ones(2)})
    for same in (copy.copy(inputs), copy.deepcopy(inputs), pickle.loads(pickle.dumps(inputs))):
        assert type(same) is CallInputs
        assert torch.equal(same.kwargs["mask"], torch.ones(2))
    doubled: Any = tree_map(lambda value: value * 2, inputs)
    assert doubled[0] == 2
    assert doubled.kwargs["mask"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("args", "kwargs", "record"),
    [
        ((1,), {}, [1]),
        ((1, 2), {"shift": 3}, [1, 2, 3]),
        ((), {"shift": 3, "factor": 2, "x": 1}, [1, 2, 3]),
        ((1,), {"shift": 9, "extra": 5}, [1, 9, 5]),
        ((1,), {"extra": 5, "shift": 9}, [1, 9, 5]),
    ],
)
def test_function_inputs(args: tuple[Any, ...], kwargs: dict[str, Any], record: list[Any]) -> None:
    recorder = FunctionInputsRecorder(f"{TOY}.scale")
    assert recorded(recorder, lambda: toy_module.scale(*args, **kwargs)) == [record]


def test_function_outputs_of_builtins_and_chains() -> None:
    assert recorded(FunctionOutputsRecorder(f"{TOY}.M.sqrt"), lambda: toy_module.root(4)) == [2]
    assert recorded(FunctionInputsRecorder("torch.relu"), lambda: torch.relu(torch.ones(1))) == [[torch.ones(1)]]


def test_nested_calls_record_the_inner_one_first() -> None:
    assert recorded(FunctionOutputsRecorder(f"{TOY}.countdown"), lambda: toy_module.countdown(2)) == [0, 1, 2]
    for clone in (False, True):
        recorder = FunctionInputsRecorder(f"{TOY}.countdown", clone=clone)
        assert recorded(recorder, lambda: toy_module.countdown(2)) == [[0], [1], [2]]


def test_a_call_that_fails_records_nothing() -> None:
    recorder = FunctionInputsRecorder(f"{TOY}.fail")
    with recorder, pytest.raises(RuntimeError):
        toy_module.fail()
    assert recorder.data_buffer == []


@pytest.mark.parametrize(
    ("name", "call", "inputs", "output"),
    [
        ("Toy.double", lambda: Toy().double(4), [4], 8),
        ("Toy.double", lambda: SubToy().double(x=4, factor=3), [4, 3], 12),
        ("Toy.twice", lambda: Toy().twice(4), [4], 8),
        ("Toy.static", lambda: Toy().static(4), [4], 5),
        ("Toy.static", lambda: Toy.static(x=4), [4], 5),
        ("Toy.named", lambda: SubToy.named(4), [4], ("SubToy", 4)),
        ("Toy.Inner.triple", lambda: Toy.Inner().triple(4), [4], 12),
        ("SubToy.double", lambda: SubToy().double(4), [4], 8),
        ("SubToy.static", lambda: SubToy().static(4), [4], 5),
        ("SubToy.named", lambda: SubToy().named(4), [4], ("SubToy", 4)),
    ],
)
def test_methods(name: str, call: Callable[[], Any], inputs: list[Any], output: Any) -> None:
    assert recorded(MethodInputsRecorder(f"{TOY}.{name}"), call) == [inputs]
    assert recorded(MethodOutputsRecorder(f"{TOY}.{name}"), call) == [output]


def test_a_method_named_on_a_subclass_is_recorded_there_only() -> None:
    assert recorded(MethodOutputsRecorder(f"{TOY}.SubToy.double"), lambda: Toy().double(4)) == []
    assert "double" not in vars(SubToy)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.saved_tensors[0] * 2 * gradient


def test_methods_of_torch_classes() -> None:
    x = torch.full((1,), 3.0, requires_grad=True)
    applied = MethodOutputsRecorder(f"{__name__}.Square.apply")
    called, added = MethodInputsRecorder("torch.nn.ReLU.__call__"), MethodOutputsRecorder("torch.Tensor.add")
    with applied, called, added:
        nn.ReLU()(Square.apply(x)).add(1)  # type: ignore[no-untyped-call]
    assert (applied.get_record_data().item(), added.get_record_data().item()) == (9, 10)
    applied.get_record_data().backward()
    assert x.grad is not None
    assert x.grad.item() == 6
    assert called.get_record_data(data_idx=0) is applied.get_record_data()
    assert "add" not in vars(torch.Tensor)
    assert "apply" not in vars(Square)


def test_parameter() -> None:
    model = nn.Linear(2, 1)
    recorder = ParameterRecorder("weight")
    recorder.initialize(model)
    recorder.initialize(model)
    assert len(recorder.data_buffer) == 1
    assert recorder.get_record_data() is model.weight
    with recorder:
        assert recorder.get_record_data() is model.weight
    clone = ParameterRecorder("weight", clone=True)
    clone.initialize(model)
    assert clone.get_record_data() is not model.weight
    clone.get_record_data().sum().backward()
    assert model.weight.grad is not None


@pytest.mark.parametrize("clone", [False, True])
def test_clone_of_module_inputs_is_the_value_before_the_call(clone: bool) -> None:
    recorder, x = ModuleInputsRecorder("", clone=clone), torch.zeros(1)
    on_model(recorder, Shift(), x)
    assert recorder.get_record_data(data_idx=0).item() == (0 if clone else 1)


@pytest.mark.parametrize("clone", [False, True])
def test_clone_of_function_inputs_and_outputs(clone: bool) -> None:
    x = torch.zeros(1)
    inputs = FunctionInputsRecorder(f"{TOY}.shift_in_place", clone=clone)
    outputs = FunctionOutputsRecorder(f"{TOY}.shift_in_place", clone=clone)
    with inputs, outputs:
        toy_module.shift_in_place(x)
        x.add_(1)
    assert inputs.get_record_data(data_idx=0).item() == (0 if clone else 2)
    assert outputs.get_record_data().item() == (1 if clone else 2)


def test_clone_keeps_types_and_lets_gradients_flow() -> None:
    pair = namedtuple("pair", "left right")
    x = torch.ones(1, requires_grad=True)
    value = OrderedDict(a=[x * 2, 3], b=pair(x * 3, None), c={"d": (x * 4,)})
    (record,) = on_model(ModuleOutputsRecorder("", clone=True), nn.Identity(), value)
    assert type(record) is OrderedDict
    assert type(record["b"]) is pair
    assert record["a"][1] == 3
    assert record["a"][0] is not value["a"][0]  # type: ignore[index]
    (record["a"][0] + record["b"].left + record["c"]["d"][0]).backward()
    assert x.grad is not None
    assert x.grad.item() == 9


def test_clone_of_keywords() -> None:
    recorder, mask = ModuleInputsRecorder("", clone=True), torch.ones(1)
    on_model(recorder, Mask(), 1, mask=mask)
    mask.zero_()
    assert recorder.get_record_data(data_idx="mask").item() == 1


def test_clone_of_a_transformers_output() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    value = outputs.BaseModelOutput(last_hidden_state=torch.ones(1), hidden_states=(torch.zeros(1),))
    recorder = ModuleOutputsRecorder("", clone=True)
    (record,) = on_model(recorder, nn.Identity(), value)
    assert type(record) is outputs.BaseModelOutput
    assert record.last_hidden_state is not value.last_hidden_state
    assert recorder.get_record_data(data_idx="last_hidden_state") is record.last_hidden_state
    assert recorder.get_record_data(data_idx=0) is record.last_hidden_state
    with pytest.raises(PointError, match=r"the record has 'last_hidden_state', 'hidden_states'"):
        recorder.get_record_data(data_idx=2)


def with_record(value: Any) -> Recorder:
    recorder = ModuleOutputsRecorder("")
    on_model(recorder, nn.Identity(), value)
    recorder.name = "feat"
    return recorder


@pytest.mark.parametrize(
    ("value", "data_idx", "part"),
    [
        ((1, 2), 1, 2),
        ([1, 2], -2, 1),
        ({"a": 1}, "a", 1),
        ({3: 1}, 3, 1),
    ],
)
def test_data_idx(value: Any, data_idx: int | str, part: Any) -> None:
    assert with_record(value).get_record_data(data_idx=data_idx) == part


@pytest.mark.parametrize(
    ("value", "data_idx", "message"),
    [
        ((1, 2.0), 2, r"data_idx=2, but the record is a tuple of 2 \(int, float\): use 0 to 1."),
        ([1], -2, r"data_idx=-2, but the record is a list of 1 \(int\): use 0."),
        ((), 0, r"data_idx=0, but the record is an empty tuple."),
        ((1, 2), "a", r"data_idx='a', but the record is a tuple of 2"),
        ({"left": 1}, "lift", r"the record has 'left'. Did you mean 'left'"),
        (defaultdict(list), "a", r"the record has nothing."),
        (torch.zeros(1), 0, r"the record is one Tensor: leave data_idx out."),
    ],
)
def test_data_idx_errors(value: Any, data_idx: int | str, message: str) -> None:
    with pytest.raises(PointError, match=r"recorder 'feat' \(ModuleOutputs of ''\), record 0: .*" + message):
        with_record(value).get_record_data(data_idx=data_idx)


def test_record_idx() -> None:
    model, recorder = nn.Identity(), ModuleOutputsRecorder("")
    recorder.initialize(model)
    with pytest.raises(PointError, match="there is no record: '' was not called; run the model while the recorder"):
        recorder.get_record_data()
    recorded(recorder, lambda: model(1))
    with pytest.raises(PointError, match=r"ModuleOutputs of '': record_idx=1, but there is 1 record: use 0."):
        recorder.get_record_data(1)
    recorded(recorder, lambda: (model(1), model(2)))
    assert recorder.get_record_data(-1) == 2
    with pytest.raises(PointError, match="record_idx=-3, but there are 2 records: use 0 to 1"):
        recorder.get_record_data(-3)


def test_errors_of_use() -> None:
    for uninitialised in (ModuleOutputsRecorder("fc"), ModuleInputsRecorder("fc"), ParameterRecorder("fc")):
        with pytest.raises(PointError, match=r"'fc' does not know its model: call initialize\(model\) before"):
            uninitialised.__enter__()
        assert not uninitialised.recording
        with pytest.raises(PointError, match=r"an nn.Module, not a NoneType"):
            uninitialised.initialize()
    recorder = FunctionOutputsRecorder("math.sqrt")
    with recorder, pytest.raises(PointError, match=r"'math.sqrt' is recording already"):
        recorder.__enter__()
    with pytest.raises(PointError, match="at least one dot"):
        FunctionInputsRecorder("sqrt")
    with pytest.raises(PointError, match="at least two dots"):
        MethodInputsRecorder("Toy.toy_func")
    late = FunctionOutputsRecorder("math.no_such_function")
    late.data_buffer = [1]
    with pytest.raises(PointError, match="'math' has no 'no_such_function'"):
        late.__enter__()
    assert late.data_buffer == [1]


def test_copies_and_pickles_hold_no_records() -> None:
    recorders: list[Recorder] = [
        FunctionOutputsRecorder(f"{TOY}.toy_func"),
        MethodInputsRecorder(f"{TOY}.Toy.toy_func"),
        ModuleOutputsRecorder("conv1"),
        ParameterRecorder("conv1.weight", clone=True),
    ]
    model = TwiceModel()
    for recorder in recorders:
        on_model(recorder, model, torch.ones(1, 1, 1, 1))
        same_model, same = copy.deepcopy((model, recorder))
        assert same.data_buffer == []
        for again in (same, pickle.loads(pickle.dumps(same))):
            assert again.source == recorder.source
            recorded(again, lambda: None)
        if isinstance(recorder, ModuleOutputsRecorder):
            assert len(recorded(same, lambda one=same_model: one(torch.ones(1, 1, 1, 1)))) == 2  # type: ignore[misc]


def test_threads_share_a_function() -> None:
    before, ready, counts = toy_module.toy_func, Barrier(4), []

    def record() -> None:
        ready.wait()
        for _ in range(100):
            recorder = FunctionOutputsRecorder(f"{TOY}.toy_func")
            with recorder:
                toy_module.toy_func()
            counts.append(len(recorder.data_buffer))

    threads = [Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert toy_module.toy_func is before
    assert len(counts) == 400
    assert min(counts) >= 1


def test_a_patch_of_someone_else_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    before, outer, inner = toy_module.toy_func, *(FunctionOutputsRecorder(f"{TOY}.toy_func") for _ in range(2))
    with inner:
        with monkeypatch.context() as patch:
            patch.setattr(toy_module, "toy_func", lambda: -1)
            with outer:
                toy_module.toy_func()
        assert outer.data_buffer == [-1]
        toy_module.toy_func()
    assert len(inner.data_buffer) == 1
    assert toy_module.toy_func is before


def test_a_tensor_is_not_compared() -> None:
    """Recorders of equal tensors do not mix when one leaves."""
    first, second = (FunctionOutputsRecorder(f"{TOY}.shift_in_place") for _ in range(2))
    x: Tensor = torch.zeros(2)
    with first:
        with second:
            toy_module.shift_in_place(x)
        toy_module.shift_in_place(x)
    assert (len(first.data_buffer), len(second.data_buffer)) == (2, 1)
