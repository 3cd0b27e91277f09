# A PSF of its own for each scene, kept with it. For simulateBlends, after any
# file of stamps.
config.scenes.psfFwhmScatter = 0.1
config.scenes.psfShearSigma = 0.02
