# Deblender of the shipped model lsst10yr-ugrizy. For trainDeblender;
# doc/models.rst tells the samples.
config.name = "lsst10yr-ugrizy"
config.encoderInit = "prior"
config.useIsolated = True
config.training.batchSize = 128
config.training.stepsPerEpoch = 100
config.training.epochs = 44
config.training.warmupSteps = 300
config.training.validationEvery = 4
config.training.seed = 2026
