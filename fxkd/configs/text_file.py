"""The text of a file, or one sentence on why there is none."""

from pathlib import Path

from fxkd.errors import Problems, did_you_mean

SUFFIXES = {"YAML": (".yaml", ".yml"), "Python": (".py",)}


def read_text(path: Path, kind: str, problems: Problems, asked_at: str = "") -> str | None:
    """Read a file of the ``kind`` ``"YAML"`` or ``"Python"``; ``asked_at`` is where another file names this one."""
    where = f"{asked_at}: _base_: {path}" if asked_at else str(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        problems.found.append(f"{where}: there is no such file." + _neighbours(path, kind))
    except IsADirectoryError:
        problems.found.append(f"{where}: is a folder; give the {kind} file." + _has(path, kind))
    except OSError as error:
        problems.found.append(f"{where}: cannot be read: {error.strerror}")
    except ValueError as error:  # bytes that are no text, or a path that no file can have
        problems.found.append(f"{where}: is not text in UTF-8: {error}")
    return None


def _neighbours(path: Path, kind: str) -> str:
    if not path.parent.is_dir():
        return f" There is no folder '{path.parent}'."
    near = did_you_mean(path.name, [one.name for one in path.parent.iterdir() if one.is_file()])
    return near or _has(path.parent, kind)


def _has(folder: Path, kind: str) -> str:
    names = sorted(one.name for one in folder.iterdir() if one.suffix in SUFFIXES[kind])
    return f" '{folder}' has {', '.join(map(repr, names[:12]))}." if names else f" '{folder}' has no {kind} files."
