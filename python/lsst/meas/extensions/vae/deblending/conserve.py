# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Share the pixels of an image among overlapping models, so that none is lost.

Models serve as templates: each takes of every pixel the part that it has of
all templates there, as ``scarlet_lite.measure.conserve_flux`` does.
"""

import numpy as np

from ..errors import ImageError
from ..simulation.geometry import overlap

__all__ = ["share_pixels"]


def share_pixels(image, templates, origins, *, groups=None, owners=None):
    """Share an image's pixels in proportion to templates.

    Over each pixel that some template reaches the shares sum to the image, to
    rounding. A pixel that none reaches is nobody's.

    Parameters
    ----------
    image : array-like, ``[y, x]``
        Pixels of one band. Where they are not finite there is nothing to
        share: each template itself stands there.
    templates : sequence of n array-likes, ``[y, x]``
        Models, of any sizes; what is negative or not finite counts as zero.
    origins : array-like, int ``[n, 2]``
        y and x of each template's first pixel in the image; may be negative.
    groups : array-like, int ``[n]``, optional
        The number, from 1, of the blend that each template is of.
    owners : array-like, int ``[y, x]``, optional
        The number of the blend whose templates alone share a pixel; 0 for all
        that reach it. By default all pixels are everybody's.

    Returns
    -------
    shares : `list` [`numpy.ndarray`], float64 ``[y, x]``
        One for each template, of its size; 0 beyond the image.

    Raises
    ------
    ImageError
        Raised if the shapes or numbers do not fit together.
    """
    image = np.asarray(image, dtype=np.float64)
    origins = np.asarray(origins, dtype=np.int64).reshape(-1, 2)
    if image.ndim != 2:
        raise ImageError(f"the image has shape {image.shape}: expected [y, x], one band at a time")
    if len(origins) != len(templates):
        raise ImageError(f"there are {len(templates)} templates and {len(origins)} origins: expected as many")
    if (groups is None) != (owners is None):
        raise ImageError("groups and owners go together: give both, or neither")
    if groups is not None:
        groups, owners = np.asarray(groups), np.asarray(owners)
        if groups.shape != (len(templates),) or owners.shape != image.shape:
            raise ImageError(
                f"groups have shape {groups.shape} and owners {owners.shape}: expected "
                f"({len(templates)},) and {image.shape}"
            )
    total = np.zeros(image.shape)
    places = []
    for k, (template, origin) in enumerate(zip(templates, origins, strict=True)):
        template = np.asarray(template)
        in_image, in_stamp = overlap(origin, template.shape, image.shape)
        part = np.clip(np.nan_to_num(template[in_stamp].astype(np.float64), posinf=0.0), 0.0, None)
        if owners is not None:
            part[(owners[in_image] != 0) & (owners[in_image] != groups[k])] = 0.0
        total[in_image] += part
        places.append((template.shape, in_image, in_stamp, part))
    shares = []
    for shape, in_image, in_stamp, part in places:
        pixels, whole = image[in_image], total[in_image]
        fraction = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        known = np.isfinite(pixels)
        share = np.zeros(shape)
        share[in_stamp] = np.where(known, fraction * np.where(known, pixels, 0.0), part)
        shares.append(share)
    return shares
