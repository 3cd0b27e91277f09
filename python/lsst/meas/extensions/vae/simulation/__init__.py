# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated images: stamps of isolated and blended galaxies, whole fields,
and the detection that finds their peaks.

The names below load on first use, because GalSim takes its time.
"""

__all__ = [
    "ComposedSample",
    "Detection",
    "Field",
    "FieldSettings",
    "ParentDetection",
    "ProfileRenderer",
    "SceneSettings",
    "StampSample",
    "component_profile",
    "compose",
    "detect",
    "draw_again",
    "isolated_stamp",
    "simulate_field",
    "simulate_stamps",
]

_HOMES = {
    "ComposedSample": "composed",
    "compose": "composed",
    "Detection": "detection",
    "ParentDetection": "detection",
    "detect": "detection",
    "Field": "fields",
    "FieldSettings": "fields",
    "simulate_field": "fields",
    "isolated_stamp": "redraw",
    "ProfileRenderer": "render",
    "component_profile": "render",
    "SceneSettings": "scenes",
    "draw_again": "scenes",
    "simulate_stamps": "scenes",
    "StampSample": "shards",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
