# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a network costs, what the machine could do, and what the network makes of some scenes."""

import time
from dataclasses import dataclass

import numpy as np

from ..errors import ShardError, VaeError
from ..simulation.composed import SeededNoise
from .simulation_figures import colour_bands, scene_rgb
from .stamps import check_network, psf_images

__all__ = ["Flops", "Look", "Scene", "count_flops", "layer_flops", "look_at", "matmul_rate"]

N_SCENES = 12
_STEP = 256
_MIN_SECONDS = 0.05
_MAX_SIDE = 8192


# -- arithmetic -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one sample.

    Attributes
    ----------
    encoder, decoder : `int`
        One pass forward.
    decoder_frozen : `bool`
        Whether the decoder's weights are left alone.
    """

    encoder: int
    decoder: int
    decoder_frozen: bool = False

    @property
    def training(self):
        """Of one sample of training: forward, and as much again for the gradient of the layers' inputs and
        for that of their weights, which a frozen decoder does without."""
        return 3 * self.encoder + (2 if self.decoder_frozen else 3) * self.decoder


def layer_flops(layer):
    """Multiplications and additions of one layer and sample, forward; biases and activations left out.

    Parameters
    ----------
    layer : `keras.Layer`
        Of a built functional model; 0 for all but Conv2D, Conv2DTranspose and Dense.

    Returns
    -------
    flops : `int`
    """
    from keras import layers

    if isinstance(layer, layers.Dense):
        places = int(np.prod(layer.input.shape[1:-1]))
        return 2 * places * layer.input.shape[-1] * layer.units
    # Each pixel that is written takes the kernel once; of a transposed
    # convolution, each that is read.
    if isinstance(layer, layers.Conv2DTranspose):
        pixels = layer.input.shape[1:3]
    elif isinstance(layer, layers.Conv2D):
        pixels = layer.output.shape[1:3]
    else:
        return 0
    return 2 * int(np.prod(pixels)) * int(np.prod(layer.kernel.shape))


def count_flops(network, decoder_frozen=False):
    """Operations of a network, counted from its layers.

    Parameters
    ----------
    network : `~..network.model.Network`
    decoder_frozen : `bool`, optional
        Was the decoder left alone in training?

    Returns
    -------
    flops : `Flops`
    """
    encoder, decoder = (
        sum(layer_flops(layer) for layer in model.layers) for model in (network.encoder, network.decoder)
    )
    return Flops(encoder, decoder, bool(decoder_frozen))


def matmul_rate(seconds=1.0, side=1024):
    """Rate of the machine's float32 matrix multiplication, by Keras's backend.

    Square matrices of normal numbers are multiplied; their side is doubled until one product takes 50 ms, and
    the quickest product counts.

    Parameters
    ----------
    seconds : `float`, optional
        Time to spend [s].
    side : `int`, optional
        Side of the first matrices.

    Returns
    -------
    rate, side : `float`, `int`
        [operations/s], and the side of the matrices.
    """
    from ..network.backend import load_keras

    ops = load_keras().ops
    rng = np.random.default_rng(1)

    def product(matrix):
        started = time.perf_counter()
        # To look at a number is to wait for it, on any device.
        float(ops.convert_to_numpy(ops.matmul(matrix, matrix)[0, 0]))
        return time.perf_counter() - started

    until = time.monotonic() + seconds
    while True:
        matrix = ops.convert_to_tensor(rng.standard_normal((side, side), dtype=np.float32))
        product(matrix)
        best = product(matrix)
        if best >= _MIN_SECONDS or side >= _MAX_SIDE or time.monotonic() > until:
            break
        side *= 2
    while time.monotonic() < until:
        best = min(best, product(matrix))
    return 2.0 * side**3 / best, side


# -- scenes ---------------------------------------------------------------------------------


@dataclass
class Scene:
    """One scene and what the network made of it.

    Attributes
    ----------
    index : `int`
        Number in the sample.
    snr : `float`
        Signal to noise of the target alone, in the reference band.
    magnitude_error : `float`
        Output less target, from the sums of all pixels of the reference band; NaN where a sum is negative.
    noisy, target, output : `numpy.ndarray`, uint8 [y, x, 3]
        Pictures, row 0 at the bottom.
    residual : `numpy.ndarray`, float [y, x]
        Output less target in the reference band, in units of the sky's noise.
    """

    index: int
    snr: float
    magnitude_error: float
    noisy: np.ndarray
    target: np.ndarray
    output: np.ndarray
    residual: np.ndarray


@dataclass
class Look:
    """What a network makes of scenes.

    Attributes
    ----------
    sample : `dict`
        Description of the sample.
    band : `str`
        The reference band.
    gri : `bool`
        Whether pictures are of g, r and i; grey ones are of the band alone.
    isolated : `bool`
        Whether neighbours were left out.
    noise : `str`
        Kind of the noise.
    mean, sigma : `numpy.ndarray`, float32 [scene, latent]
        Posteriors.
    scenes : `list` [`Scene`]
        In order of signal to noise.
    """

    sample: dict
    band: str
    gri: bool
    isolated: bool
    noise: str
    mean: np.ndarray
    sigma: np.ndarray
    scenes: list


def look_at(network, sample, n_scenes=1000, isolated=False, noise="normal", noise_correlation=0.0):
    """Let a network see the first scenes of a sample.

    Parameters
    ----------
    network : `~..network.model.Network`
    sample : `~..simulation.shards.StampSample`
        Opened or in memory; a few scenes are held at a time.
    n_scenes : `int`, optional
        How many at most.
    isolated : `bool`, optional
        Leave the neighbours out?
    noise, noise_correlation : optional
        As `~..simulation.noise.NoiseModel`; each scene's own seed draws it.

    Returns
    -------
    look : `Look`

    Raises
    ------
    ModelPackageError
        If the network is of other images.
    ShardError
        If the sample does not tell its skies, seeds or signal to noise.
    VaeError
        If the network gives what is not finite.
    """
    check_network(network, sample)
    if "snr" not in sample.truth.colnames:
        raise ShardError("the sample's truth has no snr: simulate it again")
    seeded = SeededNoise(sample, noise, noise_correlation)
    sky, unit = sample.sky_and_unit()
    order = [sample.bands.index(band) for band in network.bands]
    sigma_sky = (np.sqrt(sky) / unit)[order]

    def compose(scenes):
        targets = np.stack([sample.image(i, "target") for i in scenes])
        noisy = np.stack(
            [
                seeded.add(target if isolated else sample.image(i), i)
                for i, target in zip(scenes, targets, strict=True)
            ]
        )
        return noisy[:, order], targets[:, order]

    def psfs(scenes):
        return psf_images(sample, scenes, network.bands) if network.architecture.conditional else None

    number = min(n_scenes, sample.n_scenes)
    parts = []
    for start in range(0, number, _STEP):
        part = range(start, min(start + _STEP, number))
        noisy, _ = compose(part)
        parts.append(network.encode(noisy, sigma_sky, _STEP, psfs(part)))
    mean, sigma = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if not (np.isfinite(mean).all() and np.isfinite(sigma).all()):
        raise VaeError(f"{network.package.name}: posteriors are not finite; the training has failed")
    chosen = choose_scenes(np.asarray(sample.truth["snr"][:number], float))
    reference = sample.survey_info.get("reference_band")
    reference = reference if reference in network.bands else network.bands[0]
    band = network.bands.index(reference)
    info = {**sample.survey_info, "bands": [sample.survey_info["bands"][k] for k in order]}
    colours = colour_bands(network.bands)
    noisy, targets = compose(chosen)
    outputs = network.decode(mean[chosen], sigma_sky, psfs=psfs(chosen))
    scenes = []
    for index, *images in zip(chosen, noisy, targets, outputs, strict=True):
        sums = [float(image[band].sum()) for image in images[1:]]
        pictures = [scene_rgb(image, info, colours) for image in images]
        scenes.append(
            Scene(
                int(index),
                float(sample.truth["snr"][index]),
                -2.5 * np.log10(sums[1] / sums[0]) if min(sums) > 0 else float("nan"),
                *pictures,
                (images[2][band] - images[1][band]) / sigma_sky[band],
            )
        )
    gri = len(set(colours)) == 3
    return Look(sample.describe(), reference, gri, isolated, noise, mean, sigma, scenes)


def choose_scenes(snr, number=N_SCENES):
    """Scenes from faint to bright, evenly in the logarithm of signal to noise.

    Parameters
    ----------
    snr : `numpy.ndarray` [scene]
        Those that are not positive are not chosen.
    number : `int`, optional
        How many at most.

    Returns
    -------
    chosen : `list` [`int`]
        Distinct, in order of signal to noise.

    Raises
    ------
    ShardError
        If no scene has a signal to noise.
    """
    good = np.flatnonzero(np.isfinite(snr) & (snr > 0))
    if not len(good):
        raise ShardError("no scene of the sample has a positive signal to noise: simulate others")
    log = np.log(snr[good])
    # The very ends are outliers.
    low, high = np.percentile(log, [5, 99.5])
    left, chosen = np.ones(len(good), bool), []
    for wanted in np.linspace(low, high, min(number, len(good))):
        k = int(np.argmin(np.where(left, np.abs(log - wanted), np.inf)))
        left[k] = False
        chosen.append(int(good[k]))
    return sorted(chosen, key=lambda i: (snr[i], i))
