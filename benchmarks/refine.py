# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors and cost of the network's one pass and of refinement, on the same scenes with known truth.

Run as ``python benchmarks/refine.py [--scenes N]`` for stamps of the survey ``arcelin2020`` (true centres
given), or with ``--field SIDE`` for a field of ``lsst10yr``: these two methods of ``benchmarks/compare.py``.
"""

from compare import parser, run


def main():
    """Print the table."""
    run(parser(__doc__).parse_args(), ["one_pass", "refined"])


if __name__ == "__main__":
    main()
