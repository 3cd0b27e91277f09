# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exposures and catalogues come back from FITS; damaged files are told."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lsst.meas.extensions.vae.afw import (
    AnalyticPsf,
    Box2I,
    Extent2I,
    Footprint,
    GridPsf,
    KernelPsf,
    Mask,
    MultibandExposure,
    PeakTable,
    Point2I,
    SourceCatalog,
    SourceTable,
    SpanSet,
    makeHeavyFootprint,
)
from lsst.meas.extensions.vae.afw.persistence import MultibandExposureReader
from lsst.meas.extensions.vae.errors import CatalogError, ImageError, VaeError

BANDS = ("g", "r", "y", "Y")
BOX = Box2I(Point2I(100, -20), Extent2I(30, 25))


@pytest.fixture
def exposure():
    rng = np.random.default_rng(8)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [-5e-5, 5e-5]
    wcs.wcs.crpix = [500.0, 600.0]
    x = np.arange(-3, 4)
    kernels = np.exp(-(x[:, None] ** 2 + x**2) / (2 * np.array([1, 2, 3, 4])[:, None, None] ** 2)).reshape(
        2, 2, 7, 7
    )
    exposure = MultibandExposure.fromArrays(
        BANDS,
        rng.normal(size=(4, 25, 30)).astype(np.float32),
        rng.integers(0, 2048, size=(4, 25, 30), dtype=np.int32),
        rng.random((4, 25, 30), dtype=np.float32),
        BOX,
        "nJy",
        psfs={
            "g": KernelPsf(rng.random((9, 11))),
            "r": AnalyticPsf("moffat", 0.7, 0.2, size=21, beta=3.0, e1=0.01),
            "Y": GridPsf([100, 110], [-20, 0], kernels, BOX),
        },
        wcs=wcs,
    )
    exposure.metadata["sky level"] = {"g": 1.5, "name": "a 'quoted' text " * 20}
    return exposure


@pytest.fixture
def exposureFile(exposure, tmp_path):
    path = tmp_path / "exposure.fits"
    exposure.writeFits(path)
    return path


def test_exposure_round_trips_through_fits(exposure, exposureFile):
    back = MultibandExposure.readFits(exposureFile)
    assert back.bands == BANDS and back.getBBox() == BOX
    assert back.unit == exposure.unit and back.variance.unit == exposure.variance.unit
    for part in ("image", "mask", "variance"):
        array = getattr(back, part).array
        assert np.array_equal(array, getattr(exposure, part).array) and array.dtype.isnative
        assert array.dtype == getattr(exposure, part).array.dtype
    assert back.metadata == exposure.metadata
    assert np.allclose(
        back.getWcs().all_pix2world([[110, 0]], 0), exposure.getWcs().all_pix2world([[110, 0]], 0)
    )


def test_psfs_round_trip_through_fits_and_missing_ones_stay_missing(exposure, exposureFile):
    back = MultibandExposure.readFits(exposureFile).getPsfs()
    assert back["y"] is None
    for band, kind in (("g", KernelPsf), ("r", AnalyticPsf), ("Y", GridPsf)):
        assert isinstance(back[band], kind)
        for position in ((100, -20), (107.3, -11)):
            new, old = (psfs[band].computeKernelImage(position) for psfs in (back, exposure.getPsfs()))
            assert np.allclose(new.array, old.array, rtol=0, atol=1e-12) and new.getBBox() == old.getBBox()
    assert back["Y"].region == BOX


def test_pixels_of_the_file_have_the_world_coordinates_of_the_parent(exposure, exposureFile):
    with fits.open(exposureFile) as hdus:
        local = WCS(hdus["IMAGE"].header, naxis=2).all_pix2world([[10, 20]], 0)
    assert np.allclose(local, exposure.getWcs().all_pix2world([[110, 0]], 0))


@pytest.mark.parametrize("bands", [None, "Y", ("y", "g")])
def test_parts_of_a_file_are_read_by_band_and_box(exposure, exposureFile, bands):
    box = Box2I(Point2I(105, -15), Extent2I(7, 4))
    part = MultibandExposure.readFits(exposureFile, bands=bands, bbox=box)
    expected = exposure.select(bands, box)
    assert part.bands == expected.bands and part.getBBox() == box
    assert np.array_equal(part.image.array, expected.image.array)
    assert np.array_equal(part.mask.array, expected.mask.array)
    assert (part.getPsfs()[part.bands[0]] is None) == (part.bands[0] == "y")


def test_reader_tells_what_is_in_a_file_without_the_pixels(exposureFile):
    reader = MultibandExposureReader(exposureFile)
    assert reader.readBands() == BANDS and reader.readBBox() == BOX and str(reader.readUnit()) == "nJy"
    assert list(reader.readPsfs(("Y",))) == ["Y"]


