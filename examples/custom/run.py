"""Distil with parts of one's own: ``python examples/custom/run.py [--steps N]``."""

import argparse
from pathlib import Path

import torch
from own_parts import models

import fxkd

HERE = Path(__file__).parent


def main(steps: int) -> list[float]:
    """Train for some steps on images drawn at random; print and return the loss of each."""
    spec = fxkd.Spec.load(HERE / "config.py", allow_imports=True)  # imports own_parts, as the config asks
    student, teacher = models()
    images = torch.randn(8, 3, 8, 8)
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=images)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=0.01)
    losses = []
    for step in range(steps):
        out = distiller(images)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
        told = ", ".join(f"{name} {value.item():.3f}" for name, value in out.losses.items())
        print(f"step {step}: loss {losses[-1]:.3f} ({told})")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    main(parser.parse_args().steps)
