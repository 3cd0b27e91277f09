# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulation report tells what samples hold: numbers, figures, scenes, and how to repeat them."""

import gc
import html
import re
import shlex
import weakref
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("galsim")

from lsst.meas.extensions.vae.errors import ImageError, ShardError
from lsst.meas.extensions.vae.evaluation.simulation_figures import (
    Distribution,
    colour_bands,
    histogram,
    panel_grid,
    scene_rgb,
    subscripted,
)
from lsst.meas.extensions.vae.evaluation.simulation_report import figure1, write_simulation_report
from lsst.meas.extensions.vae.evaluation.simulation_summary import (
    distributions,
    fractions,
    shear_versions,
    summarise,
)
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.reportSimulation import main
from lsst.meas.extensions.vae.simulation import SceneSettings, StampSample, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

SVG = "{http://www.w3.org/2000/svg}"


def simulate(n=30, seed=1, survey="arcelin2020", bands="gri", **settings):
    return simulate_stamps(
        synthetic_galaxies(2000, seed=3),
        get_survey(survey, tuple(bands)),
        SceneSettings(**settings),
        n,
        seed=seed,
        split="test",
    )


@pytest.fixture(scope="module")
def blended():
    return [("a.h5", simulate(40, seed=1)), ("b.h5", simulate(30, seed=2))]


@pytest.fixture(scope="module")
def summary(blended):
    return summarise(blended)


@pytest.fixture(scope="module")
def sheared():
    return simulate(10, shear_step=0.02)


def values_of(summary, key):
    (found,) = [d for d in distributions(summary) if d.key == key]
    (values,) = found.series.values()
    return np.asarray(values, float)


def table_row(page, name):
    """Cells of one row of the page's table of numbers, as floats."""
    cells = re.search(rf"<tr><th>{re.escape(name)}</th>(.*?)</tr>", page)[1]
    cells = re.sub(r"[\u202f]", "", html.unescape(cells)).replace("−", "-")
    return [float(cell) for cell in re.findall(r"<td>(.*?)</td>", cells)]


def bars(svg):
    """Edges and heights of a histogram's filled bins, by its own axes."""
    root = ET.fromstring(svg)
    texts = [(e.text, float(e.get("x")), float(e.get("y"))) for e in root.iter(f"{SVG}text") if e.get("x")]
    across = [
        (float(t.replace("−", "-")), x) for t, x, y in texts if re.fullmatch(r"−?[\d.]+", t) and y > 200
    ]
    upward = [(float(t.replace("\u202f", "")), y - 4) for t, x, y in texts if x < 60 and y < 200]
    x_scale = np.polyfit([x for _, x in across], [v for v, _ in across], 1)
    y_scale = np.polyfit([y for _, y in upward], [v for v, _ in upward], 1)
    path = next(e.get("d") for e in root.iter(f"{SVG}path"))
    start = float(re.match(r"M(\S+) ", path)[1])
    steps = np.array([[float(v) for v in pair] for pair in re.findall(r"V([\d.]+)H([\d.]+)", path)])
    edges = np.polyval(x_scale, np.concatenate([[start], steps[:, 1]]))
    return edges, np.polyval(y_scale, steps[:, 0])


# -- histograms ---------------------------------------------------------------------


def test_bars_are_the_counts_between_their_edges():
    values = np.random.default_rng(1).normal(0.3, 1.0, 500)
    values[:20] = np.nan
    edges, counts = bars(histogram(Distribution("v", "value", {"all": values})))
    finite = values[20:]
    inside = [np.sum((finite >= a) & (finite < b)) for a, b in zip(edges[:-1], edges[1:])]
    # Positions are rounded to a tenth of a pixel: bins may gain or lose a value that lies at their edge.
    assert abs(counts.sum() - 480) < 0.02 * 480
    np.testing.assert_allclose(counts, inside, atol=3)


def test_no_bin_reaches_across_a_cut():
    values = np.random.default_rng(1).uniform(20, 25.3, 4000)
    svg = histogram(Distribution("r", "r", {"all": values}, cut=25.3))
    edges, counts = bars(svg)
    assert edges[-1] == pytest.approx(25.3, abs=0.02)
    assert counts[-1] > 0.8 * np.median(counts)
    assert ">cut<" in svg


