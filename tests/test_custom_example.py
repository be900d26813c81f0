"""The example of parts of one's own: its script, and its loss against the same by hand."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import fxkd
from fxkd import registry
from fxkd.errors import SpecError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "custom"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import what lies in the folder as its script does; forget it and its classes after."""
    monkeypatch.syspath_prepend(FOLDER)
    families = (registry.losses, registry.connectors)
    for family in families:
        family.names()
    before = [dict(family._classes) for family in families]
    yield
    for family, classes in zip(families, before, strict=True):
        family._classes = classes
    sys.modules.pop("own_parts", None)


def test_as_a_script(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-W", "error", FOLDER / "run.py", "--steps", "5"]
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    losses = [float(line.split()[3]) for line in result.stdout.splitlines()]
    assert len(losses) == 5
    assert losses[-1] < losses[0]


@pytest.mark.usefixtures("folder")
def test_against_values_by_hand() -> None:
    spec = fxkd.Spec.load(FOLDER / "config.py", allow_imports=True)
    from own_parts import models

    student, teacher = (model.double() for model in models())
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    distiller = fxkd.prepare(student, teacher, spec).double()
    out = distiller(images)

    connector, head = distiller.connectors["loss_stem_student"], distiller.losses["loss_flat"]
    stems = [model.stem(images) for model in (student, teacher)]
    flats = [stem.relu().mean((2, 3)) for stem in stems]
    logits = [model.head(flat) / 4 for model, flat in zip((student, teacher), flats, strict=True)]
    gated = connector.align(stems[0]) * connector.gate(stems[0].mean((2, 3))).sigmoid()[..., None, None]
    angle = F.cosine_similarity(gated.flatten(1), stems[1].flatten(1))
    rows = [F.normalize(side(flat)) for side, flat in zip((head.student, head.teacher), flats, strict=True)]
    expected = {
        "loss_stem": 2 * (1 - angle).mean(),
        "loss_flat": (rows[0] - rows[1]).square().sum() / 4,
        "loss_head": 16 * F.kl_div(logits[0].log_softmax(1), logits[1].softmax(1), reduction="batchmean"),
    }
    torch.testing.assert_close(dict(out.losses), expected)

    trained = [p for p in distiller.parameters() if p.requires_grad]
    by_hand = torch.autograd.grad(sum(expected.values()), trained)  # type: ignore[arg-type]
    out.loss.backward()
    torch.testing.assert_close([parameter.grad for parameter in trained], list(by_hand))


def test_imports_must_be_allowed() -> None:
    with pytest.raises(SpecError, match="custom_imports: 'own_parts' would be imported, which executes them"):
        fxkd.Spec.load(FOLDER / "config.py")
