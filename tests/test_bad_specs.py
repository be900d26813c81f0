"""Bad specs and bad inputs, each with the one clear error that it gives, without a way through torch's insides."""

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError, FxkdError, PointError, SpecError

HERE = __name__
BOTH = ("graph", "eager")


class Net(nn.Module):
    """A small network with a buffer, a tuple inside, and a decision on what it is given."""

    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.fc = nn.Linear(width, classes)
        self.spare = nn.Linear(width, classes)
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        feature = self.norm(self.conv(image))
        sequence, _ = self.lstm(feature.flatten(2).transpose(1, 2))
        return self.fc(sequence.mean(1) * scale)  # type: ignore[no-any-return]


class Branching(Net):
    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(image * 2 if image.sum() > 0 else image)


class Broken(Net):
    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(image + self.nothing)


class Twice(Net):
    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        feature = self.norm(self.norm(self.conv(image)))
        return self.fc(feature.mean((2, 3)))  # type: ignore[no-any-return]


class Sharp(Net):
    def forward(self, image: Tensor, scale: float = 1.0, sharpness: float = 1.0) -> Tensor:
        return super().forward(image * sharpness)


class Sample:
    """An input that holds a tensor, which torch knows nothing of."""

    def __init__(self) -> None:
        self.image = images()


class OfSample(Net):
    def forward(self, sample: Sample) -> Tensor:  # type: ignore[override]
        return super().forward(sample.image)


class Keywords(Net):
    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        return self.fc(input=self.conv(image).mean((2, 3)))  # type: ignore[no-any-return]


class Split(nn.Module):
    """A connector that gives three values."""

    def forward(self, feature: Tensor) -> tuple[Tensor, ...]:
        return feature.unbind(1)


class Text(nn.Module):
    """A loss that gives no tensor."""

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Any:
        return "large"


class Nothing(nn.Module):
    def forward(self, preds_S: Tensor, preds_T: Tensor) -> None:
        return None


def helper(x: Tensor) -> Tensor:
    return x


def images(n: int = 2) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(n))


def six(**sections: Any) -> dict[str, Any]:
    """Write the six keys out for one loss on the last layer; ``sections`` take the place of some."""
    return {
        "student_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
        "teacher_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
        "distill_losses": {"loss": {"type": "KLDivergence"}},
        "loss_forward_mappings": {"loss": {"preds_S": student(), "preds_T": teacher()}},
    } | sections


def student(**more: Any) -> dict[str, Any]:
    return {"from_student": True, "recorder": "fc"} | more


def teacher(**more: Any) -> dict[str, Any]:
    return {"from_student": False, "recorder": "fc"} | more


def mapped(**arguments: Any) -> dict[str, Any]:
    return six(loss_forward_mappings={"loss": {"preds_S": student(), "preds_T": teacher()} | arguments})


def pair(**more: Any) -> dict[str, Any]:
    return {"pairs": [{"student": "fc", "teacher": "fc", "loss": {"type": "L2Loss"}} | more]}


def own(**more: Any) -> dict[str, Any]:
    loss = {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}}
    return six(student_loss=loss | more, inputs=["labels"])


@dataclass(frozen=True)
class Bad:
    """One mistake: what is prepared and called, and what is said.

    Args:
        says: A regular expression that the whole message matches from its beginning.
        spec: The spec, or what stands in its place.
        call: Positional arguments of the first call, or none where ``prepare`` already refuses.
        keywords: Its keyword arguments.
        options: Further arguments of ``prepare``; ``student`` and ``teacher`` too.
        error: The class of the error.
        backends: Which ones say it.
    """

    says: str
    spec: Any = None
    call: Callable[[], tuple[Any, ...]] | None = None
    keywords: Callable[[], dict[str, Any]] = dict
    options: Callable[[], dict[str, Any]] = dict
    error: type[FxkdError] = SpecError
    backends: tuple[str, ...] = BOTH


def one() -> tuple[Any, ...]:
    return (images(),)


def example() -> dict[str, Any]:
    return {"example_inputs": images()}


