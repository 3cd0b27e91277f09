# Fields with clustered galaxies, stars and a PSF of their own. For
# simulateBlends.
config.kind = "field"
config.field.size = 1000
config.field.positions = "clustered"
config.field.starFraction = 0.05
config.field.psfFwhmScatter = 0.05
config.field.psfShearSigma = 0.01
