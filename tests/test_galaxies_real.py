# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Galaxies with images of HST, from a small download made here and, where it is, from real ones."""

import logging
import os
import pickle
import shutil
from pathlib import Path

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lsst.meas.extensions.vae.errors import CatalogError
from lsst.meas.extensions.vae.galaxies import (
    SED_NAMES,
    GalaxyCatalog,
    load_real_galaxies,
    synthetic_galaxies,
)
from lsst.meas.extensions.vae.simulation.library import GalaxyLibrary, RealLibrary
from lsst.meas.extensions.vae.simulation.render import PROFILE_ERROR, ProfileRenderer
from lsst.meas.extensions.vae.survey import get_survey

SHARED = Path(os.environ.get("MEAS_EXTENSIONS_VAE_SHARED") or Path(__file__).parents[2] / "shared")
REAL = SHARED / "data/cosmos_btk_extension/real_galaxy_catalog_26_extension_example.fits"
EXAMPLE = SHARED / "data/cosmos_galsim_example/real_galaxy_catalog_23.5_example.fits"

needs_real = pytest.mark.skipif(not REAL.is_file(), reason="the shared images of HST are absent")

FITS = synthetic_galaxies(20, seed=8, mag_limit=24.0)
HST_PSF = galsim.Airy(lam_over_diam=0.07, obscuration=0.33)


def write_images(path, images):
    fits.HDUList([fits.PrimaryHDU(images[0])] + [fits.ImageHDU(image) for image in images[1:]]).writeto(path)


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """A catalogue of 20 galaxies with images in GalSim's form: path of its main file."""
    folder = tmp_path_factory.mktemp("cosmos")
    rng = galsim.BaseDeviate(9)
    images, psfs = [], []
    for index in range(len(FITS)):
        components = FITS.components
        parts = [
            galsim.Sersic(n, half_light_radius=hlr, flux=f, trunc=0).shear(q=q, beta=a * galsim.radians)
            for n, hlr, q, a, f in zip(
                *(
                    getattr(components, name)[index]
                    for name in ("sersic_n", "hlr", "q", "position_angle", "flux_fraction")
                )
            )
            if f > 0
        ]
        flux = 10 ** (-0.4 * (FITS.mag_auto[index] - 25.94))
        light = galsim.Convolve(galsim.Add(parts), HST_PSF) * flux
        # Something faint at the edge, as neighbours of COSMOS galaxies may be.
        light += galsim.Convolve(galsim.Gaussian(sigma=0.03), HST_PSF).shift(0.3, 1.35) * (0.004 * flux)
        image = light.drawImage(nx=56 + 2 * (index % 3), ny=100, scale=0.03)
        image.addNoise(galsim.GaussianNoise(rng, sigma=1e-3))
        images.append(image.array.astype(np.float32))
        psfs.append(HST_PSF.drawImage(nx=65, ny=65, scale=0.03).array)
    for half in (0, 1):
        write_images(folder / f"images_{half}.fits", images[half::2])
    write_images(folder / "psfs.fits", psfs)
    number = len(FITS)
    table = {
        "IDENT": FITS.ident,
        "MAG": FITS.mag_auto,
        # GalSim's have a space at their end.
        "GAL_FILENAME": [f"images_{i % 2}.fits " for i in range(number)],
        "PSF_FILENAME": ["psfs.fits"] * number,
        "GAL_HDU": np.arange(number) // 2,
        "PSF_HDU": np.arange(number),
        "PIXEL_SCALE": np.full(number, 0.03),
        "NOISE_MEAN": np.zeros(number),
        "NOISE_VARIANCE": np.full(number, 4e-6),
        "WEIGHT": np.ones(number),
        "stamp_flux": [image.sum() for image in images],
    }
    Table(table).write(folder / "real_galaxy_catalog_test.fits")
    # In another order: they go by IDENT.
    FITS.table[::-1].write(folder / "real_galaxy_catalog_test_fits.fits")
    return folder / "real_galaxy_catalog_test.fits"


def changed(download, folder, **columns):
    """A copy of the download with other columns."""
    shutil.copytree(download.parent, folder, dirs_exist_ok=True)
    table = Table.read(folder / download.name)
    for name, value in columns.items():
        table[name] = value
    table.write(folder / download.name, overwrite=True)
    return folder / download.name


