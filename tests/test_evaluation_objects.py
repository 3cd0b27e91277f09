# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects beside the truth, measured without deblending, and which are shown."""

import galsim
import numpy as np
import pytest
from astropy.table import Table

from lsst.meas.extensions.vae.errors import ImageError
from lsst.meas.extensions.vae.evaluation import choose_examples, compare_objects, undeblended
from lsst.meas.extensions.vae.evaluation.objects import true_blendedness
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.fields import FieldSettings, simulate_field
from lsst.meas.extensions.vae.survey import get_survey

SCALE = 0.2


def draw(profile, x, y, shape=(100, 120)):
    """The profile with its centre at pixel (x, y)."""
    image = galsim.ImageD(shape[1], shape[0], scale=SCALE, xmin=0, ymin=0)
    profile.drawImage(image, center=galsim.PositionD(x, y))
    return image.array


@pytest.fixture(scope="module")
def psf():
    return galsim.Kolmogorov(fwhm=0.8)


@pytest.fixture(scope="module")
def kernel(psf):
    return draw(psf, 20, 20, (41, 41))


def test_a_star_keeps_its_whole_flux_without_deblending(psf, kernel):
    image = 500 * draw(psf, 60.3, 49.6)
    measured = undeblended(image, np.ones_like(image), kernel, [60.3], [49.6], SCALE)
    assert measured.flux[0] == pytest.approx(500, rel=8e-3)
    assert measured.stamp_flux[0] == pytest.approx(500, rel=8e-3)


def test_a_sheared_galaxy_alone_keeps_its_shape(psf, kernel):
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=0.5).shear(g1=0.3, g2=-0.2), psf)
    image = 1000 * draw(galaxy, 61, 50)
    measured = undeblended(image, np.ones_like(image), kernel, [61], [50], SCALE)
    np.testing.assert_allclose(measured.e[0], [0.3, -0.2], atol=0.03)


def test_a_neighbour_spoils_flux_and_shape_without_deblending(psf, kernel):
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=0.5), psf)
    image = 1000 * (draw(galaxy, 60, 50) + draw(galaxy, 66, 50))
    measured = undeblended(image, np.ones_like(image), kernel, [60], [50], SCALE)
    assert measured.flux[0] > 1300
    assert measured.stamp_flux[0] == pytest.approx(2000, rel=0.02)
    assert measured.e[0, 0] > 0.2


def test_bad_pixels_and_edges_count_as_sky(psf, kernel):
    image = 500 * draw(psf, 60, 50)
    image[10, 10] = np.nan
    measured = undeblended(image, np.ones_like(image), kernel, [60, 12, 119], [50, 12, 99], SCALE)
    assert measured.flux[0] == pytest.approx(500, rel=8e-3)
    assert np.isfinite(measured.flux).all()


def test_nothing_to_measure_gives_empty_arrays(kernel):
    measured = undeblended(np.zeros((50, 50)), np.ones((50, 50)), kernel, [], [], SCALE)
    assert measured.flux.shape == (0,) and measured.e.shape == (0, 2)


@pytest.fixture(scope="module")
def field():
    survey = get_survey("lsst10yr", ("g", "r", "i"))
    settings = FieldSettings(size=160, density_per_arcmin2=60)
    return simulate_field(synthetic_galaxies(500, seed=1), survey, settings, seed=3)


@pytest.fixture(scope="module")
def compared(field):
    """Perfect objects of every galaxy in the field, and one of nothing."""
    inside = field.truth[field.truth["in_field"]]
    objects = Table({"id": np.arange(len(inside)) + 7, "parent": np.zeros(len(inside), int)})
    for name, column in (("x", "x"), ("y", "y"), ("mag", "mag_r"), ("e1", "e1"), ("e2", "e2")):
        objects[name] = np.asarray(inside[column], float)
    objects["n_peaks"] = 2
    objects.add_row([99, 0, -300.0, -300.0, 20.0, 0.0, 0.0, 1])
    zero = 3631e9  # nJy
    return compare_objects(objects, field.truth, field.images, field.variance, field.psfs, field.survey, zero)


