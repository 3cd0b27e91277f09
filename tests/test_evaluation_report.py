# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures and page of a report."""

import base64
import io
import re
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from astropy.table import Table

from lsst.meas.extensions.vae.errors import ImageError, VaeError
from lsst.meas.extensions.vae.evaluation.figures import (
    COLOURS,
    colour_image,
    encode_png,
    error_diagram,
    marked_image,
)
from lsst.meas.extensions.vae.evaluation.report import Example, Report, blended_statistics, write_report


def decode(png):
    """Pixels of a PNG as `encode_png` writes it."""
    width, height = (int.from_bytes(png[k : k + 4], "big") for k in (16, 20))
    start = png.index(b"IDAT")
    size = int.from_bytes(png[start - 4 : start], "big")
    data = png[start + 4 : start + 4 + size]
    assert int.from_bytes(png[start + 4 + size : start + 8 + size], "big") == zlib.crc32(b"IDAT" + data)
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + 3 * width)
    return rows[:, 1:].reshape(height, width, 3)


@pytest.fixture
def rgb():
    return np.random.default_rng(1).integers(0, 256, (7, 11, 3), dtype=np.uint8)


def test_png_holds_the_pixels(rgb):
    png = encode_png(rgb)
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.endswith(b"IEND\xaeB`\x82")
    np.testing.assert_array_equal(decode(png), rgb)


def test_other_readers_read_the_png(rgb):
    image = pytest.importorskip("PIL.Image")
    np.testing.assert_array_equal(np.array(image.open(io.BytesIO(encode_png(rgb)))), rgb)


def test_only_whole_rgb_images_are_encoded(rgb):
    with pytest.raises(ImageError, match="expected uint8"):
        encode_png(rgb.astype(float))


def test_pictures_have_the_sky_at_the_bottom(rgb):
    svg = ET.fromstring(marked_image(rgb, "a picture", [(2, 1, "#fff")]))
    href = svg.find("{http://www.w3.org/2000/svg}image").get("href")
    np.testing.assert_array_equal(decode(base64.b64decode(href.partition(",")[2])), rgb[::-1])
    circle = svg.find("{http://www.w3.org/2000/svg}circle")
    # Pixel (2, 1) of 7 rows: its middle lies 1.5 pixels above the lower edge.
    assert (float(circle.get("cx")), float(circle.get("cy"))) == (2.5, 5.5)


def test_red_galaxies_are_red_and_blue_ones_blue():
    images = np.zeros((3, 1, 3))
    images[2, 0, 0] = images[0, 0, 1] = 100.0
    red, blue, sky = colour_image(images, noise=1.0)[0].astype(int)
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0]
    assert sky.max() < 60 and red.max() > 120


def test_pictures_take_bad_pixels_but_not_bad_shapes():
    images = np.full((3, 4, 4), np.nan)
    assert colour_image(images, 1.0).shape == (4, 4, 3)
    with pytest.raises(ImageError, match="three bands"):
        colour_image(np.zeros((2, 4, 4)), 1.0)
    with pytest.raises(ImageError, match="noise is 0"):
        colour_image(np.zeros((3, 4, 4)), 0)


def test_diagram_draws_each_error_once_and_keeps_it_inside():
    snr = np.array([20.0, 50, 200, np.nan, 40])
    errors = np.array([0.1, 5.0, -5.0, 0.1, np.nan])
    svg = error_diagram(snr, {"vae": errors, "none": errors}, "error", [(10, 30)], 1.0)
    root = ET.fromstring(svg)
    height = [float(v) for v in root.get("viewBox").split()][3]
    discs = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(discs) == 3 == len(root.findall("{http://www.w3.org/2000/svg}path"))
    assert all(0 < float(disc.get("cy")) < height for disc in discs)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_diagram_of_nothing_has_axes():
    assert "<line" in error_diagram([], {"vae": [], "none": []}, "error", [(10, 30)], 1.0)


def objects(n=40, seed=1):
    rng = np.random.default_rng(seed)
    table = Table({"truth": np.arange(n), "edge": np.zeros(n, bool), "snr": np.linspace(12, 300, n)})
    table["blendedness"] = np.where(np.arange(n) % 2, 0.2, 0.001)
    table["mag_true"] = rng.uniform(20, 25, n)
    table["e1_true"], table["e2_true"] = rng.normal(0, 0.2, (2, n))
    for name, sigma in (("none", 0.4), ("vae", 0.05)):
        for what in ("mag", "e1", "e2"):
            table[f"{what}_{name}"] = table[f"{what}_true"] + rng.normal(0, sigma, n)
    table["mag_stamp"] = table["mag_true"] - 1
    return table


def test_statistics_of_blended_objects_leave_out_the_others():
    table = objects()
    blended = blended_statistics(table)
    assert [statistic.number for statistic in blended["vae"]] == [20, 20, 40]
    assert blended["vae"][0].half_width < 0.2 < blended["none"][0].half_width
    table["edge"][1] = True
    table["truth"][3] = -1
    assert blended_statistics(table)["vae"][0].number == 18


def report(**changes):
    example = Example([("input", "<svg></svg>")], "blend <1>", [("", "r"), ("truth", "24.0")])
    content = {
        "title": "Title & more",
        "subtitle": "sub",
        "warnings": ["galaxies are <synthetic>"],
        "headline": [("0.4 → 0.1", "magnitude")],
        "field_svg": "<svg></svg>",
        "field_caption": "a field",
        "examples": [example],
        "example_rule": "a rule",
        "objects": objects(),
        "detection": [("completeness", "97%")],
        "steps": [("Deblend", "bin/deblendVae.py repo -d \"a='b'\"", "(3 s)")],
        "facts": {"Software": [("numpy", "2")]},
    }
    return Report(**{**content, **changes})


def test_page_needs_nothing_else_and_escapes_what_it_is_given(tmp_path):
    write_report(report(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>Title &amp; more</h1>" in page and "galaxies are &lt;synthetic&gt;" in page
    assert "blend &lt;1&gt;" in page and "Software" in page
    assert "<script" not in page and not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "url(" not in page and "@import" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_page_shows_both_methods_in_every_bin(tmp_path):
    write_report(report(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # Five groups in each of two tables.
    assert page.count('<td class="none">none</td>') == page.count('<td class="vae">VAE</td>') == 10
    mag = np.median(objects()["mag_none"] - objects()["mag_true"])
    assert f"{mag:+.3f} &plusmn; ".replace("-", "&minus;") in page


def test_page_of_no_objects_is_still_a_page(tmp_path):
    write_report(report(objects=objects()[:0], examples=[]), tmp_path / "report.html")
    assert "No blend fits the rule" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_told_in_one_line(tmp_path):
    with pytest.raises(VaeError, match="cannot write .*give another --output"):
        write_report(report(), tmp_path / "absent" / "report.html")
