# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cubes from the shim, from objects like afw's and from lsst.images coadds."""

import subprocess
import sys
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest

from lsst.meas.extensions.vae import afw
from lsst.meas.extensions.vae.afw import (
    Box2I,
    Extent2I,
    IncompleteDataError,
    KernelPsf,
    Mask,
    MultibandExposure,
    Point2I,
)
from lsst.meas.extensions.vae.afw.adapters import asCubes, fromCellCoadds, typesOf
from lsst.meas.extensions.vae.errors import ImageError

BOX = Box2I(Point2I(100, 200), Extent2I(12, 10))


@pytest.fixture
def exposure():
    cube = np.random.default_rng(1).normal(size=(2, 10, 12)).astype(np.float32)
    psfs = [KernelPsf(np.ones((n, n))) for n in (3, 5)]
    return MultibandExposure.fromArrays(("g", "r"), cube, None, np.abs(cube), BOX, "nJy", psfs=psfs)


def test_shim_becomes_cubes_without_a_copy(exposure):
    cubes = asCubes(exposure)
    assert np.shares_memory(cubes.images, exposure.image.array) and cubes.images.dtype == np.float32
    assert np.array_equal(cubes.variance, exposure.variance.array)
    assert cubes.bands == ("g", "r") and cubes.xy0 == (100, 200) and cubes.unit == u.nJy
    assert cubes.planeDict["NO_DATA"] == 8 and cubes.bitMask(["BAD", "NO_DATA", "ABSENT"]) == 257
    psf = cubes.psf(103.5, 204)
    assert psf.shape == (2, 5, 5) and np.allclose(psf.sum(axis=(1, 2)), 1) and psf[0, 0, 0] == 0


def test_missing_psf_raises_through_the_cubes(exposure):
    exposure["g"].setPsf(None)
    with pytest.raises(IncompleteDataError) as caught:
        asCubes(exposure).psf(103, 204)
    assert caught.value.missingBands == ["g"] and caught.value.partialPsf.bands == ("r",)


class ForeignBox:
    """Only what afw's Box2I and ours both have."""

    def __init__(self, x, y, width, height):
        self.getMinX, self.getMinY = lambda: x, lambda: y
        self.getMaxX, self.getMaxY = lambda: x + width - 1, lambda: y + height - 1
        self.getWidth, self.getHeight = lambda: width, lambda: height


class ForeignIncomplete(Exception):
    def __init__(self, partialPsf):
        self.missingBands, self.partialPsf = ["g"], partialPsf


class ForeignExposure:
    """Looks like afw's MultibandExposure; off-centre kernels, own planes, int16 pixels."""

    bands = ("g", "r")
    image = SimpleNamespace(array=np.ones((2, 4, 6), dtype=np.int16))
    variance = SimpleNamespace(array=np.ones((2, 4, 6)))
    mask = SimpleNamespace(array=np.zeros((2, 4, 6), dtype=np.int32), getMaskPlaneDict=lambda: {"BAD": 5})

    def getBBox(self):
        return ForeignBox(7, 9, 6, 4)

    def computePsfKernelImage(self, position):
        kernel = np.zeros((2, 3, 4))
        kernel[:, 1, 1] = 2.0
        image = SimpleNamespace(array=kernel, getBBox=lambda: ForeignBox(-1, -1, 4, 3), bands=("r",))
        if position[0] < 0:
            raise ForeignIncomplete(image)
        return image


def test_objects_like_afws_become_cubes():
    cubes = asCubes(ForeignExposure())
    assert cubes.images.dtype == cubes.variance.dtype == np.float32 and cubes.xy0 == (7, 9)
    assert cubes.bitMask(["BAD"]) == 32 and cubes.unit is None and cubes.bands == ("g", "r")
    psf = cubes.psf(8, 10)
    assert psf.shape == (2, 5, 5) and np.all(psf[:, 2, 2] == 1)  # odd, its (0, 0) in the middle, of unit sum


def test_afws_own_incomplete_data_error_becomes_ours():
    with pytest.raises(IncompleteDataError) as caught:
        asCubes(ForeignExposure()).psf(-1, 0)
    assert caught.value.missingBands == ["g"]


