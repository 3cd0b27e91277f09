# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated scenes per second, ours beside plain GalSim and blending-toolkit, in one run.

Run as ``python benchmarks/simulate.py [--full]``.  The scenes are the
paper's: one to four galaxies, r < 27.5, stamps of 64 x 64 pixels.  Rates are
scenes per second of processor time, that is, per core; they are of this
machine, and only their ratios mean anything on another one.

*GalSim* is how the published code of Arcelin et al. 2020 draws: each galaxy
of a scene a chromatic object of ``galsim.COSMOSCatalog``, convolved with the
PSF and drawn through the bandpass, band by band, then summed and given Poisson
noise.  Its catalogue is loaded and its tables of Sersic profiles are made
before the clock starts; it measures no truth, as ours does.

*blending-toolkit* lives in an environment of its own, since its pins are not
ours.  Make one and name its interpreter::

    python -m venv SIDE
    SIDE/bin/pip install blending-toolkit "numpy<2.3"
    python benchmarks/simulate.py --btk-python SIDE/bin/python

(blending-toolkit 1.0.9 takes astropy 6.1, which newer NumPy breaks.) It draws
parametric COSMOS galaxies in LSST's six bands, each with its own PSF: to be
compared with ours of lsst10yr.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import galsim
import numpy as np

from lsst.meas.extensions.vae.galaxies import load_galaxies
from lsst.meas.extensions.vae.network.composer import SceneComposer, mean_peak
from lsst.meas.extensions.vae.simulation.noise import add_noise
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.simulation.shards import StampSample
from lsst.meas.extensions.vae.survey import get_survey

SIX = tuple("ugrizy")
SHARDS = (1, 2, 4)
TURNS = 3
FULL_SCENES, FULL_SHARD, FULL_PROCESSES = 100_000, 10_000, 2
WINDOW_BYTES = 2**24  # two windows of the composer, so that four small shards are many windows


def bandpass_of(band):
    """Throughput of a band as GalSim takes it."""
    instrument, name = band.bandpass
    if instrument == "LSST":
        return galsim.Bandpass(f"LSST_{name}.dat", "nm").thin(1e-4)
    from speclite.filters import load_filter

    curve = load_filter(f"Euclid-{name}")
    table = galsim.LookupTable(curve.wavelength, curve.response, interpolant="linear")
    return galsim.Bandpass(table, "Ang").thin(1e-4)


def write_galaxies(galaxies, path):
    """A file that `galsim.COSMOSCatalog` and blending-toolkit read, GalSim's columns with theirs."""
    table = galaxies.table.copy()
    survey = get_survey("lsst10yr")
    magnitudes = galaxies.magnitudes(survey)
    for index, name in enumerate(survey.band_names):
        table[f"LSST_{name}"] = np.where(np.isfinite(magnitudes[:, index]), magnitudes[:, index], 99.0)
    table["RA"], table["DEC"], table["MAG"] = 0.0, 0.0, table["mag_auto"]
    table.write(path)


class PlainGalSim:
    """Scenes the way of the published code: every galaxy drawn in every band.

    Parameters
    ----------
    catalog : `galsim.COSMOSCatalog`
    survey : `Survey`
    seed : `int`
    """

    def __init__(self, catalog, survey, seed=1):
        self.catalog, self.survey = catalog, survey
        self.rng, self.noise = np.random.default_rng(seed), galsim.BaseDeviate(seed)
        self.bandpasses = [bandpass_of(band) for band in survey.bands]
        self.psfs = [band.psf.profile() for band in survey.bands]
        reference = survey.band_names.index(survey.reference_band)
        zeropoint = "AB" if survey.magnitude_system == "AB" else survey.bands[reference].zeropoint
        self.reference = self.bandpasses[reference].withZeropoint(zeropoint)

    def galaxy(self):
        """A galaxy of r < 27.5, turned, and its magnitude."""
        while True:
            index = int(self.rng.integers(self.catalog.nobjects))
            galaxy = self.catalog.makeGalaxy(index, gal_type="parametric", chromatic=True)
            magnitude = galaxy.calculateMagnitude(self.reference)
            if magnitude < 27.5:
                return galaxy.rotate(self.rng.uniform(0, 360) * galsim.degrees), magnitude

    def scene(self):
        """Noisy scene and its noiseless target, `numpy.ndarray` [band, y, x] each."""
        drawn = sorted((self.galaxy() for _ in range(self.rng.integers(1, 5))), key=lambda pair: pair[1])
        galaxies = [drawn[0][0]]
        for galaxy, _ in drawn[1:]:
            radius = math.sqrt(self.rng.uniform(0.325**2, 2.0**2))
            angle = self.rng.uniform(0, 2 * math.pi)
            galaxies.append(galaxy.shift(radius * math.cos(angle), radius * math.sin(angle)))
        size = self.survey.stamp_size
        noisy, target = np.empty((2, len(self.survey), size, size), np.float32)
        for index, (band, psf, bandpass) in enumerate(zip(self.survey.bands, self.psfs, self.bandpasses)):
            images = []
            for galaxy in galaxies:
                seen = galsim.Convolve([galaxy * (band.exposure_time * band.area_ratio), psf])
                images.append(galsim.ImageF(size, size, scale=band.pixel_scale))
                seen.drawImage(bandpass, image=images[-1])
            blend = sum(images[1:], start=images[0].copy())
            blend.addNoise(galsim.PoissonNoise(self.noise, sky_level=band.sky_level))
            target[index], noisy[index] = images[0].array, blend.array
        return noisy, target

    def scenes(self, number):
        """Draw so many scenes."""
        for _ in range(number):
            self.scene()


