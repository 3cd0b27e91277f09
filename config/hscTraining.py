# Depths from half of the wide layer's exposure time to that of the deep and
# ultra-deep ones. For trainPrior and trainDeblender, after conditionalPrior.py
# or conditionalDeblender.py.
config.training.depthMin = 0.5
config.training.depthMax = 10.0