def test_other_objects_and_shapes_are_refused(exposure):
    with pytest.raises(ImageError, match="Cannot take a int"):
        asCubes(3)
    foreign = ForeignExposure()
    foreign.variance = SimpleNamespace(array=np.ones((2, 4, 5)))
    with pytest.raises(ImageError, match=r"variance has shape \(2, 4, 5\)"):
        asCubes(foreign)


def coadd(x0=100, unit=u.nJy, value=1.0):
    """A stand-in for lsst.images.cells.CellCoadd."""

    def kernelAt(*, x, y):
        if x > 105:
            raise RuntimeError("Cell is missing for this PSF.")
        return SimpleNamespace(array=np.ones((3, 3)))

    planes = {"NO_DATA": np.eye(10, 12, dtype=bool), "TEST_CELL": np.ones((10, 12), dtype=bool)}
    return SimpleNamespace(
        bbox=SimpleNamespace(x=SimpleNamespace(start=x0), y=SimpleNamespace(start=200)),
        unit=unit,
        image=SimpleNamespace(array=np.full((10, 12), value, dtype=np.float32)),
        variance=SimpleNamespace(array=np.full((10, 12), 0.5, dtype=np.float32)),
        mask=SimpleNamespace(schema=SimpleNamespace(names=set(planes)), get=planes.__getitem__),
        psf=SimpleNamespace(compute_kernel_image=kernelAt),
    )


def test_cell_coadds_become_an_exposure_and_cubes():
    try:
        exposure = fromCellCoadds({"g": coadd(), "r": coadd(value=2.0)})
        assert exposure.getBBox() == BOX and exposure.unit == u.nJy
        assert exposure["r"].image[100, 200] == 2 and exposure.variance.array[0, 0, 0] == 0.5
        assert set(exposure.mask["g"].getAsString(101, 201).split(",")) == {"NO_DATA", "TEST_CELL"}
        cubes = asCubes({"g": coadd(), "r": coadd()})
        assert cubes.psf(101, 204).shape == (2, 3, 3)
        with pytest.raises(IncompleteDataError):
            cubes.psf(106, 204)
    finally:
        Mask.removeMaskPlane("TEST_CELL")


def test_planes_of_lsst_images_get_the_names_that_configs_have():
    single = coadd()
    planes = {"SATURATED": np.eye(10, 12, dtype=bool), "DETECTION_EDGE": np.ones((10, 12), dtype=bool)}
    single.mask = SimpleNamespace(schema=SimpleNamespace(names=set(planes)), get=planes.__getitem__)
    mask = fromCellCoadds({"g": single}).mask
    assert set(mask["g"].getAsString(101, 201).split(",")) == {"SAT", "EDGE"}
    assert "SATURATED" not in mask.getMaskPlaneDict()


def realCoadd(band, value):
    """A CellCoadd of 2 x 2 cells, one of them missing, as lsst.images makes it."""
    cells = pytest.importorskip("lsst.images.cells", reason="lsst-images needs Python 3.12")
    from astropy.wcs import WCS
    from lsst.images import YX, Box, Image, Mask, MaskPlane, MaskSchema, SkyProjection, TractFrame
    from lsst.images._cell_grid import CellGrid, CellGridBounds, CellIJ

    box = Box.factory[200:260, 100:180]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ("RA---TAN", "DEC--TAN"), (150.0, 2.0), (1.0, 1.0)
    wcs.wcs.cdelt = -0.2 / 3600, 0.2 / 3600
    frame = TractFrame(skymap="test", tract=0, bbox=Box.factory[0:1000, 0:1000])
    projection = SkyProjection.from_fits_wcs(wcs, frame, x0=100, y0=200)
    mask = Mask(0, schema=MaskSchema([MaskPlane("SATURATED", "."), MaskPlane("NO_DATA", ".")]), bbox=box)
    mask.set("SATURATED", np.eye(60, 80, dtype=bool))
    kernels = np.zeros((2, 2, 5, 5))
    kernels[:, :, 2, 2] = value
    kernels[1, 1] = np.nan
    grid = CellGrid(bbox=box, cell_shape=YX(y=30, x=40))
    bounds = CellGridBounds(grid=grid, bbox=box, missing=frozenset([CellIJ(i=1, j=1)]))
    return cells.CellCoadd(
        Image(np.full((60, 80), value, dtype=np.float32), bbox=box, unit=u.nJy),
        mask=mask,
        variance=Image(np.full((60, 80), 0.5, dtype=np.float32), bbox=box, unit=u.nJy**2),
        sky_projection=projection,
        band=band,
        psf=cells.CellPointSpreadFunction(kernels, bounds),
    )