def cpu_seconds(function, *arguments):
    """Processor time of a call, and its result."""
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def compose(sample, survey):
    """Every noiseless target and every noisy scene of a sample, as `PlainGalSim` gives them."""
    rng = np.random.default_rng(1)
    sky = [band.sky_level for band in survey.bands]
    unit = [band.electrons_per_unit for band in survey.bands]
    for scene in range(sample.n_scenes):
        target = sample.image(scene, "target")
        add_noise(target + sample.image(scene, "neighbours"), sky, unit, rng)


def side_by_side(catalog, galaxies, survey, n_plain, n_ours):
    """Plain GalSim and ours in turns, so that a busy machine slows both.

    Tables of Sersic profiles, of GalSim and ours, are made before the clock starts.

    Returns
    -------
    plain, drawn, noisy : `float`
        Scenes per second of processor time: of plain GalSim; of our profiles, fluxes and truth; of these with
        every image composed and given noise.
    sample : `StampSample`
        The last one of ours.
    """
    settings, plain = SceneSettings(), PlainGalSim(catalog, survey)
    for n in np.arange(6.0, 0.29, -0.05):
        galsim.Sersic(round(float(n), 2), half_light_radius=1.0).kValue(1.0, 0.0)
    plain.scenes(5)
    simulate_stamps(galaxies, survey, settings, 256, seed=0)
    spent = np.zeros(3)
    for turn in range(1, TURNS + 1):
        spent[0] += cpu_seconds(plain.scenes, n_plain)[0]
        seconds, sample = cpu_seconds(simulate_stamps, galaxies, survey, settings, n_ours, turn)
        spent[1] += seconds
        spent[2] += cpu_seconds(compose, sample, survey)[0]
    return TURNS * n_plain / spent[0], TURNS * n_ours / spent[1], TURNS * n_ours / spent[1:].sum(), sample


def btk_rate(python, catalog_path, number):
    """Rate of blending-toolkit in another environment and its versions, or why there is none."""
    if python is None:
        return None, "not given: see --help"
    script = Path(__file__).with_name("simulate_with_btk.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        run = subprocess.run(
            [python, script, catalog_path, str(number)], env=environment, capture_output=True, text=True
        )
    except OSError as error:
        return None, f"cannot be run: {error}"
    if run.returncode:
        return None, "failed: " + (run.stderr.strip().splitlines() or ["no message"])[-1]
    found = json.loads(run.stdout.strip().splitlines()[-1])
    return found["scenes"] / found["seconds"], found["versions"]


def door(images):
    """What the paper's network does first, in NumPy: tanh(arcsinh(y)), and bands last."""
    divisor = np.square(images)
    divisor += 1
    images /= np.sqrt(divisor, out=divisor)
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def composer_rate(samples, survey, threads, noise="normal", with_door=False, batches=60, size=100):
    """Training scenes a second (of wall time) that so many threads compose, make noisy and scale."""
    composer = SceneComposer(samples, survey, noise=noise)
    scale = mean_peak(samples) / 2.5

    def make(number):
        for images in composer.batch(number, size, scale):
            if with_door:
                door(images)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(make, range(2 * threads)))
        start = time.perf_counter()
        list(pool.map(make, range(100, 100 + batches)))
        return batches * size / (time.perf_counter() - start)


