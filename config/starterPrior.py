# Prior of the shipped model lsst10yr-ugrizy. For trainPrior; doc/models.rst
# tells the samples.
config.name = "lsst10yr-ugrizy"
config.architecture = "factorised"
config.training.batchSize = 128
config.training.stepsPerEpoch = 100
config.training.epochs = 36
config.training.warmupSteps = 300
config.training.validationEvery = 4
config.training.seed = 2026
