"""Mistakes in configs, each planted in a whole one: what is said about it, and at which line."""

from pathlib import Path

import pytest

from fxkd.errors import SpecError
from fxkd.spec import Spec
from tests.configs import documented

KD = "teacher_ckpt = None\n" + documented.KD
OLD = """\
algorithm = dict(
    type='GeneralDistill',
    distiller=dict(
        type='SingleTeacherDistiller',
        components=[dict(
            student_module='head.fc',
            teacher_module='head.fc',
            align_module=None,
            losses=[dict(type='KLDivergence', name='loss_kl', tau=1)])]))
"""
GML = documented.GML.partition("_base_")[2].partition("\n]")[2].replace("MyLoss", "L2Loss")
DATA_FREE = """\
model = dict(
    type='DataFreeDistillation',
    teachers=dict(a=dict(build_cfg={})),
    generator=dict(type='DAFLGenerator'),
    student_train_first=False,
    distiller=dict(type='ConfigurableDistiller'))
"""


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (KD, "'SingleTeacherDistill'", "'SingleTeacherDistil'", "config.py:4: model.type: no algorithm is called 'SingleTeacherDistil'; there is"),  # noqa: E501
        (KD, "'ConfigurableDistiller'", "'ConfigurableDistiler'", "config.py:13: model.distiller.type: no distiller is called 'ConfigurableDistiler'; there is"),  # noqa: E501
        (KD, "teacher_norm_eval=True", "teacher_norm_evall=True", "config.py:9: model.teacher_norm_evall: SingleTeacherDistill does not take it; there is"),  # noqa: E501
        (KD, "teacher_norm_eval=True", "teacher_norm_eval='yes'", "config.py:9: model.teacher_norm_eval: is 'yes'; give True or False"),  # noqa: E501
        (KD, "calculate_student_loss=True", "calculate_student_loss=0", "config.py:11: model.calculate_student_loss: is 0; give True or False"),  # noqa: E501
        (KD, "distill_losses=", "distil_losses=", "config.py:18: distil_losses: unknown key; there is"),
        (KD, "'ModuleOutputs'", "'ModuleOutput'", "config.py:15: student_recorders.fc.type: no recorder is of type 'ModuleOutput'"),  # noqa: E501
        (KD, "recorder='fc'", "recorder='fcc'", "config.py:22: loss_forward_mappings.loss_kl.preds_S.recorder: 'fcc' is not in student_recorders"),  # noqa: E501
        (KD, "preds_T=", "pred_T=", "config.py:23: loss_forward_mappings.loss_kl.pred_T: the loss takes"),
        (KD, "tau=1", "temp=1", "config.py:19: distill_losses.loss_kl: KLDivergence: got an unexpected keyword argument 'temp'"),  # noqa: E501
        (KD, "tau=1", "tau=find_tau()", "config.py:19: model.distiller.distill_losses.loss_kl.tau: is a call of 'find_tau', which is not done: write the value out, or let the file be executed ('fxkd migrate --execute' does it)"),  # noqa: E501
        (KD, "teacher_ckpt=teacher_ckpt", "teacher_ckpt=teachr_ckpt", "config.py:7: model.teacher_ckpt: is the name 'teachr_ckpt', which the file does not define; did you mean 'teacher_ckpt', which is not done"),  # noqa: E501
        (KD, "distiller=dict(", "distiller=[", "config.py:23: is not Python: closing parenthesis"),
        (KD, "    distiller=dict(\n", "    distiller=None, _d=dict(\n", "config.py:12: model._d: SingleTeacherDistill does not take it"),  # noqa: E501
        (KD + "custom_hooks = [dict(type='StopDistillHook')]\n", "", "", "config.py:24: custom_hooks[0]: StopDistillHook needs the key 'stop_epoch'"),  # noqa: E501
        (KD + "custom_hooks = dict()\n", "", "", "config.py:24: custom_hooks: is a dict; give a list"),
        (KD + "custom_hooks = hooks()\n", "", "", "config.py:24: custom_hooks: is a call of 'hooks', which is"),
        (KD + "model['distiller'] = build()\n", "", "", "config.py:24: model.distiller: is a call of 'build', which is not done"),  # noqa: E501
        (KD + "for i in range(2):\n    model['x'] = i\n", "", "", "config.py:24: model: is a 'for', which is not done"),
        (KD + "custom_imports = ['a']\n", "", "", "config.py:24: custom_imports: is ['a']; give {'imports'"),
        (KD + "custom_imports = dict(imports=['a'], allowed=1)\n", "", "", "config.py:24: custom_imports.allowed: unknown key"),  # noqa: E501
        ("import os\n_base_ = 'mmcls::a.py'\nlr = 1\nos.system('ls')\n", "", "", "config.py: has no distillation: no 'student_recorders'"),  # noqa: E501
        (OLD, "components", "component", "config.py:5: algorithm.distiller.component: SingleTeacherDistiller does not take it"),  # noqa: E501
        (OLD, "'SingleTeacherDistiller'", "'SelfDistiller'", "config.py:4: algorithm.distiller.type: no distiller of MMRazor 0.x that fxkd reads is called 'SelfDistiller'"),  # noqa: E501
        (OLD, "align_module=None", "align_module=dict(type='conv3d')", "config.py:8: algorithm.distiller.components[0].align_module: is written as a connector where"),  # noqa: E501
        (OLD, "losses=[dict(type='KLDivergence', name='loss_kl', tau=1)]", "loss=None", "config.py:5: algorithm.distiller.components[0]: needs 'student_module', 'teacher_module' and a list"),  # noqa: E501
        (OLD, "dict(type='KLDivergence', name='loss_kl', tau=1)", "'KL'", "config.py:9: algorithm.distiller.components[0].losses[0]: is 'KL'; give a mapping with the key 'type'"),  # noqa: E501
        (GML, "student_module", "studnt_module", "config.py:18: teacher[0].distill_cfg[0]: needs the keys 'student_module', 'teacher_module', 'head'"),  # noqa: E501
        (GML, "type='FeatureDistillationHead',", "stu_conector=None,", "config.py:22: teacher[0].distill_cfg[0].head.stu_conector: FeatureDistillationHead does not take it; there is"),  # noqa: E501
        (GML.replace("ckpt_path", "model"), "L2Loss", "L3Loss", "config.py:24: pairs[0].loss.type: no loss"),
        (GML, "ckpt_path=", "ckpt=", "config.py:13: teacher[0].ckpt: a teacher does not take it; there is"),
        (GML + "use_meal = 'no'\n", "", "", "config.py:30: use_meal: is 'no'; give True or False"),
        (GML + "use_meal = f()\n", "", "", "config.py:30: use_meal: is a call of 'f', which is not done"),
        (GML, "distill_cfg=[", "distill_cfg=f() or [", "config.py:17: teacher[0].distill_cfg: is the code"),
        (GML, "ckpt_path=", "ckpt_path=f() + ", "config.py:13: teacher[0].ckpt_path: is a call of 'f', which"),
        (OLD, "tau=1", "tau=f()", "config.py:9: algorithm.distiller.components[0].losses[0].tau: is a call of 'f'"),
        (OLD, "distiller=dict(", "distiller=f(", "config.py:3: algorithm.distiller: is a call of 'f', which is not"),
        (KD + "custom_imports = f()\n", "", "", "config.py:24: custom_imports: is a call of 'f', which is not done"),
        (DATA_FREE, "teachers=dict(a=dict(build_cfg={}))", "teachers=3", "config.py:3: model.teachers: is 3; give a mapping from names to teachers"),  # noqa: E501
        (DATA_FREE, "student_train_first=False", "student_train_first=3", "config.py:5: model.student_train_first: is 3; give True or False"),  # noqa: E501
        (DATA_FREE, "student_train_first=False", "teacher_ckpt=''", "config.py:5: model.teacher_ckpt: DataFreeDistillation does not take it"),  # noqa: E501
        (documented.NECK, "", "", "config.py:10: loss_forward_mappings.loss_neck.s_feature.connector: 'loss_neck_sfeat' is not in connectors"),  # noqa: E501
        (documented.NECK, "student_recorders =", "student_recordrs =", "config.py:3: student_recordrs: unknown key; there is"),  # noqa: E501
        ("distill_losses = dict(loss=dict(type='mmcls.CrossEntropyLoss', use_soft=True))", "", "", "config.py:1: distill_losses.loss.use_soft: only class labels with a softmax are read"),  # noqa: E501
        ("distill_losses = dict(loss=dict(type='mmcls.CrossEntropyLoss', class_weight=[1]))", "", "", "config.py:1: distill_losses.loss.class_weight: torch's cross-entropy, which is put in its place, does not take it"),  # noqa: E501
        ("model = dict(\n    distiller=dict(type='ConfigurableDistiller'),\n        ...))", "", "", "config.py:3: is not Python"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_mistake(tmp_path: Path, text: str, old: str, new: str, message: str) -> None:
    assert old in text
    path = tmp_path / "config.py"
    path.write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        Spec.load(path)
    found = [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]
    assert any(problem.startswith(message) for problem in found), "\n".join(found)


def test_what_was_not_read_is_told_where_nothing_was_found(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text("_base_ = 'mmrazor::distill/kd.py'\nwith read_base():\n    from .kd import *\n")
    with pytest.raises(SpecError) as caught:
        Spec.load(path)
    (found,) = caught.value.problems
    assert f"{path}:1: _base_: 'mmrazor::distill/kd.py' belongs to another package and is not followed" in found
    assert f"{path}:2: a 'with' was not executed" in found