def peak_megabytes():
    """Largest resident memory that this process has had [MB]."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 2**20


def write_shard(folder, number, n_scenes, bands=SIX):
    """Simulate and write one shard, as a quantum of ``bin/simulateBlends.py`` does; its path."""
    path = Path(folder) / f"shard{number}.h5"
    galaxies = load_galaxies("auto")
    simulate_stamps(galaxies, get_survey("arcelin2020", bands), SceneSettings(), n_scenes, seed=number).write(
        path
    )
    return path


def memory_of_simulating(folder, shards, n_scenes):
    """Peak memory [MB] of a process that simulates shard after shard."""
    for number in range(shards):
        write_shard(folder, number, n_scenes)
    return peak_megabytes()


def memory_of_training(folder, shards, n_scenes):
    """Peak memory [MB] of a process that composes batches from so many shards, all their scenes once."""
    with contextlib.ExitStack() as stack:
        samples = [
            stack.enter_context(StampSample.open(Path(folder) / f"shard{number}.h5"))
            for number in range(shards)
        ]
        composer = SceneComposer(samples, get_survey("arcelin2020", SIX), window_bytes=WINDOW_BYTES)
        for number in range(shards * n_scenes // 100):
            composer.batch(number, 100)
    return peak_megabytes()


def in_fresh_process(function, *arguments):
    """Result of a function in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def full_run(folder):
    """Seconds and bytes of the 100 000 scenes."""
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(FULL_PROCESSES, mp_context=context) as pool:
        shards = range(FULL_SCENES // FULL_SHARD)
        paths = list(pool.map(write_shard, [folder] * len(shards), shards, [FULL_SHARD] * len(shards)))
    return time.perf_counter() - start, sum(path.stat().st_size for path in paths)


def parse():
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scenes", type=int, default=1000, help="scenes of ours a turn (default %(default)s)"
    )
    parser.add_argument(
        "--plain-scenes", type=int, default=40, help="scenes of plain GalSim a turn (default %(default)s)"
    )
    parser.add_argument("--btk-python", metavar="PYTHON", help="interpreter that imports blending-toolkit")
    parser.add_argument("--full", action="store_true", help="also 100 000 scenes on two processes")
    return parser.parse_args()


def main():
    """Print the table."""
    args = parse()
    galaxies = load_galaxies("auto")
    surveys = {
        "6 bands": get_survey("arcelin2020", SIX),
        "10 bands": get_survey("arcelin2020"),
        "lsst10yr": get_survey("lsst10yr"),
    }
    print(
        f"galaxies: {galaxies.source}, {len(galaxies)}; GalSim {galsim.__version__}; {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "galaxies_fits.fits"
        write_galaxies(galaxies, file)
        catalog = galsim.COSMOSCatalog(str(file), use_real=False, exclusion_level="none")
        toolkit, words = btk_rate(args.btk_python, file, TURNS * args.plain_scenes)
        rates = [
            side_by_side(catalog, galaxies, survey, args.plain_scenes, args.scenes)
            for survey in surveys.values()
        ]
    plain, drawn, noisy, samples = zip(*rates)

    def line(name, values, form=".1f"):
        print(f"{name:<48}" + "".join(f"{'-' if v is None else format(v, form):>10}" for v in values))

    print(f"\n{'scenes per second and core':<48}" + "".join(f"{name:>10}" for name in surveys))
    line("GalSim, every galaxy in every band", plain, ".2f")
    line(f"blending-toolkit ({words})"[:47], [None, None, toolkit], ".2f")
    line("ours: profiles, fluxes, truth", drawn)
    line("ours, with images composed and Poisson noise", noisy)
    line("ratio to GalSim: drawn", [a / b for a, b in zip(drawn, plain)])
    line("ratio to GalSim: drawn, composed, noise", [a / b for a, b in zip(noisy, plain)])
    if toolkit:
        line("ratio to blending-toolkit: all", [None, None, noisy[2] / toolkit])
    line("profiles drawn a scene", [len(s.scene) * s.profiles.shape[1] / s.n_scenes for s in samples])
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for sample in samples:
            path = Path(folder) / "sample.h5"
            sample.write(path)
            sizes.append(path.stat().st_size / sample.n_scenes)
    line("bytes a scene on disk", sizes, ".0f")

    print("\ntraining scenes a second, composed, noisy and scaled (wall time)")
    for threads, noise, with_door in (
        (1, "normal", False),
        (2, "normal", False),
        (2, "poisson", False),
        (2, "normal", True),
        (2, "poisson", True),
    ):
        rates = [
            composer_rate([sample], survey, threads, noise, with_door)
            for sample, survey in zip(samples, surveys.values())
        ]
        words = f"{threads} thread{'s' * (threads > 1)}, {noise} noise"
        line(words + ", stretched, bands last" * with_door, rates, ".0f")

    print(
        f"\n{'peak memory of a fresh process [MB], 6 bands':<48}" + "".join(f"{n:>3} shards" for n in SHARDS)
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, function in (("simulating", memory_of_simulating), ("training", memory_of_training)):
            line(name, [in_fresh_process(function, folder, n, args.scenes) for n in SHARDS], ".0f")
    if args.full:
        with tempfile.TemporaryDirectory() as folder:
            seconds, size = full_run(folder)
        print(
            f"\n{FULL_SCENES} scenes of 6 bands on {FULL_PROCESSES} processes: {seconds / 60:.1f} minutes, "
            f"{size / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
