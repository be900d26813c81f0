"""What runs, and is probably not what somebody meant: seen on the arguments and the result of a loss."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def odd_shapes(where: str, broadcasts: Iterable[tuple[torch.Size, torch.Size]]) -> Iterator[str]:
    """Tell where a loss repeats values of one model to fit the other's.

    >>> [remark] = odd_shapes("loss_forward_mappings.loss", [(torch.Size([2, 5]), torch.Size([2, 1]))])
    >>> remark[28:81]
    'a tensor (2, 5) of the student meets one (2, 1) of th'
    """
    for student, teacher in dict.fromkeys(broadcasts):
        yield (
            f"{where}: a tensor {tuple(student)} of the student meets one {tuple(teacher)} of the teacher element by "
            "element, so that values are repeated; if that is not meant, give them one shape (by a connector, another "
            "point, or in the loss)"
        )


def odd_types(where: str, values: Iterable[object]) -> Iterator[str]:
    """Tell of double precision that meets another: all is computed in double then."""
    kinds = {value.dtype for value in values if isinstance(value, Tensor) and value.dtype.is_floating_point}
    if torch.float64 in kinds and len(kinds) > 1:
        there = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        yield f"{where}: the arguments are of {there}; call .float() or .double() on one model"


def odd_training(name: str, result: Iterable[Tensor], *, reads_student: bool) -> Iterator[str]:
    """Tell of a loss that trains nothing, and of one that could train and is not trained.

    Args:
        name: The loss; its name says whether it is trained.
        result: What it gave.
        reads_student: Whether it is given anything of the student's.
    """
    where, trains = f"distill_losses.{name}", any(tensor.requires_grad for tensor in result)
    if trains and "loss" not in name:
        yield (
            f"{where}: is computed and never trained, as its name does not contain 'loss'; call it 'loss_{name}' to "
            "train it, or let it detach what it reads if it is a metric"
        )
    if torch.is_grad_enabled() and "loss" in name and not trains:
        why = "it depends on none, or detaches what does" if reads_student else "it reads no record of the student"
        yield (
            f"{where}: no trainable parameter is reached ({why}); unfreeze what it shall train, give it a record of "
            "the student behind a parameter, or take the loss out"
        )


def unused_loss(names: Iterable[str]) -> str:
    """Tell of a loss that the student returns although the spec makes one."""
    return (
        f"student_loss: the student returns {', '.join(map(repr, names))} itself, which nobody uses; write 'auto' to "
        "train on it, or let the student return none"
    )
