# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Summaries of errors on stamps, beside numbers by hand, and their judgement by the paper's."""

import base64
import re

import numpy as np
import pytest
from astropy.table import Table
from scipy.stats import norm

from lsst.meas.extensions.vae.errors import VaeError
from lsst.meas.extensions.vae.evaluation.deblender_report import write_deblender_report
from lsst.meas.extensions.vae.evaluation.figures import encode_png
from lsst.meas.extensions.vae.evaluation.metrics import colour_pairs
from lsst.meas.extensions.vae.evaluation.paper_figures import WrittenFigure
from lsst.meas.extensions.vae.evaluation.stamp_report import stamp_markdown, write_stamp_report
from lsst.meas.extensions.vae.evaluation.stamp_table import PAPER_EDGES, bin_edges, summarise_stamps
from lsst.meas.extensions.vae.evaluation.stamps import join_errors
from lsst.meas.extensions.vae.evaluation.targets import Target, judge, stamp_targets

LSST = ("u", "g", "r", "i", "z", "y")
EUCLID = (*LSST, "VIS", "Y", "J", "H")


def errors(n, method="deblender", kind="blended", seed=1, bands=LSST, centring="none", **columns):
    """A table as `measure_stamps` makes it, without errors but for the columns that are given."""
    rng = np.random.default_rng(seed)
    table = Table()
    table["method"], table["kind"] = np.full(n, method), np.full(n, kind)
    table["snr"] = np.geomspace(20, 3000, n)
    for name in ("b_tot", "b_closest"):
        table[name] = rng.uniform(0, 0.5, n)
    table["delta_mag_c"] = rng.uniform(0, 5, n)
    for i in (1, 2):
        table[f"e{i}_true"] = rng.normal(0, 0.2, n)
    for i in (1, 2):
        table[f"e{i}"] = columns.pop(f"e{i}", table[f"e{i}_true"])
        table[f"e{i}_error"] = table[f"e{i}"] - table[f"e{i}_true"]
    true = np.hypot(table["e1_true"], table["e2_true"])
    table["e_error"] = columns.pop("e_error", np.hypot(table["e1"], table["e2"]) - true)
    table["truth_flag"] = columns.pop("truth_flag", np.isnan(true))
    table["shape_flag"] = np.isnan(table["e1"])
    for band in bands:
        table[f"mag_{band}_error"] = columns.pop(f"mag_{band}_error", np.zeros(n))
        table[f"mag_{band}_flag"] = np.isnan(table[f"mag_{band}_error"])
        table[f"flux_{band}_error"] = 10 ** (-0.4 * table[f"mag_{band}_error"]) - 1
    for blue, red in colour_pairs(bands):
        table[f"colour_{blue}_{red}_error"] = table[f"mag_{blue}_error"] - table[f"mag_{red}_error"]
    table["n_galaxies"] = rng.integers(1, 5, n)
    table["cosine"], table["ssim"], table["chi2"] = np.ones(n), np.ones(n), np.zeros(n)
    for name, column in columns.items():
        table[name] = column
    sample = {"split": "test", "seed": 7, "settings": {"centring": centring}}
    table.meta = {
        "survey": "arcelin2020",
        "bands": list(bands),
        "reference_band": "r",
        "noise": "poisson",
        "noise_correlation": 0.0,
        "samples": {kind: [sample]},
        "seconds": {kind: {method: 1.0}},
        "cpu_seconds": {kind: {method: 4.0}},
        "memory": {kind: {method: 123.0}},
        "sources": {kind: {method: n}},
        "package": {"name": "toy", "sha256": "0" * 64},
    }
    return table


def overall(table, **options):
    return summarise_stamps(table, **options)[0]