def test_bands_and_boxes_that_a_file_lacks_are_named(exposureFile):
    with pytest.raises(ImageError, match="no band 'z'; it has g, r, y, Y"):
        MultibandExposure.readFits(exposureFile, bands=("g", "z"))
    with pytest.raises(ImageError, match="not inside the image"):
        MultibandExposure.readFits(exposureFile, bbox=Box2I(Point2I(0, 0), Extent2I(5, 5)))


def test_mask_bits_of_a_file_are_moved_to_where_the_planes_are_here(exposure, tmp_path):
    try:
        exposure.mask.array[...] = 0
        Mask.addMaskPlane("TEST_A")
        Mask.addMaskPlane("TEST_B")
        exposure.mask["r"][105, -10] = Mask.getPlaneBitMask(["TEST_B", "BAD"])
        exposure.writeFits(tmp_path / "planes.fits")
        Mask.removeMaskPlane("TEST_A")
        Mask.removeMaskPlane("TEST_B")
        Mask.addMaskPlane("TEST_B")  # where TEST_A was
        back = MultibandExposure.readFits(tmp_path / "planes.fits")
        assert set(back.mask["r"].getAsString(105, -10).split(",")) == {"BAD", "TEST_B"}
    finally:
        for name in ("TEST_A", "TEST_B"):
            if name in Mask.getMaskPlaneDict():
                Mask.removeMaskPlane(name)