def test_whole_numbers_have_a_bar_each():
    svg = histogram(Distribution("N", "N", {"all": np.repeat([1, 2, 4], [10, 20, 40])}, scale="integer"))
    heights = [float(e.get("height")) for e in ET.fromstring(svg).iter(f"{SVG}rect")]
    np.testing.assert_allclose(np.array(heights) / heights[0], [1, 2, 4], rtol=0.01)
    assert "mean 3.00" in svg  # (10 * 1 + 20 * 2 + 40 * 4) / 70


def test_two_sets_differ_by_more_than_colour():
    rng = np.random.default_rng(1)
    svg = histogram(Distribution("e", "e", {"e1": rng.normal(size=99), "e2": rng.normal(size=99)}))
    first, second = ET.fromstring(svg).iter(f"{SVG}path")
    assert first.get("stroke") != second.get("stroke")
    assert second.get("stroke-dasharray") and not first.get("stroke-dasharray")
    assert ">e1<" in svg and ">e2<" in svg


@pytest.mark.parametrize("scale", ["linear", "log", "integer"])
@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [3.0, 3.0], [0.0, 1e6]])
def test_any_values_make_a_figure(scale, values):
    svg = histogram(Distribution("v", "v < w & x", {"all": np.array(values, float)}, scale=scale))
    assert "nan" not in svg and "inf" not in svg
    ET.fromstring(svg)


def test_labels_are_escaped_and_have_subscripts():
    assert subscripted("B_tot < 1") == "B<sub>tot</sub> &lt; 1"


def test_a_grid_holds_its_panels_side_by_side():
    panel = '<svg viewBox="0 0 10 20" xmlns="http://www.w3.org/2000/svg"></svg>'
    root = ET.fromstring(panel_grid([panel] * 5, 2, captions=list("abcde"), gap=1))
    places = [(float(e.get("x")), float(e.get("y"))) for e in root.iter(f"{SVG}svg") if e is not root]
    assert len(set(places)) == 5 and len({x for x, _ in places}) == 2 and len({y for _, y in places}) == 3
    width, height = (float(root.get(name)) for name in ("width", "height"))
    assert all(x + 10 <= width and y + 20 <= height for x, y in places)
    assert [e.text for e in root.iter(f"{SVG}text")] == list("abcde")
    with pytest.raises(ImageError, match="0 sizes"):
        panel_grid([], 2)


# -- scenes ---------------------------------------------------------------------------


def info(survey, bands):
    return simulate(1, survey=survey, bands=bands).survey_info


def test_one_spectrum_has_one_colour_in_every_survey():
    hues = []
    for name in ("arcelin2020", "lsst10yr"):
        survey = get_survey(name, "gri")
        # A source of one magnitude in all bands, well above the noise.
        image = np.array(
            [
                10 ** (-0.4 * (20 - b.zeropoint)) * b.exposure_time / b.electrons_per_unit * np.ones((2, 2))
                for b in survey.bands
            ]
        )
        rgb = scene_rgb(image, info(name, "gri"), (0, 1, 2)).astype(float)
        hues.append(rgb[0, 0] / rgb[0, 0].max())
    np.testing.assert_allclose(*hues, atol=0.02)


def test_without_gri_pictures_are_grey():
    assert colour_bands("ugrizy") == (1, 2, 3) and colour_bands(("i", "r", "g")) == (2, 1, 0)
    assert colour_bands("ur") == (1, 1, 1) and colour_bands(("VIS",)) == (0, 0, 0)
    image = np.random.default_rng(1).normal(0, 300, (1, 8, 8))
    rgb = scene_rgb(image, info("arcelin2020", ("VIS",)), (0, 0, 0))
    assert np.ptp(rgb, axis=2).max() == 0 and rgb.max() > 0


def test_scenes_are_chosen_at_random_once_each_and_again_the_same(blended, summary):
    rows = [row for row, _ in summary.pictures]
    assert len(rows) == 36 == len(set(rows)) and rows != sorted(rows)
    assert min(rows) < 40 <= max(rows)  # of both shards
    again = summarise(blended)
    for (row, rgb), (other, same) in zip(summary.pictures, again.pictures):
        assert row == other and np.array_equal(rgb, same)
    assert [row for row, _ in summarise(blended, seed=2).pictures] != rows


