# Stamps as in Arcelin et al. 2020, section 2: six LSST bands, one to four
# galaxies, the one of smallest r magnitude at the centre. For simulateBlends.
config.survey = "arcelin2020"
config.bands = ["u", "g", "r", "i", "z", "y"]
config.scenes.placement = "annulus"
config.scenes.minGalaxies = 1
config.scenes.maxGalaxies = 4
config.scenes.innerRadius = 0.325
config.scenes.outerRadius = 2.0
config.scenes.magLimit = 27.5
config.scenes.centring = "none"
config.noise = "poisson"
# "Bands differ by flux and noise alone".
config.scenes.colourGradients = False
