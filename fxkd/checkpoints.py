"""Files of weights: read without executing anything, whatever wrapped the model, and refused where they do not fit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fxkd.errors import SpecError, did_you_mean

HOLDERS = ("state_dict", "model_state_dict", "model", "module")  # under which files keep the weights
ROLES = {"teacher": ("teacher.",), "student": ("student.", "architecture.")}
OWN = ("connectors.", "losses.")
COUNTER = "num_batches_tracked"


@contextmanager
def loaded(given: Mapping[str, tuple[nn.Module, str]], places: Mapping[str, str]) -> Iterator[None]:
    """Load files into models; if anything is raised inside, what the models held is put back.

    Args:
        given: Option of the spec -> model and file; the option's first word is the model's role.
        places: Where each option is written, if that is known.
    """
    before = [(model, {k: v.detach().clone() for k, v in model.state_dict().items()}) for model, _ in given.values()]
    try:
        for option, (model, path) in given.items():
            role, _, name = option.partition("_")[0], *option.partition(".")[1:]
            load(model, path, places.get(option, option), role, name)
        yield
    except BaseException:
        for model, state in before:
            model.load_state_dict(state)
        raise


def load(model: nn.Module, path: str | Path, where: str, role: str = "", name: str = "") -> None:
    """Load a file of weights into ``model``, off which any wrapper's prefix is taken.

    Args:
        model: What gets the weights.
        path: A file of ``torch.save`` (weights alone, or under ``state_dict`` and the like) or a ``.safetensors`` file.
        where: What asks for it: for messages.
        role: ``"teacher"`` or ``"student"``: which one of a file that holds both.
        name: Which one of several teachers in it.

    Raises:
        SpecError: There is no such file, it holds no weights, not those of this model, or those of several like it.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "wrapped.pth"
    >>> torch.save({"state_dict": {"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}}, file)
    >>> model = nn.Linear(2, 1)
    >>> load(model, file, "teacher_ckpt")
    >>> model.weight.tolist()
    [[1.0, 1.0]]
    """
    state, wanted = read_state(path, where), model.state_dict()
    prefixes = _prefixes(state, wanted, role, name)
    if not prefixes:
        raise SpecError([f"{where}: {path} {_lack(state, wanted)}"])
    prefix = prefixes[0]
    if not all(one.startswith(prefix) for one in prefixes):
        several = ", ".join(f"{one.removesuffix('.')!r}" for one in prefixes)
        raise SpecError([f"{where}: {path} has the weights of this model under {several}; save one of them by itself"])
    fitting = {key: state[prefix + key] for key in wanted if prefix + key in state}
    wrong = [key for key, value in fitting.items() if value.shape != wanted[key].shape]
    if wrong:
        shapes = f"{tuple(fitting[wrong[0]].shape)}, and the model's is {tuple(wanted[wrong[0]].shape)}"
        raise SpecError([f"{where}: {path} has {wrong[0]!r} of shape {shapes}{_more(wrong)}"])
    model.load_state_dict(fitting, strict=False)


def load_parts(parts: Mapping[str, nn.Module], path: str | Path, where: str) -> list[str]:
    """Load connectors and losses from the state of a whole distiller; give the names that it lacks.

    Raises:
        SpecError: It cannot be read, or holds none of them.
    """
    state = read_state(path, where)
    state = {key[key.find(own) :]: value for key, value in state.items() for own in OWN if own in key}
    lacking = []
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        if part.state_dict().keys() <= own.keys():
            part.load_state_dict(own)
        else:
            lacking.append(name)
    if parts and len(lacking) == len(parts):
        has = ", ".join(sorted({".".join(key.split(".")[:2]) for key in state})) or "none"
        raise SpecError([f"{where}: {path} has none of {', '.join(map(repr, lacking))}; it has {has}"])
    return lacking


def read_state(path: str | Path, where: str) -> dict[str, Tensor]:
    """Read the weights that a file holds.

    Raises:
        SpecError: There is no such file, or it holds no weights.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        names = [one.name for one in file.parent.iterdir()] if file.parent.is_dir() else []
        raise SpecError([f"{where}: there is no file '{path}'." + did_you_mean(file.name, names)])
    try:
        held = _read(file)
    except Exception as error:
        told = str(error).splitlines()[0] if str(error) else "no message"
        raise SpecError([f"{where}: '{path}' cannot be read as weights: {type(error).__name__}: {told}"]) from error
    while isinstance(held, Mapping):  # tensors beside, such as a best accuracy, are no weights
        inner = next((held[name] for name in HOLDERS if isinstance(held.get(name), Mapping)), None)
        if inner is None:
            break
        held = inner
    weights = {str(k): v for k, v in held.items() if isinstance(v, Tensor)} if isinstance(held, Mapping) else {}
    if not weights:
        what = f"a dict with {', '.join(map(repr, held))}" if isinstance(held, Mapping) else f"a {type(held).__name__}"
        raise SpecError([f"{where}: '{path}' holds no weights but {what}"])
    return weights


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _prefixes(state: Mapping[str, Any], wanted: Mapping[str, Any], role: str, name: str) -> list[str]:
    """Find what stands before the model's own names, shortest first: of several only that of the name or role."""
    names = [key for key in wanted if not key.endswith(COUNTER)]
    if not names:
        return [""]
    ends = {key.removesuffix(names[0]) for key in state if key == names[0] or key.endswith(f".{names[0]}")}
    whole = [prefix for prefix in ends if all(prefix + key in state for key in names)]
    own = [prefix for prefix in whole if any(prefix.startswith(start) for start in ROLES.get(role, ()))]
    called = [prefix for prefix in own or whole if name and f".{prefix}".endswith(f".{name}.")]
    return sorted(called or own or whole, key=lambda prefix: (len(prefix), prefix))


def _lack(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    lacking = [name for name in wanted if not any(key == name or key.endswith(f".{name}") for key in state)]
    if not lacking:
        return "holds the weights of this model under several prefixes mixed up"
    return f"lacks {lacking[0]!r}{_more(lacking)}; it has {', '.join(map(repr, list(state)[:3]))}, ..."


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
