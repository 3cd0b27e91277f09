# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write files whole or not at all."""

__all__ = ["replacing", "write_texts"]

import contextlib
import os
import tempfile
from pathlib import Path

from .errors import VaeError


@contextlib.contextmanager
def replacing(path):
    """A file beside ``path`` that takes its place once it is written.

    Whatever goes wrong, an interruption included, the old file stays as it
    was and nothing is left beside it.

    Parameters
    ----------
    path : path-like
        File to write, or to write anew; its folder exists.

    Yields
    ------
    temporary : `pathlib.Path`
        Where to write, in the same folder; there is an empty file.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # A crash after the renaming must not find the content still unwritten.
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes private files; this one gets what the umask gives any new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_texts(folder, texts):
    """Write text files, each whole or not at all, in the order given.

    Parameters
    ----------
    folder : path-like
        Existing folder.
    texts : `dict` [`str`, `str`]
        Contents by name; encoded as UTF-8.

    Raises
    ------
    VaeError
        Raised if a file cannot be written.
    """
    folder = Path(folder)
    for name, text in texts.items():
        try:
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise VaeError(
                f"cannot write {folder / name} ({error.strerror}): give another --output"
            ) from None
