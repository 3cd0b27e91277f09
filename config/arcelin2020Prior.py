# The network of Arcelin et al. 2020, section 3. For trainPrior.
config.architecture = "arcelin2020"
config.latentDim = 32
config.training.batchSize = 100
config.training.stepsPerEpoch = 128
config.training.klWeight = 0.01
config.training.precision = "float32"
