# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a Task's config to the plain settings of the science rooms."""

__all__ = ["makeSettings"]

import dataclasses


def makeSettings(cls, config, **fixed):
    """Fill a settings dataclass from the fields of a config.

    The science rooms know nothing of configs and spell names their own way:
    field ``closeFraction`` becomes ``close_fraction``.

    Parameters
    ----------
    cls : `type`
        A dataclass.
    config : `~.Config`
        Has a field of the same name, in camelCase, for each wanted one.
    **fixed
        Values that do not come from the config.

    Returns
    -------
    settings
        An instance of ``cls``; fields that the config lacks keep their
        defaults.
    """
    values = {}
    names = type(config).model_fields
    for field in dataclasses.fields(cls):
        name = _camel(field.name)
        if name in names:
            values[field.name] = getattr(config, name)
    return cls(**{**values, **fixed})


def _camel(name):
    first, *others = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)
