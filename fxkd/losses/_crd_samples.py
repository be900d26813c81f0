"""What CRDLoss is told about a batch: the indices of its samples, and of what to contrast them with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fxkd.losses._checks import refusal

Indices = tuple[Tensor, Tensor | None]


def sample_indices(owner: nn.Module, data_samples: Any) -> Indices:
    """Return the indices (N,) and, where there are any, the contrast indices (N, K + 1), whatever form they come in.

    Args:
        owner: The loss, for messages.
        data_samples: A tensor (N,); two tensors (N,) and (N, K + 1), side by side as one (N, K + 2), as a tuple, a
            list, or under the keys ``sample_idx`` and ``contrast_sample_idxs``; or a list with one object or dict a
            sample that has these. Whether there are contrast indices is judged from the first.
    """
    if isinstance(data_samples, Tensor):
        alone = data_samples.ndim != 2 or data_samples.shape[1] == 1
        return (data_samples, None) if alone else (data_samples[:, 0], data_samples[:, 1:])
    if isinstance(data_samples, Mapping):
        return _of(owner, data_samples, "sample_idx"), data_samples.get("contrast_sample_idxs")
    if not isinstance(data_samples, Sequence) or isinstance(data_samples, str) or not data_samples:
        raise refusal(owner, f"data_samples is {_shown(data_samples)}; {_FORMS}")
    if isinstance(data_samples[0], Tensor):
        if len(data_samples) != 2:
            raise refusal(owner, f"data_samples is {len(data_samples)} tensors; {_FORMS}")
        return data_samples[0], data_samples[1]
    return _stacked(owner, data_samples)


_FORMS = (
    "it takes a tensor of sample indices (N,), that and contrast indices (N, K + 1) as a tuple or side by side, or a "
    "list of samples with 'sample_idx' and, if there are any, 'contrast_sample_idxs'."
)


def _stacked(owner: nn.Module, samples: Sequence[Any]) -> Indices:
    indices = torch.stack([torch.as_tensor(_of(owner, sample, "sample_idx")).reshape(()) for sample in samples])
    if _get(samples[0], "contrast_sample_idxs") is None:
        return indices, None
    return indices, torch.stack([torch.as_tensor(_of(owner, sample, "contrast_sample_idxs")) for sample in samples])


def _of(owner: nn.Module, sample: Any, name: str) -> Any:
    value = _get(sample, name)
    if value is None:
        raise refusal(owner, f"data_samples has {_shown(sample)} without {name!r}; {_FORMS}")
    return value


def _get(sample: Any, name: str) -> Any:
    return sample.get(name) if isinstance(sample, Mapping) else getattr(sample, name, None)


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}" + ("" if value else ", an empty one")
