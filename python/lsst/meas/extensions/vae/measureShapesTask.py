# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""MeasureShapesTask: shapes, magnitudes and blendedness of deblended objects."""

__all__ = ["MeasureShapesConfig", "MeasureShapesTask"]

import astropy.units as u
import numpy as np
from astropy.table import Table

import lsst.pipe.base as pipeBase
from lsst.pipe.base import connectionTypes as cT
from lsst.utils.timer import timeMethod

from .afw.adapters import asCubes
from .config import Config, Field, toPexConfig
from .errors import ImageError
from .measurement.sources import magnitudes, measure_source
from .simulation.geometry import overlap
from .vaeTask import SHARD, VaeTask, connection


class MeasureShapesConfig(Config):
    """Config of MeasureShapesTask."""

    referenceBand: str = Field("r", description="Band in which shapes, SNR and blendedness are measured.")
    addResidual: bool = Field(
        False,
        description="Measure on the pixels with all other models subtracted, not on the noiseless models?",
    )
    badMask: tuple[str, ...] = Field(
        ("BAD", "NO_DATA", "SAT"), description="Planes of pixels that carry no weight."
    )


class MeasureShapesConnections(pipeBase.PipelineTaskConnections, dimensions=SHARD):
    """One deblended coadd to one table."""

    field = connection(cT.Input, "vae_field", "Multi-band coadd.")
    deblendedCatalog = connection(cT.Input, "vae_deblendedCatalog", "Objects.")
    modelData = connection(cT.Input, "vae_modelData", "Models.")
    shapes = connection(cT.Output, "vae_shapes", "Measurements of every object.")


class MeasureShapesTask(VaeTask):
    """Measure shapes (HSM's KSB), magnitudes, SNR and blendedness of objects.

    Each object has a row; what could not be measured is NaN with a flag.
    """

    ConfigModel = MeasureShapesConfig
    ConfigClass = toPexConfig(
        MeasureShapesConfig,
        bases=(pipeBase.PipelineTaskConfig,),
        pipelineConnections=MeasureShapesConnections,
    )
    _DefaultName = "measureShapes"

    @timeMethod
    def run(self, field, deblendedCatalog, modelData):
        """Measure every object.

        Parameters
        ----------
        field : `~.afw.MultibandExposure`
            The coadd that was deblended.
        deblendedCatalog : `~.afw.SourceCatalog`
            Objects.
        modelData : `~.repo.VaeModelData`
            Their models.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``shapes``, an `astropy.table.Table` with units.

        Raises
        ------
        ImageError
            Raised if the exposure lacks a band of the models.
        """
        cubes = asCubes(field)
        bands = modelData.bands
        absent = [band for band in bands if band not in cubes.bands]
        if len(absent) == len(bands):
            raise ImageError(
                f"the exposure has none of the models' bands ({', '.join(bands)}); it has "
                f"{', '.join(cubes.bands)}: give the coadd that was deblended"
            )
        reference = bands.index(self.settings.referenceBand) if self.settings.referenceBand in bands else 0
        pixels = _Pixels(cubes, bands, self.settings.badMask)
        y0, x0 = cubes.xy0[1], cubes.xy0[0]
        shape = cubes.images.shape[1:]
        scene = modelData.render((y0, y0 + shape[0], x0, x0 + shape[1]))
        unit = cubes.unit or u.nJy
        try:
            zeroFlux = (0 * u.ABmag).to(unit).value
        except u.UnitConversionError:
            zeroFlux = np.nan  # electrons know their zero points only through their survey
        rows = []
        for record in deblendedCatalog:
            source = modelData.model(record.getId()) if record.getId() in modelData else None
            rows.append(self._measure(record, source, pixels, scene, reference, bands, zeroFlux, (x0, y0)))
        table = _table(rows, bands, unit)
        table.meta["referenceBand"] = bands[reference]
        self.metadata["nMeasured"] = int(np.sum(~table["shape_flag"])) if len(table) else 0
        self.log.info("Measured shapes of %d of %d objects", self.metadata["nMeasured"], len(table))
        return pipeBase.Struct(shapes=table)

    def _measure(self, record, source, pixels, scene, reference, bands, zeroFlux, xy0):
        peak = (float(record.get("deblend_peak_center_x")), float(record.get("deblend_peak_center_y")))
        row = {
            "id": record.getId(),
            "parent": record.getParent(),
            "x": peak[0],
            "y": peak[1],
            "e1": np.nan,
            "e2": np.nan,
            "shape_flag": True,
            "snr": np.nan,
            "blendedness": np.nan,
            "model_flag": source is None,
        }
        for band in bands:
            row |= {
                f"flux_{band}": np.nan,
                f"flux_err_{band}": np.nan,
                f"mag_{band}": np.nan,
                f"mag_err_{band}": np.nan,
            }
        if source is None:
            return row
        origin = (source.origin[0] - xy0[1], source.origin[1] - xy0[0])
        size = source.image.shape[1]
        inCube, inStamp = overlap(origin, size, scene.shape[1:])
        own = source.image.astype(np.float64)
        variance = np.full(own.shape, np.nan)
        variance[:, *inStamp] = pixels.variance[:, *inCube]
        surroundings = own[reference].copy()
        surroundings[inStamp] = scene[(reference, *inCube)]
        image = own
        if self.settings.addResidual:
            image = own.copy()
            image[:, *inStamp] += np.nan_to_num(pixels.images[:, *inCube] - scene[:, *inCube])
        result = measure_source(
            image,
            pixels.psf(reference, peak),
            reference,
            variance=variance,
            scene=surroundings,
            flux_error=source.fluxErrors,
        )
        centroid = _centroid(own[reference])
        if centroid is not None:
            row["y"], row["x"] = centroid[0] + source.origin[0], centroid[1] + source.origin[1]
        row |= {
            "e1": result.e1,
            "e2": result.e2,
            "shape_flag": result.shape_failed,
            "snr": result.snr,
            "blendedness": result.blendedness,
        }
        mag, magErr = magnitudes(result.flux, result.flux_error, zeroFlux)
        for number, band in enumerate(bands):
            row |= {
                f"flux_{band}": result.flux[number],
                f"flux_err_{band}": result.flux_error[number],
                f"mag_{band}": mag[number],
                f"mag_err_{band}": magErr[number],
            }
        return row