def same() -> dict[str, Any]:
    model = Net()
    return {"student": model, "teacher": model}


def function(path: str, kind: str = "FunctionOutputs") -> dict[str, Any]:
    return six(student_recorders={"fc": {"type": kind, "source": path}})


def delivered(**entry: Any) -> dict[str, Any]:
    return six(distill_deliveries={"d": entry})


def endless() -> dict[str, Any]:
    spec = six()
    spec["distill_losses"]["loss"]["more"] = spec
    return spec


GRAPH, EAGER = ("graph",), ("eager",)
SEQUENCE = {"type": "ModuleOutputs", "source": "lstm", "data_idx": 0}
KEYWORDS = {"type": "ModuleInputs", "source": "fc"}
IMAG = six(
    distill_losses={"loss": nn.MSELoss()},
    loss_forward_mappings={"loss": {"input": student(), "target": {"from_input": "imag"}}},
    teacher_recorders={},
)
BAD = {
    # Keys and names
    "unknown key": Bad(
        r"distil_loses: unknown key; there is 'student_.* Did you mean 'distill_losses'",
        six(distil_loses={}),
    ),
    "unknown key of a recorder": Bad(
        r"student_recorders\.fc\.sorce: unknown key; there is 'type', 'source'\. Did you mean 'source'\?$",
        six(student_recorders={"fc": {"type": "ModuleOutputs", "sorce": "fc"}}),
    ),
    "misspelt type of a recorder": Bad(
        r"student_recorders\.fc\.type: no recorder is of type 'ModuleOutput'; .* Did you mean 'ModuleOutputs'",
        six(student_recorders={"fc": {"type": "ModuleOutput", "source": "fc"}}),
    ),
    "misspelt type of a loss": Bad(
        r"distill_losses\.loss: no loss is called 'KLDivergense'\. Did you mean 'KLDivergence'",
        six(distill_losses={"loss": {"type": "KLDivergense"}}),
    ),
    "type that is no text": Bad(
        r"distill_losses\.loss: a loss is built from \{'type': name, .*\}, not from \{'type': \['KL'\]\}",
        six(distill_losses={"loss": {"type": ["KL"]}}),
    ),
    "wrong argument for a loss": Bad(
        r"distill_losses\.loss: KLDivergence: got an unexpected keyword argument 'temperature'; it takes \(tau: ",
        six(distill_losses={"loss": {"type": "KLDivergence", "temperature": 4}}),
    ),
    "temperature of zero": Bad(
        r"distill_losses\.loss: KLDivergence: tau is 0; a temperature must be above 0",
        six(distill_losses={"loss": {"type": "KLDivergence", "tau": 0}}),
    ),
    "weight given as text": Bad(
        r"distill_losses\.loss: KLDivergence: loss_weight is '1e-3'; it must be a number\. YAML reads 1e-3 as text",
        six(distill_losses={"loss": {"type": "KLDivergence", "loss_weight": "1e-3"}}),
    ),
    "missing mapping": Bad(
        r"distill_losses\.loss: has no entry in loss_forward_mappings, so it is never computed$",
        six(loss_forward_mappings={}),
    ),
    "mapping of an argument that the loss does not take": Bad(
        r"loss_forward_mappings\.loss\.pred: the loss takes 'preds_S', 'preds_T'\. Did you mean 'preds_",
        mapped(pred=student()),
    ),
    "missing argument of a loss": Bad(
        r"loss_forward_mappings\.loss: the argument 'preds_T' of the loss is not mapped$",
        six(loss_forward_mappings={"loss": {"preds_S": student()}}),
    ),
    "undefined connector": Bad(
        r"loss_forward_mappings\.loss\.preds_S\.connector: 'wide' is not in connectors, which has nothing\.$",
        mapped(preds_S=student(connector="wide")),
    ),
    "connector of a wrong type": Bad(
        r"connectors\.wide: no connector is called 'KLDivergence'\.$",
        six(connectors={"wide": {"type": "KLDivergence"}}),
    ),
    "connector that is a number": Bad(
        r"connectors\.loss_fc_student: a connector is built from .*, not from 5$", pair(student_connector=5)
    ),
    "connector with impossible sizes": Bad(
        r"connectors\.loss_fc_student: LinearConnector: in_features is -1; it must be a whole number above 0\.$",
        pair(student_connector={"type": "LinearConnector", "in_features": -1, "out_features": "x"}),
    ),
    "module of torch with impossible sizes": Bad(
        r"connectors\.loss_fc_student: Linear: TypeError as it was built: ",
        pair(student_connector={"type": "torch.nn.Linear", "in_features": 3, "out_features": "x"}),
    ),
    "module that torch does not have": Bad(
        r"connectors\.loss_fc_student: torch\.nn has no module 'Linaer'\. Did you mean 'Linear'",
        pair(student_connector={"type": "torch.nn.Linaer", "in_features": 3, "out_features": 3}),
    ),
    "undefined recorder": Bad(
        r"loss_forward_mappings\.loss\.preds_S\.recorder: 'fcc' is not in student_recorders, which has 'fc'\. "
        r"Did you mean 'fc'\?$",
        mapped(preds_S=student(recorder="fcc")),
    ),
    "recorder of the wrong side": Bad(
        r"loss_forward_mappings\.loss\.preds_T\.recorder: 'own' is not in teacher_recorders, which has 'fc'\. "
        r"'own' is in student_recorders: set 'from_student' to true\.$",
        mapped(preds_T=teacher(recorder="own"))
        | {"student_recorders": {name: {"type": "ModuleOutputs", "source": "fc"} for name in ("fc", "own")}},
    ),
    "name with a dot": Bad(
        r"connectors\.a\.b: the name becomes part of a state dict's keys: use a string without dots$",
        six(connectors={"a.b": {"type": "LinearConnector", "in_features": 3, "out_features": 3}}),
    ),
    "name that torch uses": Bad(
        r"connectors\.keys: 'keys' is what torch calls a part of every container of modules: use another name$",
        six(connectors={"keys": {"type": "LinearConnector", "in_features": 3, "out_features": 3}}),
    ),
    "name that is a number": Bad(
        r"student_recorders\.5: the name is 5; a name is a text",
        pair() | {"student_recorders": {5: {"type": "ModuleOutputs", "source": "fc"}}},
    ),
    "data_idx that is a list": Bad(
        r"loss_forward_mappings\.loss\.preds_S\.data_idx: is \[0\]; it must be a whole number or a text or nothing$",
        mapped(preds_S=student(data_idx=[0])),
    ),
    # The spec as a whole
    "spec that does not exist": Bad(r"no_such\.yaml: there is no such file", "no_such.yaml"),
    "spec that is a number": Bad(r"the spec: is a int; a spec is a mapping with 'pairs'", 5),
    "spec without anything": Bad(r"the spec: asks for nothing: there is no loss, no delivery and no recorder", {}),
    "pairs without a pair": Bad(r"the spec: asks for nothing", {"pairs": []}),
    "spec that holds itself": Bad(r"the spec: is nested without end", endless()),
    "pair without a teacher": Bad(
        r"pairs\[0\]: needs the key 'teacher'$", {"pairs": [{"student": "fc", "loss": {"type": "L2Loss"}}]}
    ),
    # Models
    "teacher that is no module": Bad(
        r"teacher: 'fc' is a int; give an nn\.Module$", options=lambda: {"teacher": {"fc": 1}}
    ),
    "class in place of a model": Bad(
        r"student: is the class Net and no object of it; give an nn\.Module$", options=lambda: {"student": Net}
    ),
    "one object as both": Bad(r"teacher: is the student itself; give another module", options=same),
    # Paths
    "module that is not there": Bad(
        r"student_recorders\.module\.fc\.source: no module 'module\.fc' in Net: it has .* Did you mean 'fc'\?$",
        pair(student="module.fc"),
    ),
    "index that is not there": Bad(
        r"teacher_recorders\.fc\.9\.source: no module 'fc\.9' in Net: 'fc' \(Linear\) has no modules",
        pair(teacher="fc.9"),
    ),
    "function that cannot be imported": Bad(
        r"student_recorders\.fc\.source: 'no_such_library\.f': 'no_such_library' cannot be imported: there is no mod",
        function("no_such_library.f"),
    ),
    "function without a module": Bad(
        r"student_recorders\.fc\.source: 'softmax' is not a path of the form 'module\.function'", function("softmax")
    ),
    "method without a class": Bad(
        rf"student_recorders\.fc\.source: '{HERE}\.helper': '{HERE}' is a module, not a class; a method path is ",
        function(f"{HERE}.helper", "MethodOutputs"),
    ),
    "parameter that is a buffer": Bad(
        r"student_recorders\.fc\.source: no parameter 'steps' in Net: .* 'steps' is a buffer, not a parameter\.$",
        function("steps", "Parameter"),
    ),
    "parameter that is a module": Bad(
        r"student_recorders\.fc\.source: no parameter 'fc' .* 'fc' is a module: record it with type 'ModuleOutputs'",
        function("fc", "Parameter"),
    ),
    "module that is a parameter": Bad(
        r"student_recorders\.fc\.source: .* 'fc\.weight' is a parameter: record it with type 'Parameter'",
        function("fc.weight", "ModuleOutputs"),
    ),
    "function that is never called": Bad(
        rf"student_recorders\.fc\.source: '{HERE}\.helper' exists, but the student does not call it in its forward, ",
        function(f"{HERE}.helper"),
        call=one,
        backends=GRAPH,
    ),
    "module that is never called": Bad(
        r"student_recorders\.spare\.source: 'spare' exists, but the student does not call it in its forward, ",
        pair(student="spare"),
        call=one,
        backends=GRAPH,
    ),
    # Deliveries
    "delivery that keeps nothing": Bad(
        r"distill_deliveries\.d\.max_keep_data: is 0; at least one value must be kept$",
        delivered(type="ModuleOutputs", source="fc", max_keep_data=0),
    ),
    "delivery that keeps less than nothing": Bad(
        r"distill_deliveries\.d\.max_keep_data: is -2; at least one value must be kept$",
        delivered(type="ModuleOutputs", source="fc", max_keep_data=-2),
    ),
    "delivery of an unknown type": Bad(
        r"distill_deliveries\.d\.type: no delivery is of type 'ModuleOutput'; .* Did you mean 'ModuleOutputs'",
        delivered(type="ModuleOutput", source="fc"),
    ),
    "delivery taken more often than given": Bad(
        r"distill_deliveries\.d: the teacher calls 'norm' once, the student 2 times: the student would wait for values",
        delivered(type="ModuleOutputs", source="norm", max_keep_data=2),
        call=one,
        options=lambda: {"student": Twice(), "teacher": Net()},
        backends=GRAPH,
    ),
    "delivery that is too short": Bad(
        r"distill_deliveries\.d\.max_keep_data: is 1, but the teacher calls 'norm' 2 times; set it to 2$",
        delivered(type="ModuleOutputs", source="norm"),
        call=one,
        options=lambda: {"student": Twice(), "teacher": Twice(4)},
        backends=GRAPH,
    ),
    # Options
    "unknown backend": Bad(r"backend: is 'hooks'; there is 'graph'.* 'eager'", options=lambda: {"backend": "hooks"}),
    "unknown type of compile": Bad(
        r"compile: is 'yes'; give 'auto', True, False or a dict", options=lambda: {"compile": "yes"}
    ),
    "unknown option of compile": Bad(
        r"compile\.mod: unknown option; torch\.compile takes .* Did you mean 'mode'",
        options=lambda: {"compile": {"mod": 1}},
    ),
    "example_inputs of a wrong type": Bad(
        r"example_inputs is a int; give a tuple of positional arguments, a dict of keyword arguments",
        options=lambda: {"example_inputs": 5},
        error=CaptureError,
    ),
    "example_inputs without an input": Bad(
        r"student: cannot be called so: missing a required argument: 'image'; Net takes \(image: ",
        options=lambda: {"example_inputs": ()},
        error=CaptureError,
        backends=GRAPH,
    ),
    # The student's own loss
    "student loss of an unknown type": Bad(
        r"student_loss\.type: torch\.nn has no loss 'CrossEntropy'\. Did you mean 'CrossEntropyLoss'",
        own(type="CrossEntropy"),
    ),
    "student loss of an unknown scope": Bad(
        r"student_loss\.scope: is 'mmcls'; there is 'torch\.nn' and 'fxkd'", own(scope="mmcls")
    ),
    "student loss of no registered name": Bad(
        r"student_loss\.type: no loss is called 'L3Loss'\. Did you mean 'L2Loss'", own(type="L3Loss", scope="fxkd")
    ),
    "argument that the student loss does not take": Bad(
        r"student_loss\.args\.inputs: the loss takes 'input', 'target'\. Did you mean 'input'",
        own(args={"inputs": "from_output", "target": {"from_input": "labels"}}),
    ),
    "argument that the student loss lacks": Bad(
        r"student_loss\.args: the argument 'target' of the loss is not given$", own(args={"input": "from_output"})
    ),
    "option that the student loss does not take": Bad(
        r"student_loss: CrossEntropyLoss: got an unexpected keyword argument 'smoothing'; it takes \(weight",
        own(smoothing=0.1),
    ),
    "weight of the student loss as text": Bad(r"student_loss\.weight: is '1'; it must be a number$", own(weight="1")),
    "student loss that is true": Bad(
        r"student_loss: is True; give 'auto', false, or a mapping with 'type' and 'args'$", six(student_loss=True)
    ),
    "labels that the call does not give": Bad(
        r"inputs: the call must give labels=<tensor>, which the losses read; it gave None$", own(), call=one
    ),
    "labels that are no tensor": Bad(
        r"inputs: the call must give labels=<tensor>, which the losses read; it gave \[1, 2\]$",
        own(),
        call=one,
        keywords=lambda: {"labels": [1, 2]},
    ),
    # Records and losses
    "record_idx out of range": Bad(
        r"loss_forward_mappings\.loss\.preds_S\.record_idx: is 1, but the student calls 'fc' once in a forward",
        mapped(preds_S=student(record_idx=1)),
        call=one,
        backends=GRAPH,
    ),
    "record_idx out of range, with hooks": Bad(
        r"recorder 'fc' \(ModuleOutputs of 'fc'\): record_idx=1, but there is 1 record",
        mapped(preds_S=student(record_idx=1)),
        call=one,
        error=PointError,
        backends=EAGER,
    ),
    "data_idx out of range, with hooks": Bad(
        r"recorder 'lstm' \(ModuleOutputs of 'lstm'\), record 0: data_idx=2, but the record is a tuple of 2 .*: use 0",
        pair(student={"type": "ModuleOutputs", "source": "lstm", "data_idx": 2}),
        call=one,
        error=PointError,
        backends=EAGER,
    ),
    "tuple given to a loss": Bad(
        r"L2Loss: s_feature is a tuple, not a tensor; pick one part of it with 'data_idx'",
        pair(student="lstm", teacher=SEQUENCE),
        call=one,
        backends=EAGER,
    ),
    "tuple given to a loss, seen at prepare": Bad(
        r"loss_forward_mappings\.loss_lstm\.s_feature: is a tuple of 2 \(a tensor \(2, 16, 4\), a tuple of 2 .*\), but "
        r"the loss takes a tensor; pick one of them: 'data_idx: 0' to 1$",
        pair(student="lstm", teacher=SEQUENCE),
        options=example,
        backends=GRAPH,
    ),
    "data_idx out of range, seen at prepare": Bad(
        r"loss_forward_mappings\.loss_lstm\.s_feature: data_idx=2, but the record is a tuple of 2 .*: use 0 to 1",
        pair(student=SEQUENCE | {"data_idx": 2}, teacher=SEQUENCE),
        options=example,
        backends=GRAPH,
    ),
    "data_idx of no keyword": Bad(
        r"loss_forward_mappings\.loss_fc\.s_feature: data_idx='inptu', but the record has 'input'\. Did you mean 'inp",
        pair(student=KEYWORDS | {"data_idx": "inptu"}, teacher=KEYWORDS | {"data_idx": "input"}),
        options=lambda: example() | {"student": Keywords(), "teacher": Keywords(5)},
        backends=GRAPH,
    ),
    "connector_idx out of range": Bad(
        r"loss_forward_mappings\.loss\.preds_S\.connector_idx: is 3, but the connector 'split' gives a tuple of 3 \(",
        mapped(preds_S=student(connector="split", connector_idx=3)) | {"connectors": {"split": Split()}},
        options=example,
        backends=GRAPH,
    ),
    "shapes of a pair that differ": Bad(
        r".*s_feature has shape \(2, 4, 4, 4\) and t_feature has shape \(2, 5, 4, 4\); they must be equal\. Put a conn",
        pair(student="conv", teacher="conv"),
        call=one,
    ),
    "shapes of a pair that differ, seen at prepare": Bad(
        r"loss_forward_mappings\.loss_conv: s_feature is a tensor \(2, 4, 4, 4\) and t_feature is a tensor "
        r"\(2, 5, 4, 4\) \(a connector can change it: 'student_connector: auto'\): L2Loss: s_feature has shape",
        pair(student="conv", teacher="conv"),
        options=example,
        backends=GRAPH,
    ),
    "auto without example inputs": Bad(
        r"connectors\.loss_conv_student: is 'auto', which is sized by the shapes in the models: give prepare exam",
        pair(student="conv", teacher="conv", student_connector="auto"),
    ),
    "auto between shapes that nothing simple joins": Bad(
        r"loss_forward_mappings\.loss_conv\.s_feature: 'auto' cannot make \(2, 3\) fit \(2, 5, 4, 4\): a vector has",
        pair(student="fc", teacher="conv", name="loss_conv", student_connector="auto"),
        options=example,
    ),
    "auto on inputs that a model does not take": Bad(
        r"student: does not run on these inputs \(args\[0\]: a tensor \(2, 3, 6, 6\) of float32\): RuntimeError at ",
        pair(student="conv", teacher="conv", student_connector="auto"),
        options=lambda: {"example_inputs": torch.rand(2, 3, 6, 6)},
        error=CaptureError,
    ),
    "labels of a wrong shape": Bad(
        r"student_loss: input is a tensor \(2, 3\) and target is a tensor \(3,\) of int64: ValueError: ",
        own(),
        options=lambda: {"example_inputs": {"image": images(), "labels": torch.zeros(3, dtype=torch.long)}},
        backends=GRAPH,
    ),
    "labels of a wrong type": Bad(
        r"student_loss: input is a tensor \(2, 3\) and target is a tensor \(2,\) of int32: RuntimeError: classes "
        r"are given as torch\.int32; give torch\.int64$",
        own(),
        options=lambda: {"example_inputs": {"image": images(), "labels": torch.zeros(2, dtype=torch.int32)}},
        backends=GRAPH,
    ),
    "connector that does not fit": Bad(
        r".*LinearConnector: feature has shape \(2, 3\); its last axis must be in_features, 9",
        pair(student_connector={"type": "LinearConnector", "in_features": 9, "out_features": 3}),
        call=one,
    ),
    "loss that gives no tensor": Bad(
        r".*gives a str; a loss gives a tensor, or a list of tensors$", six(distill_losses={"loss": Text()}), call=one
    ),
    "loss that gives nothing": Bad(
        r".*gives (a NoneType|None); a loss gives a tensor, or a list",
        six(distill_losses={"loss": Nothing()}),
        call=one,
    ),
    "argument that the call does not have": Bad(
        r"loss_forward_mappings\.loss\.target: no argument 'imag' in the call, which has 'image'\. Did you mean 'im",
        IMAG,
        call=one,
        error=PointError,
        backends=EAGER,
    ),
    "argument that the call does not have, seen at prepare": Bad(
        r"loss_forward_mappings\.loss\.target: no argument 'imag' in the call, which has 'image'\. Did you mean 'im",
        IMAG,
        options=example,
        backends=GRAPH,
    ),
    # Inputs
    "wrong type of the numbers": Bad(
        r"student: does not run on these inputs \(args\[0\]: a tensor \(2, 1, 6, 6\) of float64\): RuntimeError at "
        r".*test_bad_specs\.py:\d+ \(feature = .*\): Input type \(double\) and bias type \(float\) should be the same",
        call=lambda: (images().double(),),
        error=CaptureError,
        backends=GRAPH,
    ),
    "wrong shape": Bad(
        r"student: does not run on these inputs \(args\[0\]: a tensor \(2, 3, 6, 6\) of float32\): RuntimeError at ",
        call=lambda: (torch.rand(2, 3, 6, 6),),
        error=CaptureError,
        backends=GRAPH,
    ),
    "wrong shape, with a named function": Bad(
        r"student: does not run on these inputs \(args\[0\]: a tensor \(2, 3, 6, 6\) of float32\): RuntimeError at ",
        function("torch.nn.functional.linear"),
        call=lambda: (torch.rand(2, 3, 6, 6),),
        error=CaptureError,
        backends=GRAPH,
    ),
    "numpy array": Bad(
        r"student: does not run on these inputs \(args\[0\]: a numpy ndarray \(torch\.as_tensor makes a tensor of "
        r"it\)\): TypeError at .*conv2d\(\) received an invalid combination of arguments",
        call=lambda: (images().numpy(),),
        error=CaptureError,
        backends=GRAPH,
    ),
    "wrong name of an argument": Bad(
        r"(student|teacher): cannot be called so: no argument is called 'imge'; Net takes \(image: .* Did you mean 'im",
        call=lambda: (),
        keywords=lambda: {"imge": images()},
        error=CaptureError,
    ),
    "too many arguments": Bad(
        r"(student|teacher): cannot be called so: too many positional arguments; Net takes \(image: ",
        call=lambda: (images(), 1.0, 2.0),
        error=CaptureError,
    ),
    "no argument": Bad(
        r"(student|teacher): cannot be called so: missing a required argument: 'image'; Net takes ",
        call=lambda: (),
        error=CaptureError,
    ),
    "arguments that only the student takes": Bad(
        r"teacher: cannot be called so: no argument is called 'sharpness'; Net takes \(image: ",
        call=one,
        keywords=lambda: {"sharpness": 2.0},
        options=lambda: {"student": Sharp()},
        error=CaptureError,
    ),
    "tensor inside an unregistered object": Bad(
        r"the input at \[0\]\[0\] is a Sample, which holds the tensor 'image': its tensors would be frozen\. Register",
        call=lambda: (Sample(),),
        options=lambda: {"student": OfSample(), "teacher": OfSample(5)},
        error=CaptureError,
        backends=GRAPH,
    ),
    "branch on a value": Bad(
        r"student: the value of a tensor decides what is run at .*test_bad_specs\.py:\d+ \(.*image\.sum\(\) > 0.*eager",
        call=one,
        options=lambda: {"student": Branching()},
        error=CaptureError,
        backends=GRAPH,
    ),
    "model that does not run": Bad(
        r"student: does not run on these inputs \(.*\): AttributeError at .*'Broken' object has no attribute 'nothing'",
        call=one,
        options=lambda: {"student": Broken()},
        error=CaptureError,
        backends=GRAPH,
    ),
}


