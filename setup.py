# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build meas_extensions_vae; its metadata are in ``pyproject.toml``."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PACKAGE = "lsst.meas.extensions.vae"


class BuildPy(build_py):
    """Put the folders that EUPS wants at the top of the product into wheels too.

    Mapping them by ``package_dir`` would do so as well, but then an editable
    install would no longer be a plain path: it would hide the package from
    ``lsst.__path__``, and with it from whatever walks the namespace.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for name in ("config", "pipelines"):
            shutil.copytree(
                HERE / name,
                Path(self.build_lib, *PACKAGE.split("."), "_data", name),
                ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
                dirs_exist_ok=True,
            )


setup(
    package_dir={"": "python"},
    packages=find_packages("python"),
    package_data={PACKAGE: ["configs/**/*.yaml", "models/*.vae.zip", "py.typed"]},
    scripts=sorted(str(path.relative_to(HERE)) for path in (HERE / "bin").glob("*.py")),
    cmdclass={"build_py": BuildPy},
    zip_safe=False,
)