def test_median_and_half_width_are_those_by_hand():
    # 0, 0.01, ..., 1: percentiles are themselves.
    steps = np.linspace(0, 1, 101)
    row = overall(errors(101, e_error=steps, mag_r_error=-2 * steps, mag_g_error=steps), n_bootstrap=0)
    assert row["e_median"] == pytest.approx(0.5) and row["mag_median"] == pytest.approx(-1)
    assert row["e_half_width"] == pytest.approx(0.34) and row["mag_half_width"] == pytest.approx(0.68)
    assert (row["e_low"], row["e_high"]) == (pytest.approx(0.023), pytest.approx(0.977))
    assert (row["mag_low"], row["mag_high"]) == (pytest.approx(-1.954), pytest.approx(-0.046))
    assert row["e_median_error"] == pytest.approx(np.sqrt(np.pi / 2) * 0.34 / np.sqrt(101))
    assert row["mag_std"] == pytest.approx(2 * np.std(steps))
    assert (row["mag_g_median"], row["mag_r_median"]) == (pytest.approx(0.5), row["mag_median"])
    assert row["mag_z_half_width"] == 0
    assert np.isnan(row["alpha_1_error"])


def test_component_half_width_is_that_of_both_components():
    rng = np.random.default_rng(3)
    table = errors(5000)
    for i, width in ((1, 0.02), (2, 0.06)):
        table[f"e{i}_error"] = rng.normal(0, width, 5000)
    row = overall(table, n_bootstrap=0)
    both = np.concatenate([table["e1_error"], table["e2_error"]])
    assert row["component_half_width"] == pytest.approx(np.diff(np.percentile(both, [16, 84]))[0] / 2)
    assert row["e1_std"] == pytest.approx(0.02, rel=0.05) and row["e2_std"] == pytest.approx(0.06, rel=0.05)


def test_alpha_of_an_output_scaled_in_ellipticity_is_the_factor_less_1():
    truth = errors(400)
    table = errors(400, e1=1.05 * truth["e1_true"], e2=0.9 * truth["e2_true"] + 0.01)
    for row in summarise_stamps(table, n_bootstrap=5):
        if row["number"] > 3:
            assert row["alpha_1"] == pytest.approx(0.05, abs=1e-9)
            assert row["alpha_2"] == pytest.approx(-0.1, abs=1e-9)
            assert row["alpha_2_plain"] == pytest.approx(-0.1, abs=1e-9)
            assert row["alpha_1_error"] < 1e-9


def test_the_bootstrap_error_of_alpha_is_that_of_the_slope():
    rng = np.random.default_rng(5)
    truth = errors(4000)
    table = errors(4000, e1=truth["e1_true"] + rng.normal(0, 0.1, 4000))
    row = overall(table, n_bootstrap=100)
    assert row["alpha_1_error"] == pytest.approx(0.1 / 0.2 / np.sqrt(4000), rel=0.25)
    assert row["alpha_1_error"] == overall(table, n_bootstrap=100)["alpha_1_error"]


def test_a_few_outliers_move_the_plain_alpha_alone():
    truth = errors(1000)
    e1 = np.array(truth["e1_true"])
    e1[np.argsort(e1)[-10:]] -= 1.2
    row = overall(errors(1000, e1=e1), n_bootstrap=0)
    assert abs(row["alpha_1"]) < 1e-9 and row["alpha_1_plain"] < -0.1


def test_failures_count_where_the_target_has_a_shape():
    e1 = np.array(errors(100)["e1_true"])
    e1[:7] = np.nan
    unknown = np.zeros(100, bool)
    unknown[4:10] = True
    magnitude = np.zeros(100)
    magnitude[:2] = np.nan
    row = overall(errors(100, e1=e1, truth_flag=unknown, mag_r_error=magnitude), n_bootstrap=0)
    assert (row["scenes"], row["number"], row["failures"], row["mag_failures"]) == (100, 94, 4, 2)


def test_bins_hold_what_lies_between_their_edges():
    # Some lie on edges: they belong to the upper bin, at the very end to the last.
    snr = np.concatenate([PAPER_EDGES["snr"], np.geomspace(10, 5000, 989)])
    table = errors(1000, snr=snr)
    summary = summarise_stamps(table, n_bootstrap=0)
    for by, edges in PAPER_EDGES.items():
        bins = summary[summary["by"] == by]
        np.testing.assert_allclose(bins["low"], edges[:-1])
        np.testing.assert_allclose(bins["high"], edges[1:])
        np.testing.assert_array_equal(bins["scenes"], np.histogram(table[by], edges)[0])
    (bright,) = summary[summary["by"] == "snr_min"]
    assert bright["low"] == 50 and bright["scenes"] == (table["snr"] >= 50).sum()
    assert set(summarise_stamps(errors(50, kind="isolated"), n_bootstrap=0)["by"]) == {
        "all",
        "snr_min",
        "snr",
    }


