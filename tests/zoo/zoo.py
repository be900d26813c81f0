"""All models of the zoo, by name."""

from tests.zoo import (
    timm_models,
    torchvision_models,
    transformers_generating,
    transformers_hearing,
    transformers_seeing,
    transformers_text,
    traps_of_control,
    traps_of_structure,
)
from tests.zoo.model import Model

GROUPS = (
    timm_models,
    transformers_text,
    transformers_generating,
    transformers_seeing,
    transformers_hearing,
    torchvision_models,
    traps_of_control,
    traps_of_structure,
)
MODELS: dict[str, Model] = {model.name: model for group in GROUPS for model in group.MODELS}


def asked_for(words: list[str]) -> list[Model]:
    """Give the models whose name or family holds one of the words; all if there is none."""
    found = [m for m in MODELS.values() if not words or any(word in f"{m.name} {m.family}" for word in words)]
    if not found:
        raise SystemExit(f"no model and no family is called {', '.join(words)}")
    return found