class _Pixels:
    """The exposure in the models' bands, unusable pixels NaN."""

    def __init__(self, cubes, bands, badMask):
        self.cubes = cubes
        bad = (cubes.maskbits & cubes.bitMask(badMask)) != 0
        empty = np.full(cubes.images.shape[1:], np.nan, np.float32)

        def take(array):
            return np.stack(
                [np.where(bad[k], np.nan, array[k]) if k is not None else empty for k in self.order]
            )

        self.order = [cubes.bands.index(band) if band in cubes.bands else None for band in bands]
        self.images, self.variance = take(cubes.images), take(cubes.variance)
        self._kernels = {}

    def psf(self, band, position):
        """Kernel of a band near a position (to 64 pixels: PSFs vary slowly)."""
        k = self.order[band]
        cell = (int(position[0] // 64), int(position[1] // 64))
        if cell not in self._kernels:
            self._kernels[cell] = self.cubes.psf(*position)
        return self._kernels[cell][k if k is not None else 0]


def _centroid(image):
    """Flux-weighted centre of a model, (y, x), or `None` if it has no flux."""
    total = image.sum()
    if not total > 0:
        return None
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return float((image * y).sum() / total), float((image * x).sum() / total)


def _table(rows, bands, unit):
    names = ["id", "parent", "x", "y", "e1", "e2", "shape_flag", "snr", "blendedness", "model_flag"]
    for band in bands:
        names += [f"flux_{band}", f"flux_err_{band}", f"mag_{band}", f"mag_err_{band}"]
    kinds = {"id": np.int64, "parent": np.int64, "shape_flag": bool, "model_flag": bool}
    table = Table(
        {name: np.array([row[name] for row in rows], dtype=kinds.get(name, float)) for name in names}
    )
    docs = {
        "id": "Object id",
        "parent": "Parent id, 0 for isolated objects",
        "x": "Centre of the model",
        "y": "Centre of the model",
        "e1": "Ellipticity (a-b)/(a+b) cos 2 phi, PSF-corrected (KSB)",
        "e2": "Ellipticity (a-b)/(a+b) sin 2 phi",
        "shape_flag": "No shape could be measured",
        "snr": "Signal to noise of the model in the reference band",
        "blendedness": "1 - <C,C>/<C,T> in the reference band",
        "model_flag": "The object has no model",
    }
    for name in names:
        column = table[name]
        column.description = docs.get(name, "")
        if name in ("x", "y"):
            column.unit = u.pixel
        elif name.startswith("flux_"):
            column.unit = unit
        elif name.startswith("mag_"):
            column.unit = u.mag
    return table