def test_pictures_show_their_scene_and_are_noisy(blended, summary):
    row, rgb = max(summary.pictures, key=lambda picture: summary.truth["snr"][picture[0]])
    sample = blended[0 if row < 40 else 1][1]
    image = sample.image(row % 40 if row < 40 else row - 40)
    clean = scene_rgb(image, sample.survey_info, (0, 1, 2)).astype(float)
    assert rgb.shape == (64, 64, 3) and not np.array_equal(rgb, clean)
    assert np.corrcoef(rgb[24:40, 24:40].ravel(), clean[24:40, 24:40].ravel())[0, 1] >= 0.9


def test_shards_are_taken_one_at_a_time_and_few_scenes_are_drawn(monkeypatch):
    drawn, alive = [], []
    monkeypatch.setattr(
        StampSample, "image", lambda self, k, real=StampSample.image: drawn.append(k) or real(self, k)
    )

    def shards():
        for number in range(12):
            gc.collect()
            assert not any(reference() for reference in alive), "an earlier shard is still in memory"
            sample = simulate(20, seed=number + 1, kind="isolated")
            alive.append(weakref.ref(sample))
            yield f"{number}", sample
            del sample

    summary = summarise(shards(), n_pictures=4)
    assert len(summary.truth) == 240 and len(summary.pictures) == 4
    assert len(drawn) < 40


# -- numbers --------------------------------------------------------------------------


def test_distributions_are_the_samples(blended, summary):
    truth = [sample.truth for _, sample in blended]
    for key, name in (
        ("r", "r_mag"),
        ("r AB", "r_mag_ab"),
        ("z", "redshift"),
        ("SNR", "snr"),
        ("N", "n_galaxies"),
    ):
        np.testing.assert_array_equal(values_of(summary, key), np.concatenate([t[name] for t in truth]))
    e = np.concatenate([np.hypot(t["e1"], t["e2"]) for t in truth])
    np.testing.assert_array_equal(values_of(summary, "|e|"), e)
    alone = np.concatenate([t["n_galaxies"] == 1 for t in truth])
    for key in ("B_closest", "B_tot", "distance", "Δ mag"):
        assert np.array_equal(np.isnan(values_of(summary, key)), alone)
    # Neither does the centre move nor the PSF vary.
    assert not {"offset x, y", "PSF FWHM", "PSF |e|"} & {d.key for d in distributions(summary)}


def test_offsets_and_varying_psfs_are_shown():
    sample = simulate(8, centring="pixelisation", psf_fwhm_scatter=0.1, psf_shear_sigma=0.05)
    summary = summarise([("a", sample)])
    found = {d.key: d for d in distributions(summary)}
    offsets = found["offset x, y"].series
    np.testing.assert_allclose(offsets["x"], sample.truth["x"] - 31.5)
    assert np.abs(offsets["y"]).max() <= 0.5
    np.testing.assert_array_equal(values_of(summary, "PSF FWHM"), sample.psf[:, 0, 0])
    assert np.all(values_of(summary, "PSF |e|") > 0)


def test_isolated_samples_tell_nothing_of_neighbours():
    summary = summarise([("a", simulate(12, kind="isolated"))])
    assert not {"B_closest", "B_tot", "N", "distance", "Δ mag"} & {d.key for d in distributions(summary)}
    assert "targets that are not the brightest of their scene" not in dict(fractions(summary))


def test_shares_are_counted(summary):
    truth = Table(summary.truth, copy=True)
    many = np.flatnonzero(truth["n_galaxies"] > 1)
    truth["target_is_brightest"] = True
    truth["target_is_brightest"][many[:7]] = False
    truth["star"] = np.arange(70) < 14
    truth["real"] = np.arange(70) < 35
    truth["hsm_failed"] = np.arange(70) < 21
    objects = Table(summary.objects, copy=True)
    objects["star"] = np.arange(len(objects)) < 5
    changed = type(summary)(**{**vars(summary), "truth": truth, "objects": objects})
    shares = {name: value.replace("\u202f", "") for name, value in fractions(changed)}
    assert shares["targets that are not the brightest of their scene"] == "10.0% (7 of 70)"
    assert shares["the same, of scenes with neighbours"].endswith(f"(7 of {len(many)})")
    assert shares["targets that are stars"] == "20.0% (14 of 70)"
    assert shares["scenes of real galaxies"] == "50.0% (35 of 70)"
    assert shares["shapes that HSM could not measure"] == "30.0% (21 of 70)"
    assert shares["stars among all galaxies and stars drawn"].endswith(f"(5 of {len(objects)})")


