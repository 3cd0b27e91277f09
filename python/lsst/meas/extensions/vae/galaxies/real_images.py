# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Galaxies with images of HST: the stamps that GalSim's COSMOS download holds, deconvolved from their PSF.

A stamp's noise is part of what is drawn: smoothed by the PSF of the survey it looks like structure of the
galaxy. It is neither whitened nor symmetrised nor subtracted, and it is not small: in COSMOS (2028 s of HST)
it is, within the stamp, about half as large as the sky's noise of LSST's ten years in r and a quarter in i,
for a source of flat f_nu, whatever its magnitude. Learning to reproduce such a target means to reproduce
that noise too.

In each band a galaxy has the counts of its image, times the parametric flux in that band over that of the
catalogue's F814W magnitude. So its pixels are as bright as HST saw them, but the sum over the stamp is not
what the magnitude says: neighbours and noise are in it, and light beyond the stamp is not. Only galaxies are
taken whose stamps have 0.5 to 2 times the light of their magnitude; so magnitudes, which are the parametric
galaxy's, and pixels agree within 0.75 mag. Of the 100 galaxies of BlendingToolKit's extension to magnitude
26, 97 are left; their stamps are 0.08 mag too faint in the median, with a scatter of 0.18 mag.
"""

__all__ = ["RealGalaxies", "load_real_galaxies"]

import functools
import hashlib
import logging
import os
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import CatalogError
from .catalog import REQUIRED_COLUMNS, GalaxyCatalog
from .cosmos import file_sha256, read_table
from .fluxes import F814W_ZEROPOINT, SED_NAMES, counts_per_second, magnitudes_of_rates
from .photometry import SedGalaxies

_LOG = logging.getLogger(__name__)

_COLUMNS = ("IDENT", "MAG", "GAL_FILENAME", "PSF_FILENAME", "GAL_HDU", "PSF_HDU", "PIXEL_SCALE")
_PHOTOMETRY = {f"HSC_{name}": name for name in "grizy"}

_MAX_SIDE = 4096
_KEPT_PROFILES = 16

# Light of a stamp over that of the catalogue's magnitude. More or less is of another object.
_LIGHT_RANGE = (0.5, 2.0)

# Of GalSim's cuts against bad stamps, for the catalogue to 25.2.
_MIN_SN, _MIN_MASK_DISTANCE, _MAX_MASK_RATIO = 12.0, 11.0, 0.8


class RealGalaxies(SedGalaxies):
    """Galaxies with images. Made by `load_real_galaxies`.

    Images stay on disk and are read when a profile is asked for; pickles hold the numbers and the path.

    Attributes
    ----------
    ident : int64 [N]
        Catalogue number.
    redshift : float64 [N]
    mag_auto : float64 [N]
        F814W magnitude, AB.
    light : float64 [N]
        Counts of the image over those of the magnitude; 0.5 to 2.
    source, sha256 : `str`
        "cosmos_images", and the sum of the catalogue's tables.
    """

    source = "cosmos_images"

    def __init__(self, folder, sha256, columns):
        self._folder = folder
        self.sha256 = sha256
        self._columns = columns
        for name in ("ident", "redshift", "mag_auto", "light"):
            setattr(self, name, columns[name])

    def __len__(self):
        return len(self.ident)

    def __getitem__(self, index):
        """Some galaxies, by a mask, indices or a slice [`RealGalaxies`]."""
        columns = {name: column[index] for name, column in self._columns.items()}
        return RealGalaxies(self._folder, self.sha256, columns)

    def __repr__(self):
        return f"<RealGalaxies: {len(self)} galaxies>"

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_profile"}

    def _seds(self):
        return self._columns["sed"], self._columns["flux_fraction"]

    def fluxes(self, survey, colour_gradients=True):
        """Electrons that a galaxy's whole image gives in the survey's full exposure: those of the parametric
        components, as of `GalaxyCatalog.fluxes`, times `light` [float64 [N, 2, n_bands]].
        """
        return super().fluxes(survey, colour_gradients) * self.light[:, None, None]

    def profile(self, index):
        """A galaxy's light above the atmosphere: its image, deconvolved from HST's PSF and pixel.

        It is what `galsim.RealGalaxy` is, in the image's own orientation and about the stamp's centre, but
        that it knows how far the stamp reaches. The last few are kept.

        Parameters
        ----------
        index : `int`

        Returns
        -------
        profile : `galsim.GSObject`
            Of unit flux; times `fluxes` it has the image's own counts, in the band's units.

        Raises
        ------
        CatalogError
            If the image or its PSF cannot be read, or its PSF holds no light.
        """
        if "_profile" not in self.__dict__:
            self._profile = functools.lru_cache(_KEPT_PROFILES)(self._make_profile)
        return self._profile(int(index))

    def _make_profile(self, index):
        import galsim

        columns = self._columns
        image, psf = (
            _read_image(
                self._folder, str(columns[f"{kind}_filename"][index]), int(columns[f"{kind}_hdu"][index])
            )
            for kind in ("gal", "psf")
        )
        scale = float(columns["pixel_scale"][index])
        if not psf.sum() > 0:
            raise CatalogError(
                f"The PSF image of real galaxy {self.ident[index]} holds no light: expected a positive sum; "
                "leave this galaxy out of the catalogue."
            )
        psf = galsim.InterpolatedImage(galsim.Image(psf, scale=scale), flux=1.0)
        # GalSim would take the radius of most of the light for the reach of the image; a neighbour in a
        # corner of the stamp is farther, and drawing would fold it back. Zeros around show the corners.
        pad = int(np.ceil(0.5 * (np.sqrt(2) - 1) * max(image.shape))) + 1
        padded = galsim.Image(np.pad(image, pad), scale=scale)
        light = galsim.InterpolatedImage(
            padded, flux=1.0, pad_factor=3.0, calculate_stepk=False, calculate_maxk=psf.maxk
        )
        return galsim.Convolve(light, galsim.Deconvolve(psf))


def load_real_galaxies(path):
    """Load galaxies with HST images, in the form of GalSim's COSMOS download.

    Parameters
    ----------
    path : path
        The ``real_galaxy_catalog_*.fits`` file. Beside it are the image and PSF files that it names, its
        ``*_fits.fits`` file, which gives the colours, and perhaps ``*_selection.fits``, by which stamps with
        masks or noise in place of a galaxy are left out as GalSim does.

    Returns
    -------
    galaxies : `RealGalaxies`
        Those that have colours: a usable parametric fit, or, where that file has magnitudes of HSC in place
        of fits, the one of the three SEDs that is nearest to them; and as much light on their stamp as their
        magnitude says, within a factor of 2. In order of IDENT. All their stamps are read once: some 0.3 ms
        each where they are in the disk's cache.

    Raises
    ------
    CatalogError
        If a file or column is missing, names of files lead out of the folder, an image cannot be read, or no
        galaxy is left.
    """
    path = Path(path).expanduser()
    beside = _beside(path, "fits")
    for file in (path, beside):
        if not file.is_file():
            raise CatalogError(
                f"No file {file}: expected GalSim's 'real_galaxy_catalog_*.fits' and its '*_fits.fits' "
                "beside it; correct the path or run galsim_download_cosmos."
            )
    table, colours = read_table(path), read_table(beside)
    missing = [name for name in _COLUMNS if name not in table.colnames]
    if missing:
        raise CatalogError(
            f"Catalogue {path} lacks the columns {', '.join(missing)}: expected those of GalSim's "
            "'real_galaxy_catalog_*.fits'; give that file."
        )
    columns = {name.lower(): np.asarray(table[name]) for name in _COLUMNS}
    columns["ident"] = columns["ident"].astype(np.int64)
    for name in ("gal_filename", "psf_filename"):
        columns[name] = _checked_files(path, np.char.strip(columns[name].astype(str)))
    if set(REQUIRED_COLUMNS) <= set(colours.colnames):
        known = _of_fits(colours)
    elif {"IDENT", "ZPHOT", *_PHOTOMETRY} <= set(colours.colnames):
        known = _of_photometry(colours, columns["ident"], columns["mag"])
    else:
        raise CatalogError(
            f"Catalogue {beside} has neither GalSim's parametric fits nor HSC magnitudes and ZPHOT: give the "
            "'*_fits.fits' file of the same download."
        )
    usable = _good_stamps(path, columns["ident"])
    _, ours, theirs = np.intersect1d(columns["ident"], known["ident"], return_indices=True)
    kept = usable[ours]
    ours, theirs = ours[kept], theirs[kept]
    if len(ours) == 0:
        raise CatalogError(f"No usable galaxy in {path}: expected images of galaxies in {beside.name}.")
    columns = {name: column[ours] for name, column in columns.items() if name != "mag"}
    columns |= {name: column[theirs] for name, column in known.items()}
    columns["light"] = _light(path.parent, columns)
    own = (columns["light"] >= _LIGHT_RANGE[0]) & (columns["light"] <= _LIGHT_RANGE[1])
    if not own.all():
        _LOG.warning(
            "Left out %d of %d galaxies of %s, whose stamps have less than %g or more than %g times the "
            "light of their magnitude.",
            len(own) - own.sum(),
            len(own),
            path.name,
            *_LIGHT_RANGE,
        )
    if not own.any():
        raise CatalogError(
            f"No stamp of {path} has the light of its galaxy's magnitude within a factor of 2: expected "
            f"counts per second of zero point {F814W_ZEROPOINT}; use GalSim's own download."
        )
    columns = {name: column[own] for name, column in columns.items()}
    return RealGalaxies(path.parent, _tables_sha256(path), columns)


def _light(folder, columns):
    """Counts of each stamp over those of the galaxy's magnitude [float64 [N]]."""
    names, numbers = columns["gal_filename"].tolist(), columns["gal_hdu"].tolist()
    counts = np.array([_read_image(folder, name, hdu).sum() for name, hdu in zip(names, numbers)])
    return counts / 10 ** (-0.4 * (columns["mag_auto"] - F814W_ZEROPOINT))


