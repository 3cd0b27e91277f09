# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for the two Tasks of pipe_tasks that hold scarlet's slot.

They make the subtask and call it as ``DeblendCoaddSourcesMultiTask`` and
``MultiBandMeasurementDriverTask`` do, on dataset types of ours.
"""

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
from lsst.pipe.base import connectionTypes as cT

from lsst.meas.extensions.vae.afw import SourceCatalog
from lsst.meas.extensions.vae.catalogs import makeMergedSchema, makePeakSchema

BANDS = ("g", "r")
DIMENSIONS = ("skymap", "tract", "patch")


class ScarletStandIn(pipeBase.Task):
    """What is in the slot before it is retargeted."""

    ConfigClass = pexConfig.Config
    _DefaultName = "scarletDeblend"

    def __init__(self, schema, peakSchema=None, **kwargs):
        super().__init__(**kwargs)
        raise RuntimeError("the slot was not retargeted")


class HolderConnections(pipeBase.PipelineTaskConnections, dimensions=DIMENSIONS):
    """Coadd and detections in, the slot's three outputs and the schema out."""

    field = cT.Input(
        name="vae_field", storageClass="VaeMultibandExposure", doc="Coadd", dimensions=DIMENSIONS
    )
    merged = cT.Input(
        name="vae_mergedDetections", storageClass="VaeSourceCatalog", doc="Detections", dimensions=DIMENSIONS
    )
    outputSchema = cT.InitOutput(name="mock_deblendedSchema", storageClass="VaeSourceCatalog", doc="Schema")
    deblendedCatalog = cT.Output(
        name="mock_deblended", storageClass="VaeSourceCatalog", doc="Objects", dimensions=DIMENSIONS
    )
    scarletModelData = cT.Output(
        name="mock_models", storageClass="VaeModelData", doc="Models", dimensions=DIMENSIONS
    )
    objectParents = cT.Output(
        name="mock_parents", storageClass="VaeSourceCatalog", doc="Parents", dimensions=DIMENSIONS
    )


class CoaddConfig(pipeBase.PipelineTaskConfig, pipelineConnections=HolderConnections):
    """As that of DeblendCoaddSourcesMultiTask."""

    multibandDeblend = pexConfig.ConfigurableField(target=ScarletStandIn, doc="The slot.")


class CoaddHolder(pipeBase.PipelineTask):
    """As DeblendCoaddSourcesMultiTask."""

    ConfigClass = CoaddConfig
    _DefaultName = "deblendCoaddSourcesMulti"

    def __init__(self, initInputs=None, **kwargs):
        super().__init__(initInputs=initInputs, **kwargs)
        self.schema, self.peakSchema = makeMergedSchema(BANDS), makePeakSchema(BANDS)
        self.makeSubtask("multibandDeblend", schema=self.schema, peakSchema=self.peakSchema)
        self.outputSchema = SourceCatalog(self.schema)

    def runQuantum(self, butlerQC, inputRefs, outputRefs):
        inputs = butlerQC.get(inputRefs)
        butlerQC.put(self.multibandDeblend.run(inputs["field"], None, inputs["merged"]), outputRefs)


class DriverConfig(pexConfig.Config):
    """As that of MultiBandMeasurementDriverTask."""

    deblend = pexConfig.ConfigurableField(target=ScarletStandIn, doc="The slot.")


class Driver(pipeBase.Task):
    """As MultiBandMeasurementDriverTask: a plain Task."""

    ConfigClass = DriverConfig
    _DefaultName = "multiBandMeasurementDriver"

    def __init__(self, schema, peakSchema, **kwargs):
        super().__init__(**kwargs)
        self.schema = schema
        self.makeSubtask("deblend", schema=self.schema, peakSchema=peakSchema)

    def run(self, mExposure, mDeconvolved, catalog):
        """Deblend alone, of all that the Task does."""
        return self.deblend.run(mExposure, mDeconvolved, catalog)


class DriverHolderConfig(pipeBase.PipelineTaskConfig, pipelineConnections=HolderConnections):
    """Of a PipelineTask with a driver."""

    driver = pexConfig.ConfigurableField(target=Driver, doc="The driver.")


class DriverHolder(CoaddHolder):
    """A PipelineTask with a driver."""

    ConfigClass = DriverHolderConfig
    _DefaultName = "driverHolder"

    def __init__(self, initInputs=None, **kwargs):
        pipeBase.PipelineTask.__init__(self, initInputs=initInputs, **kwargs)
        schema = makeMergedSchema(BANDS)
        self.makeSubtask("driver", schema=schema, peakSchema=makePeakSchema(BANDS))
        self.outputSchema = SourceCatalog(self.driver.schema)

    def runQuantum(self, butlerQC, inputRefs, outputRefs):
        inputs = butlerQC.get(inputRefs)
        butlerQC.put(self.driver.run(inputs["field"], None, inputs["merged"]), outputRefs)
