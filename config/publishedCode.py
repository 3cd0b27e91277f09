# What the published code of Arcelin et al. 2020 does otherwise than the paper,
# all at once. For simulateBlends, after lsst.py or lsstEuclid.py.
config.visBandpass = "Y"
config.nirSky = "code"
config.noise = "sky"
config.scenes.outerRadius = 1.5
config.scenes.peakCentring = "centroid"
# Bulges red, discs blue.
config.scenes.colourGradients = True