@pytest.fixture
def catalog(exposure):
    schema = SourceTable.makeMinimalSchema()
    schema.addField("merge_peak_y", type="Flag", doc="seen in y")
    schema.addField("merge_peak_Y", type="Flag", doc="seen in Y")
    schema.addField("flux", type="D", doc="flux of the model", units="nJy")
    schema.addField("error", type="String", doc="what failed", size=25)
    schema.addField("latent", type="ArrayF", doc="latents", size=3)
    schema.addField("count", type="U", doc="a count")
    peaks = PeakTable.makeMinimalSchema()
    peaks.addField("merge_peak_y", type="Flag", doc="seen in y")
    peaks.addField("merge_peak_Y", type="Flag", doc="seen in Y")
    catalog = SourceCatalog(schema)
    for n in range(6):
        record = catalog.addNew()
        record.set("merge_peak_Y", n % 2 == 0)
        record.set("flux", n * 1.5)
        record.set("error", "e" * n)
        record.set("latent", np.full(3, n))
        record.set("count", 60000 + n)
        record.setParent(n // 3)
        if n == 4:
            continue  # no footprint
        spans = SpanSet.fromShape(n, offset=(112 + n, -8)) if n else SpanSet()
        footprint = Footprint(spans, peaks, region=BOX)
        for k in range(n % 3):
            footprint.addPeak(112.25 + k, -8, 10.0 + n).set("merge_peak_Y", True)
        if n == 5:
            footprint = makeHeavyFootprint(footprint, exposure["g"])
        record.setFootprint(footprint)
    catalog.metadata["what"] = [1, "two"]
    return catalog


def test_catalogue_round_trips_through_fits(catalog, tmp_path):
    catalog.writeFits(tmp_path / "catalog.fits")
    back = SourceCatalog.readFits(tmp_path / "catalog.fits")
    assert back.schema == catalog.schema and back.metadata == catalog.metadata
    for name in catalog.schema.getOrderedNames():
        column = catalog[name]
        assert back[name].dtype == column.dtype
        assert np.array_equal(back[name], column, equal_nan=column.dtype.kind == "f"), name
    assert back.addNew().getId() == 7


def test_footprints_and_peaks_round_trip_through_fits(catalog, tmp_path):
    catalog.writeFits(tmp_path / "catalog.fits")
    back = SourceCatalog.readFits(tmp_path / "catalog.fits")
    for new, old in zip(back, catalog):
        if old.getFootprint() is None:
            assert new.getFootprint() is None
            continue
        assert new.getFootprint() == old.getFootprint() and new.getFootprint().getRegion() == BOX
    peak = back[2].getFootprint().peaks[1]
    assert peak["merge_peak_Y"] and not peak["merge_peak_y"] and peak.getFx() == 113.25 and peak.getId() == 2
    back[1].getFootprint().addPeak(1, 1, 1)
    assert len(back[2].getFootprint().peaks) == 2


def test_heavy_footprints_round_trip_or_are_left_light(catalog, exposure, tmp_path):
    catalog.writeFits(tmp_path / "heavy.fits")
    new, old = SourceCatalog.readFits(tmp_path / "heavy.fits")[5].getFootprint(), catalog[5].getFootprint()
    assert new.isHeavy() and new.unit == old.unit
    for get in ("getImageArray", "getMaskArray", "getVarianceArray"):
        assert np.array_equal(getattr(new, get)(), getattr(old, get)())
    catalog.writeFits(tmp_path / "light.fits", heavy=False)
    assert not SourceCatalog.readFits(tmp_path / "light.fits")[5].getFootprint().isHeavy()


def test_catalogues_without_rows_or_footprints_round_trip(catalog, tmp_path):
    SourceCatalog(catalog.schema).writeFits(tmp_path / "empty.fits")
    back = SourceCatalog.readFits(tmp_path / "empty.fits")
    assert len(back) == 0 and back.schema == catalog.schema
    catalog[4:5].writeFits(tmp_path / "one.fits")
    assert SourceCatalog.readFits(tmp_path / "one.fits")["id"].tolist() == [5]


def test_sorted_subset_keeps_its_order_and_footprints_in_fits(catalog, tmp_path):
    subset = catalog[np.array([5, 2, 1])]
    subset.writeFits(tmp_path / "subset.fits")
    back = SourceCatalog.readFits(tmp_path / "subset.fits")
    assert back["id"].tolist() == [6, 3, 2]
    assert [r.getFootprint() for r in back] == [r.getFootprint() for r in subset]


def oneLine(caught):
    assert "\n" not in str(caught.value) and str(caught.value)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_give_one_line(exposureFile, catalog, tmp_path, part):
    catalogFile = tmp_path / "catalog.fits"
    catalog.writeFits(catalogFile)
    for path, read, error in (
        (exposureFile, MultibandExposure.readFits, ImageError),
        (catalogFile, SourceCatalog.readFits, CatalogError),
    ):
        data = path.read_bytes()
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(error, match=str(path)) as caught:
            read(path)
        oneLine(caught)


def test_files_of_other_programs_and_kinds_are_named(exposureFile, catalog, tmp_path):
    other = tmp_path / "other.fits"
    fits.PrimaryHDU(np.zeros((5, 5))).writeto(other)
    with pytest.raises(ImageError, match="not a MultibandExposure file.*no VAEFMT") as caught:
        MultibandExposure.readFits(other)
    oneLine(caught)
    with pytest.raises(CatalogError, match="is a MultibandExposure file"):
        SourceCatalog.readFits(exposureFile)
    other.write_bytes(b"PK\x03\x04 not FITS at all")
    with pytest.raises(ImageError, match="damaged or from another program") as caught:
        MultibandExposure.readFits(other)
    oneLine(caught)
    with pytest.raises(CatalogError, match="There is no file"):
        SourceCatalog.readFits(tmp_path / "nothing.fits")


@pytest.mark.parametrize(
    "card",
    [b"NAXIS1  =       1000000000000", b"NAXIS1  =                  -5", b"NAXIS   =                 999"],
)
def test_wild_headers_give_one_line_and_no_huge_allocation(exposureFile, card):
    data = exposureFile.read_bytes()
    start = data.index(card[:8], 2880)
    end = data.index(b" / ", start)
    exposureFile.write_bytes(data[:start] + card.ljust(end - start) + data[end:])
    with pytest.raises(ImageError) as caught:
        MultibandExposure.readFits(exposureFile)
    oneLine(caught)


def test_headers_with_noise_never_give_anything_but_our_errors(exposureFile, catalog, tmp_path):
    rng = np.random.default_rng(13)
    catalogFile = tmp_path / "catalog.fits"
    catalog.writeFits(catalogFile)
    failures = 0
    for path, read in ((exposureFile, MultibandExposure.readFits), (catalogFile, SourceCatalog.readFits)):
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        with fits.open(path) as hdus:
            places = np.concatenate(
                [np.arange(i["hdrLoc"], i["datLoc"]) for i in (h.fileinfo() for h in hdus)]
            )
        for _ in range(40):
            noisy = data.copy()
            noisy[rng.choice(places, 12)] = rng.integers(32, 127, 12)
            path.write_bytes(noisy.tobytes())
            try:
                read(path)
            except VaeError as error:
                assert "\n" not in str(error)
                failures += 1
    for name in set(Mask.getMaskPlaneDict()):  # noise may have named planes
        try:
            Mask.removeMaskPlane(name)
        except ImageError:
            pass
    assert failures > 5


def test_metadata_that_is_not_simple_is_refused(exposure, tmp_path):
    exposure.metadata["psf"] = exposure.getPsfs()["g"]
    with pytest.raises(VaeError, match="simple values"):
        exposure.writeFits(tmp_path / "no.fits")
    assert not (tmp_path / "no.fits").exists()
