# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Execute notebooks and store them with their outputs, for readers who run nothing.

``python doc/notebooks/store.py [NAME.ipynb ...]`` executes those named, or all, each from a clean kernel of
this Python in a folder that is thrown away. ``tests/test_notebooks.py`` executes them in the same way.
"""

import base64
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

__all__ = ["HERE", "ROOT", "USER", "execute", "main", "tidy"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

USER = "me"
"""The user's name while notebooks run: collections are named by it."""

# Looked at in the kernel before the first cell: what asks for the network fails, whoever's it is.
_STARTUP = """
import socket


def _refuse(name):
    real = getattr(socket.socket, name)

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not address[0].startswith(("127.", "::1")):
            raise OSError(f"notebooks are executed without a network: no connection to {address[0]}")
        return real(self, address)

    return connect


for _name in ("connect", "connect_ex"):
    setattr(socket.socket, _name, _refuse(_name))
"""


def execute(path, folder, timeout=600, checks=None):
    """Execute a notebook from a clean kernel, without a network.

    Parameters
    ----------
    path : path-like
        The notebook; its file stays as it is.
    folder : path-like
        Working folder of the kernel, which is empty, and of its settings.
    timeout : `float`, optional
        Limit on each cell [s].
    checks : `str`, optional
        Code of one cell more, executed at the end.

    Returns
    -------
    notebook : `nbformat.NotebookNode`
        With its outputs, that of the checks left out.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        Raised if a cell fails.
    nbclient.exceptions.CellTimeoutError
        Raised if a cell takes too long.
    """
    notebook = nbformat.read(path, as_version=4)
    if checks:
        notebook.cells.append(nbformat.v4.new_code_cell(checks))
    work, settings = Path(folder) / "work", Path(folder) / "settings"
    startup = settings / "ipython" / "profile_default" / "startup"
    for made in (work, startup):
        made.mkdir(parents=True)
    (startup / "00-network.py").write_text(_STARTUP)
    # This clone's package and commands, and none of the user's own settings.
    paths = {"PYTHONPATH": ROOT / "python", "PATH": ROOT / "bin"}
    environment = {k: os.pathsep.join([str(p), *filter(None, [os.environ.get(k)])]) for k, p in paths.items()}
    environment |= {k: str(settings / "jupyter") for k in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    environment |= {"IPYTHONDIR": str(settings / "ipython"), "MPLBACKEND": "", "USER": USER, "LOGNAME": USER}
    environment["MEAS_EXTENSIONS_VAE_CACHE"] = str(settings / "cache")
    # Where there are no kernels to choose from, it is that of this Python.
    manager = AsyncKernelManager(
        kernel_name="python3",
        connection_file=str(settings / "kernel.json"),
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
    )
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=timeout,
        resources={"metadata": {"path": str(work)}},
        # Colours of a terminal do no good in a file.
        extra_arguments=["--InteractiveShell.colors=NoColor"],
    )
    client.execute(env={**os.environ, **environment}, cleanup_kc=True)
    if checks:
        notebook.cells.pop()
    return notebook


def tidy(notebook):
    """Leave out what differs from one execution to the next and tells nothing, and pack figures, in place.

    Parameters
    ----------
    notebook : `nbformat.NotebookNode`
        An executed notebook.
    """
    from PIL import Image

    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for data in (output.get("data", {}) for output in cell.get("outputs", ())):
            if "image/png" in data:
                image = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
                packed = io.BytesIO()
                # Noise does not compress; in steps of 4 of 255 it takes a third less, and nobody sees it.
                image.point(lambda value: min((value + 2) // 4 * 4, 255)).save(packed, "PNG", optimize=True)
                data["image/png"] = base64.b64encode(packed.getvalue()).decode()


def main(argv=None):
    """Execute and store notebooks.

    Parameters
    ----------
    argv : `list` [`str`], optional
        Files; those of the process by default, and all if there are none.
    """
    names = sys.argv[1:] if argv is None else argv
    for path in map(Path, names) if names else sorted(HERE.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, folder)
        tidy(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
