"""Contrast of each sample's two features with banks of all samples' features."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fxkd.losses._checks import (
    check_flags,
    check_logits,
    check_numbers,
    check_same_shape,
    check_temperature,
    check_whole,
    refusal,
    warn_compat,
)
from fxkd.losses._crd_samples import sample_indices
from fxkd.losses._values import full, no_autocast, nothing, unit
from fxkd.registry import loss

Z_S, Z_T = 2, 3  # where `params` keeps the normalising constants; below 0: not known yet


@loss("CRDLoss")
class CRDLoss(nn.Module):
    """Tell a sample's own features from other samples': the student's against a bank of the teacher's, and vice versa.

    With ``i`` the contrast indices of a sample, first its own, then K others, ``M_s`` and ``M_t`` the banks and
    ``P = 1 / sample_n``::

        o_s = exp(<M_t[i], s> / temperature) / Z_s
        o_t = exp(<M_s[i], t> / temperature) / Z_t
        C(o) = -sum(log(o[0] / (o[0] + K P + eps)) + sum over others of log(K P / (o[k] + K P + eps))) / N
        loss = C(o_s) + C(o_t)

    ``Z_s`` and ``Z_t`` are ``sample_n`` times the mean of their exponentials in the first batch, and kept for ever.
    Afterwards the banks move: ``M_s[i[0]]`` becomes ``momentum * M_s[i[0]] + (1 - momentum) * s`` at length 1, ``M_t``
    likewise. Banks and constants belong to each process alone.

    Args:
        loss_weight: Does nothing, as in MMRazor, unless ``compat`` is False.
        temperature: Divides the products, above 0.
        neg_num: K, how many other samples each is contrasted with.
        sample_n: How many samples the data has.
        dim_out: Width of the features.
        momentum: How much of a bank's row stays.
        eps: Keeps logarithms finite.
        compat: False multiplies the result by ``loss_weight``.

    Shape:
        ``s_feats`` and ``t_feats`` (N, dim_out), of length 1 each (``CRDConnector`` gives them). ``data_samples``:
        sample indices (N,); these and contrast indices (N, neg_num + 1), side by side in one tensor (N, neg_num + 2)
        as ``from_input`` needs it, as a tuple, or as a dict with ``sample_idx`` and ``contrast_sample_idxs``; or a list
        with one object or dict a sample. ``fxkd.crd_data`` makes both. Without contrast indices the others are drawn
        from all samples. The result has shape (1,); gradient reaches both features.

    Buffers:
        ``memory_v1`` and ``memory_v2``, the banks of the student and the teacher, and ``params``: neg_num,
        temperature, ``Z_s``, ``Z_t``, momentum. Of ``params`` only the constants are read: the rest is there so that
        states of MMRazor load, and the options of the constructor hold.

    Raises:
        SpecError: An option has a value it cannot have, the features differ in shape or are not (N, dim_out), or the
            samples have no indices, or not as many as there are features and negatives.

    From "Contrastive Representation Distillation", arXiv 1910.10699.

    >>> loss = CRDLoss(neg_num=4, sample_n=10, dim_out=3)
    >>> student, teacher = torch.eye(3), torch.eye(3).flip(0)
    >>> loss(student, teacher, torch.tensor([5, 0, 9])).shape
    torch.Size([1])
    """

    kind: ClassVar[str] = "relation"
    memory_v1: Tensor
    memory_v2: Tensor
    params: Tensor

    def __init__(
        self,
        loss_weight: float = 1.0,
        temperature: float = 0.07,
        neg_num: int = 16384,
        sample_n: int = 50000,
        dim_out: int = 128,
        momentum: float = 0.5,
        eps: float = 1e-7,
        compat: bool = True,
    ) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight, momentum=momentum, eps=eps)
        check_temperature(self, temperature, name="temperature")
        check_whole(self, neg_num=neg_num, sample_n=sample_n, dim_out=dim_out)
        check_flags(self, compat=compat)
        if compat and loss_weight != 1:
            warn_compat(self, f"loss_weight {loss_weight} does nothing, as in MMRazor", "its product with the loss")
        self.loss_weight = loss_weight
        self.temperature = temperature
        self.neg_num = neg_num
        self.sample_n = sample_n
        self.dim_out = dim_out
        self.momentum = momentum
        self.eps = eps
        self.compat = compat
        bound = (3 / dim_out) ** 0.5
        self.register_buffer("params", torch.tensor([neg_num, temperature, -1.0, -1.0, momentum]))
        self.register_buffer("memory_v1", torch.empty(sample_n, dim_out).uniform_(-bound, bound))
        self.register_buffer("memory_v2", torch.empty(sample_n, dim_out).uniform_(-bound, bound))

    def forward(self, s_feats: Tensor, t_feats: Tensor, data_samples: Any) -> Tensor:
        self._check_features(s_feats, t_feats)
        student, teacher = full(s_feats), full(t_feats)
        if not student.numel():
            return nothing(student, teacher).reshape(1)
        own, contrast = self._indices(data_samples, student)
        total = self._contrast(student, self.memory_v2, contrast, Z_S)
        total = total + self._contrast(teacher, self.memory_v1, contrast, Z_T)
        with torch.no_grad():
            self._move(self.memory_v1, own, student)
            self._move(self.memory_v2, own, teacher)
        return (total if self.compat else self.loss_weight * total).reshape(1)

    def _check_features(self, s_feats: Tensor, t_feats: Tensor) -> None:
        check_same_shape(self, s_feats=s_feats, t_feats=t_feats)
        check_logits(self, "features (N, dim_out)", s_feats=s_feats)
        if s_feats.shape[1] != self.memory_v1.shape[1]:
            raise refusal(self, f"dim_out is {self.dim_out}, but s_feats has shape {tuple(s_feats.shape)}.")

    def _indices(self, data_samples: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples' own indices (N,) and what to contrast, (N, neg_num + 1), where the features are."""
        own, contrast = sample_indices(self, data_samples)
        samples = features.shape[0]
        if own.numel() != samples or own.is_floating_point():
            found = f"{own.dtype} of shape {tuple(own.shape)}"
            raise refusal(self, f"the sample indices are {found}; {samples} samples have one index each.")
        own = own.to(features.device, torch.long).reshape(-1)
        if contrast is None:
            drawn = torch.randint(self.memory_v1.shape[0], (samples, self.neg_num), device=features.device)
            return own, torch.cat([own[:, None], drawn], dim=1)
        if tuple(contrast.shape) != (samples, self.neg_num + 1):
            wanted = f"({samples}, {self.neg_num + 1})"
            raise refusal(
                self,
                f"the contrast indices have shape {tuple(contrast.shape)}; neg_num {self.neg_num} wants {wanted}: the "
                "sample's own index and as many others.",
            )
        return own, contrast.to(features.device, torch.long)

    def _contrast(self, features: Tensor, bank: Tensor, contrast: Tensor, place: int) -> Tensor:
        """Score features against a bank; the first batch fixes the constant at ``place`` of ``params``."""
        with no_autocast(features):
            products = (bank[contrast].to(features.dtype) @ features[:, :, None]).squeeze(2)
        scores = (products / self.temperature).exp()
        with torch.no_grad():
            known = self.params[place]
            constant = torch.where(known < 0, (scores.mean() * bank.shape[0]).to(known.dtype), known)
            self.params[place].copy_(constant)
        scores = scores / constant
        noise = (contrast.shape[1] - 1) / bank.shape[0]
        others = (noise / (scores[:, 1:] + noise + self.eps)).log().sum()
        return -((scores[:, 0] / (scores[:, 0] + noise + self.eps)).log().sum() + others) / features.shape[0]

    def _move(self, bank: Tensor, own: Tensor, features: Tensor) -> None:
        moved = self.momentum * bank[own] + (1 - self.momentum) * features
        bank.index_copy_(0, own, unit(moved).to(bank.dtype))
