# A tenth of all objects are stars. For simulateBlends, after any file of stamps.
config.scenes.starFraction = 0.1