def check_against_galsim(path, survey, every):
    real = load_real_galaxies(path)
    library = RealLibrary(real, survey)
    reference = galsim.RealGalaxyCatalog(str(path))
    places = {int(ident): place for place, ident in enumerate(reference.cat["IDENT"])}
    renderer = ProfileRenderer(survey.profile_kinds)
    for index in range(0, len(library), every):
        rotation, shear = 0.3 * index, (0.02, -0.01)
        dx, dy = np.random.default_rng(index).uniform(-2, 2, 2)
        [(profile, _)] = library.components(index, rotation, shear)
        galaxy = galsim.RealGalaxy(reference, index=places[library.ident[index]], flux=1.0)
        galaxy = galaxy.rotate(rotation * galsim.radians).shear(g1=shear[0], g2=shear[1])
        images = renderer.draw(profile, dx, dy)
        for image, (psf, scale) in zip(images, survey.profile_kinds):
            whole = galsim.Convolve(galaxy.shift(dx, dy), psf.profile())
            expected = whole.drawImage(nx=64, ny=64, scale=scale, dtype=float).array
            np.testing.assert_allclose(image, expected, rtol=0, atol=PROFILE_ERROR * expected.max())


def test_images_are_drawn_as_galsim_draws_its_real_galaxies(download):
    check_against_galsim(download, get_survey("arcelin2020", ["r", "VIS"]), 3)


def test_what_lies_at_the_edge_of_an_image_does_not_come_in_at_the_other_side(download):
    real = load_real_galaxies(download)
    index = int(np.argmax(np.asarray(FITS.table["hlr"])[:, 0]))
    [(psf, scale)] = kinds = get_survey("arcelin2020", ["VIS"]).profile_kinds
    # The neighbour is half a PSF beyond the upper edge.
    [image] = ProfileRenderer(kinds).draw(real.profile(index), 0.0, 1.9)
    galaxy = galsim.RealGalaxy(galsim.RealGalaxyCatalog(str(download)), index=index, flux=1.0)
    whole = galsim.Convolve(galaxy.shift(0.0, 1.9), psf.profile())
    # GalSim too would fold it back, but for a larger image.
    expected = whole.drawImage(nx=128, ny=128, scale=scale, dtype=float).array[32:96, 32:96]
    assert expected[-1, 30:38].max() > 5 * PROFILE_ERROR * expected.max()
    np.testing.assert_allclose(image, expected, rtol=0, atol=PROFILE_ERROR * expected.max())


@needs_real
def test_real_images_are_drawn_as_galsim_does():
    # One of them has light in the stamp's corner.
    check_against_galsim(REAL, get_survey("arcelin2020", ["r", "VIS"]), 19)


def test_bands_have_the_counts_of_the_image_times_the_parametric_colour(download):
    real = load_real_galaxies(download)
    reference = galsim.RealGalaxyCatalog(str(download))
    for name in ("arcelin2020", "lsst10yr"):
        survey = get_survey(name, list("gri"))
        library, fits_library = RealLibrary(real, survey), GalaxyLibrary(FITS, survey)
        np.testing.assert_array_equal(library.ident, fits_library.ident)
        for attribute in ("redshift", "magnitudes", "ab_magnitude", "reference_magnitude"):
            np.testing.assert_allclose(getattr(library, attribute), getattr(fits_library, attribute))
        assert library.fluxes.shape == fits_library.fluxes.shape
        assert library.real.all() and not library.star.any()
        for index in (0, 4):
            [(profile, flux)] = library.components(index, 0.5, (0.05, 0.0))
            # Without a flux, GalSim's galaxy has that of its image.
            counts = galsim.RealGalaxy(reference, index=index).flux
            hst = 10 ** (-0.4 * (FITS.mag_auto[index] - 25.94))
            assert abs(counts / hst - 1) > 1e-3
            parametric = fits_library.fluxes[index].sum(axis=0)
            np.testing.assert_allclose(flux, parametric * counts / hst, rtol=1e-5)
            image = ProfileRenderer(survey.profile_kinds).draw(profile, size=96)[0]
            assert image.sum() == pytest.approx(1.0, abs=1e-3)
    # Without gradients a galaxy has one colour, here as there.
    plain = RealLibrary(real, survey, colour_gradients=False)
    expected = GalaxyLibrary(FITS, survey, colour_gradients=False)
    np.testing.assert_allclose(plain.magnitudes, expected.magnitudes)
    assert not np.allclose(plain.magnitudes, library.magnitudes)


