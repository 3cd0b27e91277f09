# What is wrong with pixels of real coadds: saturated stars, hot and dead pixels
# and columns, a marked border, gaps and a corner without data. For
# simulateBlends (kind "field"), after clusteredField.py or alone.
config.kind = "field"
config.field.starFraction = 0.05
# [nJy] Far below LSST's full well, so that stars of magnitude 19 show it.
config.field.saturation = 5.0e3
config.field.badPixels = 1.0e-4
config.field.badColumns = 1.0
config.field.edgeWidth = 5
config.field.gapWidth = 20
config.field.missingCorner = 0.1
