"""Say in one line, with the remedy, what this machine lacks; run by the Makefile with any Python 3.

Usage: check_machine.py [venv] [compiler|compiler-note] [dot-note]

A check that ends in ``-note`` prints what is missing and goes on; the others end the run with status 1.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig

OLDEST = (3, 11)
VERSION = ".".join(map(str, sys.version_info[:2]))


def missing_venv():
    """Tell why no virtual environment can be made with this Python, or nothing."""
    if sys.version_info < OLDEST:
        newer = [name for name in (f"python3.{minor}" for minor in range(20, 10, -1)) if shutil.which(name)]
        remedy = f"run: make PYTHON={newer[0]}" if newer else "install one, then run: make PYTHON=/path/to/python3"
        return f"{sys.executable} is Python {VERSION}, and fxkd needs 3.11 or newer; {remedy}"
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        return f"this Python cannot make a virtual environment; on Debian or Ubuntu: apt install python{VERSION}-venv"
    return None


def missing_compiler():
    """Tell why torch.compile cannot build code for the CPU here, or nothing."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler.split()[0]) is None:
        return f"no C++ compiler ({compiler}), which torch.compile needs; on Debian or Ubuntu: apt install g++"
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        return f"no Python.h, which torch.compile needs; on Debian or Ubuntu: apt install python{VERSION}-dev"
    return None


def missing_dot():
    """Tell what draws the pictures where Graphviz is missing, or nothing."""
    if shutil.which("dot") is None:
        return "no `dot` on the PATH; graphviz-pure, which is installed along, draws instead (or: apt install graphviz)"
    return None


CHECKS = {"venv": missing_venv, "compiler": missing_compiler, "dot": missing_dot}


def main(names):
    """Run the named checks; return the exit status."""
    status = 0
    for name in names:
        found = CHECKS[name[:-5] if name.endswith("-note") else name]()
        if found is None:
            continue
        if name.endswith("-note"):
            print("note: " + found)
        else:
            print("error: " + found, file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
