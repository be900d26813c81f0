"""One run of the digits example: a teacher, a small student that learns alone, and the same student distilled."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from digits_models import CLASSES, Cnn
from sklearn.datasets import load_digits
from torch import Tensor, nn

import fxkd

TEACHER_WIDTH = 24
STUDENT_WIDTH = 4

SPEC = {
    # Both networks mix the images of a batch at random: the student takes over what the teacher has drawn.
    "distill_deliveries": {
        "mixup": {"type": "MethodOutputs", "method_path": "digits_models.Mixup.__call__", "max_keep_data": 1},
    },
    "pairs": [
        {"student": "head", "teacher": "head", "loss": {"type": "KLDivergence", "tau": 4}},
        {
            "student": "layer1",
            "teacher": "layer1",
            "loss": {"type": "L2Loss", "loss_weight": 0.3},
            # The student's map has 8 channels and the teacher's 48.
            "student_connector": {
                "type": "ConvModuleConnector",
                "in_channel": 2 * STUDENT_WIDTH,
                "out_channel": 2 * TEACHER_WIDTH,
                "act_cfg": None,
            },
        },
    ],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How the networks are trained; chosen, as the spec was, on the validation images and on seeds not reported.

    Args:
        steps: Steps of every training.
        batch: Images in a step.
        rate: The highest learning rate.
        per_class: Labelled images of each digit that the student has; the teacher has all training images.
    """

    steps: int = 400
    batch: int = 50
    rate: float = 0.06
    per_class: int = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Images (N, 1, 8, 8) with values from 0 to 1, and their labels (N,)."""

    images: Tensor
    labels: Tensor

    def __getitem__(self, rows: Tensor) -> "Images":
        return Images(images=self.images[rows], labels=self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Digits:
    """The 1797 digits of scikit-learn in three parts, the same for every seed."""

    train: Images
    validation: Images  # settings are chosen on these
    test: Images  # and reported on these


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one seed gave.

    Args:
        accuracy: Share of the test images named rightly by ``"teacher"``, ``"alone"`` and ``"distilled"``.
        step_ms: Median time of a training step of each, in milliseconds.
        parameters: Number of weights of each.
        distiller: The trained distiller.
    """

    accuracy: dict[str, float]
    step_ms: dict[str, float]
    parameters: dict[str, int]
    distiller: fxkd.Distiller


def load() -> Digits:
    """Read the digits, which come with scikit-learn, and split them."""
    source = load_digits()
    images = torch.tensor(source.images, dtype=torch.float32).unsqueeze(1) / 16
    digits = Images(images=images, labels=torch.tensor(source.target))
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    train, validation, test = order.split([897, 300, 600])
    return Digits(train=digits[train], validation=digits[validation], test=digits[test])


def run(seed: int, digits: Digits, settings: Settings, on_step: Callable[[str], None]) -> Run:
    """Train all three; both students start from the same weights and see the same mixed images in the same order.

    Args:
        seed: Decides on the initial weights, the labelled images, their order and how they are mixed.
        digits: The images.
        settings: How to train.
        on_step: Is told who has made a step: ``"teacher"``, ``"alone"`` or ``"distilled"``.
    """
    few = choose(digits.train, settings.per_class, seed)
    torch.manual_seed(seed)
    teacher, alone = Cnn(TEACHER_WIDTH), Cnn(STUDENT_WIDTH)
    student = copy.deepcopy(alone)

    step_ms = {"teacher": train(teacher, digits.train, settings, seed, partial(on_step, "teacher"))}
    step_ms["alone"] = train(alone, few, settings, seed, partial(on_step, "alone"))
    example = next(batches(few, settings.batch, seed))
    distiller = fxkd.prepare(student, teacher, SPEC, example_inputs=(example.images, example.labels))
    step_ms["distilled"] = train(distiller, few, settings, seed, partial(on_step, "distilled"))

    networks = {"teacher": teacher, "alone": alone, "distilled": student}
    return Run(
        accuracy={name: accuracy(network, digits.test) for name, network in networks.items()},
        step_ms=step_ms,
        parameters={name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()},
        distiller=distiller,
    )


def train(model: nn.Module, data: Images, settings: Settings, seed: int, on_step: Callable[[], None]) -> float:
    """Train a network, or a distiller, which is called and trained like one; give the median milliseconds of a step."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=settings.rate, total_steps=settings.steps)
    source = batches(data, settings.batch, seed)
    torch.manual_seed(seed)  # whatever was drawn before: mixup draws the same for both students
    times = []
    for _ in range(settings.steps):
        batch, start = next(source), time.perf_counter()
        loss = model(batch.images, batch.labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        times.append(time.perf_counter() - start)
        on_step()
    return 1000 * statistics.median(times)


def batches(data: Images, size: int, seed: int) -> Iterator[Images]:
    """Give batches without end, in an order that ``seed`` alone decides."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(len(data), generator=generator).split(size):
            if len(rows) == size:
                yield data[rows]


def choose(data: Images, per_class: int, seed: int) -> Images:
    """Choose ``per_class`` images of each digit at random."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    labels = data.labels[order]
    return data[torch.cat([order[labels == digit][:per_class] for digit in range(CLASSES)])]


@torch.no_grad()
def accuracy(network: nn.Module, data: Images) -> float:
    """Give the share of images that a network, in eval mode, names rightly."""
    network.eval()
    right = network(data.images)["logits"].argmax(1) == data.labels
    return int(right.sum()) / len(data)
