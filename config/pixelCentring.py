# Decentring (i) of Arcelin et al. 2020, section 2.1.4: the target lies anywhere
# within the central 0.2 arcsec. For simulateBlends, after lsst.py or
# lsstEuclid.py.
config.scenes.centring = "pixelisation"