def _beside(path, kind):
    """Another table of the same download: "fits" or "selection"."""
    return path.with_name(f"{path.name.removesuffix('.fits')}_{kind}.fits")


def _tables_sha256(path):
    """Sum of all tables, as each of them changes the galaxies."""
    digest = hashlib.sha256()
    for file in (path, _beside(path, "fits"), _beside(path, "selection")):
        digest.update((file_sha256(file) if file.is_file() else "absent").encode())
    return digest.hexdigest()


def _checked_files(path, names):
    """Names of files, none of which leads out of the catalogue's folder and all of which are there."""
    for name in np.unique(names):
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
            raise CatalogError(
                f"Catalogue {path} names the image file {name!r}: expected one within its own folder; do not "
                "use this catalogue."
            )
        if not (path.parent / name).is_file():
            raise CatalogError(
                f"Image file {name} of catalogue {path} is absent: expected it beside the catalogue; fetch "
                "the whole download."
            )
    return names


def _of_fits(table):
    """Colours by GalSim's parametric fits."""
    fits = GalaxyCatalog(table, "cosmos")
    components = fits.components
    return {
        "ident": fits.ident,
        "redshift": fits.redshift,
        "mag_auto": fits.mag_auto,
        "sed": components.sed,
        "flux_fraction": components.flux_fraction,
    }