def test_stamps_of_other_light_than_the_galaxys_are_left_out_and_counted(download, tmp_path, caplog):
    path = changed(download, tmp_path)
    first = fits.getdata(tmp_path / "images_0.fits", 0)
    fits_path = tmp_path / "real_galaxy_catalog_test_fits.fits"
    table = Table.read(fits_path)
    rows = {int(ident): row for row, ident in enumerate(table["IDENT"])}
    light = load_real_galaxies(path).light
    assert light[0] == pytest.approx(first.sum() / 10 ** (-0.4 * (FITS.mag_auto[0] - 25.94)), rel=1e-6)
    # Magnitudes that leave the stamps 0.45, 0.55, 1.8 and 2.2 times their light.
    for index, wanted in enumerate((0.45, 0.55, 1.8, 2.2)):
        table["mag_auto"][rows[int(FITS.ident[index])]] += 2.5 * np.log10(wanted / light[index])
    table.write(fits_path, overwrite=True)
    with caplog.at_level(logging.WARNING):
        real = load_real_galaxies(path)
    assert set(FITS.ident) - set(real.ident) == set(FITS.ident[[0, 3]])
    np.testing.assert_allclose(real.light[:2], [0.55, 1.8])
    assert "Left out 2 of 20 galaxies" in caplog.text
    # The pixels stay what they were: the magnitude rules the truth and not the image.
    survey = get_survey("lsst10yr", "r")
    before, after = RealLibrary(load_real_galaxies(download), survey), RealLibrary(real, survey)
    np.testing.assert_allclose(after.fluxes[0], before.fluxes[1])
    assert after.magnitudes[0, 0] - before.magnitudes[1, 0] == pytest.approx(2.5 * np.log10(0.55 / light[1]))
    assert real.sha256 != load_real_galaxies(download).sha256
    table["mag_auto"] += 5
    table.write(fits_path, overwrite=True)
    with pytest.raises(CatalogError, match="zero point 25.94"):
        load_real_galaxies(path)


def test_limit_and_description(download):
    survey = get_survey("lsst10yr", list("gri"))
    real = load_real_galaxies(download)
    whole = RealLibrary(real, survey)
    limit = float(np.median(whole.reference_magnitude))
    library = RealLibrary(real, survey, mag_limit=limit)
    assert len(library) == 10
    np.testing.assert_array_equal(library.ident, whole.ident[whole.reference_magnitude < limit])
    # The profiles are cut with the numbers.
    index = len(library) - 1
    same = int(np.flatnonzero(whole.ident == library.ident[index])[0])
    assert library.components(index)[0][0] == whole.components(same)[0][0]
    row = library.describe(index, 0.4, (0.01, 0.02), survey.band_names)
    assert set(row) == set(GalaxyLibrary(FITS, survey).describe(0, 0.4, (0.0, 0.0), survey.band_names))
    assert row["real"] and not row["star"]
    assert (row["rotation"], row["g1"], row["g2"]) == (0.4, 0.01, 0.02)
    assert row["flux_r"] == library.fluxes[index, 0, 1]
    with pytest.raises(CatalogError, match="None of 20 real galaxies has r < 5"):
        RealLibrary(real, survey, mag_limit=5)


def test_splits_follow_the_rule_of_the_parametric_catalogue(download):
    real = load_real_galaxies(download)
    parts = {name: real.split(name) for name in ("train", "validation", "test")}
    for name, part in parts.items():
        np.testing.assert_array_equal(part.ident, FITS.split(name).ident)
    assert sum(map(len, parts.values())) == len(real) == len(real.split("all"))
    with pytest.raises(CatalogError, match="Unknown split 'dev'"):
        real.split("dev")


def test_galaxies_survive_pickling_without_their_images(download):
    real = load_real_galaxies(download)
    profile = real.profile(3)
    data = pickle.dumps(real)
    assert len(data) < 20_000
    assert pickle.loads(data).profile(3) == profile
    assert real.profile(3) is profile


@needs_real
def test_colours_by_hsc_magnitudes_where_there_are_no_fits():
    real = load_real_galaxies(REAL)
    assert len(real) == 97
    survey = get_survey("lsst10yr", list("gi"))
    table = Table.read(REAL.with_name(REAL.stem + "_fits.fits"))
    table = table[np.isin(table["IDENT"], real.ident)]
    found = np.asarray(table["HSC_g"] - table["HSC_i"])
    ours = -np.diff(real.magnitudes(survey), axis=1)[:, 0]
    # Better than any one SED for all of them.
    scatter = np.std(ours - found)
    for sed in range(len(SED_NAMES)):
        one = load_real_galaxies(REAL)
        one._columns["sed"] = np.full((97, 2), sed)
        assert scatter < np.std(-np.diff(one.magnitudes(survey), axis=1)[:, 0] - found)


