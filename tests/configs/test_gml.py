"""GML's lists of teachers -> pairs, or what several teachers say together."""

from typing import Any

import pytest

from fxkd.configs.translate import translate
from fxkd.errors import Problems


def read(given: dict[str, Any]) -> tuple[dict[str, Any], list[str], list[str]]:
    problems, notes = Problems(), Problems()
    spec = translate(given, problems, notes)
    return spec, problems.found, notes.found


def pair(student: str = "head.fc", teacher: str = "head.fc", **head: Any) -> dict[str, Any]:
    head = {"type": "FeatureDistillationHead", "loss": {"type": "KLDivergence", "tau": 3}} | head
    return {"student_module": student, "teacher_module": teacher, "head": head}


def test_everything_that_a_pair_can_have() -> None:
    connector = {"type": "gml.ConvModuleConncetor", "in_channel": 2, "out_channel": 4, "_scope_": "gml"}
    head = pair(
        "a", "b", loss=[{"type": "L2Loss", "loss_weight": 2}, {"type": "gml.L1Loss"}], stu_connector=connector,
        tea_connector=[{"type": "NormConnector"}], dim_select={"dim": 1, "start": 0, "stop": 3},
    )  # fmt: skip
    given = {
        "teacher": [{"ckpt_path": "t.pth", "model": {"type": "mmcls.ImageClassifier"}, "distill_cfg": [head, pair()]}],
        "stu_pretrain": "s.pth",
        "pretrained": "d.pth",
    }
    options = {
        "student_connector": {"type": "ConvModuleConnector", "in_channel": 2, "out_channel": 4},
        "teacher_connector": [{"type": "NormConnector"}],
        "dim_select": {"dim": 1, "start": 0, "stop": 3},
    }
    spec, problems, _ = read(given)
    assert problems == []
    assert spec == {
        "pairs": [
            {"student": "a", "teacher": "b", "loss": {"type": "L2Loss", "loss_weight": 2}, **options},
            {"student": "a", "teacher": "b", "loss": {"type": "L1Loss"}, **options},
            {"student": "head.fc", "teacher": "head.fc", "loss": {"type": "KLDivergence", "tau": 3}},
        ],
        "teacher_ckpt": "t.pth",
        "student_ckpt": "s.pth",
        "pretrained": "d.pth",
    }


@pytest.mark.parametrize("place", ["", "distiller", "algorithm.distiller", "model.distiller"])
@pytest.mark.parametrize("key", ["teacher", "distill_cfg"])
def test_where_the_teachers_stand(place: str, key: str) -> None:
    given: dict[str, Any] = {key: [{"distill_cfg": [pair()]}], "stu_pretrain": "s.pth"}
    for name in reversed([one for one in place.split(".") if one]):
        given = {name: given}
    spec, problems, _ = read(given)
    assert problems == []
    pairs = [{"student": "head.fc", "teacher": "head.fc", "loss": {"type": "KLDivergence", "tau": 3}}]
    assert spec == {"pairs": pairs, "student_ckpt": "s.pth"}


def test_one_teacher_and_one_pair_need_no_lists() -> None:
    spec, problems, _ = read({"teacher": {"ckpt_path": "t.pth", "distill_cfg": pair()}})
    assert problems == []
    assert spec["teacher_ckpt"] == "t.pth"
    assert len(spec["pairs"]) == 1


def test_several_teachers_each_with_its_loss() -> None:
    teachers = [{"ckpt_path": f"{name}.pth", "distill_cfg": [pair("a", name)]} for name in "xy"]
    spec, problems, notes = read({"teacher": teachers, "use_meal": False})
    loss = {"type": "KLDivergence", "tau": 3}
    assert problems == []
    assert spec == {
        "pairs": [
            {"student": "a", "teacher": "x", "loss": loss, "from_teacher": "teacher_0"},
            {"student": "a", "teacher": "y", "loss": loss, "from_teacher": "teacher_1"},
        ],
        "teacher_ckpt": {"teacher_0": "x.pth", "teacher_1": "y.pth"},
    }
    assert "teacher[1].model: left out: give the teacher to fxkd.prepare in a dict, under the name 'teacher_1'" in notes