def test_perfect_objects_have_no_errors(compared):
    table, match = compared
    good = table["truth"] >= 0
    assert list(good) == [True] * (len(table) - 1) + [False]
    for name in ("mag", "e1", "e2"):
        np.testing.assert_array_equal(table[f"{name}_vae"][good], table[f"{name}_true"][good])
    assert np.nanmax(match.distance) < 1e-9
    assert np.isnan(table["snr"][-1]) and np.isnan(table["blendedness"][-1])


def test_undeblended_magnitudes_of_bright_lone_galaxies_are_right(compared):
    table, _ = compared
    chosen = (table["snr"] > 30) & (table["blendedness"] < 0.003) & ~table["edge"]
    assert chosen.sum() >= 3
    assert np.abs(np.median(table["mag_none"][chosen] - table["mag_true"][chosen])) < 0.15


def test_objects_near_the_edge_are_marked(compared, field):
    table, _ = compared
    nearest = np.min([table["x"], table["y"], 159 - table["x"], 159 - table["y"]], axis=0)
    np.testing.assert_array_equal(table["edge"], nearest < 10)
    np.testing.assert_array_equal(table["cut"], nearest < 16)


def test_blendedness_is_that_of_the_noiseless_scene(field):
    shape = field.images.shape[1:]
    rows = [k for k in range(len(field.truth)) if field.truth["in_field"][k]]
    together = true_blendedness(field.truth, field.survey, shape, rows)
    assert np.all((together > -1e-3) & (together < 1))
    alone = true_blendedness(field.truth[rows[:1]], field.survey, shape, [0])
    assert alone[0] == pytest.approx(0, abs=1e-6)


def test_images_of_other_bands_are_refused(field):
    objects = Table({name: [1.0] for name in ("id", "parent", "x", "y", "n_peaks", "mag", "e1", "e2")})
    with pytest.raises(ImageError, match="the images have 2 bands, the survey 3"):
        compare_objects(objects, field.truth, field.images[:2], field.variance, field.psfs, field.survey, 1.0)


def blends(**changes):
    """Twelve objects far apart; blendedness falls, SNR alternates."""
    table = Table({"x": np.arange(12) * 50.0, "y": np.zeros(12), "n_peaks": np.full(12, 2)})
    table["truth"] = np.arange(12)
    table["snr"] = np.where(np.arange(12) % 2, 100.0, 30.0)
    table["blendedness"] = np.linspace(0.6, 0.06, 12)
    table["edge"] = table["cut"] = np.zeros(12, bool)
    for name, (rows, value) in changes.items():
        table[name][rows] = value
    return table


def test_examples_are_the_most_blended_of_each_range():
    assert sorted(choose_examples(blends())) == [0, 1, 2, 3, 4, 5]
    assert sorted(choose_examples(blends(snr=([0, 2], 5.0)))) == [1, 3, 4, 5, 6, 8]


def test_a_range_without_blends_leaves_its_turn_to_the_others():
    table = blends(blendedness=([1, 3, 5, 7, 9, 11], 0.001))
    assert sorted(choose_examples(table)) == [0, 2, 4, 6, 8, 10]
    assert len(choose_examples(table, number=8)) == 8


@pytest.mark.parametrize("changes", [{"n_peaks": ([0], 1)}, {"cut": ([0], True)}, {"truth": ([0], -1)}])
def test_examples_leave_out_what_is_no_blend(changes):
    assert 0 not in choose_examples(blends(**changes))


def test_no_blend_is_shown_twice():
    chosen = choose_examples(blends(x=([1], 5.0)))
    assert 1 in chosen and 0 not in chosen
    table = blends(x=([1], 5.0))
    table["field"] = np.arange(12)
    assert {0, 1} <= set(choose_examples(table))


def test_too_few_blends_give_fewer_examples():
    assert choose_examples(blends()[:0]) == []
    assert choose_examples(blends()[:1]) == [0]
