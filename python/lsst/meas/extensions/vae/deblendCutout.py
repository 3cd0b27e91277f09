# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblend one multi-band cutout of a FITS file, without a repository.

The file has these HDUs, by name:

``IMAGE``
    Cube ``[band, y, x]``, background-subtracted. Its header has ``BANDS``
    (such as ``g,r,i``), and ``ZEROPNT``, the AB magnitude of one unit, or
    ``ZEROPNT1``, ``ZEROPNT2``, ... of each band; without them pixels are in
    the model's own unit. ``PIXSCALE`` [arcsec] or a WCS tell the pixel scale;
    other pixels than the model's are resampled, and models brought back.
``VARIANCE``
    Cube of the same shape.
``PSF``, optional
    Cube ``[band, y, x]``, centred on the middle pixel; the survey's otherwise.
``BAD``, optional
    Plane or cube; pixels that are not 0 are left out.
``CENTRES``, optional
    Table with columns ``x`` and ``y`` [pixel], 0-based; galaxies are detected
    otherwise.
"""

__all__ = ["Cutout", "main", "makeParser", "readCutout", "writeDeblended"]

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .command import runCommand
from .errors import ImageError
from .files import replacing

_FLAGS = ("failed", "edge")


def makeParser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="deblendCutout.py",
        description="Deblend a multi-band cutout: HDUs IMAGE (with BANDS and ZEROPNT in its header), "
        "VARIANCE and, if there are, PSF, BAD and CENTRES. What comes out has a table of SOURCES, their "
        "MODELS, and the RESIDUAL.",
    )
    add = parser.add_argument
    add("cutout", metavar="CUTOUT.fits", type=Path, help="file to deblend")
    add("--output", metavar="FILE", type=Path, help="file to write [CUTOUT.deblended.fits]")
    add(
        "--model",
        metavar="NAME",
        default="lsst10yr-ugrizy",
        help="shipped model package, or path of a *.vae.zip [%(default)s]",
    )
    add("--threshold", metavar="SIGMA", type=float, default=5.0, help="detection threshold [%(default)s]")
    add(
        "--passes",
        metavar="N",
        type=int,
        default=1,
        help="detect again on what the models leave, N passes at most [%(default)s]",
    )
    add("--one-pass", action="store_true", help="do not refine: ten times as fast, less exact")
    add("--own-fluxes", action="store_true", help="one pass with the network's fluxes, not solved together")
    return parser


def main(argv=None) -> int:
    """Deblend a cutout.

    Parameters
    ----------
    argv : sequence of `str`, optional
        Arguments; those of the process if not given.

    Returns
    -------
    code : `int`
        0 if all went well, 2 for bad input (told in one line), 130 on Ctrl-C.
    """
    return runCommand(makeParser(), _run, argv)


def _run(args) -> int:
    output = args.output or args.cutout.with_name(f"{args.cutout.stem}.deblended.fits")
    cutout = readCutout(args.cutout)
    if output.resolve() == args.cutout.resolve():
        raise ImageError(f"--output {output} is the cutout itself: name another file")
    from .deblending import DeblendSettings, deblend
    from .deblending.cutout import check_bands
    from .network.model import Network
    from .network.shipped import load_package

    network = Network(load_package(args.model))
    check_bands(cutout.bands, len(cutout.images), network)
    # By hand, as its error names the option.
    if args.passes < 1:
        raise ImageError(f"--passes is {args.passes}: expected 1 at least")
    psfs = _psfs(cutout, network)
    if cutout.centres is None:
        cutout.centres = _detected(cutout, psfs, args.threshold)

    def solve(settings):
        return deblend(
            cutout.images,
            cutout.variance,
            cutout.psfs,
            cutout.centres,
            bands=cutout.bands,
            model=network,
            zero_point=cutout.zero_point,
            pixel_scale=cutout.pixel_scale,
            bad=cutout.bad,
            settings=settings,
        )

    started = time.perf_counter()
    settings = DeblendSettings(
        joint_fluxes=not args.own_fluxes, refine=not (args.one_pass or args.own_fluxes)
    )
    passes = [1] * len(cutout.centres)
    for number in range(2, args.passes + 1):
        new = _hidden(cutout, psfs, solve(replace(settings, refine=False)), args.threshold)
        if not len(new):
            break
        cutout.centres = np.concatenate([cutout.centres, new])
        passes += [number] * len(new)
    result = solve(settings)
    seconds = time.perf_counter() - started
    writeDeblended(output, cutout, result, network.package, passes)
    failed = int(result.failed.sum())
    print(
        f"{len(result.failed)} galaxies deblended in {seconds:.1f} s"
        + (f", {sum(p > 1 for p in passes)} of them found on residuals" if max(passes, default=1) > 1 else "")
        + (f", {failed} of them without a model" if failed else "")
        + f": {output}"
    )
    return 0


@dataclass
class Cutout:
    """What a file of a cutout holds.

    Attributes
    ----------
    images, variance : `numpy.ndarray`, float32 ``[band, y, x]``
    bands : `tuple` [`str`]
    zero_point : `numpy.ndarray` ``[band]`` or `None`
        AB magnitude of one unit.
    pixel_scale : `float` or `None`
        [arcsec]
    psfs : `numpy.ndarray` ``[band, y, x]`` or `None`
    bad : `numpy.ndarray` of `bool` or `None`
    centres : `numpy.ndarray` ``[n, 2]`` or `None`
        y and x [pixel].
    header : `astropy.io.fits.Header`
        Of the images.
    """

    images: np.ndarray
    variance: np.ndarray
    bands: tuple
    zero_point: np.ndarray | None
    pixel_scale: float | None
    psfs: np.ndarray | None
    bad: np.ndarray | None
    centres: np.ndarray | None
    header: object


def readCutout(path):
    """Read a cutout; see this module for what the file holds.

    Parameters
    ----------
    path : path-like
        FITS file.

    Returns
    -------
    cutout : `Cutout`

    Raises
    ------
    ImageError
        Raised if the file cannot be read, or lacks what is needed.
    """
    from astropy.io import fits

    try:
        with fits.open(path) as hdus:
            names = [hdu.name for hdu in hdus]
            for name in ("IMAGE", "VARIANCE"):
                if name not in names:
                    raise ImageError(
                        f"{path} has no HDU {name} (it has {', '.join(filter(None, names)) or 'no name'}): "
                        "expected IMAGE and VARIANCE, cubes [band, y, x]; PSF, BAD and CENTRES if known"
                    )
            images = _cube(hdus["IMAGE"], path)
            header = hdus["IMAGE"].header.copy()
            centres = None
            if "CENTRES" in names:
                centres = _centres(hdus["CENTRES"], path)
            bad = _bad(hdus["BAD"], path) if "BAD" in names else None
            return Cutout(
                images,
                _cube(hdus["VARIANCE"], path),
                _bands(header, len(images), path),
                _zeroPoint(header, len(images), path),
                _pixelScale(header, path),
                _cube(hdus["PSF"], path) if "PSF" in names else None,
                bad,
                centres,
                header,
            )
    except ImageError:
        raise
    # What astropy raises upon damaged files is of many kinds.
    except (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, fits.VerifyError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ImageError(f"cannot read {path} as a FITS cutout ({reason})") from error


def _cube(hdu, path):
    data = hdu.data
    if data is None or data.ndim != 3 or data.dtype.kind not in "fiu":
        shape = None if data is None else data.shape
        raise ImageError(f"{path}: HDU {hdu.name} has shape {shape}: expected numbers [band, y, x]")
    # Native byte order, whatever the file's. Squares of the unit of some files need double precision.
    return np.array(data, dtype=np.float32 if data.dtype.itemsize <= 4 else np.float64)


def _bad(hdu, path):
    data = hdu.data
    if data is None or data.dtype.kind not in "fiub":
        raise ImageError(f"{path}: HDU BAD is no image: expected a plane [y, x] or a cube [band, y, x]")
    return np.asarray(data) != 0


def _bands(header, n_bands, path):
    text = header.get("BANDS")
    bands = tuple(name.strip() for name in str(text or "").replace(",", " ").split())
    if len(bands) == 1 and len(bands[0]) == n_bands > 1:
        bands = tuple(bands[0])
    if len(bands) != n_bands:
        raise ImageError(
            f"{path}: BANDS in the header of IMAGE is {str(text)[:100]!r}: expected the names of its "
            f"{n_bands} bands, such as 'g,r,i'"
        )
    return bands


def _zeroPoint(header, n_bands, path):
    values = [header.get(f"ZEROPNT{k + 1}", header.get("ZEROPNT")) for k in range(n_bands)]
    if all(value is None for value in values):
        return None
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        raise ImageError(
            f"{path}: zero points are {str(values)[:200]}: expected the AB magnitude of one unit"
        )
    return np.array(values, dtype=float)


def _pixelScale(header, path):
    """Pixel scale [arcsec], or `None` where nothing tells it."""
    value = header.get("PIXSCALE")
    if isinstance(value, int | float):
        return float(value)
    if str(value or "").strip():
        raise ImageError(
            f"{path}: PIXSCALE is {str(value)[:60]!r}: expected a number of arcsec, without quotes"
        )
    if "CTYPE1" not in header:
        return None
    import warnings

    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of oddities that do not touch the scale
        wcs = WCS(header)
        if not wcs.has_celestial:
            return None
        return float(wcs.celestial.proj_plane_pixel_scales()[0].to_value("arcsec"))


def _centres(hdu, path):
    columns = getattr(hdu, "columns", None)
    if columns is None:
        raise ImageError(f"{path}: HDU CENTRES is no table: expected one with columns x and y [pixel]")
    names = {name.lower(): name for name in columns.names}
    if not {"x", "y"} <= set(names):
        raise ImageError(f"{path}: table CENTRES has columns {', '.join(names)}: expected x and y [pixel]")
    y, x = (np.asarray(hdu.data[names[axis]]) for axis in ("y", "x"))
    if any(column.ndim != 1 or column.dtype.kind not in "fiu" for column in (y, x)):
        raise ImageError(
            f"{path}: columns y and x of table CENTRES hold {y.dtype} {y.shape} and {x.dtype} {x.shape}: "
            "expected a number in each row"
        )
    return np.column_stack([y, x]).astype(float)


def _psfs(cutout, network):
    """PSF images in the cutout's bands and pixels."""
    from .network.observation import resized
    from .network.package import psf_models

    if cutout.psfs is not None:
        return resized(cutout.psfs, max(cutout.psfs.shape[1:]) | 1)
    card, size = network.package.card, network.stamp_size - 1
    of_band = dict(zip(network.bands, zip(psf_models(card), card["pixel_scale"]), strict=True))
    return np.stack(
        [of_band[band][0].kernel(cutout.pixel_scale or of_band[band][1], size) for band in cutout.bands]
    )