def test_shear_is_recovered_and_its_versions_are_told(sheared):
    summary = summarise([("a", sheared)])
    assert summary.shards[0].bases == 10 and summary.shown.sum() == 10
    assert len(values_of(summary, "SNR")) == 10
    # Shapes that respond by 1.1 and 0.9 to the shear, but for one that fails in one version.
    truth = summary.truth
    own = np.random.default_rng(1).normal(0, 0.2, (2, 10))[:, truth["base_scene"]]
    truth["e1"], truth["e2"] = own[0] + 1.1 * truth["g1"], own[1] + 0.9 * truth["g2"]
    truth["hsm_failed"] = np.arange(50) == 7
    truth["e1"][7] = truth["e2"][7] = np.nan
    versions, biases = shear_versions(summary)
    assert [tuple(v) for v in versions["g1", "g2"]] == [(0, 0), (0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)]
    assert list(versions["scenes"]) == [10] * 5 and versions["failed"].sum() == 1
    assert [m for m, _ in biases] == pytest.approx([0.1, -0.1])
    assert versions["e1"][1] - versions["e1"][0] == pytest.approx(0.022)
    assert all(0 <= error < 1e-9 for _, error in biases)


def test_only_one_version_of_a_scene_is_pictured(sheared):
    summary = summarise([("a", sheared)])
    rows = [row for row, _ in summary.pictures]
    assert len(rows) == 10 and set(summary.truth["g1"][rows]) == set(summary.truth["g2"][rows]) == {0.0}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (("b", {"seed": 1}), "have one seed, 1"),
        (("b", {"seed": 2, "kind": "isolated"}), r"differ in kind \('blended' and 'isolated'\)"),
        (("b", {"seed": 2, "max_galaxies": 3}), r"differ in settings max_galaxies \(\[4\] and \[3\]\)"),
        (("b", {"seed": 2, "bands": "gr"}), "differ in bands"),
    ],
)
def test_samples_that_do_not_fit_are_refused(second, message):
    name, settings = second
    with pytest.raises(ShardError, match=message):
        summarise([("a", simulate(2)), (name, simulate(2, **settings))])


def test_no_samples_and_old_ones_are_refused():
    with pytest.raises(ShardError, match="No samples"):
        summarise([])
    old = simulate(2)
    old.truth.remove_column("r_mag_ab")
    with pytest.raises(ShardError, match="old.h5 has no r_mag_ab in its table truth"):
        summarise([("old.h5", old)])


# -- the page ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(summary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    paths = write_simulation_report(summary, folder, facts=[("campaign", "<mine> & yours")])
    return folder, paths


def test_page_tells_the_samples_numbers(summary, written):
    page = (written[0] / "report.html").read_text(encoding="utf-8")
    for key, digits, shown in (
        ("|e|", 3, "|e|"),
        ("r", 2, "r"),
        ("z", 2, "z"),
        ("B_tot", 3, "B<sub>tot</sub>"),
    ):
        values = values_of(summary, key)
        finite = values[np.isfinite(values)]
        number, undefined, *rest = table_row(page, shown)
        assert (number, undefined) == (len(finite), len(values) - len(finite))
        np.testing.assert_allclose(rest, np.percentile(finite, [50, 16, 84, 0, 100]), atol=0.51 * 10**-digits)
    for sentence, value in fractions(summary):
        assert f"<th>{sentence}</th><td>{value}</td>" in page
    assert "as figure 1 of Arcelin et al. 2020" in page and "r is AB +2." in page
    assert page.count("<figcaption>SNR ") == 36


def test_page_tells_how_to_repeat_it(blended, written):
    page = (written[0] / "report.html").read_text(encoding="utf-8")
    _, sample = blended[0]
    for name, value in sample.settings.items():
        assert f"<th>{name}</th>" in page, value
    for text in (
        sample.versions["galsim"],
        "seed=1, split=&#x27;test&#x27;",
        "a.h5",
        "&lt;mine&gt; &amp; yours",
    ):
        assert text in page
    code = html.unescape(re.findall(r"<pre>(.*?)</pre>", page, re.S)[-1])
    assert "SceneSettings()" in code and "simulate_stamps(galaxies, survey, settings, 40, seed=1" in code


def test_page_and_figures_need_nothing_else(written):
    folder, paths = written
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)
    assert {path.name for path in paths} == {"report.html", "figure1.svg", "distributions.svg", "scenes.svg"}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:src|href)=\"(?!data:)", text)
        assert not re.search(r"<script|<link|url\(|@import", text)
        assert set(re.findall(r"https?://[^\"\s<]+", text)) <= {"http://www.w3.org/2000/svg"}
        if path.suffix == ".svg":
            ET.fromstring(text)