def provoke(bad: Bad, backend: str) -> FxkdError:
    options: dict[str, Any] = {"student": Net(), "teacher": Net(5), "backend": backend} | bad.options()
    spec = six() if bad.spec is None else bad.spec
    models = options.pop("student"), options.pop("teacher")
    if bad.call is None:
        with pytest.raises(FxkdError) as caught:
            fxkd.prepare(*models, spec, **options)
        return caught.value
    distiller = fxkd.prepare(*models, spec, **options)
    with pytest.raises(FxkdError) as caught:
        distiller(*bad.call(), **bad.keywords())
    return caught.value


@pytest.mark.parametrize(
    ("name", "backend"), [(name, backend) for name, bad in BAD.items() for backend in bad.backends]
)
def test_one_clear_error(name: str, backend: str) -> None:
    bad = BAD[name]
    error = provoke(bad, backend)
    assert type(error) is bad.error
    assert re.match(bad.says, str(error)), str(error)
    assert "\n" not in str(error), "one mistake is one problem"
    (*_, last) = traceback.extract_tb(error.__traceback__)
    package = Path(fxkd.__file__).parent
    assert Path(last.filename).is_relative_to(package), "raised by fxkd itself"


def test_there_are_enough() -> None:
    assert len(BAD) >= 40


FILES = {
    "two names alike": (
        "pairs:\n  - {student: fc, teacher: fc, loss: {type: L2Loss}}\npairs: []\n",
        r"spec\.yaml:3: pairs: is there twice, on line 1 and on line 3$",
    ),
    "syntax": (
        "pairs:\n  - {student: fc, teacher: fc\n",
        r"spec\.yaml:3:1: is not YAML: while parsing a flow mapping, expected ',' or '\}', but got '<stream end>'$",
    ),
    "path": (
        "pairs:\n  - student: fcc\n    teacher: fc\n    loss: {type: L2Loss}\n",
        r"spec\.yaml:2: student_recorders\.fcc\.source: no module 'fcc' in Net: .* Did you mean 'fc'\?$",
    ),
    "empty": ("", r"spec\.yaml: is empty; a spec is a mapping$"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, message = FILES[name]
    Path("spec.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        fxkd.prepare(Net(), Net(5), "spec.yaml")
    assert re.match(message, caught.value.problems[0]), str(caught.value)


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is a folder; give the YAML file"):
        fxkd.prepare(Net(), Net(5), tmp_path)


def test_all_problems_are_one_report() -> None:
    spec = six(
        student_recorders={"fc": {"type": "ModuleOutputs", "source": "fcc"}},
        distill_losses={"loss": {"type": "KLDivergense"}},
        distill_deliveries={"d": {"type": "FunctionOutputs", "func_path": "no_such_library.f"}},
        extra=1,
    )
    model = Net()
    for teacher_model, more in ((model, ["teacher"]), (Net(5), [])):
        with pytest.raises(SpecError) as caught:
            fxkd.prepare(model, teacher_model, spec, backend="hooks")  # type: ignore[arg-type]
        places = [problem.partition(": ")[0] for problem in caught.value.problems]
        both = [
            "backend",
            "distill_deliveries.d.func_path",
            "distill_losses.loss",
            "extra",
            "student_recorders.fc.source",
        ]
        assert sorted(places) == [*both, *more]


def test_a_function_that_is_no_model_and_a_bad_spec_are_one_report() -> None:
    with pytest.raises(SpecError) as caught:
        fxkd.prepare(helper, None, {"pairs": [{"student": "fc", "teacher": "fc"}]})  # type: ignore[arg-type]
    assert caught.value.problems == (
        "student: is a function; give an nn.Module",
        "pairs[0]: needs the key 'loss'",
    )


@pytest.mark.parametrize("backend", BOTH)
def test_an_argument_given_by_position_has_its_name(backend: str) -> None:
    class Mean(nn.Module):
        def forward(self, preds_S: Tensor, image: Tensor, label: Tensor) -> Tensor:
            return preds_S.mean() + image.mean() * 2 + label.mean() * 3

    class Nested(Net):
        def forward(self, batch: dict[str, Tensor], scale: float = 1.0) -> Tensor:  # type: ignore[override]
            return super().forward(batch["image"], scale)

    mapping = {"preds_S": student(), "image": {"from_input": "batch_image"}, "label": {"from_input": "label"}}
    spec = six(distill_losses={"loss": Mean()}, loss_forward_mappings={"loss": mapping}, inputs=["label"])
    spec["teacher_recorders"] = {}
    model, x, label = Nested().eval(), images(3), torch.arange(3.0)
    distiller = fxkd.prepare(model, Nested(5), spec, backend=backend)  # type: ignore[arg-type]
    loss = distiller({"image": x}, label=label).loss
    assert loss.item() == pytest.approx((model({"image": x}).mean() + x.mean() * 2 + label.mean() * 3).item())