def _of_photometry(table, ident, magnitude):
    """Colours by HSC magnitudes: the SED whose magnitudes differ least from them, but for a constant."""
    from ..survey import get_survey

    _, ours, theirs = np.intersect1d(table["IDENT"], ident, return_indices=True)
    table, magnitude = table[ours], np.asarray(magnitude, np.float64)[theirs]
    redshift = np.asarray(table["ZPHOT"], np.float64)
    # LSST's bandpasses stand for HSC's: their colours differ by less than those of the three SEDs.
    survey = get_survey("lsst10yr", _PHOTOMETRY.values())
    found = np.stack([np.asarray(table[name], np.float64) for name in _PHOTOMETRY], axis=1)
    usable = np.isfinite(found).all(axis=1) & np.isfinite(magnitude) & np.isfinite(redshift) & (redshift >= 0)
    found, magnitude, redshift = found[usable], magnitude[usable], redshift[usable]
    sed = np.arange(len(SED_NAMES))
    rates = counts_per_second(survey, sed, redshift[:, None], magnitude[:, None])
    with np.errstate(invalid="ignore"):
        difference = magnitudes_of_rates(survey, rates) - found[:, None]
        chosen = np.argmin(np.nan_to_num(difference.std(axis=2), nan=np.inf), axis=1)
    return {
        "ident": np.asarray(table["IDENT"])[usable].astype(np.int64),
        "redshift": redshift,
        "mag_auto": magnitude,
        "sed": np.stack([chosen, chosen], axis=1),
        "flux_fraction": np.tile([1.0, 0.0], (len(chosen), 1)),
    }