def test_stamps_that_galsim_calls_bad_are_left_out(download, tmp_path):
    path = changed(download, tmp_path)
    number = len(FITS)
    table = Table(
        {
            "IDENT": FITS.ident,
            "sn_ellip_gauss": np.where(np.arange(number) == 2, 5.0, 50.0),
            "min_mask_dist_pixels": np.where(np.arange(number) > 16, 5.0, 50.0),
            "average_mask_adjacent_pixel_count": np.full(number, 0.5),
            "peak_image_pixel_count": np.where(np.arange(number) == 18, 5.0, 0.0),
        }
    )
    table.write(tmp_path / "real_galaxy_catalog_test_selection.fits")
    assert set(load_real_galaxies(path).ident) == set(FITS.ident) - set(FITS.ident[[2, 17, 19]])
    table.remove_column("sn_ellip_gauss")
    table.write(tmp_path / "real_galaxy_catalog_test_selection.fits", overwrite=True)
    with pytest.raises(CatalogError, match="lacks the columns sn_ellip_gauss"):
        load_real_galaxies(path)


@pytest.mark.parametrize("name", ["../images_0.fits", "/etc/hostname", "a/../../b.fits", "..\\b.fits", ""])
@pytest.mark.parametrize("column", ["GAL_FILENAME", "PSF_FILENAME"])
def test_names_that_lead_out_of_the_folder_are_refused(download, tmp_path, name, column):
    path = changed(download, tmp_path, **{column: [name] * len(FITS)})
    with pytest.raises(CatalogError, match="within its own folder"):
        load_real_galaxies(path)


def test_absent_files_are_named(download, tmp_path):
    with pytest.raises(CatalogError, match="nothing.fits: expected GalSim's"):
        load_real_galaxies(tmp_path / "nothing.fits")
    path = changed(download, tmp_path)
    (tmp_path / "images_1.fits").unlink()
    with pytest.raises(CatalogError, match="images_1.fits .* is absent"):
        load_real_galaxies(path)
    (tmp_path / "real_galaxy_catalog_test_fits.fits").unlink()
    with pytest.raises(CatalogError, match="No file .*_fits.fits"):
        load_real_galaxies(path)


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the shared GalSim example catalogue is absent")
def test_a_download_without_its_images_is_refused_at_once():
    with pytest.raises(CatalogError, match="real_galaxy_images.fits .* is absent"):
        load_real_galaxies(EXAMPLE)


def test_tables_of_another_kind_are_refused(download, tmp_path):
    path = changed(download, tmp_path)
    Table.read(path)["IDENT", "MAG"].write(path, overwrite=True)
    with pytest.raises(CatalogError, match="lacks the columns GAL_FILENAME"):
        load_real_galaxies(path)
    path = changed(download, tmp_path)
    Table({"IDENT": FITS.ident}).write(tmp_path / "real_galaxy_catalog_test_fits.fits", overwrite=True)
    with pytest.raises(CatalogError, match="neither GalSim's parametric fits nor HSC"):
        load_real_galaxies(path)
    other = FITS.table.copy()
    other["IDENT"] = FITS.ident + 1000
    other.write(tmp_path / "real_galaxy_catalog_test_fits.fits", overwrite=True)
    with pytest.raises(CatalogError, match="No usable galaxy"):
        load_real_galaxies(path)


def test_damaged_images_are_refused_at_once(download, tmp_path):
    path = changed(download, tmp_path, GAL_HDU=np.arange(len(FITS)) + 3)
    with pytest.raises(CatalogError, match="has 10 HDUs, and 10 is asked for"):
        load_real_galaxies(path)
    path = changed(download, tmp_path)
    for shape, words in (((50, 50), "not finite"), ((3, 50, 50), "3 axes")):
        fits.PrimaryHDU(np.full(shape, np.nan)).writeto(tmp_path / "images_0.fits", overwrite=True)
        with pytest.raises(CatalogError, match=words):
            load_real_galaxies(path)
    whole = (download.parent / "images_0.fits").read_bytes()
    for size in (4000, 2000):
        (tmp_path / "images_0.fits").write_bytes(whole[:size])
        with pytest.raises(CatalogError, match="Cannot read HDU 0 of image file"):
            load_real_galaxies(path)


def test_a_psf_without_light_is_refused_when_it_is_read(download, tmp_path):
    path = changed(download, tmp_path)
    fits.PrimaryHDU(np.full((50, 50), -1.0)).writeto(tmp_path / "psfs.fits", overwrite=True)
    with pytest.raises(CatalogError, match="PSF image of real galaxy 0 holds no light"):
        load_real_galaxies(path).profile(0)


def test_the_fits_of_this_test_are_what_the_loader_takes(download):
    """Guards the tests above: order and rows differ between the two files."""
    table = Table.read(download.with_name("real_galaxy_catalog_test_fits.fits"))
    assert GalaxyCatalog(table, "cosmos").ident[0] == FITS.ident[-1]
