# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""DeblendVaeTask finds peaks that nobody detected, and gives them to their parents."""

import logging

import numpy as np
import pytest

pytest.importorskip("lsst.pipe.base")

from test_tasks_deblend import SIGMA, KnownNetwork, gaussian, make_inputs, make_task  # noqa: E402

from lsst.meas.extensions.vae import deblendVaeTask  # noqa: E402


class Network(KnownNetwork):
    def own_psfs(self):
        return np.repeat(gaussian((63, 63), 31, 31)[None], 2, axis=0)


def run(hidden, maxPasses, sources, **changes):
    """Deblend with only some of the sources' peaks given; the others are in the image all the same."""
    exposure, merged = make_inputs(sources=[s for k, s in enumerate(sources) if k not in hidden])
    rng = np.random.default_rng(1)
    exposure.image.array[:] += rng.normal(0, 0.1, exposure.image.array.shape)
    for k in hidden:
        y, x, flux = sources[k]
        light = flux * gaussian((120, 170), round(y - 0.5) + 0.5, round(x - 0.5) + 0.5)
        exposure.image.array[:] += np.stack([light, 2 * light])
    task = make_task(maxPasses=maxPasses, **changes)
    task._network = Network()
    return task.run(exposure, None, merged), merged


# Three of a blend, and one alone; hidden ones come behind.
KNOWN = [(60.5, 60.5, 400.0), (58.5, 80.5, 300.0), (74.5, 66.5, 250.0), (30.5, 130.5, 500.0)]
# Apart by three times the width of a galaxy: far enough to show, once the other is gone.
IN_BLEND, BY_THE_LONE = (60.5, 60.5 + 3 * SIGMA, 200.0), (30.5, 130.5 + 3 * SIGMA, 300.0)


def test_a_hidden_peak_becomes_a_child_of_its_own_with_its_flux():
    result, merged = run({4}, 3, [*KNOWN, IN_BLEND])
    children = [r for r in result.deblendedCatalog if r.getParent()]
    assert [r.get("deblend_vae_detectionPass") for r in children] == [1, 1, 1, 2]
    y, x, flux = IN_BLEND
    found = children[3]
    assert np.hypot(found.get("deblend_peak_center_x") - x, found.get("deblend_peak_center_y") - y) < 1.5
    assert found.get("deblend_scarletFlux") == pytest.approx(2 * flux, rel=0.1)
    # Later steps measure a child in one of the bands that its peak is flagged in.
    assert found.get("merge_peak_g") and found.get("merge_peak_r")
    parent = next(r for r in result.objectParents if r.getId() == children[0].getParent())
    assert parent.get("deblend_nPeaks") == 4
    # The caller's footprints are left as they were, and ids are not given twice.
    assert [len(r.getFootprint().peaks) for r in merged] == [3, 1]
    ids = [r.get("deblend_peakId") for r in children]
    assert len(set(ids)) == len(ids)


def test_a_parent_gets_no_more_peaks_than_it_may_have():
    result, _ = run({4}, 3, [*KNOWN, IN_BLEND], maxNumberOfPeaks=3)
    assert [r.get("deblend_vae_detectionPass") for r in result.deblendedCatalog] == [1, 1, 1, 1]


def test_what_failed_in_a_quick_pass_has_another_chance(monkeypatch):
    calls = []
    work = deblendVaeTask.deblend_blend

    def failing(*args, **kwargs):
        calls.append(None)
        if len(calls) == 1:
            raise MemoryError
        return work(*args, **kwargs)

    monkeypatch.setattr(deblendVaeTask, "deblend_blend", failing)
    result, _ = run(set(), 2, KNOWN)
    assert len(calls) > 1 and not any(r.get("deblend_failed") for r in result.deblendedCatalog)
    assert len(result.deblendedCatalog) == 4


def test_with_one_pass_peaks_are_taken_as_they_are():
    result, _ = run({4}, 1, [*KNOWN, IN_BLEND])
    assert [r.get("deblend_vae_detectionPass") for r in result.deblendedCatalog] == [1, 1, 1, 1]


def test_an_isolated_parent_with_a_hidden_peak_becomes_a_blend():
    result, merged = run({4}, 2, [*KNOWN, BY_THE_LONE])
    lone = merged[1].getId()
    assert len(merged[1].getFootprint().peaks) == 1
    children = [r for r in result.deblendedCatalog if r.getParent() == lone]
    assert [r.get("deblend_vae_detectionPass") for r in children] == [1, 2]
    assert lone not in [r.getId() for r in result.deblendedCatalog]


def test_what_lies_in_no_footprint_is_told_and_left(caplog):
    with caplog.at_level(logging.INFO):
        result, _ = run({4}, 3, [*KNOWN, (100.5, 100.5, 400.0)])
    assert len(result.deblendedCatalog) == 4
    assert "0 new peaks; 1 more lie in no footprint" in caplog.text


def test_where_nothing_is_hidden_nothing_changes():
    plain, again = (run(set(), passes, KNOWN)[0] for passes in (1, 3))
    for name in ("deblend_scarletFlux", "deblend_peakId", "deblend_vae_detectionPass"):
        assert [r.get(name) for r in plain.deblendedCatalog] == [r.get(name) for r in again.deblendedCatalog]
