"""A distiller's ``forward`` says which arguments it takes: hosts drop the columns of a batch that it does not name."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

KEYWORD = inspect.Parameter.KEYWORD_ONLY
REST = inspect.Parameter.VAR_KEYWORD


def signature_of(student: nn.Module, inputs: Iterable[str]) -> inspect.Signature:
    """Give the signature of the student's ``forward``, with the spec's own ``inputs`` as further keywords.

    >>> print(signature_of(nn.Linear(2, 1), ["labels"]))
    (input: torch.Tensor, *, labels) -> torch.Tensor
    """
    signature = inspect.signature(student.forward)
    given = list(signature.parameters.values())
    further = [inspect.Parameter(name, KEYWORD) for name in inputs if name not in signature.parameters]
    rest = [parameter for parameter in given if parameter.kind is REST]
    return signature.replace(parameters=[*(p for p in given if p.kind is not REST), *further, *rest])


def with_signature(forward: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """Make a method that does what ``forward`` does and has another signature."""

    def forward_(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward_.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])  # type: ignore[attr-defined]
    forward_.__name__, forward_.__doc__ = "forward", forward.__doc__
    return forward_
