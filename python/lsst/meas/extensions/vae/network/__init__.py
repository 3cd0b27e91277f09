# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks: architectures, training and model packages.

Keras is imported only by the modules that need it, so that reading a model
package's card costs nothing.
"""
