# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""bin/deblendCutout.py: a FITS cutout in, sources, models and residual out; files that are none."""

import re

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lsst.meas.extensions.vae.deblendCutout import main, readCutout

pytest.importorskip("keras")

NOISE, ZERO_POINT = 0.5, 27.0
CENTRES = [(40.2, 40.1), (47.0, 58.3)]


def scene(bands=3, seed=1):
    """Two blobs about as wide as LSST's PSF, in noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :104]
    image = rng.normal(0, NOISE, (bands, 96, 104))
    for flux, (cy, cx) in zip((600.0, 300.0), CENTRES, strict=True):
        blob = np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2) / 2.2**2)
        image += flux * blob / blob.sum() * np.arange(1, bands + 1)[:, None, None]
    return image.astype("f4")


def write(path, image=None, header=None, **more):
    image = scene() if image is None else image
    image_hdu = fits.ImageHDU(image, name="IMAGE")
    image_hdu.header.update({"BANDS": "g,r,i", "ZEROPNT": ZERO_POINT, "PIXSCALE": 0.2, **(header or {})})
    hdus = {"IMAGE": image_hdu, "VARIANCE": fits.ImageHDU(np.full(image.shape, NOISE**2, "f4")), **more}
    for name, hdu in hdus.items():
        if hdu is not None:
            hdu.name = name
    fits.HDUList([fits.PrimaryHDU(), *filter(None, hdus.values())]).writeto(path, overwrite=True)
    return path


def test_galaxies_are_found_deblended_and_subtracted(tmp_path, capsys):
    path = write(tmp_path / "cutout.fits")
    assert main([str(path)]) == 0
    output = tmp_path / "cutout.deblended.fits"
    assert "2 galaxies deblended in" in capsys.readouterr().out
    with fits.open(output) as hdus:
        sources = Table(hdus["SOURCES"].data)
        models, residual = hdus["MODELS"].data, hdus["RESIDUAL"].data
        assert hdus[0].header["MODEL"] == "lsst10yr-ugrizy" and hdus[0].header["BANDS"] == "g,r,i"
        assert hdus["RESIDUAL"].header["ZEROPNT"] == ZERO_POINT
    order = np.argsort(sources["x"])
    np.testing.assert_allclose(sources["x"][order], [40.1, 58.3], atol=0.4)
    np.testing.assert_allclose(sources["y"][order], [40.2, 47.0], atol=0.4)
    assert models.shape == (2, 3, 64, 64) and not sources["failed"].any()
    for k, band in enumerate("gri"):
        flux = np.array([600.0, 300.0]) * (k + 1)
        # Galaxies have wings, which these blobs lack.
        np.testing.assert_allclose(sources[f"flux_{band}"][order], flux, rtol=0.25)
        np.testing.assert_allclose(
            sources[f"mag_{band}"], ZERO_POINT - 2.5 * np.log10(sources[f"flux_{band}"]), atol=1e-5
        )
    image = scene()
    heart = np.s_[:, 35:53, 35:64]
    assert abs(residual[heart]).sum() < 0.3 * abs(image[heart]).sum()
    subtracted = image - residual
    for place in ((40, 40), (47, 58)):
        expected = sum(
            model[:, place[0] - y, place[1] - x]
            for model, y, x in zip(models, sources["origin_y"], sources["origin_x"], strict=True)
        )
        np.testing.assert_allclose(subtracted[:, *place], expected, rtol=1e-3)


def test_centres_bad_pixels_and_band_zero_points_of_the_file_are_used(tmp_path):
    centres = Table({"X": [40.1], "Y": [40.2]})
    bad = np.zeros((96, 104), np.uint8)
    bad[30:70, 50:70] = 1
    zero_points = {"ZEROPNT": None, "ZEROPNT1": 27.0, "ZEROPNT2": 28.0, "ZEROPNT3": 26.0}
    path = write(
        tmp_path / "c.fits",
        header={k: v for k, v in zero_points.items() if v},
        CENTRES=fits.BinTableHDU(centres),
        BAD=fits.ImageHDU(bad),
    )
    cutout = readCutout(path)
    np.testing.assert_allclose(cutout.zero_point, [27, 28, 26])
    np.testing.assert_allclose(cutout.centres, [(40.2, 40.1)])
    assert cutout.bad.sum() == 40 * 20 and cutout.pixel_scale == 0.2
    assert main([str(path), "--output", str(tmp_path / "o.fits"), "--own-fluxes"]) == 0
    sources = Table.read(tmp_path / "o.fits", hdu="SOURCES")
    assert len(sources) == 1 and np.ma.getmaskarray(sources["flux_err_r"]).all()


def test_galaxies_without_a_centre_are_found_in_what_the_models_leave(tmp_path, capsys):
    table = Table({"x": [CENTRES[0][1]], "y": [CENTRES[0][0]]})
    path = write(tmp_path / "cutout.fits", CENTRES=fits.BinTableHDU(table))
    assert main([str(path), "--passes", "3", "--one-pass"]) == 0
    assert (
        "2 galaxies deblended" in (told := capsys.readouterr().out) and "1 of them found on residuals" in told
    )
    sources = Table.read(tmp_path / "cutout.deblended.fits", hdu="SOURCES")
    assert sources["pass"].tolist() == [1, 2]
    np.testing.assert_allclose([sources["y"][1], sources["x"][1]], CENTRES[1], atol=0.6)
    assert main([str(path), "--passes", "0"]) == 2
    assert "--passes is 0: expected 1 at least" in capsys.readouterr().err


def test_pixels_of_another_size_are_resampled_and_models_brought_back(tmp_path, caplog):
    path = write(tmp_path / "c.fits", header={"PIXSCALE": 0.26})
    assert main([str(path)]) == 0 and "Pixels have 0.26 arcsec" in caplog.text
    with fits.open(tmp_path / "c.deblended.fits") as hdus:
        sources, models = Table(hdus["SOURCES"].data), hdus["MODELS"].data
        residual = hdus["RESIDUAL"].data
    order = np.argsort(sources["x"])
    np.testing.assert_allclose(sources["x"][order], [40.1, 58.3], atol=0.5)
    assert models.shape == (2, 3, 52, 52) and residual.shape == (3, 96, 104)
    np.testing.assert_allclose(sources["flux_r"][order], [1200, 600], rtol=0.25)
    heart = np.s_[:, 35:53, 35:64]
    assert abs(residual[heart]).sum() < 0.3 * abs(scene()[heart]).sum()


def test_a_wcs_tells_the_pixel_scale(tmp_path):
    wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -0.168 / 3600, "CD2_2": 0.168 / 3600}
    path = write(tmp_path / "c.fits", header={"PIXSCALE": "", **wcs})
    assert readCutout(path).pixel_scale == pytest.approx(0.168, rel=1e-4)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(header={"BANDS": "g,r"}), "names of its 3 bands"),
        (dict(header={"BANDS": "g,r,K"}), "no band 'K'"),
        (dict(header={"PIXSCALE": 0.05}), "0.05 arcsec a pixel"),
        (dict(header={"ZEROPNT": "high"}), "zero points are"),
        (dict(VARIANCE=None), "no HDU VARIANCE"),
        (dict(VARIANCE=fits.ImageHDU(np.ones((3, 5, 5), "f4"))), "Variance has shape"),
        (dict(VARIANCE=fits.ImageHDU(np.ones((5, 5), "f4"))), r"VARIANCE has shape \(5, 5\)"),
        (dict(CENTRES=fits.BinTableHDU(Table({"ra": [1.0]}))), "expected x and y"),
        (dict(CENTRES=fits.ImageHDU(np.ones((2, 2)))), "CENTRES is no table"),
        (dict(CENTRES=fits.BinTableHDU(Table({"x": [[1.0, 2]], "y": [[1.0, 2]]}))), "a number in each row"),
        (dict(CENTRES=fits.BinTableHDU(Table({"x": ["a"], "y": ["b"]}))), "a number in each row"),
        (dict(BAD=fits.BinTableHDU(Table({"x": [1]}))), "BAD is no image"),
        (dict(header={"BANDS": "g," * 500}), r"is '(g,){50}': expected the names of its 3 bands"),
        (dict(header={"PIXSCALE": "0.2"}), "PIXSCALE is '0.2'"),
        (dict(header={"ZEROPNT": True}), "zero points are"),
    ],
)
def test_a_cutout_that_lacks_something_is_told_in_one_line(tmp_path, capsys, change, words):
    assert main([str(write(tmp_path / "c.fits", **change))]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("deblendCutout.py: error:")
    assert re.search(words, error), error
    assert not (tmp_path / "c.deblended.fits").exists()


@pytest.mark.parametrize("card", [b"BANDS   = 'g,r,i   '", b"NOTE    = 'not read'"])
def test_a_header_with_a_damaged_card_is_told_in_one_line(tmp_path, capsys, card):
    centres = fits.BinTableHDU(Table({"x": [40.1], "y": [40.2]}))
    path = write(tmp_path / "c.fits", header={"NOTE": "not read"}, CENTRES=centres)
    content = path.read_bytes()
    path.write_bytes(content.replace(card, card[:10] + b"'''''=\x01\xff /"))
    assert path.read_bytes() != content
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search("Unparsable card|header of IMAGE is damaged", error), error
    assert not (tmp_path / "c.deblended.fits").exists()


def test_scaled_integers_and_tiny_units_are_read_as_what_they_stand_for(tmp_path):
    centres = fits.BinTableHDU(Table({"x": [40.1], "y": [40.2]}))
    bad = np.zeros((96, 104), np.uint16)
    bad[3, 4] = 40000
    # One unit is 1 erg / s / cm^2 / Hz: single precision has no room for the variance.
    unit = 10 ** (-0.4 * (ZERO_POINT + 48.6))
    path = write(
        tmp_path / "c.fits",
        image=scene().astype("f8") * unit,
        header={"ZEROPNT": -48.6},
        VARIANCE=fits.ImageHDU(np.full(scene().shape, (NOISE * unit) ** 2)),
        BAD=fits.ImageHDU(bad),
        CENTRES=centres,
    )
    assert readCutout(path).bad.sum() == 1
    plain = write(tmp_path / "p.fits", BAD=fits.ImageHDU(bad), CENTRES=centres)
    found = []
    for file in (path, plain):
        assert main([str(file), "--output", str(tmp_path / "o.fits")]) == 0
        found.append(Table.read(tmp_path / "o.fits", hdu="SOURCES"))
    assert not found[0]["failed"].any()
    np.testing.assert_allclose(found[0]["mag_r"], found[1]["mag_r"], atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"not FITS", b"SIMPLE  =                    T"])
def test_a_file_that_is_no_fits_is_told(tmp_path, capsys, content):
    path = tmp_path / "c.fits"
    path.write_bytes(content)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(tmp_path / "none.fits")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_cutout_itself_is_never_written_over(tmp_path, capsys):
    path = write(tmp_path / "c.fits")
    before = path.read_bytes()
    assert main([str(path), "--output", str(path)]) == 2
    assert path.read_bytes() == before and "is the cutout itself" in capsys.readouterr().err
