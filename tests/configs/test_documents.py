"""Every config that MMRazor's and GML's documents show is read into the keys that it means."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fxkd.errors import Problems, SpecError
from fxkd.spec import Spec
from fxkd.spec.source import read_source
from tests.configs import documented

ROOT = Path(__file__).parents[2]
DOCUMENTED = {
    "kd": (
        documented.SURROUNDINGS + documented.KD + documented.AFTER,
        documented.KD_SECTIONS | {"teacher_ckpt": "F:\\模型权重\\resnet34.pth", "teacher_mode": "norm_eval"},
    ),
    "ofd": (documented.OFD, documented.OFD_KEYS),
    "neck": (documented.NECK, documented.NECK_KEYS),
    "lad": (documented.LAD, documented.LAD_KEYS),
    "mixup": (documented.MIXUP, documented.MIXUP_KEYS),
    "recorders": (documented.RECORDERS, documented.RECORDERS_KEYS),
    "custom": (documented.CUSTOM, documented.CUSTOM_KEYS),
    "gml": (documented.GML, documented.GML_KEYS),
}


def read(folder: Path, text: str, **options: Any) -> tuple[Any, list[str], list[str]]:
    """Give what a config says, with the problems and the notes; ``_base_/cifar10_bs16.py`` is there to inherit."""
    (folder / "_base_").mkdir(exist_ok=True)
    (folder / "_base_/cifar10_bs16.py").write_text("train_dataloader = dict(batch_size=16)\n")
    (folder / "config.py").write_text(text, encoding="utf-8")
    problems, notes = Problems(), Problems()
    spec = read_source(folder / "config.py", problems, notes, **options)
    return spec, *([one.replace(f"{folder}/", "") for one in found.found] for found in (problems, notes))


@pytest.mark.parametrize("execute", [False, True])
@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_config(tmp_path: Path, name: str, execute: bool) -> None:
    text, expected = DOCUMENTED[name]
    spec, problems, _ = read(tmp_path, text, execute=execute, allow_imports=True)
    assert problems == []
    assert spec == expected


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    text = documented.SURROUNDINGS + documented.KD + documented.AFTER + "optim_wrapper = dict(lr=.1)\nload_from = 'x'\n"
    _, _, notes = read(tmp_path, text)
    assert notes == [
        *(
            f"config.py:1: _base_: 'mmcls::_base_/{name}.py' belongs to another package and is not followed"
            for name in ("datasets/imagenet_bs32", "schedules/imagenet_bs256", "default_runtime")
        ),
        "config.py:10: model.architecture: left out: give the student (mmcls::resnet/resnet18_8xb32_in1k.py) to "
        "fxkd.prepare as a module",
        "config.py:11: model.teacher: left out: give the teacher (mmcls::resnet/resnet34_8xb32_in1k.py) to "
        "fxkd.prepare as a module",
        "config.py:31: val_cfg: left out: in your evaluation run the teacher too, if you want its figures beside the "
        "student's",
        "config.py:32: optim_wrapper: left out: it belongs to the training loop",
        "config.py:33: load_from: left out: it belongs to the training loop",
    ]
    _, _, notes = read(tmp_path, documented.GML, allow_imports=True)
    assert notes == [
        "config.py:20: teacher[0].model: left out: give the teacher (mmcls.ImageClassifier ResNet 50) to fxkd.prepare "
        "as a module",
        "config.py:10: model: left out: give the student to fxkd.prepare as a module",
        "_base_/cifar10_bs16.py:1: train_dataloader: left out: it belongs to the training loop",
    ]


@pytest.mark.parametrize("name", ["kd"])
def test_a_distiller_in_every_wrapping_is_one_spec(tmp_path: Path, name: str) -> None:
    six = documented.KD_SECTIONS
    spec = Spec.load(six)
    distiller = {"type": "ConfigurableDistiller", **six}
    for given in (
        distiller,
        {**distiller, "type": "mmrazor.ConfigurableDistiller"},
        {"distiller": distiller},
        {"distiller": six},
        {**six, "_scope_": "mmrazor"},
    ):
        assert Spec.load(given) == spec
    (tmp_path / "config.py").write_text("distiller = " + repr(distiller))
    assert Spec.load(tmp_path / "config.py") == spec
    (tmp_path / "six.py").write_text("".join(f"{key} = {value!r}\n" for key, value in six.items()) + "channels = 3\n")
    assert Spec.load(tmp_path / "six.py") == spec


def test_problems_have_their_lines(tmp_path: Path) -> None:
    text = documented.KD.replace("'KLDivergence'", "'KLDivergense'").replace("from_student=False", "from_student=5")
    path = tmp_path / "config.py"
    path.write_text("teacher_ckpt = None\n" + text)
    with pytest.raises(SpecError) as caught:
        Spec.load(path)
    found = [one.replace(f"{tmp_path}/", "") for one in caught.value.problems]
    assert (
        "config.py:23: loss_forward_mappings.loss_kl.preds_T.from_student: is 5; it must be true or false or nothing"
        in found
    )
    assert any(
        one.startswith("config.py:19: distill_losses.loss_kl: no loss is called 'KLDivergense'.") for one in found
    )


def test_modules_are_imported_only_if_that_is_allowed(tmp_path: Path) -> None:
    module = tmp_path / "own_losses_of_a_test.py"
    module.write_text("import fxkd\nfrom torch import nn\n(open(__file__ + '.done', 'w')).close()\n")
    text = "custom_imports = dict(imports=['own_losses_of_a_test'])\n" + documented.MIXUP
    _, problems, _ = read(tmp_path, text)
    assert problems == [
        "config.py:1: custom_imports: 'own_losses_of_a_test' would be imported, which executes them; allow it with "
        "allow_imports=True (or --allow-imports)"
    ]
    assert not (tmp_path / "own_losses_of_a_test.py.done").exists()
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from fxkd.spec import Spec\n"
    script += f"Spec.load({str(tmp_path / 'config.py')!r}, allow_imports=True)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False)
    assert (tmp_path / "own_losses_of_a_test.py.done").exists()


@pytest.mark.parametrize("may_fail", [True, False])
def test_a_module_that_cannot_be_imported(tmp_path: Path, may_fail: bool) -> None:
    text = f"custom_imports = dict(imports=['no_such_module_at_all'], allow_failed_imports={may_fail})\n"
    _, problems, _ = read(tmp_path, text + documented.MIXUP, allow_imports=True)
    told = "config.py:1: custom_imports.imports[0]: 'no_such_module_at_all' cannot be imported: ModuleNotFoundError: "
    assert problems == ([] if may_fail else [told + "No module named 'no_such_module_at_all'"])
