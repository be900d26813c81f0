"""Tests of fxkd/crd_data.py."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fxkd.crd_data import CRDDataset
from fxkd.errors import SpecError
from fxkd.losses import CRDLoss

LABELS = [2, 0, 0, 3, 2, 2, 0, 3, 2, 0]


def data(**options: Any) -> CRDDataset:
    return CRDDataset([chr(ord("a") + i) for i in range(10)], **{"neg_num": 4, "labels": LABELS, **options})


def others(index: int) -> set[int]:
    return {i for i, label in enumerate(LABELS) if label != LABELS[index]}


def test_a_sample_its_index_and_what_to_contrast_it_with() -> None:
    samples = data()
    assert len(samples) == 10
    for i in range(10):
        sample, index, contrast = samples[i]
        assert sample == "abcdefghij"[i]
        assert (index.dtype, index.shape, int(index)) == (torch.int64, (), i)
        assert contrast.shape == (5,)
        assert int(contrast[0]) == i
        assert len(set(contrast[1:].tolist())) == 4  # each once, since there are as many
        assert set(contrast[1:].tolist()) <= others(i)


def test_all_others_are_drawn_equally_often() -> None:
    torch.manual_seed(0)
    samples = data()
    for i in (0, 1, 3):
        counts = torch.bincount(torch.cat([samples[i][2][1:] for _ in range(600)]), minlength=10)
        expected = 600 * 4 / len(others(i))
        for other in others(i):
            assert abs(int(counts[other]) - expected) < 0.25 * expected


def test_more_negatives_than_there_are() -> None:
    *_, contrast = data(neg_num=50)[0]
    assert contrast.shape == (51,)
    assert set(contrast[1:].tolist()) <= others(0)
    assert len(data(neg_num=6)[0][2].unique()) == 7  # just as many as there are


def test_the_positive_may_be_any_of_the_class() -> None:
    torch.manual_seed(0)
    positives = [int(data(sample_mode="random")[3][2][0]) for _ in range(40)]
    assert set(positives) == {3, 7}


def test_a_part_of_the_negatives_is_chosen_once() -> None:
    samples = data(percent=0.5, neg_num=20)
    for i in range(10):
        drawn = {j for _ in range(20) for j in samples[i][2][1:].tolist()}
        assert drawn <= others(i)
        assert len(drawn) == len(others(i)) // 2
    assert data(percent=1e-3, neg_num=1)[0][2].shape == (2,)  # one is always left


def test_index_from_the_end() -> None:
    assert data()[-1][:2] == ("j", torch.tensor(9))
    with pytest.raises(IndexError):
        data()[10]


@pytest.mark.parametrize("labels", [LABELS, tuple(LABELS), torch.tensor(LABELS).int(), (i for i in LABELS)])
def test_forms_of_labels(labels: Any) -> None:
    assert data(labels=labels).labels.tolist() == LABELS


@pytest.mark.parametrize("name", ["targets", "labels"])
def test_labels_of_the_data_set(name: str) -> None:
    class Named(list[int]):
        pass

    dataset = Named(range(10))
    setattr(dataset, name, LABELS)
    assert CRDDataset(dataset, 4).labels.tolist() == LABELS


def test_with_a_loader_and_the_loss() -> None:
    features = torch.nn.functional.normalize(torch.randn(10, 3), dim=1)
    loader = DataLoader(CRDDataset(TensorDataset(features, torch.tensor(LABELS)), 4, labels=LABELS), batch_size=5)
    loss = CRDLoss(neg_num=4, sample_n=10, dim_out=3)
    seen: list[int] = []
    for (inputs, labels), indices, contrast in loader:
        assert torch.equal(labels, torch.tensor(LABELS)[indices])
        before = loss.memory_v1.clone()
        assert loss(inputs, inputs.flip(1), (indices, contrast)).isfinite().all()
        changed: Tensor = (loss.memory_v1 != before).any(dim=1).nonzero().flatten()
        assert changed.tolist() == indices.tolist()
        seen += indices.tolist()
    assert seen == list(range(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neg_num": 0}, "neg_num is 0; it must be a whole number above 0"),
        ({"neg_num": True}, "neg_num is True; it must be a whole number"),
        ({"percent": 0}, "percent is 0; it must be above 0 and at most 1"),
        ({"percent": 50}, "percent is 50; it must be above 0 and at most 1"),
        ({"sample_mode": "randon"}, "sample_mode is 'randon'; it can be 'exact', 'random'.* Did you mean 'random'"),
        ({"labels": None}, "list has neither 'targets' nor 'labels'; give labels="),
        ({"labels": LABELS[:9]}, r"the labels are torch\.int64 of shape \(9,\); 10 samples have one class"),
        ({"labels": [0.5] * 10}, r"the labels are torch\.float32 of shape \(10,\)"),
        ({"labels": [-1, *LABELS[1:]]}, "the labels are .* one class from 0 up each"),
        ({"labels": [1] * 10}, "all 10 samples have one class: nothing to contrast with"),
        ({"num_classes": 3}, "num_classes is 3, but there is a label 3"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"CRDDataset: {message}"):
        data(**options)


def test_wrong_options_are_told_together() -> None:
    with pytest.raises(SpecError, match=r"2 problems:\n.*neg_num.*\n.*percent"):
        data(neg_num=0, percent=2)
