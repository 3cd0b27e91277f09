# Five versions of every scene, sheared by (0, 0), (+-0.01, 0) and (0, +-0.01)
# about the target, of the same noise (Arcelin et al. 2020, section 4.3). For
# simulateBlends, after any file of stamps; only the test split is of use, and
# it needs a collection of its own:
# -o NAME-shear -d "skymap='vae_NAME' AND tract=2"
config.scenes.shearStep = 0.01
config.scenes.shearPositions = True
config.composed = True
