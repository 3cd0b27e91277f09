# A few hundred steps, to see the chain at work; far from a good model. For
# trainPrior and trainDeblender.
config.training.batchSize = 32
config.training.stepsPerEpoch = 50
config.training.epochs = 4
config.training.validationEvery = 2
config.training.validationScenes = 64
config.training.collapseEpochs = 100
