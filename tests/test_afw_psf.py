# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""PSF kinds: kernels are checked and normalised, grids interpolate."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.afw import (
    AnalyticPsf,
    Box2I,
    Extent2I,
    GridPsf,
    KernelPsf,
    Point2D,
    Point2I,
    PsfDomainError,
)
from lsst.meas.extensions.vae.errors import ImageError


def gaussian(sigma, size=21):
    x = np.arange(size) - size // 2
    return np.exp(-(x[:, np.newaxis] ** 2 + x**2) / (2 * sigma**2))


def test_kernel_is_normalised_and_centred_at_zero():
    image = KernelPsf(5 * gaussian(2.0)).computeKernelImage(Point2D(10, 10))
    assert image.array.sum() == pytest.approx(1, abs=1e-12)
    assert image.getBBox() == Box2I(Point2I(-10, -10), Extent2I(21, 21))
    assert np.unravel_index(image.array.argmax(), image.array.shape) == (10, 10)


@pytest.mark.parametrize(
    "kernel, message",
    [
        (np.full((3, 3), np.nan), "9 pixels that are not finite"),
        (np.zeros((3, 3)), "sums to 0"),
        (-np.ones((3, 3)), "sums to -9"),
        (np.ones((4, 4)), "odd"),
        (np.ones(3), "odd"),
    ],
)
def test_a_kernel_that_is_none_is_refused(kernel, message):
    with pytest.raises(ImageError, match=message):
        KernelPsf(kernel)


def test_changing_a_kernel_image_does_not_change_the_psf():
    psf = KernelPsf(gaussian(2.0))
    psf.computeKernelImage().array[...] = 0
    assert psf.computeKernelImage().array.sum() == pytest.approx(1)


def test_image_at_a_position_has_its_centroid_there():
    image = KernelPsf(gaussian(2.0)).computeImage(Point2D(40.3, 25.6))
    x = np.arange(image.getX0(), image.getX0() + image.getWidth())
    y = np.arange(image.getY0(), image.getY0() + image.getHeight())
    assert image.array.sum(axis=0) @ x == pytest.approx(40.3, abs=1e-3)
    assert image.array.sum(axis=1) @ y == pytest.approx(25.6, abs=1e-3)


def test_second_moments_of_a_gaussian_are_its_sigma_squared_and_a_pixel():
    sigma = 0.9 / 2.3548200450309493 / 0.2
    ixx, iyy, ixy = AnalyticPsf("gaussian", 0.9, 0.2).computeShape()
    assert ixx == pytest.approx(sigma**2 + 1 / 12, rel=1e-6) == iyy
    assert ixy == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind, beta", [("gaussian", None), ("moffat", 2.5), ("kolmogorov", None)])
def test_analytic_psf_agrees_with_galsim(kind, beta):
    galsim = pytest.importorskip("galsim")
    fine = galsim.GSParams(folding_threshold=1e-4, maxk_threshold=1e-4)
    profile = {
        "gaussian": lambda: galsim.Gaussian(fwhm=0.7, gsparams=fine),
        "moffat": lambda: galsim.Moffat(beta=2.5, fwhm=0.7, gsparams=fine),
        "kolmogorov": lambda: galsim.Kolmogorov(fwhm=0.7, gsparams=fine),
    }[kind]()
    drawn = profile.shear(g1=0.05, g2=-0.08).drawImage(nx=41, ny=41, scale=0.2, dtype=float).array
    kernel = AnalyticPsf(kind, 0.7, 0.2, beta=beta, e1=0.05, e2=-0.08).computeKernelImage().array
    assert np.abs(kernel - drawn / drawn.sum()).max() < 3e-4 * kernel.max()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("airy", 0.7, 0.2), "'airy'.*gaussian"),
        (("gaussian", -0.7, 0.2), "fwhm is -0.7"),
        (("gaussian", 0.7, float("nan")), "pixelScale is nan"),
        (("moffat", 0.7, 0.2), "beta is None"),
        (("gaussian", 0.7, 0.2, 40), "40 pixels"),
    ],
)
def test_analytic_psf_out_of_range_is_refused(arguments, message):
    with pytest.raises(ImageError, match=message):
        AnalyticPsf(*arguments)


@pytest.fixture
def grid():
    kernels = [[gaussian(1.0 + 0.2 * i + 0.5 * j) for i in range(3)] for j in range(2)]
    return GridPsf([0, 100, 200], [0, 50], kernels)


def test_grid_gives_its_kernels_exactly_at_the_nodes(grid):
    for j, y in enumerate((0, 50)):
        for i, x in enumerate((0, 100, 200)):
            expected = KernelPsf(gaussian(1.0 + 0.2 * i + 0.5 * j)).computeKernelImage().array
            assert np.array_equal(grid.computeKernelImage(Point2D(x, y)).array, expected)


def test_grid_is_bilinear_between_the_nodes(grid):
    k = grid.kernels
    expected = 0.75 * (0.6 * k[0, 0] + 0.4 * k[0, 1]) + 0.25 * (0.6 * k[1, 0] + 0.4 * k[1, 1])
    kernel = grid.computeKernelImage((40, 12.5)).array
    assert np.allclose(kernel, expected, rtol=1e-12) and kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize("position", [(-1, 0), (0, 51), (201, 20), (float("nan"), 0)])
def test_grid_raises_outside_its_valid_region(grid, position):
    with pytest.raises(PsfDomainError, match="There is no PSF at"):
        grid.computeKernelImage(position)
    assert not grid.isInDomain(position)


def test_grid_holds_its_edge_up_to_the_region_given():
    psf = GridPsf([10, 20], [10], [[gaussian(1), gaussian(2)]], region=Box2I(Point2I(0, 0), Extent2I(31, 21)))
    assert np.array_equal(psf.computeKernelImage((0, 0)).array, psf.kernels[0, 0])
    assert np.array_equal(psf.computeKernelImage((30, 20)).array, psf.kernels[0, 1])
    assert not psf.isInDomain((31, 0))


def test_grid_node_without_a_kernel_has_no_psf_around_it():
    kernels = np.array([[gaussian(1), gaussian(2), np.full((21, 21), np.nan)]])
    psf = GridPsf([0, 10, 20], [0], kernels)
    assert psf.isInDomain((10, 0)) and not psf.isInDomain((10.1, 0)) and not psf.isInDomain((20, 0))


def test_grid_with_a_bad_kernel_or_nodes_is_refused():
    with pytest.raises(ImageError, match="node x=10, y=0"):
        GridPsf([0, 10], [0], [[gaussian(1), np.zeros((21, 21))]])
    with pytest.raises(ImageError, match="increase"):
        GridPsf([10, 0], [0], [[gaussian(1), gaussian(1)]])
    with pytest.raises(ImageError, match="1 x 2 nodes"):
        GridPsf([0, 10], [0], [[gaussian(1)]])
