"""MMRazor's algorithms, distillers, hooks and spellings -> a spec's keys."""

from typing import Any

import pytest

from fxkd.configs.translate import translate
from fxkd.errors import Problems, SpecError
from fxkd.spec import Spec

FC = {"fc": {"type": "ModuleOutputs", "source": "head.fc"}}
KL = {"preds_S": {"recorder": "fc", "from_student": True}, "preds_T": {"recorder": "fc", "from_student": False}}
SIX: dict[str, Any] = {
    "student_recorders": FC,
    "teacher_recorders": FC,
    "distill_losses": {"loss_kl": {"type": "KLDivergence"}},
    "loss_forward_mappings": {"loss_kl": KL},
}
DISTILLER = {"type": "ConfigurableDistiller", **SIX}


def read(given: dict[str, Any]) -> tuple[dict[str, Any], list[str], list[str]]:
    problems, notes = Problems(), Problems()
    spec = translate(given, problems, notes)
    return spec, problems.found, notes.found


@pytest.mark.parametrize("prefix", ["", "mmrazor."])
@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, {"teacher_mode": "norm_eval"}),
        ({"teacher_norm_eval": False}, {"teacher_mode": "train"}),
        (
            {"teacher_norm_eval": True, "teacher_trainable": True},
            {"teacher_mode": "norm_eval", "teacher_trainable": True},
        ),
        ({"calculate_student_loss": False}, {"teacher_mode": "norm_eval", "student_loss": False}),
        ({"calculate_student_loss": True}, {"teacher_mode": "norm_eval"}),
        (
            {"calculate_student_loss": False, "student_trainable": False},
            {"teacher_mode": "norm_eval", "student_loss": False, "student_trainable": False},
        ),
        ({"student_trainable": False}, {"teacher_mode": "norm_eval"}),
        ({"teacher_ckpt": "t.pth"}, {"teacher_mode": "norm_eval", "teacher_ckpt": "t.pth"}),
        (
            {"teacher": {"init_cfg": {"type": "Pretrained", "checkpoint": "t.pth"}}},
            {"teacher_mode": "norm_eval", "teacher_ckpt": "t.pth"},
        ),
        (
            {"architecture": {"init_cfg": {"type": "Pretrained", "checkpoint": "s.pth"}}},
            {"teacher_mode": "norm_eval", "student_ckpt": "s.pth"},
        ),
        (
            {"init_cfg": {"type": "Pretrained", "checkpoint": "stage_1.pth"}},
            {"teacher_mode": "norm_eval", "pretrained": "stage_1.pth"},
        ),
    ],
)
def test_options_of_an_algorithm(prefix: str, options: dict[str, Any], keys: dict[str, Any]) -> None:
    algorithm = {"type": f"{prefix}SingleTeacherDistill", "distiller": DISTILLER, **options}
    for given in (algorithm, {"model": algorithm}, {"algorithm": algorithm, "optimizer": {}}):
        spec, problems, _ = read(given)
        assert problems == []
        assert spec == SIX | keys


@pytest.mark.parametrize("key", ["module_inplace", "teacher_module_inplace", "student_module_inplace"])
def test_in_place_options_are_not_needed(key: str) -> None:
    spec, problems, notes = read({"type": "SingleTeacherDistill", "distiller": DISTILLER, key: True})
    assert (spec, problems) == (SIX | {"teacher_mode": "norm_eval"}, [])
    assert notes == [f"{key}: is not needed: a recorded value is kept as it was at its point"]


def test_a_feature_pyramid_always_has_its_own_loss() -> None:
    given = {"type": "FpnTeacherDistill", "distiller": DISTILLER, "calculate_student_loss": False}
    spec, problems, notes = read(given)
    assert (spec, problems) == (SIX | {"teacher_mode": "norm_eval"}, [])
    assert notes[0].startswith("calculate_student_loss: is ignored by FpnTeacherDistill")


def test_a_student_that_teaches_itself() -> None:
    mappings = {"loss_kl": {**KL, "extra": {"recorder": "fc", "from_student": False, "connector_idx": 1}}}
    distiller = DISTILLER | {"type": "BYOTDistiller", "loss_forward_mappings": mappings}
    spec, problems, _ = read({"model": {"type": "SelfDistill", "distiller": distiller}})
    assert problems == []
    assert spec["self_distillation"] is True
    assert "teacher_mode" not in spec
    assert spec["loss_forward_mappings"]["loss_kl"] == {
        "preds_S": {"recorder": "fc", "from_student": True},
        "preds_T": {"recorder": "fc", "from_student": False, "detach": True},
        "extra": {"recorder": "fc", "from_student": False, "connector_idx": 1, "detach": True},
    }


