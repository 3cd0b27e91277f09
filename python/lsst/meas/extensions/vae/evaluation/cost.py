# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time and memory that parts of a computation take."""

import time
from pathlib import Path

import numpy as np

__all__ = ["CostMeter"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class CostMeter:
    """Adds up what named parts of a computation cost this process.

    Attributes
    ----------
    seconds, cpu_seconds : `dict` [`str`, `float`]
        Of the clock, and of all threads of this process together.
    memory : `dict` [`str`, `float`]
        Most memory that one call held beyond what the process held when it began [MiB]: its resident set, by
        Linux's own count, which starts anew at every call. NaN where the system does not tell.

    Parameters
    ----------
    names : sequence of `str`
        The parts.
    """

    def __init__(self, names):
        self.seconds, self.cpu_seconds = ({name: 0.0 for name in names} for _ in range(2))
        self.memory = {name: float("nan") for name in names}

    def run(self, name, function, *args):
        """Call a function, and count it under a name.

        Returns
        -------
        result
            The function's.
        """
        held = _resident("VmRSS") if _forget_peak() else float("nan")
        clock, cpu = time.perf_counter(), time.process_time()
        result = function(*args)
        self.seconds[name] += time.perf_counter() - clock
        self.cpu_seconds[name] += time.process_time() - cpu
        # Of a number and NaN this takes the number.
        self.memory[name] = float(np.fmax(self.memory[name], _resident("VmHWM") - held))
        return result


def _forget_peak():
    """Let the process's highest resident memory start anew; whether that can be done."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def _resident(key):
    """A number of this process's status [MiB]; NaN where there is none."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float("nan")
