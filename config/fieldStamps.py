# Stamps as DeblendVaeTask meets them in a field: any galaxy at the centre,
# found to a fraction of a pixel, neighbours where they fall. For
# simulateBlends; choose the kind with -c kind=isolated or kind=blended.
config.survey = "lsst10yr"
config.scenes.placement = "field"
config.scenes.magLimit = None
config.scenes.centring = "pixelisation"
config.scenes.centringJitter = 0.2
config.scenes.targetSnrMin = 5.0
config.scenes.densityPerArcmin2 = 50.0
config.scenes.closeFraction = 0.6