@pytest.mark.parametrize(
    ("name", "more"), [("DataFreeDistillation", {}), ("DAFLDataFreeDistillation", {"joint": True})]
)
def test_data_free(name: str, more: dict[str, Any]) -> None:
    own = {"student_recorders": {"fc": {"type": "mmrazor.ModuleOutputs", "sources": "head.fc"}}}
    generator = {"type": "DAFLGenerator", "img_size": 32, "latent_dim": 256}
    given = {
        "type": name,
        "architecture": {"cfg_path": "mmcls::r18.py"},
        "teachers": {"res34": {"build_cfg": {"cfg_path": "mmcls::r34.py"}, "ckpt_path": "r34.pth"}, "b": {}},
        "generator": generator,
        "student_iter": 5,
        "student_train_first": True,
        "distiller": DISTILLER,
        "generator_distiller": {"type": "ConfigurableDistiller", **own},
    }
    spec, problems, notes = read({"model": given})
    assert problems == []
    fixed = {"student_recorders": {"fc": {"type": "ModuleOutputs", "source": "head.fc"}}}
    data_free = {"generator": generator, "generator_spec": fixed, "student_iter": 5, "student_train_first": True}
    assert spec == SIX | {"teacher_ckpt": {"res34": "r34.pth"}, "data_free": data_free | more}
    told = "left out: give the teacher (mmcls::r34.py) to fxkd.prepare in a dict, under the name 'res34'"
    assert f"model.teachers.res34: {told}" in notes


@pytest.mark.parametrize("hook", [{"type": "mmdet.StopDistillHook"}, {}])
def test_other_hooks_are_left_out(hook: dict[str, Any]) -> None:
    spec, problems, notes = read({"distiller": DISTILLER, "custom_hooks": [hook]})
    assert (spec, problems) == (SIX, [])
    assert notes[-1].startswith("custom_hooks[0]: left out")


@pytest.mark.parametrize(
    "hook",
    [
        {"type": "mmrazor.StopDistillHook", "stop_epoch": 280},
        {"type": "StopDistillHook", "stop_epoch": 280},
        {"type": "mmrazor.DistillationLossDetachHook", "detach_epoch": 280},
    ],
)
def test_the_epoch_at_which_it_stops(hook: dict[str, Any]) -> None:
    hooks = [{"type": "EMAHook", "momentum": 0.1}, hook]
    spec, problems, notes = read({"distiller": DISTILLER, "custom_hooks": hooks})
    assert problems == []
    assert spec == SIX | {"stop_epoch": 280}
    assert notes == ["custom_hooks[0]: left out (EMAHook): it belongs to the training loop"]


def test_spellings() -> None:
    given = {
        "student_recorders": {"a": {"type": "mmrazor.ModuleOutputsRecorder", "sources": "x", "_scope_": "mmrazor"}},
        "teacher_recorders": [{"type": "ModuleInputsRecorder", "source": "y"}],
        "distill_deliveries": [{"type": "FunctionOutputsDelivery", "func_path": "a.b", "max_keep_data": 2}],
        "connectors": {
            "one": {"type": "mmrazor.ConvModuleConncetor", "in_channel": 1, "out_channel": 2},
            "two": [{"type": "ConvModuleConncetor"}, {"type": "mmrazor.NormConnector", "_scope_": "mmrazor"}],
        },
        "distill_losses": {"loss": {"type": "mmrazor.L2Loss"}, "loss_2": {"type": "mmdet.GIoULoss"}},
        "loss_forward_mappings": {"loss": {"s_feature": {"from_recorder": "a", "from_student": True}}},
    }
    spec, problems, _ = read(given)
    assert problems == []
    assert spec == {
        "student_recorders": {"a": {"type": "ModuleOutputs", "source": "x"}},
        "teacher_recorders": [{"type": "ModuleInputs", "source": "y"}],
        "distill_deliveries": [{"type": "FunctionOutputs", "func_path": "a.b", "max_keep_data": 2}],
        "connectors": {
            "one": {"type": "ConvModuleConnector", "in_channel": 1, "out_channel": 2},
            "two": [{"type": "ConvModuleConnector"}, {"type": "NormConnector"}],
        },
        "distill_losses": {"loss": {"type": "L2Loss"}, "loss_2": {"type": "mmdet.GIoULoss"}},
        "loss_forward_mappings": {"loss": {"s_feature": {"recorder": "a", "from_student": True}}},
    }


