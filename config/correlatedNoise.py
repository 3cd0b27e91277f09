# Noise as on a coadd of resampled images: adjacent pixels share 20 %. For
# simulateBlends (composed scenes and fields).
config.noise = "normal"
config.noiseCorrelation = 0.2
