# A fifth of the scenes of galaxies with HST images, for transfer learning
# (Arcelin et al. 2020, section 5.2). For simulateBlends, after lsst.py or
# lsstEuclid.py; give the catalogue: -c galaxies.realPath=.../real_galaxy_catalog_25.2.fits
config.scenes.realFraction = 0.2
