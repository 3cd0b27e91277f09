# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parents whose deblending fails take no others with them, and cost few calls."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lsst.pipe.base")

from test_tasks_deblend import KnownNetwork  # noqa: E402

from lsst.meas.extensions.vae.deblending import deblend_blend  # noqa: E402
from lsst.meas.extensions.vae.deblendingParents import deblendCatching  # noqa: E402


def test_draws_of_the_others_outlive_a_failure():
    centres = np.array([(32.0, 32.0), (32.0, 60.0), (32.0, 90.0)])
    jobs = [
        SimpleNamespace(peaks=[0], first=k, error="", record=SimpleNamespace(getId=lambda: 1))
        for k in range(3)
    ]

    def deblend(part):
        numbers = np.arange(3)[part]
        if 1 in numbers:
            raise ValueError("the second one")
        result = deblend_blend(np.zeros((2, 64, 128)), np.ones((2, 64, 128)), centres[part], KnownNetwork())
        result.draws = np.full(len(result.failed), None)
        result.draws[:] = [f"draws of {number}" for number in numbers]
        return result

    result = deblendCatching(jobs, deblend, SimpleNamespace(error=lambda *args: None))
    assert list(result.draws) == ["draws of 0", None, "draws of 2"]
    assert list(result.failed) == [False, True, False]


def test_an_error_of_every_parent_is_not_called_for_each():
    jobs = [
        SimpleNamespace(peaks=[0], first=k, error="", record=SimpleNamespace(getId=lambda: 1))
        for k in range(999)
    ]
    calls = []

    def deblend(part):
        calls.append(part)
        raise ValueError("all")

    assert deblendCatching(jobs, deblend, SimpleNamespace(error=lambda *args: None)) is None
    assert len(calls) < 200 and all(job.error == "ValueError" for job in jobs)
