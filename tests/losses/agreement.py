"""What is asked of every loss: agreement with a formula written anew, gradients, layouts, half precision, compiling."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Formula = Callable[..., Tensor]


def value_and_gradients(function: Formula, student: Tensor, teacher: Tensor, *rest: Tensor) -> list[Tensor]:
    """Return the value and its gradients on the student's and the teacher's side (zeros where none arrives)."""
    inputs = [student.detach().clone().requires_grad_(), teacher.detach().clone().requires_grad_()]
    value = function(*inputs, *rest)
    gradients = torch.autograd.grad(value.sum(), inputs, materialize_grads=True)
    return [value.detach(), *gradients]


def value_and_gradient(function: Formula, value: Tensor) -> list[Tensor]:
    """Return what a function of one tensor gives, and its gradient."""
    value = value.detach().clone().requires_grad_()
    result = function(value)
    (gradient,) = torch.autograd.grad(result.sum(), value, materialize_grads=True)
    return [result.detach(), gradient]


def assert_agrees(loss: nn.Module, formula: Formula, *inputs: Tensor) -> None:
    """Check value and both gradients of ``loss`` against ``formula``."""
    torch.testing.assert_close(
        value_and_gradients(loss, *inputs), value_and_gradients(formula, *inputs), rtol=1e-10, atol=1e-12
    )


def assert_differentiable(loss: nn.Module, student: Tensor, teacher: Tensor, *rest: Tensor) -> None:
    """Check both gradients against finite differences."""
    inputs = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: loss(s, t, *rest), inputs)


def assert_finite(loss: nn.Module, *inputs: Tensor) -> None:
    """Check that the value and both gradients are finite numbers."""
    for result in value_and_gradients(loss, *inputs):
        assert torch.isfinite(result).all()


def assert_costs_nothing(loss: Formula, *inputs: Tensor) -> None:
    """Check that the value and both gradients are 0."""
    for result in value_and_gradients(loss, *inputs):
        torch.testing.assert_close(result, torch.zeros_like(result), rtol=0, atol=0)


def assert_finite_in_half(loss: nn.Module, student: Tensor, teacher: Tensor, *rest: Tensor) -> None:
    """Check float16 and bfloat16: the loss is float32, everything is finite, the value is about the right one."""
    exact = loss(student, teacher, *rest)
    for dtype, tolerance in (torch.float16, 0.02), (torch.bfloat16, 0.3):
        value = loss(student.to(dtype), teacher.to(dtype), *rest)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact, rtol=tolerance, atol=0.01)
        assert_finite(loss, student.to(dtype), teacher.to(dtype), *rest)


def assert_layout_does_not_count(loss: nn.Module, student: Tensor, teacher: Tensor) -> None:
    """Check channels-last and permuted (N, C, H, W) inputs against contiguous ones."""
    expected = value_and_gradients(loss, student, teacher)
    scattered = student.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert not scattered.is_contiguous()
    for relaid in student.contiguous(memory_format=torch.channels_last), scattered:
        torch.testing.assert_close(value_and_gradients(loss, relaid, teacher), expected)


def assert_compiles(loss: nn.Module, *inputs: Tensor) -> None:
    """Check that one full graph serves two batch sizes, with the eager loss's value and gradients."""
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in inputs, [value[:2].clone() for value in inputs]:
            torch.testing.assert_close(value_and_gradients(compiled, *batch), value_and_gradients(loss, *batch))
