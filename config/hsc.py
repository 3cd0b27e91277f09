# Hyper Suprime-Cam's five bands, from the depth of the wide layer on, through
# seeing of all kinds. For simulateBlends, after fieldStamps.py.
config.survey = "hscwide"
config.bands = ["g", "r", "i", "z", "y"]
config.scenes.psfFwhmScatter = 0.15
config.scenes.psfShearSigma = 0.02