def _hidden(cutout, psfs, result, threshold):
    """Places of galaxies that show once those known are subtracted, ``[n, 2]``."""
    from .deblending.iterate import IterationSettings, new_peaks
    from .deblending.stamps import check_cube

    # Detection knows nothing of units, and some have no room in single precision.
    with np.errstate(all="ignore"):
        noise2 = [np.median(v[v > 0]) if (v > 0).any() else 1.0 for v in cutout.variance]
    unit = np.sqrt(noise2)[:, None, None]
    images, variance, good = check_cube(cutout.images / unit, cutout.variance / unit**2, cutout.bad)
    scene = result.scene(images.shape) / unit
    settings = IterationSettings(threshold=threshold)
    return new_peaks(images, variance, good, psfs, scene, cutout.centres, settings)[:, :2]


def _detected(cutout, psfs, threshold):
    from .simulation.detection import detect

    found = detect(cutout.images, cutout.variance, psfs, mask=cutout.bad, threshold=threshold)
    return found.centres


def writeDeblended(path, cutout, result, package, passes):
    """Write what was made of a cutout, whole or not at all.

    Parameters
    ----------
    path : path-like
        File to write, anew if it is there.
    cutout : `Cutout`
        What was deblended.
    result : `~.deblending.DeblendResult`
        The galaxies.
    package : `~.network.package.ModelPackage`
        The model, for the header.
    passes : sequence of `int`
        The pass of detection that found each galaxy.

    Raises
    ------
    ImageError
        Raised if the file cannot be written.
    """
    from astropy.io import fits
    from astropy.table import Table

    from .version import __version__

    table = Table()
    table["id"] = np.arange(1, len(result.failed) + 1)
    table["y"], table["x"] = cutout.centres.reshape(-1, 2).T
    table["pass"] = passes
    table["origin_y"], table["origin_x"] = result.origins.T
    for name in _FLAGS:
        table[name] = getattr(result, name)
    for name in ("chi2", "novelty", "iterations", "converged"):
        if getattr(result, name) is not None:
            table[name] = getattr(result, name)
    for k, band in enumerate(cutout.bands):
        table[f"flux_{band}"] = result.fluxes[:, k]
        table[f"flux_err_{band}"] = result.flux_errors[:, k]
        if cutout.zero_point is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                magnitude = cutout.zero_point[k] - 2.5 * np.log10(result.fluxes[:, k])
            table[f"mag_{band}"] = np.where(result.fluxes[:, k] > 0, magnitude, np.nan)
    residual = cutout.images - result.scene(cutout.images.shape)
    primary = fits.PrimaryHDU()
    primary.header["MODEL"] = (package.name, "model package")
    primary.header["SHA256"] = (package.sha256[:16], "of its card, shortened")
    primary.header["VERSION"] = (__version__, "of meas_extensions_vae")
    primary.header["BANDS"] = ",".join(cutout.bands)
    image = fits.ImageHDU(residual, cutout.header, name="RESIDUAL")
    models = fits.ImageHDU(result.models, name="MODELS")
    models.header["COMMENT"] = "[source, band, y, x]; the first pixels are at SOURCES' origins."
    sources = fits.BinTableHDU(table, name="SOURCES")
    try:
        with replacing(path) as temporary:
            fits.HDUList([primary, sources, models, image]).writeto(temporary, overwrite=True)
    except OSError as error:
        raise ImageError(f"cannot write {path} ({error.strerror or error}): give another --output") from None
    except fits.VerifyError as error:
        raise ImageError(f"cannot write {path}: the header of IMAGE is damaged ({error})") from None
