# The deblender of the project's own network for PSFs, depths and bands that
# vary: stamps of fieldStamps.py with varyingPsf.py. For trainDeblender.
config.encoderInit = "prior"
config.training.batchSize = 128
config.training.stepsPerEpoch = 200
config.training.epochs = 15
config.training.warmupSteps = 500
config.training.gradientClip = 2e4
config.training.depthMin = 0.1
config.training.depthMax = 1.5
config.training.bandDropout = 0.05
config.training.validationScenes = 2000
config.training.validationEvery = 4
config.training.workers = 2
config.training.seed = 2026
