# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model packages: a trained network as one zip of bytes and a card.

A package holds ``card.json`` (what the network is, how it was trained, how
well it does, and the sha256 of every other member) and one safetensors file
for each part.  Loading checks the sums and the sizes and runs no code: there
is no pickle and no architecture code in the file, and this module imports no
deep-learning framework.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from ..errors import ModelPackageError
from ..files import replacing
from ..survey import PsfModel

__all__ = ["CARD_FORMAT", "PART_NAMES", "ModelPackage", "psf_models", "short_weights"]

CARD_FORMAT = "meas_extensions_vae model package"
CARD_VERSION = 1
PART_NAMES = ("prior_encoder", "decoder", "deblender_encoder")

# Nothing that this project trains comes near these; a header that claims more
# is damage or an attack, and is refused before anything is allocated.
MAX_CARD_BYTES = 1 << 20
MAX_PART_BYTES = 1 << 28


@dataclass
class ModelPackage:
    """A trained network: its card and the weights of its parts.

    Parameters
    ----------
    card : `dict`
        JSON-able description: name, architecture (name and options), survey,
        bands, pixel scale [arcsec], PSF of each band, stamp size [pixels],
        latent dimension, normalisation, training and measured errors;
        optionally centring (the training scenes' own), latent_prior (mean and
        covariance of the latents of isolated galaxies) and posterior_floors
        (see `~.model.Network.floors`).
    parts : `dict` [`str`, `dict` [`str`, `numpy.ndarray`]]
        Weights by part (``prior_encoder``, ``decoder``,
        ``deblender_encoder``) and by variable path.
    """

    card: dict
    parts: dict = field(default_factory=dict)

    def __post_init__(self):
        _check_card(self.card)
        unknown = sorted(set(self.parts) - set(PART_NAMES))
        if unknown:
            raise ModelPackageError(f"unknown part {unknown[0]!r}; the parts are {', '.join(PART_NAMES)}")

    @property
    def name(self) -> str:
        """Name of the package, as in its card."""
        return self.card["name"]

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that the network takes and gives, in its order."""
        return tuple(self.card["bands"])

    @property
    def sha256(self) -> str:
        """What tells this package from any other: the sha256 of its
        ``card.json``, which has the sums of all the other members.

        Unlike a sum of the zip it does not depend on how zlib compresses, and
        costs no compression.
        """
        return hashlib.sha256(self._members()["card.json"]).hexdigest()

    def _members(self) -> dict[str, bytes]:
        """Members of the zip by name, the card first."""
        members = {
            f"{part}.safetensors": safetensors_save({k: _short(v) for k, v in w.items()})
            for part, w in sorted(self.parts.items())
        }
        card = dict(
            self.card,
            format=CARD_FORMAT,
            format_version=CARD_VERSION,
            sha256={name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
        )
        return {"card.json": json.dumps(card, indent=1, sort_keys=True).encode(), **members}

    def to_bytes(self) -> bytes:
        """Serialise; the same package always gives the same bytes.

        Returns
        -------
        data : `bytes`
            The zip.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in self._members().items():
                # A fixed date keeps the bytes reproducible.
                archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "bytes") -> "ModelPackage":
        """Read a package from the bytes of its zip, checking every sum.

        Parameters
        ----------
        data : `bytes`
            The zip.
        source : `str`, optional
            What to call it in messages.

        Returns
        -------
        package : `ModelPackage`
            The package.

        Raises
        ------
        ModelPackageError
            Raised if the zip is truncated, has members that it should not
            have, or if a sum or a size is wrong.
        """
        cure = "fetch or train it again"
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                known = {"card.json"} | {f"{part}.safetensors" for part in PART_NAMES}
                names = archive.namelist()
                for name in names:
                    if name not in known or names.count(name) > 1:
                        raise ModelPackageError(f"{source}: unexpected member {name[:80]!r}; {cure}")
                if "card.json" not in names:
                    raise ModelPackageError(f"{source}: no card.json inside: not a model package")
                card = _read_card(_read_member(archive, "card.json", MAX_CARD_BYTES, source), source)
                sums = card.pop("sha256")
                if set(sums) != set(names) - {"card.json"}:
                    raise ModelPackageError(
                        f"{source}: its card lists {sorted(sums)} but it holds "
                        f"{sorted(set(names) - {'card.json'})}; {cure}"
                    )
                parts = {}
                for name, expected in sums.items():
                    content = _read_member(archive, name, MAX_PART_BYTES, source)
                    found = hashlib.sha256(content).hexdigest()
                    if found != expected:
                        raise ModelPackageError(
                            f"{source}: {name} has sha256 {found[:12]}..., its card says "
                            f"{str(expected)[:12]}...: damaged or tampered with; {cure}"
                        )
                    weights = safetensors_load(content)
                    parts[name.removesuffix(".safetensors")] = {k: _long(v) for k, v in weights.items()}
        except ModelPackageError:
            raise
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            zlib.error,
            struct.error,
            EOFError,
            OSError,
            SafetensorError,
            NotImplementedError,
            RuntimeError,
            ValueError,
            KeyError,
        ) as error:
            raise ModelPackageError(f"{source}: not a readable model package ({error}); {cure}") from error
        for key in ("format", "format_version"):
            card.pop(key)
        return cls(card=card, parts=parts)

    def save(self, path) -> Path:
        """Write the package to ``path`` whole or not at all.

        Parameters
        ----------
        path : path-like
            Where to.

        Returns
        -------
        path : `pathlib.Path`
            The same.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(self.to_bytes())
        return path

    @classmethod
    def load(cls, path) -> "ModelPackage":
        """Read a package from a file; see `from_bytes`."""
        path = Path(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelPackageError(
                f"cannot read model package {path}: {error.strerror}; give the path of a "
                "*.vae.zip file or the name of a shipped one"
            ) from error
        return cls.from_bytes(data, source=str(path))

    def part(self, name: str) -> dict:
        """Weights of one part.

        Raises
        ------
        ModelPackageError
            Raised if the package has no such part.
        """
        if name not in self.parts:
            raise ModelPackageError(
                f"model package {self.name!r} has no {name} (it has "
                f"{', '.join(self.parts) or 'no part'}): train that stage first"
            )
        return self.parts[name]


def short_weights(weights):
    """Weights with the digits that float16 holds, which files then store in half the room.

    Parameters
    ----------
    weights : `dict` [`str`, `numpy.ndarray`]
        Of one part.

    Returns
    -------
    weights : `dict` [`str`, `numpy.ndarray`]
        Float32; arrays with a number beyond float16's range are as they were.
    """
    with np.errstate(over="ignore"):
        short = {name: value.astype(np.float16).astype(np.float32) for name, value in weights.items()}
    return {name: v if np.isfinite(v).all() else weights[name] for name, v in short.items()}


def _short(array):
    """As float16, if that loses nothing."""
    array = np.ascontiguousarray(array)
    if array.dtype == np.float32:
        with np.errstate(over="ignore"):
            short = array.astype(np.float16)
        if np.array_equal(short.astype(np.float32), array):
            return short
    return array


def _long(array):
    return array.astype(np.float32) if array.dtype == np.float16 else array


def psf_models(card):
    """The PSFs that a card tells of.

    Parameters
    ----------
    card : `dict`
        Of a `ModelPackage`.

    Returns
    -------
    models : `list` [`~..survey.PsfModel`]
        Of each band.
    """
    return [PsfModel(psf["kind"], psf["fwhm"], psf["beta"]) for psf in card["psf"]]


def _read_member(archive, name, limit, source):
    """Read a member with a bound that a lying header cannot lift."""
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise ModelPackageError(f"{source}: {name} claims {info.file_size} bytes, the limit is {limit}")
    with archive.open(info) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ModelPackageError(f"{source}: {name} unpacks to more than {limit} bytes")
    return content


def _read_card(content, source):
    try:
        card = json.loads(content)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelPackageError(f"{source}: card.json is not JSON ({error})") from error
    if not isinstance(card, dict) or card.get("format") != CARD_FORMAT:
        raise ModelPackageError(f"{source}: card.json does not say format {CARD_FORMAT!r}")
    if card.get("format_version") != CARD_VERSION:
        raise ModelPackageError(
            f"{source}: format version {card.get('format_version')!r}; this version of "
            f"the code reads {CARD_VERSION}: update meas_extensions_vae"
        )
    if not isinstance(card.get("sha256"), dict):
        raise ModelPackageError(f"{source}: card.json has no sha256 of the parts")
    return card


def _check_card(card):
    """Refuse a card whose fields are not what the code will take them for."""

    def numbers(value, low, high):
        return isinstance(value, list | tuple) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and low < v < high for v in value
        )

    def whole(value, low, high):
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    def text(value):
        return isinstance(value, str) and 0 < len(value) <= 200

    def psf(value):
        return isinstance(value, dict) and text(value.get("kind")) and numbers([value.get("fwhm")], 0, 1e3)

    def gaussian(value, n):
        try:
            mean, covariance = np.array(value["mean"], float), np.array(value["covariance"], float)
            return (
                mean.shape == (n,)
                and covariance.shape == (n, n)
                and bool(np.isfinite(mean).all())
                and bool((np.linalg.eigvalsh(covariance) > 0).all())
            )
        except (TypeError, ValueError, KeyError, np.linalg.LinAlgError):
            return False

    bands = card.get("bands")
    n = len(bands) if isinstance(bands, list | tuple) else 0
    architecture, normalisation = card.get("architecture"), card.get("normalisation")
    widths = card.get("psf_fwhm_range", [])
    rules = {
        "name": (text(card.get("name")), "a text"),
        "survey": (text(card.get("survey")), "a text"),
        "bands": (
            0 < n <= 64 and all(map(text, bands)) and len(set(bands)) == n,
            "distinct names, at most 64",
        ),
        "architecture": (
            isinstance(architecture, dict)
            and text(architecture.get("name"))
            and isinstance(architecture.get("options"), dict),
            "a name and options",
        ),
        "pixel_scale": (
            numbers(card.get("pixel_scale"), 0, 1e3) and len(card["pixel_scale"]) == n,
            "a positive number [arcsec] for each band",
        ),
        "psf": (
            isinstance(card.get("psf"), list | tuple)
            and len(card["psf"]) == n
            and all(map(psf, card["psf"])),
            "a kind and a FWHM [arcsec] for each band",
        ),
        "stamp_size": (
            whole(card.get("stamp_size"), 16, 1024) and card["stamp_size"] % 16 == 0,
            "a multiple of 16 up to 1024",
        ),
        "latent_dim": (whole(card.get("latent_dim"), 1, 4096), "a whole number from 1 to 4096"),
        "normalisation": (
            isinstance(normalisation, dict)
            and (
                normalisation.get("kind") == "noise"
                or (
                    normalisation.get("kind") == "fixed"
                    and numbers(normalisation.get("scale"), 0, 1e30)
                    and len(normalisation["scale"]) == n
                )
            ),
            "kind 'noise', or kind 'fixed' with a positive scale for each band",
        ),
        "psf_fwhm_range": (
            "psf_fwhm_range" not in card
            or isinstance(widths, list | tuple)
            and len(widths) == n
            and all(numbers(pair, 0, 1e3) and len(pair) == 2 and pair[0] <= pair[1] for pair in widths),
            "the least and the largest FWHM [arcsec] for each band",
        ),
        "centring": ("centring" not in card or text(card["centring"]), "a text"),
        "latent_prior": (
            "latent_prior" not in card or gaussian(card["latent_prior"], card.get("latent_dim")),
            "a mean and a covariance of the latents",
        ),
        "posterior_floors": (
            "posterior_floors" not in card
            or isinstance(card["posterior_floors"], dict)
            and set(card["posterior_floors"]) <= {"shape", "flux", "shape_scale", "flux_scale", "tails"}
            and numbers([v for k, v in card["posterior_floors"].items() if "_" not in k], -1e-12, 100)
            and numbers([v for k, v in card["posterior_floors"].items() if k.endswith("_scale")], 1e-3, 100)
            and all(card["posterior_floors"].get(k, 0) <= 1 for k in ("shape", "flux")),
            "shape and flux from 0 to 1, shape_scale and flux_scale above 0, tails from 0",
        ),
        "noise": (
            "noise" not in card or (numbers(card["noise"], 0, 1e30) and len(card["noise"]) == n),
            "a positive number for each band",
        ),
    }
    for key, (good, expected) in rules.items():
        if not good:
            raise ModelPackageError(
                f"the card of this model package has {key} {str(card.get(key))[:60]!r}, expected {expected}: "
                "train it again or take another package"
            )
