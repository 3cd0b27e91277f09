# The network of Arcelin et al. 2020, section 3. For trainPrior.
# Convolutions in bfloat16 take two thirds of the time; the loss is in float32.
config.architecture = "arcelin2020"
config.latentDim = 32
config.training.batchSize = 100
config.training.stepsPerEpoch = 128
config.training.epochs = 18
config.training.warmupSteps = 300
config.training.klWeight = 0.01
config.training.precision = "bfloat16"
config.training.validationScenes = 2000
config.training.validationEvery = 6
config.training.workers = 2
config.training.seed = 2026
