# The deblender of the project's own network for the stamps of lsst.py or
# lsstEuclid.py. For trainDeblender.
config.encoderInit = "prior"
config.training.batchSize = 128
config.training.stepsPerEpoch = 200
config.training.epochs = 28
config.training.warmupSteps = 500
# Norms are 4e3 where it has learned, 1e5 and more at first. The shipped model
# lsst-ugrizy-morphology was trained without.
config.training.gradientClip = 2e4
config.training.validationScenes = 2000
config.training.validationEvery = 5
config.training.workers = 2
config.training.seed = 2026
