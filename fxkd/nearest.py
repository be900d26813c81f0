"""The paths of a model nearest to one that is not there: by wrappers, by suffix, by index, by words and numbers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

WRAPPERS = frozenset({"module", "_orig_mod", "model", "backbone", "architecture", "student", "teacher"})
# Words that models use for one thing; what is in no group is compared by its letters.
GROUPS = (
    {"layer", "stage", "block", "h", "group"},
    {"attn", "attention", "mha", "msa"},
    {"mlp", "ffn", "feedforward", "intermediate"},
    {"fc", "head", "classifier", "linear", "dense", "heads"},
    {"norm", "ln", "bn", "layernorm", "batchnorm", "normalization"},
    {"conv", "convolution"},
    {"downsample", "shortcut", "skip"},
    {"embed", "embedding", "embeddings", "emb"},
    {"proj", "projection", "projector", "out", "output"},
    {"act", "activation", "relu", "gelu"},
    {"pool", "avgpool", "gap", "pooler", "pooling"},
    {"weight", "kernel", "gamma"},
    {"bias", "beta"},
)
GROUP = {word: index for index, words in enumerate(GROUPS) for word in words}
ENOUGH, BEHIND = 0.5, 0.15  # the least likeness that is offered, and how far behind the best
STRANGE = 0.25  # what a word weighs that is like no word of the model

Segments = tuple[str, ...]
Token = tuple[str, bool]  # a word or a number, and whether it is a segment of its own


def nearest_paths(asked: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Give the dotted paths among ``known`` that ``asked`` may mean, best first.

    >>> nearest_paths("module.stage3[0]", ["layer2.0", "layer3", "layer3.0", "fc"])
    ['layer3.0']
    """
    plain = re.sub(r"\[\s*['\"]?([^\]'\"]*)['\"]?\s*\]", r".\1", asked).replace("/", ".").strip()
    given = tuple(part.strip() for part in plain.split(".") if part.strip())
    names = {name: tuple(name.split(".")) for name in known if name}
    for attempt in (_by_wrappers, _by_suffix, _by_index, _by_words):
        found = attempt(given, names)
        if found:
            return found[:most]
    return []


def as_ranges(names: Sequence[str]) -> list[str]:
    """Quote names; three or more that count up from the first number become one range.

    >>> as_ranges(["0", "1", "2", "3", "norm"])
    ["'0'..'3'", "'norm'"]
    """
    count = 0
    while count < len(names) and names[count].isdecimal() and int(names[count]) == int(names[0]) + count:
        count += 1
    if count < 3:
        return [repr(name) for name in names]
    return [f"{names[0]!r}..{names[count - 1]!r}", *map(repr, names[count:])]


def _lower(segments: Iterable[str]) -> Segments:
    return tuple(segment.lower() for segment in segments)


def _core(segments: Iterable[str]) -> Segments:
    """Leave out what only wraps a model."""
    return tuple(segment for segment in _lower(segments) if segment not in WRAPPERS)


def _by_wrappers(given: Segments, names: Mapping[str, Segments]) -> list[str]:
    """Find what differs by wrappers on either side, by brackets or by case."""
    core = _core(given)
    return [name for name, segments in names.items() if core and _core(segments) == core]


def _by_suffix(given: Segments, names: Mapping[str, Segments]) -> list[str]:
    """Find the one path that ends as asked, or the longest with which the asked path ends; no index is left out."""
    core = _core(given)
    longer = [name for name, segments in names.items() if core and _lower(segments)[-len(core) :] == core]
    if len(longer) == 1:
        return longer
    shorter = [name for name, segments in names.items() if _is_end(_lower(segments), core)]
    return sorted(shorter, key=lambda name: -len(names[name]))[:1]


def _is_end(end: Segments, path: Segments) -> bool:
    left_out = path[: len(path) - len(end)]
    return path[len(left_out) :] == end and not re.search(r"\d", ".".join(left_out))


