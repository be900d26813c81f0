"""What is asked of every connector: agreement with a formula written anew, layouts, half precision, compiling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fxkd.capture.structure import tensors


def with_known_parameters(connector: nn.Module) -> Any:
    """Set every parameter to ``0.1 cos(k)`` by its own flat index, rounded to float32, then go to float64."""
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.copy_(0.1 * torch.arange(parameter.numel(), dtype=torch.float64).cos().reshape(parameter.shape))
    return connector.double()


def values_and_gradients(function: Callable[[Tensor], Any], feature: Tensor) -> list[Tensor]:
    """Return the outputs and the gradient of a mixture of all their values by the feature."""
    feature = feature.detach().clone().requires_grad_()
    outputs = tensors(function(feature))
    mixture = sum((output * torch.arange(output.numel()).sin().reshape(output.shape)).sum() for output in outputs)
    if not mixture.requires_grad:
        return [output.detach() for output in outputs]
    gradients = torch.autograd.grad(mixture, feature, materialize_grads=True)
    return [*(output.detach() for output in outputs), *gradients]


def assert_agrees(connector: nn.Module, formula: Callable[[Tensor], Any], feature: Tensor) -> None:
    """Check outputs and gradient against ``formula``, in float64."""
    found, expected = values_and_gradients(connector, feature), values_and_gradients(formula, feature)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def assert_layout_does_not_count(connector: nn.Module, feature: Tensor) -> None:
    """Check channels-last and scattered (N, C, H, W) features against a contiguous one."""
    expected = tensors(connector(feature))
    scattered = feature.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert not scattered.is_contiguous()
    for relaid in feature.contiguous(memory_format=torch.channels_last), scattered:
        torch.testing.assert_close(tensors(connector(relaid)), expected)


def assert_finite_in_half(connector: nn.Module, feature: Tensor) -> None:
    """Check that bfloat16 stays what it is, with finite outputs and gradient."""
    connector.bfloat16()
    *outputs, gradient = values_and_gradients(connector, feature.bfloat16())
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    assert all(value.isfinite().all() for value in (*outputs, gradient))


def assert_compiles(connector: nn.Module, feature: Tensor) -> None:
    """Check that one full graph serves two batch sizes, with eager outputs and gradients."""
    torch._dynamo.reset()
    compiled = torch.compile(connector, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in feature, feature[:-1].clone():
            expected = values_and_gradients(connector, batch)
            torch.testing.assert_close(values_and_gradients(lambda x: compiled(marked(x)), batch), expected)


def marked(feature: Tensor) -> Tensor:
    """Say that the batch size may change."""
    torch._dynamo.mark_dynamic(feature, 0)
    return feature


def assert_unchanged(connector: nn.Module, feature: Tensor) -> None:
    """Check that the feature itself is not written to."""
    kept = feature.clone()
    connector(feature)
    torch.testing.assert_close(feature, kept, rtol=0, atol=0)