def _good_stamps(path, ident):
    """Which stamps pass GalSim's cuts [bool]; all do where there is no selection file."""
    file = _beside(path, "selection")
    if not file.is_file():
        return np.ones(len(ident), bool)
    table = read_table(file)
    needed = ("IDENT", "sn_ellip_gauss", "min_mask_dist_pixels", "average_mask_adjacent_pixel_count")
    missing = [name for name in (*needed, "peak_image_pixel_count") if name not in table.colnames]
    if missing:
        raise CatalogError(f"Selection file {file} lacks the columns {', '.join(missing)}: fetch it again.")
    peak = np.maximum(np.asarray(table["peak_image_pixel_count"]), 1e-5)
    good = np.asarray(table["sn_ellip_gauss"]) >= _MIN_SN
    good &= (np.asarray(table["min_mask_dist_pixels"]) > _MIN_MASK_DISTANCE) | (
        np.asarray(table["average_mask_adjacent_pixel_count"]) / peak < _MAX_MASK_RATIO
    )
    return np.isin(ident, np.asarray(table["IDENT"])[good])


@functools.lru_cache(maxsize=512)
def _offsets(path, size):
    """Bytes of the file at which its HDUs begin [int64]. A file's size is part of the key, lest an old table
    serve a new file.
    """
    from astropy.io import fits

    starts = []
    with open(path, "rb") as file:
        while file.tell() < size:
            starts.append(file.tell())
            header = fits.Header.fromfile(file)
            file.seek(header.data_size_padded, os.SEEK_CUR)
    return np.array(starts, np.int64)


def _read_image(folder, name, hdu):
    """An image of a file [float64 [y, x]].

    A download has some hundred files of a thousand HDUs each. Only where these begin is kept, as open files
    and HDU objects would fill the memory; and no file stays open for processes that fork to share.
    """
    from astropy.io import fits

    path = folder / name
    try:
        starts = _offsets(path, path.stat().st_size)
        if not 0 <= hdu < len(starts):
            raise CatalogError(
                f"Image file {path} has {len(starts)} HDUs, and {hdu} is asked for: fetch the download again."
            )
        with open(path, "rb") as file:
            file.seek(starts[hdu])
            header = fits.Header.fromfile(file)
            shape = (header.get("NAXIS2", 0), header.get("NAXIS1", 0))
            if header["NAXIS"] != 2 or not all(1 <= side <= _MAX_SIDE for side in shape):
                raise CatalogError(
                    f"HDU {hdu} of image file {path} is of {header['NAXIS']} axes and shape {shape}: "
                    f"expected an image of 1 to {_MAX_SIDE} pixels a side; fetch the download again."
                )
            dtype = np.dtype(_FITS_DTYPES[header["BITPIX"]])
            data = file.read(shape[0] * shape[1] * dtype.itemsize)
        pixels = np.frombuffer(data, dtype).reshape(shape).astype(np.float64)
    except (OSError, EOFError, KeyError, ValueError) as error:
        if isinstance(error, CatalogError):
            raise
        raise CatalogError(
            f"Cannot read HDU {hdu} of image file {path}: {error}; fetch the download again."
        ) from error
    pixels = pixels * header.get("BSCALE", 1.0) + header.get("BZERO", 0.0)
    if not np.isfinite(pixels).all():
        raise CatalogError(f"HDU {hdu} of image file {path} has pixels that are not finite: expected none.")
    return pixels


_FITS_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
