# As lsst.py, with Euclid's VIS, Y, J and H besides: ten bands of three pixel
# scales. For simulateBlends.
config.survey = "arcelin2020"
config.bands = ["u", "g", "r", "i", "z", "y", "VIS", "Y", "J", "H"]
config.scenes.placement = "annulus"
config.scenes.minGalaxies = 1
config.scenes.maxGalaxies = 4
config.scenes.innerRadius = 0.325
config.scenes.outerRadius = 2.0
config.scenes.magLimit = 27.5
config.scenes.centring = "none"
config.noise = "poisson"
config.scenes.colourGradients = False