def test_targets_without_a_neighbour_are_in_no_bin_of_its_magnitude():
    table = errors(50, delta_mag_c=np.full(50, np.nan))
    for bins in ("paper", "quantiles"):
        summary = summarise_stamps(table, bins=bins, n_bootstrap=0)
        assert summary["scenes"][summary["by"] == "delta_mag_c"].sum() == 0


def test_bins_by_quantiles_hold_equal_numbers():
    summary = summarise_stamps(errors(1000), bins="quantiles", n_bootstrap=0)
    assert (summary["scenes"][summary["by"] == "snr"] == 100).all()
    # A quarter of the paper's targets are alone, of B_tot 0.
    edges = bin_edges(np.concatenate([np.zeros(300), np.linspace(0.01, 1, 700)]), "b_tot", "quantiles")
    assert edges[0] == 0 and (np.diff(edges) > 0).all()
    with pytest.raises(VaeError, match="expected 'paper' or 'quantiles'"):
        bin_edges([1.0], "snr", "equal")


def test_outliers_are_beyond_three_half_widths():
    # 1000 errors of half-width 0.34, of which 7 are moved far away on both sides.
    steps = np.linspace(0, 1, 1000)
    steps[[0, 1, 2, 3]], steps[[-1, -2, -3]] = -0.54, 1.55
    row = overall(errors(1000, e_error=steps, mag_r_error=steps), n_bootstrap=0)
    width = row["e_half_width"]
    assert width == pytest.approx(0.34, abs=0.001)
    expected = np.mean(np.abs(steps - np.median(steps)) > 3 * width)
    assert expected == pytest.approx(0.007) and row["e_outliers"] == row["mag_outliers"] == expected
    gaussian = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    row = overall(errors(20_000, e1_error=gaussian), n_bootstrap=0)
    # 16 and 84 % are at 0.9945 sigma.
    assert row["e1_outliers"] == pytest.approx(2 * norm.sf(3 * 0.9945), abs=1e-4) and row["e2_outliers"] == 0


def test_colours_and_fluxes_are_those_by_hand():
    g, r = np.linspace(-0.2, 0.4, 101), np.full(101, 0.1)
    g[3] = np.nan
    row = overall(errors(101, mag_g_error=g, mag_r_error=r), n_bootstrap=0)
    colour = (g - r)[np.isfinite(g)]
    assert row["colour_g_r_median"] == pytest.approx(np.median(colour))
    assert row["colour_g_r_half_width"] == pytest.approx(np.diff(np.percentile(colour, [16, 84]))[0] / 2)
    assert row["colour_g_r_failures"] == row["mag_g_failures"] == 1 and row["colour_r_i_failures"] == 0
    assert row["colour_r_i_median"] == pytest.approx(0.1)
    assert row["flux_r_residual"] == pytest.approx(1 - 10**-0.04)
    flux = 10 ** (-0.4 * g[np.isfinite(g)]) - 1
    assert row["flux_g_residual"] == pytest.approx(np.abs(flux).mean())


def test_scenes_are_binned_by_their_number_of_galaxies():
    counts = np.repeat([1, 2, 4, 6, 7], [10, 20, 30, 5, 6])
    summary = summarise_stamps(errors(71, n_galaxies=counts), n_bootstrap=0)
    bins = summary[summary["by"] == "n_galaxies"]
    assert list(zip(bins["low"], bins["high"], bins["scenes"])) == [
        (1, 2, 10),
        (2, 3, 20),
        (4, 5, 30),
        (5, 8, 11),
    ]
    text = stamp_markdown(summary)
    block = text.split("by number of galaxies")[1]
    assert "\n| 4 | deblender | 30 |" in block and "\n| 5 to 7 | deblender | 11 |" in block


