"""Configs of MMRazor and GML, prepared and trained against values by hand."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxkd


class Net(nn.Module):
    """A model with the paths of mmpretrain's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("layer4", nn.Linear(4, width))
        self.head = nn.Module()
        self.head.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head.fc(self.backbone(x).relu())  # type: ignore[no-any-return]


def models() -> tuple[Net, Net, Tensor]:
    torch.manual_seed(0)
    return Net(5).double(), Net(7).double().eval(), torch.randn(6, 4, dtype=torch.float64)


def compare(student: Net, teacher: Net, config: Path, x: Tensor, expected: Tensor) -> None:
    """Compare loss and gradients; those by hand first, since they are of the same parameters."""
    gradients = torch.autograd.grad(expected, list(student.parameters()), allow_unused=True)
    loss = fxkd.prepare(student, teacher, config)(x).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    for parameter, gradient in zip(student.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_distiller_of_mmrazor(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(
        "distiller = dict(type='ConfigurableDistiller',\n"
        "    student_recorders=dict(fc=dict(type='ModuleOutputs', source='head.fc')),\n"
        "    teacher_recorders=dict(fc=dict(type='ModuleOutputs', source='head.fc')),\n"
        "    distill_losses=dict(loss_kl=dict(type='mmrazor.KLDivergence', tau=1, loss_weight=3)),\n"
        "    loss_forward_mappings=dict(loss_kl=dict(preds_S=dict(from_student=True, from_recorder='fc'),\n"
        "                                            preds_T=dict(from_student=False, recorder='fc'))))\n"
    )
    config = tmp_path / "config.py"
    config.write_text("_base_ = './base.py'\ndistiller = dict(distill_losses=dict(loss_kl=dict(tau=2)))\n")
    student, teacher, x = models()
    s, t = student(x) / 2, teacher(x).detach() / 2
    compare(student, teacher, config, x, 3 * 4 * F.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean"))


def test_pairs_of_gml(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        "weight = 1 / 4\n"
        "teacher = [dict(model=dict(type='x'), distill_cfg=[dict(\n"
        "    student_module='head.fc', teacher_module='head.fc',\n"
        "    head=dict(type='FeatureDistillationHead', loss=[\n"
        "        dict(type='L1Loss', loss_weight=weight),\n"
        "        dict(type='KLDivergence', tau=1)]))])]\n"
    )
    student, teacher, x = models()
    s, t = student(x), teacher(x).detach()
    kl = F.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean")
    compare(student, teacher, config, x, (s - t).abs().mean() / 4 + kl)
