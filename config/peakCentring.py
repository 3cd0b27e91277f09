# Decentring (ii) of Arcelin et al. 2020, section 2.1.4: stamps about the pixel
# crossing nearest the brightest peak of a noisy 128 x 128 scene, and isolated
# galaxies about as far off. For simulateBlends, after lsst.py or lsstEuclid.py.
config.scenes.centring = "peaks"
config.scenes.peakCentring = "pixel"
config.scenes.detectionSize = 128
config.scenes.detectionThreshold = 5.0
config.scenes.maxPeaks = 4
# Half the PSF's width; for training and validation. A test sample keeps all
# its scenes.
config.scenes.minNeighbourDistance = 0.325
