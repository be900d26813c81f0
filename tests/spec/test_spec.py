"""Specs: six keys from a mapping or YAML, pairs, and one clear report of everything that is wrong."""

import copy
import pickle
import re
from contextlib import suppress
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fxkd
from fxkd.errors import SpecError
from fxkd.spec import Delivery, Recorder, Reference, Spec, StudentLoss


def six() -> dict[str, Any]:
    """The example of MMRazor's documentation, with a delivery and a connector."""
    return {
        "student_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
        "teacher_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
        "distill_deliveries": {"aug": {"type": "MethodOutputs", "method_path": "a.b.Mixup.run", "max_keep_data": 2}},
        "connectors": {"wide": {"type": "LinearConnector", "in_features": 4, "out_features": 8}},
        "distill_losses": {"loss_kl": {"type": "KLDivergence", "tau": 4, "loss_weight": 1}},
        "loss_forward_mappings": {
            "loss_kl": {
                "preds_S": {"from_student": True, "recorder": "fc", "connector": "wide"},
                "preds_T": {"from_student": False, "recorder": "fc", "record_idx": 1, "data_idx": 0},
            }
        },
    }


def problems(source: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        Spec.load(source)
    return list(caught.value.problems)


def test_six_keys() -> None:
    spec = Spec.load(six())
    assert spec.student_recorders == {"fc": Recorder(type="ModuleOutputs", source="fc")}
    assert spec.distill_deliveries == {"aug": Delivery(type="MethodOutputs", path="a.b.Mixup.run", max_keep_data=2)}
    assert spec.loss_forward_mappings["loss_kl"] == {
        "preds_S": Reference(recorder="fc", from_student=True, connector="wide"),
        "preds_T": Reference(recorder="fc", from_student=False, record_idx=1, data_idx=0),
    }
    assert (spec.inputs, spec.student_loss, spec.return_output) == ((), "auto", True)
    assert spec.distill_losses["loss_kl"] == {"type": "KLDivergence", "tau": 4, "loss_weight": 1}


def test_a_yaml_file_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(six()), encoding="utf-8")
    assert Spec.load(path) == Spec.load(str(path)) == Spec.load(six())


def test_a_spec_is_a_spec() -> None:
    spec = Spec.load(six())
    assert Spec.load(spec) is spec
    assert fxkd.Spec is Spec


def test_nothing_is_changed_by_reading() -> None:
    given = six() | {
        "pairs": [
            {
                "student": "a",
                "teacher": "b",
                "loss": {"type": "L2Loss"},
                "student_connector": {"type": "LinearConnector", "in_features": 1, "out_features": 1},
            }
        ]
    }
    before = pickle.dumps(given)
    Spec.load(given)
    assert pickle.dumps(given) == before


def test_a_spec_is_frozen_and_can_be_pickled() -> None:
    spec = Spec.load(six())
    with pytest.raises(FrozenInstanceError):
        spec.return_output = False  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_nothing_that_happens_to_the_dict_later_changes_a_spec() -> None:
    given = six() | {"student_loss": {"type": "MSELoss", "args": {"input": "from_output", "target": "from_output"}}}
    spec, same = Spec.load(given), Spec.load(given)
    given["distill_losses"]["loss_kl"]["tau"] = 9
    given["student_recorders"].clear()
    given["loss_forward_mappings"]["loss_kl"]["preds_S"]["recorder"] = "other"
    given["student_loss"]["args"]["input"] = 3
    assert spec == same
    assert spec.distill_losses["loss_kl"]["tau"] == 4  # type: ignore[call-overload, index]


