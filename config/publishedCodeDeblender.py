# What the published code of Arcelin et al. 2020 does otherwise than the paper
# in training ten bands. For trainDeblender, after arcelin2020Deblender.py.
config.freezeDecoder = False
config.training.augment = "four"
config.training.noise = "sky"