def test_cross_entropy_of_mmpretrain_is_torchs() -> None:
    given = {
        "distill_losses": {
            "loss_ce": {"type": "mmcls.CrossEntropyLoss", "loss_weight": 0.7},
            "loss_smooth": {"type": "mmpretrain.LabelSmoothLoss", "label_smooth_val": 0.1, "num_classes": 9},
            "loss_hard": {"type": "CrossEntropyLoss", "loss_weight": 0.5},
        },
        "loss_forward_mappings": {
            "loss_ce": {
                "cls_score": {"recorder": "a", "from_student": True, "connector_idx": 1},
                "label": {"recorder": "b", "from_student": False, "data_idx": 1},
            },
            "loss_hard": KL,
        },
    }
    spec, problems, notes = read(given)
    assert problems == []
    assert spec["distill_losses"] == {
        "loss_ce": {"type": "torch.nn.CrossEntropyLoss", "loss_weight": 0.7},
        "loss_smooth": {"type": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1},
        "loss_hard": {"type": "CrossEntropyLoss", "loss_weight": 0.5},
    }
    assert spec["loss_forward_mappings"] == {
        "loss_ce": {
            "input": {"recorder": "a", "from_student": True, "connector_idx": 1},
            "target": {"recorder": "b", "from_student": False, "data_idx": 1},
        },
        "loss_hard": KL,
    }
    assert len(notes) == 2


def test_configs_of_mmrazor_before_1() -> None:
    losses = [
        {"type": "WSLD", "name": "loss_wsld", "tau": 2, "loss_weight": 2.5, "num_classes": 10},
        {"type": "mmrazor.KLDivergence", "name": "loss_kl", "tau": 4},
    ]
    align = {"type": "conv2d", "student_channels": 8, "teacher_channels": 16}
    components = [
        {"student_module": "head.fc", "teacher_module": "head.fc", "losses": losses},
        {"student_module": "a", "teacher_module": "b", "losses": [{"type": "L2Loss"}], "align_module": align},
    ]
    teacher = {"type": "mmcls.ImageClassifier", "init_cfg": {"type": "Pretrained", "checkpoint": "t.pth"}}
    distiller = {"type": "SingleTeacherDistiller", "teacher": teacher, "components": components}
    algorithm = {
        "type": "GeneralDistill",
        "architecture": {"type": "MMClsArchitecture", "model": {}},
        "with_student_loss": False,
        "with_teacher_loss": True,
        "distiller": {**distiller, "teacher_norm_eval": False},
    }
    for given in (algorithm, {"algorithm": algorithm, "data": {}}):
        spec, problems, notes = read(given)
        assert problems == []
        assert any("before 1.0" in note for note in notes)
        assert spec == {
            "teacher_mode": "train",
            "teacher_ckpt": "t.pth",
            "inputs": ["labels"],
            "student_loss": False,
            "teacher_trainable": True,
            "pairs": [
                {
                    "student": "head.fc",
                    "teacher": "head.fc",
                    "loss": {"type": "WSLD", "tau": 2, "loss_weight": 2.5, "num_classes": 10},
                    "name": "loss_wsld",
                    "args": {"gt_labels": {"from_input": "labels"}},
                },
                {
                    "student": "head.fc",
                    "teacher": "head.fc",
                    "loss": {"type": "KLDivergence", "tau": 4},
                    "name": "loss_kl",
                },
                {
                    "student": "a",
                    "teacher": "b",
                    "loss": {"type": "L2Loss"},
                    "student_connector": {
                        "type": "ConvModuleConnector",
                        "in_channel": 8,
                        "out_channel": 16,
                        "conv_cfg": {"type": "Conv2d"},
                        "norm_cfg": None,
                        "act_cfg": None,
                    },
                },
            ],
        }


def test_what_a_spec_says_itself_is_left_as_it_is() -> None:
    given = {"pairs": [{"student": "a", "teacher": "b", "loss": {"type": "mmrazor.L2Loss"}}], "return_output": False}
    assert read(given) == (given, [], [])
    assert read({"teacher": "b", "model": 3})[0] == {"teacher": "b", "model": 3}


def test_a_distiller_in_a_file_of_a_users_own() -> None:
    given = {"model": {"type": "x"}, "teacher": {"type": "y"}, "distiller": DISTILLER, "lr": 3}
    spec, problems, notes = read(given)
    assert (spec, problems) == (SIX, [])
    assert [note.partition(":")[0] for note in notes] == ["model", "teacher", "lr"]
    named = {"teacher": {}, "teacher_ckpt": "t.pth", "distiller": DISTILLER}
    assert read(named)[0] == SIX | {"teacher_ckpt": "t.pth", "teacher_mode": "norm_eval"}


def test_keys_of_mmengine_around_the_six_sections() -> None:
    around = {"find_unused_parameters": True, "default_scope": "mmcls", "_scope_": "mmrazor"}
    hooks = [{"type": "StopDistillHook", "stop_epoch": 2}]
    assert read({**SIX, **around, "custom_hooks": hooks}) == (SIX | {"stop_epoch": 2}, [], [])
    with pytest.raises(SpecError, match="typ: unknown key"):
        Spec.load({**SIX, **around, "typ": "ConfigurableDistiller"})


def test_what_was_given_is_not_changed() -> None:
    given = {"model": {"type": "SelfDistill", "distiller": {"type": "BYOTDistiller", **SIX}}}
    before = repr(given)
    read(given)
    assert repr(given) == before
    assert Spec.load(SIX) == Spec.load({"distiller": DISTILLER})
