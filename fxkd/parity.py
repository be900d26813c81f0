"""Whether a deployed student gives what the original gives."""

import torch
from torch import Tensor

from fxkd.errors import DeployError

REMEDY = "give compile=False or another backend such as compile={'backend': 'aot_eager'}"


def compare(expected: list[Tensor], given: list[Tensor], tolerance: float) -> float:
    """Give the largest absolute difference between the tensors of two outputs.

    Args:
        expected: What the original gave.
        given: What the deployed student gave.
        tolerance: How far each tensor may be off, as a share of its own largest absolute value.

    Raises:
        DeployError: There is nothing to compare, or they differ; says by how much and what to do.

    >>> compare([torch.tensor([1.0, 8.0])], [torch.tensor([1.0, 8.5])], tolerance=0.1)
    0.5
    """
    if not expected:
        raise DeployError("the student gives no tensor on example_inputs, so there is nothing to compare")
    original, deployed = ([f"{tuple(t.shape)} {t.dtype}" for t in side] for side in (expected, given))
    if original != deployed:
        raise DeployError(
            f"the deployed student gives {', '.join(deployed)}; the original {', '.join(original)}; {REMEDY}"
        )
    differences = [_difference(a, b) for a, b in zip(expected, given, strict=True)]
    for index, (difference, largest) in enumerate(differences):
        if not difference <= tolerance * largest:
            raise DeployError(
                f"tensor {index} of the deployed student's output is off by {difference:.1e}, where its values reach "
                f"{largest:.1e} and {tolerance * largest:.1e} is allowed. A student that draws random numbers in eval "
                f"mode or computes in half precision does this: {REMEDY}, or a larger tolerance"
            )
    return max(difference for difference, _ in differences)


def _difference(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Give the largest difference and the largest finite value; equal infinities and not-a-numbers are 0 apart."""
    a, b = (x.to(torch.complex128 if x.is_complex() else torch.float64).flatten() for x in (a, b))
    apart = ~((a == b) | (a.isnan() & b.isnan()))
    if not apart.any():
        return 0.0, 0.0
    return float((a - b)[apart].abs().max()), float(torch.where(a.isfinite(), a, 0.0).abs().max())
