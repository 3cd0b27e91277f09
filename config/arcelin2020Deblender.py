# The deblender of Arcelin et al. 2020, section 3: an encoder before the prior's
# frozen decoder. It starts from the prior's, which the paper finds as good as
# random weights. For trainDeblender.
config.encoderInit = "prior"
config.training.batchSize = 100
config.training.stepsPerEpoch = 128
config.training.epochs = 8
config.training.warmupSteps = 300
config.training.klWeight = 0.01
config.training.precision = "bfloat16"
config.training.validationScenes = 2000
config.training.validationEvery = 4
config.training.workers = 2
config.training.seed = 2026