def test_real_cell_coadds_of_lsst_images_become_an_exposure():
    coadds = {"g": realCoadd("g", 1.0), "r": realCoadd("r", 2.0)}
    exposure = fromCellCoadds(coadds)
    assert exposure.getBBox() == Box2I(Point2I(100, 200), Extent2I(80, 60)) and exposure.unit == u.nJy
    assert (exposure["r"].image.array == 2).all() and (exposure.variance.array == 0.5).all()
    assert exposure.mask["g"].getAsString(103, 203) == "SAT"
    cubes = asCubes(coadds)
    kernels = cubes.psf(110.4, 210.6)
    assert kernels.shape == (2, 5, 5) and np.all(kernels[:, 2, 2] == 1)
    for place in ((170, 250), (1000, 1000)):
        with pytest.raises(IncompleteDataError):
            cubes.psf(*place)
    sky = exposure.getWcs().pixel_to_world(100, 200)
    assert (sky.ra.deg, sky.dec.deg) == pytest.approx((150, 2), abs=1e-9)
    part = coadds["g"][type(coadds["g"].bbox).factory[210:230, 150:170]]
    cut = fromCellCoadds({"g": part})
    assert cut.getBBox() == Box2I(Point2I(150, 210), Extent2I(20, 20))
    assert asCubes(cut).psf(155, 215).shape == (1, 5, 5)


def test_cell_coadds_of_different_boxes_or_units_are_refused():
    with pytest.raises(ImageError, match="one box"):
        fromCellCoadds({"g": coadd(), "r": coadd(x0=0)})
    with pytest.raises(ImageError, match="one unit.*electron"):
        fromCellCoadds({"g": coadd(), "r": coadd(unit=u.electron)})
    with pytest.raises(ImageError, match="No coadds"):
        asCubes({})


def test_types_are_those_of_the_shim_for_its_objects():
    types = typesOf(afw.SourceTable.makeMinimalSchema())
    assert types.SourceCatalog is afw.SourceCatalog and types.makeHeavyFootprint is afw.makeHeavyFootprint


def test_types_are_those_of_afw_for_afws_objects(monkeypatch):
    rooms = {
        "lsst.afw.table": (
            "IdFactory",
            "Point2IKey",
            "Schema",
            "SchemaMapper",
            "SourceCatalog",
            "SourceTable",
        ),
        "lsst.afw.detection": ("Footprint", "PeakTable", "makeHeavyFootprint"),
        "lsst.afw.image": ("Image", "Mask", "MaskedImage"),
        "lsst.afw.geom": ("SpanSet",),
        "lsst.geom": ("Box2I", "Extent2I", "Point2D", "Point2I"),
    }
    for room, names in rooms.items():
        made = {name: type(name, (), {"__module__": room}) for name in names}
        monkeypatch.setitem(sys.modules, room, SimpleNamespace(**made))
    types = typesOf(sys.modules["lsst.afw.table"].Schema())
    for room, names in rooms.items():
        assert all(getattr(types, name).__module__ == room for name in names)


def test_importing_the_shim_loads_nothing_heavy():
    code = (
        "import sys, lsst.meas.extensions.vae.afw.adapters, lsst.meas.extensions.vae.afw.persistence\n"
        "heavy = ('keras', 'tensorflow', 'galsim', 'h5py', 'pydantic', 'lsst.daf', 'lsst.pipe', 'lsst.afw')\n"
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
