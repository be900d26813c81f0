"""Which packages there are; everything else is in ``pyproject.toml``.

The files of ``fxkd.passes`` lie in ``passes/``. In a checkout ``fxkd/passes`` is a link to it; for a build
``package_dir`` says the same, so that a wheel holds them as real files of ``fxkd/passes/`` and no top-level ``passes``.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["fxkd", "fxkd.*"], exclude=["fxkd.passes", "fxkd.passes.*"]),
        "fxkd.passes",
        *(f"fxkd.passes.{name}" for name in find_packages("passes")),
    ],
    package_dir={"fxkd": "fxkd", "fxkd.passes": "passes"},
)
