# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a network during training: loss, shape errors, magnitudes, alpha."""

import numpy as np

from ..simulation.metrics import ksb_shear
from ..simulation.noise import NoiseModel
from ..simulation.statistics import clipped_slope, half_width, median
from .composer import remove_negative
from .observation import conditions

__all__ = ["ValidationSet"]


def _reference_psfs(sample, band, number, n):
    """PSF image of the reference band of each scene.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
        Knows the PSFs as a rule.
    band : `~..survey.Band`
        Its PSF stands in for unknown ones.
    number : `int`
        The band's place among the bands.
    n : `int`
        How many scenes, the first ones.

    Returns
    -------
    psfs : `list` [`numpy.ndarray`]
        Of unit sum; equal PSFs share an array.
    """
    kind, drawn, psfs = int(sample.band_profile[number]), {}, []
    for i in range(n):
        packed = sample.psf[i, kind]
        key = packed.tobytes()
        if key not in drawn:
            known = packed[0] > 0
            model = sample.psf_models(i)[kind] if known else band.psf
            drawn[key] = model.kernel(band.pixel_scale)
        psfs.append(drawn[key])
    return psfs


class ValidationSet:
    """A fixed set of noisy scenes and what the network makes of them.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
        Validation sample.
    survey : `~..survey.Survey`
        Its survey.
    n_scenes : `int`
        Use the first so many scenes.
    isolated : `bool`
        Leave neighbours out?
    scale : array-like, ``[band]``
        Scale at the network's door.
    seed : `int`
        Seed of the noise.
    kl_weight : `float`
        Final weight of the Kullback-Leibler term: losses of epochs in which
        it still rises stay comparable.
    noise, noise_correlation : optional
        As `NoiseModel` takes them.
    observer : `~.observation.Observer`, optional
        Tells the transfer functions of PSFs, for conditional architectures.
        All scenes have all bands, at the survey's depth: errors of several
        trainings stay comparable.
    snr_min : `float`, optional
        Shapes are measured for targets above this signal to noise in the
        reference band.
    """

    def __init__(
        self,
        sample,
        survey,
        n_scenes,
        *,
        isolated,
        scale,
        seed,
        kl_weight,
        noise="normal",
        noise_correlation=0.0,
        snr_min=10.0,
        observer=None,
    ):
        n = min(n_scenes, sample.n_scenes)
        rng = np.random.default_rng([seed, 1 << 31])
        self.scale, self.kl_weight = np.asarray(scale, dtype=np.float32), kl_weight
        clean = np.stack([sample.image(i, "target") for i in range(n)])
        noisy = clean.copy()
        if not isolated:
            for i in range(n):
                noisy[i] += sample.image(i, "neighbours")
        model = NoiseModel(
            [band.sky_level for band in survey.bands],
            [band.electrons_per_unit for band in survey.bands],
            noise,
            noise_correlation,
        )
        noisy = model.add(noisy, rng)
        self.reference = survey.band_names.index(survey.reference_band)
        self.true_flux = clean[:, self.reference].sum(axis=(1, 2))
        remove_negative(clean)
        self.inputs = [np.ascontiguousarray(np.moveaxis(noisy / self.scale[:, None, None], 1, -1))]
        self.transfer = None
        if observer is not None:
            self.transfer = observer.transfer(sample.psf[:n])
            self.inputs.append(conditions(self.transfer, np.ones((n, len(self.scale)), np.float32)))
        self.targets = np.ascontiguousarray(np.moveaxis(clean / self.scale[:, None, None], 1, -1))
        self.psfs = _reference_psfs(sample, survey.bands[self.reference], self.reference, n)
        self.snr = np.asarray(sample.truth["snr"][:n], dtype=float)
        self.e = np.column_stack([sample.truth["e1"][:n], sample.truth["e2"][:n]]).astype(float)
        self.measured = (self.snr > snr_min) & np.isfinite(self.e).all(axis=1)

    def measure(self, architecture, model, shapes=True, batch_size=128):
        """Loss and, if wanted, the errors of shapes and magnitudes.

        Parameters
        ----------
        architecture : `Architecture`
            The architecture.
        model : `keras.Model`
            Has ``encoder`` and ``decoder``.
        shapes : `bool`, optional
            Measure ellipticities too (about a millisecond a galaxy)?

        Returns
        -------
        row : `dict` [`str`, `float`]
            ``validation_loss`` (decoded posterior means), ``active_latents``
            and, with ``shapes``, |e| median and half-width, alpha_1, alpha_2
            (clipped), r magnitude median and half-width, failures.
        """
        import keras

        losses, means, fluxes, shapes_out = [], [], [], []
        for start in range(0, len(self.targets), batch_size):
            part = slice(start, start + batch_size)
            mean, sigma = self._encoded(model.encoder, part)
            output = model.decoder(mean, training=False)
            told = {}
            if self.transfer is not None:
                told = {"transfer": self.transfer[part], "noise": np.ones_like(self.transfer[part, :, 0, 0])}
            loss = architecture.reconstruction_loss(self.targets[part], output, **told)
            loss = keras.ops.convert_to_numpy(loss)
            mean, sigma = keras.ops.convert_to_numpy(mean), keras.ops.convert_to_numpy(sigma)
            variance = np.maximum(sigma**2, 1e-12)
            kl = 0.5 * np.sum(mean**2 + variance - 1 - np.log(variance), axis=1)
            losses.append(loss + self.kl_weight * kl)
            means.append(mean)
            if shapes:
                output = keras.tree.map_structure(keras.ops.convert_to_numpy, output)
                images = (
                    architecture.scaled_images(output, told.get("transfer"))[:, self.reference]
                    * self.scale[self.reference]
                )
                fluxes.append(images.sum(axis=(1, 2)))
                shapes_out += [
                    ksb_shear(image, psf)[:2] if wanted else (np.nan, np.nan)
                    for image, psf, wanted in zip(images, self.psfs[part], self.measured[part], strict=True)
                ]
        row = {
            "validation_loss": float(np.mean(np.concatenate(losses))),
            "active_latents": int(np.sum(np.var(np.concatenate(means), axis=0) > 0.01)),
        }
        if shapes:
            with np.errstate(divide="ignore", invalid="ignore"):
                magnitude = -2.5 * np.log10(np.concatenate(fluxes) / self.true_flux)
            row |= self._errors(np.array(shapes_out), magnitude)
        return row

    def latent_prior(self, encoder, batch_size=128):
        """The Gaussian nearest to the latents of the sample.

        Parameters
        ----------
        encoder : `keras.Model`
            The prior's.

        Returns
        -------
        prior : `dict` [`str`, `list`]
            ``mean`` ``[latent]`` and ``covariance`` ``[latent, latent]`` of draws from the posteriors of all
            scenes, json-able.
        """
        import keras

        means, variances = [], []
        for start in range(0, len(self.targets), batch_size):
            mean, sigma = self._encoded(encoder, slice(start, start + batch_size))
            means.append(keras.ops.convert_to_numpy(mean))
            variances.append(keras.ops.convert_to_numpy(sigma) ** 2)
        means = np.concatenate(means).astype(np.float64)
        # At least the posterior's own width, however few the scenes are.
        covariance = means.T @ means / len(means) - np.outer(means.mean(axis=0), means.mean(axis=0))
        covariance += np.diag(np.maximum(np.concatenate(variances).mean(axis=0), 1e-6))
        return {"mean": _rounded(means.mean(axis=0)), "covariance": _rounded(covariance)}

    def _encoded(self, encoder, part):
        """Posterior of some scenes, in the backend's tensors."""
        inputs = [array[part] for array in self.inputs]
        return encoder(inputs if len(inputs) > 1 else inputs[0], training=False)

    def _errors(self, e, magnitude):
        good = self.measured
        size = np.hypot(e[:, 0], e[:, 1]) - np.hypot(self.e[:, 0], self.e[:, 1])
        bright = good & (self.snr > 50)
        return {
            "measured": int(good.sum()),
            "failures": int((good & ~np.isfinite(size)).sum()),
            "e_median": median(size[good]),
            "e_half_width": half_width(size[good]),
            "e_half_width_snr50": half_width(size[bright]),
            "e1_half_width": half_width((e - self.e)[good, 0]),
            "alpha_1": clipped_slope(self.e[good, 0], e[good, 0]) - 1,
            "alpha_2": clipped_slope(self.e[good, 1], e[good, 1]) - 1,
            "mag_median": median(magnitude[good]),
            "mag_half_width": half_width(magnitude[good]),
        }


def _rounded(array):
    """Lists of numbers to seven digits."""
    return [_rounded(row) if np.ndim(row) else float(f"{row:.7g}") for row in array]
