"""Whether a deployed student gives what the original gives."""

from torch import Tensor

from fxkd.closeness import apart, largest
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

    >>> import torch
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
    differences = [(apart(a, b), largest(a)) for a, b in zip(expected, given, strict=True)]
    for index, (difference, most) in enumerate(differences):
        if not difference <= tolerance * most:
            raise DeployError(
                f"tensor {index} of the deployed student's output is off by {difference:.1e}, where its values reach "
                f"{most:.1e} and {tolerance * most:.1e} is allowed. A student that draws random numbers in eval "
                f"mode or computes in half precision does this: {REMEDY}, or a larger tolerance"
            )
    return max(difference for difference, _ in differences)