def test_errors_are_compared_with_their_own_bounds():
    rng = np.random.default_rng(8)
    n, bound = 4000, rng.uniform(0.01, 0.2, 4000)
    columns = {f"e{i}_error": 2.0 * bound * rng.normal(size=n) for i in (1, 2)}
    columns |= {f"e{i}_bound": bound for i in (1, 2)}
    columns |= {"mag_r_error": 1.5 * bound * rng.normal(size=n), "mag_r_bound": bound}
    columns |= {"e_error": 0.5 * bound * rng.normal(size=n), "e_bound": bound}
    columns["e1_bound"] = np.where(np.arange(n) < 100, np.nan, bound)
    summary = summarise_stamps(errors(n, **columns), n_bootstrap=0)
    row = summary[0]
    assert row["component_ratio"] == pytest.approx(2, abs=0.06)
    assert row["component_ratio_error"] == pytest.approx(
        0.964 * row["component_ratio"] / np.sqrt(2 * n - 100)
    )
    assert row["mag_ratio"] == pytest.approx(1.5, abs=0.06) and row["e_ratio"] == pytest.approx(0.5, abs=0.02)
    assert row["component_bound"] == pytest.approx(np.median(bound), rel=0.01)
    # The standard error is that of many tries.
    tries = [np.diff(np.percentile(rng.normal(size=400), [16, 84]))[0] / 2 for _ in range(2000)]
    assert np.std(tries) == pytest.approx(0.964 / 20, rel=0.05)
    text = stamp_markdown(summary)
    assert "## Beside the Cramer-Rao bound" in text and f"| {row['mag_ratio']:.3f} +- " in text
    assert "Cramer-Rao bound is" not in stamp_markdown(summarise_stamps(errors(50), n_bootstrap=0))


def test_cost_is_a_source_and_a_core():
    summary = summarise_stamps(errors(50), n_bootstrap=0)
    assert summary[0]["seconds_per_source"] == pytest.approx(1 / 50)
    assert summary[0]["sources_per_core_second"] == pytest.approx(50 / 4) and summary[0]["memory"] == 123
    assert np.isnan(summary["memory"][1:]).all()
    assert "| blended | deblender | 20 | 12.5 | 123 |" in stamp_markdown(summary)
    old = errors(50)
    for name in ("cpu_seconds", "memory", "sources"):
        del old.meta[name]
    assert "## Cost" not in stamp_markdown(summarise_stamps(old, n_bootstrap=0))