def test_figure_1_is_ellipticity_magnitude_and_redshift(summary, written):
    svg = (written[0] / "figure1.svg").read_text(encoding="utf-8")
    assert svg == figure1(summary)
    labels = [e.get("aria-label") for e in ET.fromstring(svg).iter(f"{SVG}svg")][1:]
    assert [re.sub(r"Histogram of |: .*", "", label) for label in labels] == [
        "ellipticity |e|",
        "r magnitude (arcelin2020)",
        "redshift",
    ]


def test_sheared_samples_have_a_table_of_versions(sheared, tmp_path):
    write_simulation_report(summarise([("a", sheared)]), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Shear</h2>" in page and page.count("<td>&minus;0.020</td>") == 2
    assert "settings, 10, seed=1" in html.unescape(page)


# -- the command ---------------------------------------------------------------------------


def test_command_reports_on_files(blended, tmp_path, capsys):
    files = []
    for name, sample in blended:
        sample.write(tmp_path / name)
        files.append(str(tmp_path / name))
    assert main([*files, "--output", str(tmp_path / "new" / "out")]) == 0
    assert "2 shards of 70 scenes" in capsys.readouterr().out
    page = (tmp_path / "new" / "out" / "report.html").read_text(encoding="utf-8")
    assert "a.h5" in page and str(tmp_path) not in page
    for figure in ("figure1.svg", "scenes.svg"):
        assert (tmp_path / "new" / "out" / figure).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.h5"], "No shard at absent.h5"),
        (["."], "give --campaign NAME"),
        (["absent.h5", "--split", "test"], "--split selects shards of a campaign"),
        (["absent.h5", "--seed", "-1"], "--seed -1"),
        (["one", "two", "--campaign", "c"], "2 repositories"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("reportSimulation.py: error:") and message in error
    assert not list(tmp_path.iterdir())


SIMULATE = [
    *("campaign=c", "survey=arcelin2020", "bands=['g','r','i']", "nScenes=6", "nTest=1", "nTrain=0"),
    *("nValidation=0", "nFields=0", "galaxies.name=synthetic", "galaxies.n=500", "scenes.maxGalaxies=2"),
    *("scenes.magLimit=27.0", "scenes.shearStep=0.01", "seed=7"),
]


def test_command_reports_on_a_campaign_and_tells_how_to_simulate_it_again(tmp_path, capsys):
    pytest.importorskip("lsst.ctrl.mpexec")
    from lsst.meas.extensions.vae.cli import main as run
    from lsst.meas.extensions.vae.prepare import prepareCampaign
    from lsst.meas.extensions.vae.simulateBlendsTask import SimulateBlendsTask

    repo, out = str(tmp_path / "repo"), tmp_path / "out"
    assert run(SimulateBlendsTask, [repo, "-c", *SIMULATE], prepare=prepareCampaign) == 0
    report = [repo, "--campaign", "c", "--output", str(out)]
    assert main(report) == 0
    assert "1 shard of 30 scenes" in capsys.readouterr().out
    page = (out / "report.html").read_text(encoding="utf-8")
    command, again, _ = (html.unescape(code) for code in re.findall(r"<pre>(.*?)</pre>", page, re.S))
    assert shlex.split(again)[1:] == [*report[:3], "--split", "test", "--kind", "blended", *report[3:]]
    # What the page tells to type makes the same scenes elsewhere.
    script, _, *options = shlex.split(command)
    other = str(tmp_path / "other")
    assert script == "bin/simulateBlends.py"
    assert run(SimulateBlendsTask, [other, *options], prepare=prepareCampaign) == 0
    assert main([other, "--campaign", "c", "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "scenes.svg").read_text() == (out / "scenes.svg").read_text()
    capsys.readouterr()
    assert main([*report, "--kind", "isolated"]) == 2
    assert "no isolated stamps of the test split" in capsys.readouterr().err
    assert run(SimulateBlendsTask, [repo, "--new-run", "-c", *SIMULATE], prepare=prepareCampaign) == 0
    capsys.readouterr()
    assert main(report) == 2
    assert "is in several runs" in capsys.readouterr().err
    assert main([*report, "-i", "c-blended"]) == 0