def _by_index(given: Segments, names: Mapping[str, Segments]) -> list[str]:
    """Find the nearest index where one is asked that is not there."""
    known = {segments[:depth] for segments in names.values() for depth in range(1, len(segments) + 1)}
    start = next((i for i in range(len(given)) if given[i : i + 1] in known), len(given))
    path = given[start:]
    depth = next((i for i in range(1, len(path)) if path[: i + 1] not in known), len(path))
    if _core(given[:start]) or depth >= len(path) or not re.fullmatch("-?[0-9]+", path[depth]):
        return []
    there = [int(one[depth]) for one in known if one[:depth] == path[:depth] and _is_index(one[depth:])]
    if not there:
        return []
    index = int(path[depth])
    wanted = index if index >= 0 else max(there) + 1 + index
    near = min(there, key=lambda one: abs(one - wanted))
    whole = (*path[:depth], str(near), *path[depth + 1 :])
    return [name for name in map(".".join, (whole, whole[: depth + 1])) if name in names][:1]


def _is_index(rest: Segments) -> bool:
    return len(rest) == 1 and rest[0].isdecimal()


def _by_words(given: Segments, names: Mapping[str, Segments]) -> list[str]:
    """Find what is made of like words and numbers in the same order."""
    asked = _tokens(segment for segment in given if segment.lower() not in WRAPPERS)
    tokens = {name: _tokens(segments) for name, segments in names.items()}
    vocabulary = {word for made in tokens.values() for word, _ in made if not word.isdecimal()}
    weights = [1.0 if word.isdecimal() or _is_known(word, vocabulary) else STRANGE for word, _ in asked]
    scores = {name: _likeness(asked, weights, made) for name, made in tokens.items()}
    least = max(ENOUGH, max(scores.values(), default=0) - BEHIND)
    return sorted((name for name in scores if scores[name] >= least), key=lambda name: -scores[name])


def _tokens(segments: Iterable[str]) -> list[Token]:
    """Take segments apart in words and numbers: ``layer_1.0.Conv2`` is layer, 1, 0, conv, 2."""
    return [
        (str(int(part)) if part.isdecimal() else part.lower(), part == segment)
        for segment in segments
        for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+", segment)
    ]


def _is_known(word: str, vocabulary: set[str]) -> bool:
    return any(_alike(word, other) for other in vocabulary)


def _likeness(asked: list[Token], weights: list[float], made: list[Token]) -> float:
    """Give the share, 0 to 1, of what can be paired in order."""
    best = [0.0] * (len(made) + 1)
    for token, weight in zip(asked, weights, strict=True):
        before = list(best)
        for index, other in enumerate(made):
            best[index + 1] = max(before[index + 1], best[index], before[index] + weight * _like(token, other))
    return 2 * best[-1] / (sum(weights) + len(made)) if asked else 0.0


def _like(token: Token, other: Token) -> float:
    (one, is_lone), (two, other_is_lone) = token, other
    if not (one.isdecimal() and two.isdecimal()):
        return _alike(one, two)
    step = int(two) - int(one)
    if is_lone and other_is_lone:
        return float(step == 0)
    if is_lone == other_is_lone:
        return 1.0 if step == 0 else 0.3 * (abs(step) == 1)
    shifted = step == (1 if is_lone else -1)  # lists count from 0, names such as layer1 from 1
    sure, less = (shifted, step == 0) if is_lone else (step == 0, shifted)
    return 1.0 if sure else 0.8 * less


@lru_cache(maxsize=4096)
def _alike(one: str, two: str) -> float:
    """Tell how alike two words are, 0 to 1."""
    one, two = one.removesuffix("s"), two.removesuffix("s")
    if one == two:
        return 1.0
    if one in GROUP and GROUP[one] == GROUP.get(two):
        return 0.85
    ratio = SequenceMatcher(None, one, two).ratio()
    return 0.9 * ratio if ratio >= 0.6 and not (one.isdecimal() or two.isdecimal()) else 0.0
