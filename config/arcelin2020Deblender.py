# The deblender of Arcelin et al. 2020, section 3: a random encoder before the
# prior's frozen decoder, scenes as they were simulated. For trainDeblender.
config.encoderInit = "random"
config.training.batchSize = 100
config.training.stepsPerEpoch = 128
config.training.klWeight = 0.01
config.training.precision = "float32"
config.training.recompose = False