def test_what_a_spec_holds_cannot_be_changed() -> None:
    spec = Spec.load(six())
    for held in (spec, copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        for mapping in (held.distill_losses, held.distill_losses["loss_kl"], held.loss_forward_mappings["loss_kl"]):
            for change in (
                lambda: mapping.update(x=1),  # type: ignore[union-attr]  # noqa: B023
                lambda: mapping.__setitem__("x", 1),  # type: ignore[union-attr]  # noqa: B023
                lambda: mapping.clear(),  # type: ignore[union-attr]  # noqa: B023
                lambda: mapping.pop("tau"),  # type: ignore[union-attr]  # noqa: B023
            ):
                with pytest.raises(TypeError, match="a spec does not change"):
                    change()
    assert spec == Spec.load(six())


def test_a_dict_made_of_a_part_is_free() -> None:
    spec = Spec.load(six())
    free = dict(spec.distill_losses["loss_kl"]) | {"tau": 1}  # type: ignore[arg-type]
    assert free["tau"] == 1
    assert spec.distill_losses["loss_kl"].copy() == {"type": "KLDivergence", "tau": 4, "loss_weight": 1}  # type: ignore[union-attr]


def test_the_wrapper_is_taken_off() -> None:
    assert Spec.load({"type": "ConfigurableDistiller", **six()}) == Spec.load(six())
    assert problems({"type": "OtherDistiller", **six()})[0].startswith("type: unknown key")


def test_from_recorder_is_an_alias() -> None:
    given = six()
    mapping = given["loss_forward_mappings"]["loss_kl"]["preds_S"]
    mapping["from_recorder"] = mapping.pop("recorder")
    assert Spec.load(given) == Spec.load(six())


def test_all_keys_may_be_missing_or_empty() -> None:
    assert Spec.load({}) == Spec.load(dict.fromkeys(six())) == Spec()


def test_options() -> None:
    own = {
        "type": "CrossEntropyLoss",
        "args": {"input": "from_output", "target": {"from_input": "y"}},
        "label_smoothing": 0.1,
    }
    spec = Spec.load({"inputs": ["y"], "student_loss": own, "return_output": False})
    assert spec.inputs == ("y",)
    assert spec.return_output is False
    assert spec.student_loss == StudentLoss(
        type="CrossEntropyLoss",
        args={"input": "from_output", "target": {"from_input": "y"}},
        options={"label_smoothing": 0.1},
    )
    assert Spec.load({"student_loss": False}).student_loss is False
    assert Spec.load({"student_loss": "auto"}).student_loss == "auto"


def test_modules_and_chains_as_connectors_and_losses() -> None:
    linear = {"type": "LinearConnector", "in_features": 4, "out_features": 4}
    made = nn.Linear(4, 4)
    given = six() | {"connectors": {"wide": [linear, linear], "own": made}}
    given["distill_losses"] = {"loss_kl": nn.KLDivLoss()}
    given["loss_forward_mappings"] = {
        "loss_kl": {
            "input": {"from_student": True, "recorder": "fc", "connector": "own"},
            "target": {"from_student": False, "recorder": "fc"},
        }
    }
    spec = Spec.load(given)
    assert spec.connectors["own"] is made


# Pairs

L2 = {"type": "L2Loss"}


def test_a_pair_is_written_out() -> None:
    spec = Spec.load({"pairs": [{"student": "layer2", "teacher": "layer3", "loss": L2}]})
    assert spec == Spec.load(
        {
            "student_recorders": {"layer2": {"type": "ModuleOutputs", "source": "layer2"}},
            "teacher_recorders": {"layer3": {"type": "ModuleOutputs", "source": "layer3"}},
            "distill_losses": {"loss_layer2": L2},
            "loss_forward_mappings": {
                "loss_layer2": {
                    "s_feature": {"from_student": True, "recorder": "layer2"},
                    "t_feature": {"from_student": False, "recorder": "layer3"},
                }
            },
        }
    )


def test_pairs_with_everything() -> None:
    connector = {"type": "LinearConnector", "in_features": 1, "out_features": 2}
    pair = {
        "student": {"type": "ModuleInputs", "source": "a.b", "data_idx": 1, "record_idx": 2},
        "teacher": {"type": "FunctionOutputs", "source": "m.f"},
        "loss": {"type": "DKDLoss"},
        "student_connector": connector,
        "teacher_connector": [connector, connector],
        "args": {"gt_labels": {"from_input": "labels"}},
        "name": "loss_own",
    }
    spec = Spec.load({"pairs": [pair], "inputs": ["labels"]})
    assert spec.student_recorders == {"a.b": Recorder(type="ModuleInputs", source="a.b")}
    assert spec.teacher_recorders == {"m.f": Recorder(type="FunctionOutputs", source="m.f")}
    mapping = spec.loss_forward_mappings["loss_own"]
    assert mapping["preds_S"] == Reference(
        recorder="a.b", from_student=True, data_idx=1, record_idx=2, connector="loss_own_student"
    )
    assert mapping["preds_T"].connector == "loss_own_teacher"
    assert mapping["gt_labels"] == Reference(from_input="labels")
    assert spec.connectors == {"loss_own_student": connector, "loss_own_teacher": [connector, connector]}


def test_an_argument_may_be_written_short() -> None:
    pair = {"student": "fc", "teacher": "fc", "loss": {"type": "DKDLoss"}, "args": {"gt_labels": "from_input: labels"}}
    spec = Spec.load({"pairs": [pair], "inputs": ["labels"]})
    assert spec.loss_forward_mappings["loss_fc"]["gt_labels"] == Reference(from_input="labels")


def test_pairs_share_recorders_and_have_names_of_their_own() -> None:
    pair = {"student": "layer", "teacher": "layer", "loss": L2}
    spec = Spec.load({"pairs": [pair, pair, pair | {"student": ""}, pair | {"name": "x"}]})
    assert list(spec.distill_losses) == ["loss_layer", "loss_layer_2", "loss_model", "x"]
    assert list(spec.student_recorders) == ["layer", "model"]


def test_pairs_beside_the_six_keys() -> None:
    given = six()
    given["student_recorders"]["layer"] = {"type": "ModuleInputs", "source": "other"}
    spec = Spec.load(given | {"pairs": [{"student": "layer", "teacher": "fc", "loss": L2}]})
    assert list(spec.distill_losses) == ["loss_kl", "loss_layer"]
    assert list(spec.student_recorders) == ["fc", "layer", "layer_2"]  # the name was taken
    assert spec.loss_forward_mappings["loss_layer"]["s_feature"].recorder == "layer_2"
    assert spec.loss_forward_mappings["loss_layer"]["t_feature"].recorder == "fc"


# What is wrong


S, T = "preds_S: {recorder: fc, from_student: true}", "preds_T: {recorder: fc, from_student: false}"
PAIR = "student: a, teacher: a, loss: {type: L2Loss}"


def mapped(preds_s: str, preds_t: str = T) -> str:
    """Write the mapping of the loss."""
    return f"loss_forward_mappings: {{loss_kl: {{{preds_s}, {preds_t}}}}}"


def delivered(entry: str) -> str:
    """Write a delivery."""
    return f"distill_deliveries: {{aug: {{{entry}}}}}"


def pair(entry: str) -> str:
    """Write one pair."""
    return f"pairs: [{{{entry}}}]"


def own_loss(arguments: str) -> str:
    """Write a loss of the student's own."""
    return f"student_loss: {{type: CrossEntropyLoss, args: {arguments}}}"


# What is written over the good spec, as YAML -> the message, a regular expression
WRONG = {
    "distil_losses: {}": "^distil_losses: unknown key; there is 'student_recorders'.* Did you mean 'distill_losses'",
    "connectors: [1]": "^connectors: is a list; give a mapping",
    "student_recorders: {fc: fc}": "^student_recorders.fc: is 'fc'; give a mapping with the keys 'type', 'source'",
    "student_recorders: {fc: {type: ModuleOutput, source: fc}}": (
        "^student_recorders.fc.type: no recorder is of type 'ModuleOutput'.*Did you mean 'ModuleOutputs'"
    ),
    "student_recorders: {fc: {type: ModuleOutputs, source: fc, surce: x}}": (
        "^student_recorders.fc.surce: unknown key.*Did you mean 'source'"
    ),
    "teacher_recorders: {fc: {type: ModuleOutputs}}": "^teacher_recorders.fc: needs the key 'source'",
    "teacher_recorders: {fc: {type: ModuleOutputs, source: 5}}": (
        "^teacher_recorders.fc.source: is 5; it must be a text"
    ),
    delivered("type: MethodOutput"): (
        "^distill_deliveries.aug.type: no delivery is of type 'MethodOutput'.*Did you mean 'MethodOutputs'"
    ),
    delivered("type: MethodOutputs, func_path: a.b"): (
        "^distill_deliveries.aug: a delivery of type 'MethodOutputs' needs the key 'method_path'"
    ),
    delivered("type: FunctionOutputs, func_path: a.b, max_keep_data: 0"): (
        "^distill_deliveries.aug.max_keep_data: is 0; at least one"
    ),
    delivered("type: FunctionOutputs, func_path: a.b, max_keep_data: true"): (
        "^distill_deliveries.aug.max_keep_data: is True; it must be a whole number"
    ),
    "connectors: {wide: {type: LinearConector}}": (
        "^connectors.wide: no connector is called 'LinearConector'.*Did you mean 'LinearConnector'"
    ),
    "connectors: {wide: {type: LinearConnector, in_features: 1}}": (
        "^connectors.wide: LinearConnector: missing a required argument: 'out_features'"
    ),
    "connectors: {wide: [{type: LinearConector}]}": r"^connectors.wide\[0\]: no connector is called",
    "connectors: {a.b: {type: LinearConnector, in_features: 1, out_features: 1}}": (
        "^connectors.a.b: the name becomes part of a state dict's keys"
    ),
    "distill_losses: {loss_kl: {type: KLDivergance}}": (
        "^distill_losses.loss_kl: no loss is called 'KLDivergance'.*Did you mean 'KLDivergence'"
    ),
    "distill_losses: {loss_kl: 3}": "^distill_losses.loss_kl: a loss is built from .*, not from 3",
    "distill_losses: {loss_kl: {type: KLDivergence}, loss_b: {type: L2Loss}}": (
        "^distill_losses.loss_b: has no entry in loss_forward_mappings"
    ),
    "loss_forward_mappings: {loss_k: {}}": (
        "^loss_forward_mappings.loss_k: no loss of that name in distill_losses. Did you mean 'loss_kl'"
    ),
    "loss_forward_mappings: {loss_kl: 5}": "^loss_forward_mappings.loss_kl: is a int; give a mapping",
    mapped(f"{S}, pred_S: {{recorder: fc, from_student: true}}"): (
        "^loss_forward_mappings.loss_kl.pred_S: the loss takes 'preds_S', 'preds_T'. Did you mean 'preds_S'"
    ),
    mapped(S, "preds_S: {recorder: fc, from_student: true}"): (
        "^loss_forward_mappings.loss_kl: the argument 'preds_T' of the loss is not mapped"
    ),
    mapped("preds_S: {recorder: fc, from_student: true, from_input: x}"): (
        "^loss_forward_mappings.loss_kl.preds_S: needs either 'recorder'"
    ),
    mapped("preds_S: {recorder: fc}"): "^loss_forward_mappings.loss_kl.preds_S: needs the key 'from_student'",
    mapped("preds_S: {recorder: fcc, from_student: true}"): (
        "^loss_forward_mappings.loss_kl.preds_S.recorder: 'fcc' is not in student_recorders, which has 'fc'. "
        "Did you mean 'fc'"
    ),
    mapped("preds_S: {recorder: fc, from_student: true, connector: wid}"): (
        "^loss_forward_mappings.loss_kl.preds_S.connector: 'wid' is not in connectors, which has 'wide'. "
        "Did you mean 'wide'"
    ),
    mapped("preds_S: {recorder: fc, from_student: true, record_idx: '0'}"): (
        "^loss_forward_mappings.loss_kl.preds_S.record_idx: is '0'; it must be a whole number"
    ),
    "inputs: labels": "^inputs: is 'labels'; give a list of argument names",
    "inputs: 5": "^inputs: is 5; give a list of argument names",
    "return_output: 'no'": "^return_output: is 'no'",
    "student_loss: 3": "^student_loss: is 3; give 'auto', false, or a mapping",
    "student_loss: true": "^student_loss: is True; give 'auto', false, or a mapping",
    "student_loss: {type: CrossEntropyLoss}": "^student_loss: needs the key 'args'",
    own_loss("5"): "^student_loss.args: is 5",
    own_loss("{input: from_outptu}"): "^student_loss.args.input: is 'from_outptu'",
    own_loss("{input: {from_imput: y}}"): "^student_loss.args.input",
    "pairs: {a: 1}": "^pairs: is a dict; give a list of pairs",
    "pairs: [layer]": r"^pairs\[0\]: is 'layer'; give a mapping with the keys 'student'",
    pair(f"{PAIR}, student_conector: 1"): (
        r"^pairs\[0\].student_conector: unknown key.*Did you mean 'student_connector'"
    ),
    pair("student: a, loss: {type: L2Loss}"): r"^pairs\[0\]: needs the key 'teacher'",
    pair("student: a, teacher: a, loss: L2Loss"): (
        r"^pairs\[0\].loss: is 'L2Loss'; give a mapping with the key 'type'"
    ),
    pair("student: a, teacher: a, loss: {type: L3Loss}"): (
        r"^pairs\[0\].loss.type: no loss is called 'L3Loss'.*Did you mean 'L2Loss'"
    ),
    pair(f"{PAIR}, args: [1]"): r"^pairs\[0\].args: is a list",
    pair("student: {type: ModuleOutput, source: a}, teacher: a, loss: {type: L2Loss}"): (
        "no recorder is of type 'ModuleOutput'"
    ),
    pair(f"{PAIR}, name: a.b"): "^distill_losses.a.b: the name becomes part",
}


def test_what_is_no_mapping() -> None:
    assert problems(5)[0].startswith("the spec: is a int; a spec is a mapping with 'pairs'")


@pytest.mark.parametrize("change", WRONG)
def test_one_clear_message(change: str) -> None:
    found = problems(six() | yaml.safe_load(change))
    assert [problem for problem in found if re.search(WRONG[change], problem)], "\n".join(found)


@pytest.mark.parametrize(
    "change",
    [
        "student_recorders: {fc: {type: ModuleOutput, source: fc}}",  # and the mapping reads it
        "student_recorders: {fc: {type: ModuleOutputs, surce: fc}}",
        "student_recorders: [fc]",
        "loss_forward_mappings: {loss_kl: 5}",
        "loss_forward_mappings: {loss_k: {}}",
        mapped("pred_S: {recorder: fc, from_student: true}"),
        mapped("preds_S: {recorder: fc, from_student: true, record_idx: '0'}"),
        "connectors: {wide: {type: LinearConector, in_features: 4, out_features: 8}}",
        "connectors: {wide: }",
        "distill_losses: {loss_kl: {type: KLDivergence, taw: 4}}",
        pair("student: a, techer: a, loss: {type: L2Loss}"),
        delivered("type: MethodOutput"),
        "distill_losses: {loss_kl: {type: KLDivergance}}",
        mapped("preds_S: {recorder: fcc, from_student: true}"),
        pair("student: a, teacher: a, loss: {type: L3Loss}"),
    ],
)
def test_one_mistake_is_one_problem(change: str) -> None:
    found = problems(six() | yaml.safe_load(change))
    assert len(found) == 1, "\n".join(found)


def test_what_stands_under_a_misspelt_key_is_not_missing_besides() -> None:
    given = six()
    given["student_recorder"] = given.pop("student_recorders")
    given["distil_losses"] = given.pop("distill_losses")
    assert [problem.partition(":")[0] for problem in problems(given)] == ["student_recorder", "distil_losses"]


def test_a_recorder_of_the_other_side() -> None:
    given = six()
    given["student_recorders"] = {"head": given["student_recorders"]["fc"]}
    assert problems(given) == [
        "loss_forward_mappings.loss_kl.preds_S.recorder: 'fc' is not in student_recorders, which has 'head'. "
        "'fc' is in teacher_recorders: set 'from_student' to false."
    ]


def test_a_spec_made_by_hand_is_checked_too() -> None:
    spec = Spec(distill_losses={"loss": {"type": "L1Los"}})
    assert problems(spec) == [
        "distill_losses.loss: no loss is called 'L1Los'. Did you mean 'L1Loss' or 'L2Loss'?",
        "distill_losses.loss: has no entry in loss_forward_mappings, so it is never computed",
    ]


def test_several_problems_are_one_report() -> None:
    given = six() | {
        "student_recorders": {"fc": {"type": "ModuleOutput", "source": "fc"}},
        "distill_deliveries": {"aug": {"type": "MethodOutputs"}},
        "distill_losses": {"loss_kl": {"type": "KLDivergance"}},
        "extra": 1,
    }
    given["pairs"] = [{"student": "a"}]
    found = problems(given)
    for place in ("student_recorders.fc.type", "distill_deliveries.aug", "distill_losses.loss_kl", "extra", "pairs[0]"):
        assert [problem for problem in found if problem.startswith(place)], place
    with pytest.raises(SpecError, match=rf"^{len(found)} problems:\n  - "):
        Spec.load(given)


def test_a_yaml_file_runs_nothing(tmp_path: Path) -> None:
    path, marker = tmp_path / "spec.yaml", tmp_path / "ran"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{marker}']", encoding="utf-8")
    assert "is not YAML" in problems(path)[0]
    assert not marker.exists()


# Junk

KEYS = st.sampled_from(
    [
        "student_recorders", "teacher_recorders", "distill_deliveries", "connectors", "distill_losses",
        "loss_forward_mappings", "pairs", "inputs", "student_loss", "return_output", "type", "source", "func_path",
        "method_path", "max_keep_data", "recorder", "from_recorder", "from_student", "record_idx", "data_idx",
        "connector", "connector_idx", "from_input", "student", "teacher", "loss", "student_connector", "args", "name",
        "fc", "loss_kl", "preds_S", "preds_T", "path", "scope", "weight", "tau",
    ]
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.binary(max_size=2)
    | st.sampled_from(["", "fc", "auto", "ModuleOutputs", "KLDivergence", "L2Loss", "from_output", "a.b"])
)  # fmt: skip
JUNK = st.recursive(
    SCALARS | st.builds(nn.ReLU),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | SCALARS, inner, max_size=4)
        | st.tuples(inner)
        | st.sets(st.integers(0, 2), max_size=2)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(JUNK)
def test_junk_is_a_spec_or_a_spec_error(source: Any) -> None:
    if isinstance(source, str):
        return
    with suppress(SpecError):
        assert isinstance(Spec.load(source), Spec)


@settings(max_examples=250)
@given(st.data())
def test_junk_in_a_good_place_is_a_spec_error(data: st.DataObject) -> None:
    source: Any = six() | {
        "pairs": [{"student": "a", "teacher": {"type": "ModuleOutputs", "source": "b"}, "loss": L2, "args": {}}],
        "student_loss": {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "y"}}},
        "inputs": ["y"],
    }
    place = source
    while isinstance(place, (dict, list)) and place:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        if data.draw(st.booleans()) or not isinstance(place[key], (dict, list)) or not place[key]:
            if isinstance(place, dict) and data.draw(st.booleans()):
                place[data.draw(KEYS | SCALARS)] = place.pop(key)
            else:
                place[key] = data.draw(JUNK)
            break
        place = place[key]
    try:
        spec = Spec.load(source)
    except SpecError:
        return
    assert isinstance(spec, Spec)