@pytest.mark.parametrize("options", [{"use_meal": True}, {}])
def test_several_teachers_as_one(options: dict[str, Any]) -> None:
    teachers = [{"distill_cfg": [pair(teacher=name), pair("a", name)]} for name in "xy"]
    teachers[1]["distill_cfg"][1] = pair("b", "y")
    spec, problems, notes = read({"teacher": teachers, **options})
    loss = {"type": "KLDivergence", "tau": 3}
    assert problems == []
    assert any(note.startswith("teacher: use_meal: the teachers share a point and a loss") for note in notes)
    assert spec == {
        "student_recorders": {"loss_head_fc": {"type": "ModuleOutputs", "source": "head.fc"}},
        "teacher_recorders": {
            "loss_head_fc_teacher_0": {"type": "ModuleOutputs", "source": "teacher_0.x"},
            "loss_head_fc_teacher_1": {"type": "ModuleOutputs", "source": "teacher_1.y"},
        },
        "connectors": {"loss_head_fc_teachers": {"type": "SoftLabelEnsemble", "tau": 3}},
        "distill_losses": {"loss_head_fc": loss},
        "loss_forward_mappings": {
            "loss_head_fc": {
                "preds_S": {"from_student": True, "recorder": "loss_head_fc"},
                "preds_T": {
                    "from_student": False,
                    "recorder": ["loss_head_fc_teacher_0", "loss_head_fc_teacher_1"],
                    "connector": "loss_head_fc_teachers",
                },
            }
        },
        "pairs": [
            {"student": "a", "teacher": "x", "loss": loss, "from_teacher": "teacher_0"},
            {"student": "b", "teacher": "y", "loss": loss, "from_teacher": "teacher_1"},
        ],
    }


def test_an_ensemble_of_an_unknown_loss_with_a_connector() -> None:
    head = {"loss": {"type": "MyLoss", "T": 6}, "stu_connector": {"type": "NormConnector"}}
    spec, problems, _ = read({"teacher": [{"distill_cfg": [pair(**head)]}, {"distill_cfg": [pair(**head)]}]})
    assert problems == []
    assert spec["connectors"] == {
        "loss_head_fc_teachers": {"type": "SoftLabelEnsemble", "tau": 6},
        "loss_head_fc_student": {"type": "NormConnector"},
    }
    assert list(spec["loss_forward_mappings"]["loss_head_fc"]) == ["s_pred", "t_pred"]
    assert spec["loss_forward_mappings"]["loss_head_fc"]["s_pred"]["connector"] == "loss_head_fc_student"


def test_the_temperature_is_that_of_the_loss() -> None:
    head = {"loss": {"type": "KLDivergence"}}
    spec, _, _ = read({"teacher": [{"distill_cfg": [pair(**head)]}, {"distill_cfg": [pair(**head)]}]})
    assert spec["connectors"] == {"loss_head_fc_teachers": {"type": "SoftLabelEnsemble", "tau": 1.0}}


@pytest.mark.parametrize(
    "head",
    [
        {"tea_connector": {"type": "NormConnector"}},
        {"dim_select": {"dim": 1, "index": 0}},
        {"loss": {"type": "L2Loss"}},
        {"loss": {"type": "ChannelWiseDivergence", "tau": 1}},
        {"loss": {"type": "MyLoss"}},
    ],
)
def test_what_an_ensemble_cannot_be_made_of_stays_pairs(head: dict[str, Any]) -> None:
    teachers = [{"distill_cfg": [pair(**head)]}, {"distill_cfg": [pair(**head)]}]
    spec, problems, notes = read({"teacher": teachers, "use_meal": True})
    assert problems == []
    assert notes[-1].startswith("teacher: use_meal: no soft labels that all teachers give")
    assert [one["from_teacher"] for one in spec["pairs"]] == ["teacher_0", "teacher_1"]
    assert "connectors" not in spec


def test_a_head_of_ones_own_is_a_loss() -> None:
    head = {"type": "MyHead", "loss": {"type": "MyLoss"}, "stu_connector": {"type": "C"}}
    spec, problems, notes = read({"teacher": [{"distill_cfg": [pair(**head)]}]})
    assert problems == []
    assert spec["pairs"] == [{"student": "head.fc", "teacher": "head.fc", "loss": head}]
    assert any("teacher[0].distill_cfg[0].head: a head of your own is registered as a loss" in note for note in notes)