def test_errors_are_written_one_table_a_method(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = join_errors([errors(20, method="one pass"), errors(30, method="none")])
    paths = write_stamp_report(summarise_stamps(table, n_bootstrap=0), tmp_path, table)
    assert [path.name for path in paths[3:]] == ["stampErrors-one-pass.parquet", "stampErrors-none.parquet"]
    back = parquet.read_table(paths[3])
    np.testing.assert_array_equal(back["e1"], table["e1"][:20])
    assert back.num_rows == 20 and parquet.read_table(paths[4]).num_rows == 30
    assert b"arcelin2020" in back.schema.metadata[b"table_meta_yaml"]


def test_shear_biases_are_written_of_sheared_samples(tmp_path):
    pytest.importorskip("pyarrow")
    shears = [(0, 0), (0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)]
    table = errors(200)
    table["base_scene"], table["shard"] = np.arange(200) // 5, 0
    for i in (0, 1):
        table[f"g{i + 1}"] = np.tile([shear[i] for shear in shears], 40)
        table[f"e{i + 1}_true"] = table[f"g{i + 1}"]
        table[f"e{i + 1}"] = 1.05 * table[f"g{i + 1}"]
    table.meta["samples"]["blended"][0]["settings"]["shear_step"] = 0.01
    paths = write_stamp_report(summarise_stamps(table, n_bootstrap=0), tmp_path, table)
    assert [path.name for path in paths][3:] == ["shearBiases.ecsv", "stampErrors-deblender.parquet"]
    assert Table.read(paths[3])["m_1"].tolist() == pytest.approx([0, 0.05])
    text = paths[0].read_text()
    assert "## Shear biases, step 0.01" in text and "| blended | deblender | 40 | +0.0500 +- 0.0000 |" in text


def test_every_column_of_the_summary_tells_what_it_is():
    summary = summarise_stamps(errors(30), n_bootstrap=0)
    assert not [name for name in summary.colnames if not summary[name].description]


def test_methods_are_described_apart():
    table = errors(40)
    more = errors(40, method="none", mag_r_error=np.full(40, -0.3))
    summary = summarise_stamps(join_errors([table, more]), n_bootstrap=0)
    medians = {row["method"]: row["mag_median"] for row in summary if row["by"] == "all"}
    assert medians == {"deblender": 0, "none": pytest.approx(-0.3)}


def verdict(table, quantity):
    verdicts = judge(summarise_stamps(table, n_bootstrap=10))
    (row,) = verdicts[verdicts["quantity"] == quantity]
    return row


def test_the_worst_bin_is_judged():
    table = errors(1000)
    offset = np.zeros(1000)
    offset[(table["snr"] > 33.1) & (table["snr"] < 54.4)] = -0.012
    row = verdict(errors(1000, e_error=offset), "median |e| error, worst SNR bin")
    assert row["value"] == pytest.approx(-0.012) and row["where"] == "snr 33 to 54.5"
    assert (row["paper"], row["reach"], row["aim"]) == (0.015, 0.010, 0.005)
    assert (row["better_than_paper"], row["reached"], row["aim_reached"]) == ("yes", "no", "no")


def test_a_bin_of_few_scenes_is_not_judged():
    snr = np.full(1000, 100.0)
    snr[:10] = 2500
    row = verdict(
        errors(1000, snr=snr, mag_r_error=np.where(snr > 2000, 0.5, 0.01)), "median r error, worst SNR bin"
    )
    assert row["value"] == pytest.approx(0.01) and row["number"] == 990
    assert row["aim_reached"] == "yes"


@pytest.mark.parametrize(
    "bands, centring, paper, reach, aim",
    [
        (LSST, "none", -0.056, 0.03, 0.01),
        (EUCLID, "none", -0.016, 0.01, 0.005),
        (LSST, "pixelisation", -0.081, np.nan, np.nan),
        (LSST, "peaks", -0.084, np.nan, np.nan),
    ],
)
def test_alpha_has_the_papers_value_of_the_sample(bands, centring, paper, reach, aim):
    truth = errors(300)
    table = errors(300, e1=1.02 * truth["e1_true"], bands=bands, centring=centring)
    row = verdict(table, "alpha_1")
    np.testing.assert_allclose([row["paper"], row["reach"], row["aim"]], [paper, reach, aim])
    assert row["value"] == pytest.approx(0.02)
    assert row["aim_reached"] == ("" if np.isnan(aim) else "no")
    assert row["better_than_paper"] == ("no" if bands == EUCLID else "yes")


def test_the_closest_blends_are_judged_in_the_bin_of_the_papers_value():
    close = np.full(200, 0.1)
    close[:60] = 0.75
    row = verdict(
        errors(200, b_closest=close, e_error=np.where(close > 0.5, 0.007, 0.1)),
        "median |e| error, B_closest of 0.8",
    )
    assert row["value"] == pytest.approx(0.007) and row["better_than_paper"] == "yes"
    assert row["where"] == "b_closest 0.72 to 0.81"


def test_a_prior_is_judged_by_the_papers_prior():
    magnitude = np.linspace(-0.3, 0.1, 500)
    table = errors(500, method="prior", kind="isolated", mag_r_error=magnitude)
    row = verdict(table, "r error at 2 sigma")
    assert row["value"] == pytest.approx(-0.3 + 0.023 * 0.4) and row["better_than_paper"] == "no"
    assert set(judge(summarise_stamps(table, n_bootstrap=0))["method"]) == {"prior"}


def test_a_value_that_does_not_exist_is_no_success():
    nothing = errors(50, e1=np.full(50, np.nan))
    row = verdict(nothing, "alpha_1")
    assert np.isnan(row["value"]) and row["reached"] == "no"


def test_other_surveys_have_no_targets():
    assert stamp_targets("lsst10yr", LSST) == () and stamp_targets("arcelin2020", ("g", "r")) == ()
    assert stamp_targets("arcelin2020+visAsY", EUCLID)
    table = errors(60)
    table.meta["survey"] = "lsst10yr"
    summary = summarise_stamps(table, n_bootstrap=0)
    assert len(judge(summary)) == 0
    assert "## Targets" not in stamp_markdown(summary)


def test_markdown_and_ecsv_hold_the_summary(tmp_path):
    magnitude = np.full(300, 0.0317)
    summary = summarise_stamps(errors(300, mag_r_error=magnitude), n_bootstrap=5)
    paths = write_stamp_report(summary, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["stamps.md", "stampSummary.ecsv", "stampTargets.ecsv"]
    text = paths[0].read_text()
    assert "300 blended scenes of the test split of arcelin2020" in text and "package toy" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| deblender | median r error, worst")][
        :1
    ]
    assert "| 0.08: yes | 0.05: yes | 0.02: no |" in line and "+0.032" in line
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 9
    for block in tables:
        assert len({line.count("|") for line in block.splitlines()}) == 1
    back = Table.read(paths[1])
    for name in summary.colnames:
        np.testing.assert_array_equal(back[name], summary[name])
    assert back.meta["bins"] == "paper" and len(Table.read(paths[2])) == len(judge(summary))


def test_a_table_without_its_metadata_is_refused():
    table = errors(5)
    table.meta = {}
    with pytest.raises(VaeError, match="no bands in its metadata"):
        summarise_stamps(table)


def test_a_target_of_ones_own_is_judged():
    own = Target("deblender", "g magnitude", ("mag_g_median",), aim=0.1)
    (row,) = judge(summarise_stamps(errors(40), n_bootstrap=0), [own])
    assert row["aim_reached"] == "yes" and row["reached"] == "" and row["error"] == 0


# -- the page -----------------------------------------------------------------------


def page(tmp_path, *figures, **options):
    rng = np.random.default_rng(3)
    tables = [errors(200, method, e_error=rng.normal(0, 0.05, 200)) for method in ("deblender", "<sep> & co")]
    summary = summarise_stamps(join_errors(tables), n_bootstrap=5)
    path = write_deblender_report(tmp_path, summary, figures=figures, **options)
    return path.read_text(), summary


def test_the_page_holds_its_figures_tables_settings_and_commands_and_fetches_nothing(tmp_path):
    image = tmp_path / "figure6.png"
    image.write_bytes(encode_png(np.zeros((2, 3, 3), np.uint8)))
    drawn = WrittenFigure("figure6", "Errors in bins", "Medians of <i>e</i>.", {"png": image})
    lacking = WrittenFigure("figure9", reason="no table of real images")
    text, summary = page(
        tmp_path,
        drawn,
        lacking,
        settings={"peers": ["sep"]},
        repeat=[("Again", "bin/evaluateDeblenders.py R")],
    )
    assert base64.b64encode(image.read_bytes()).decode() in text
    assert "Medians of <i>e</i>." in text and "figure9: no table of real images" in text
    assert "<th>peers</th><td>[&#x27;sep&#x27;]</td>" in text and "bin/evaluateDeblenders.py R" in text
    assert f"{summary[0]['e_half_width']:.3f}" in text
    # Nothing comes from elsewhere.
    assert not re.search(r'(?:src|href)="(?!data:|#)', text) and "<script" not in text


def test_names_of_methods_are_text_on_the_page_and_links_lead_somewhere(tmp_path):
    text, _ = page(tmp_path)
    assert "&lt;sep&gt; &amp; co" in text and "<sep>" not in text
    targets = set(re.findall(r'href="#([^"]+)"', text))
    assert targets and targets <= set(re.findall(r'id="([^"]+)"', text))
    assert text.count("<tr class=ours>") and text.count("<details>") >= 4


def test_a_page_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(VaeError, match="cannot write"):
        page(tmp_path / "none")
