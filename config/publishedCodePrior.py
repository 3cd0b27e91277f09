# What the published code of Arcelin et al. 2020 does otherwise than the paper
# in training. For trainPrior, after arcelin2020Prior.py; the campaign needs a
# test shard of isolated stamps.
config.normalisationSplit = "test"
config.training.augment = "four"
config.training.noise = "sky"
