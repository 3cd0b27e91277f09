# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures for print show the numbers of tables whose content is known, and are left out where they cannot."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table, vstack

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.text import Text  # noqa: E402

from lsst.meas.extensions.vae import deblending  # noqa: E402
from lsst.meas.extensions.vae.errors import VaeError  # noqa: E402
from lsst.meas.extensions.vae.evaluation import paper_figures_inputs as inputs  # noqa: E402
from lsst.meas.extensions.vae.evaluation.paper_figures import OTHERS, write_figures  # noqa: E402
from lsst.meas.extensions.vae.evaluation.paper_figures_compare import (  # noqa: E402
    METRICS,
    compare_methods,
    compared_series,
)
from lsst.meas.extensions.vae.evaluation.paper_figures_data import (  # noqa: E402
    Bins,
    Series,
    alphas,
    band_label,
    find_series,
    make_bins,
)
from lsst.meas.extensions.vae.evaluation.paper_figures_errors import (  # noqa: E402
    alpha_by_snr,
    distributions,
    ellipticity_plane,
    error_columns,
)
from lsst.meas.extensions.vae.evaluation.paper_figures_images import (  # noqa: E402
    Posterior,
    SceneImages,
    deblended_scenes,
    latent_corner,
    posterior_distributions,
)
from lsst.meas.extensions.vae.evaluation.paper_figures_style import (  # noqa: E402
    LEAST_FONT,
    method_look,
    save_figure,
)
from lsst.meas.extensions.vae.evaluation.paper_figures_summary import (  # noqa: E402
    compare_bound,
    compare_cost,
    compare_shear,
)
from lsst.meas.extensions.vae.evaluation.stamp_table import PAPER_EDGES  # noqa: E402

SIX = ("u", "g", "r", "i", "z", "y")
N = 400
# |e| errors of the ten bins of signal to noise.
STEPS = 0.01 * np.arange(-4, 6)


def errors(method="deblender", kind="blended", n=N, seed=1, bands=SIX, scale=1.0, e_error=None):
    """A table as `measure_stamps` makes it, of n scenes in each bin of signal to noise together."""
    rng = np.random.default_rng(seed)
    middles = np.sqrt(np.array(PAPER_EDGES["snr"][1:]) * PAPER_EDGES["snr"][:-1])
    table = Table({"method": np.full(n, method), "kind": np.full(n, kind)})
    table["snr"] = np.resize(middles, n)
    for name, top in (("b_tot", 0.5), ("b_closest", 0.9), ("delta_mag_c", 6.0)):
        table[name] = rng.uniform(0, top, n) if kind == "blended" else np.full(n, np.nan)
    table["n_galaxies"], table["r_mag"] = rng.integers(1, 5, n), rng.uniform(22, 27.5, n)
    for i in (1, 2):
        table[f"e{i}_true"] = rng.uniform(-0.5, 0.5, n)
        table[f"e{i}"] = scale * table[f"e{i}_true"]
        table[f"e{i}_error"] = table[f"e{i}"] - table[f"e{i}_true"]
    # Pairs of opposite sign leave medians of known size; 12.5 % are far, so 84 and 97.7 % differ.
    spread = np.resize(np.repeat([-0.06, 0.06, -0.02, 0.02, 0.0, 0.0, 0.0, 0.0], 10), n)
    table["e_error"] = np.resize(STEPS, n) + spread if e_error is None else e_error
    for band in bands:
        table[f"mag_{band}_error"] = np.resize(2 * STEPS, n) + spread
        table[f"flux_{band}_error"] = np.full(n, 0.03 * scale)
    for pair in zip(bands[:-1], bands[1:]):
        table["colour_{}_{}_error".format(*pair)] = np.full(n, 0.07)
    table["cosine"], table["ssim"], table["chi2"] = np.full(n, 0.9), np.full(n, 0.8), np.full(n, 0.5)
    table["truth_flag"] = table["shape_flag"] = np.zeros(n, bool)
    table.meta = {"survey": "arcelin2020", "bands": list(bands), "reference_band": "r"}
    return table


def joined(*tables):
    found = vstack(tables, metadata_conflicts="silent")
    found.meta = tables[0].meta
    return found


def panels(drawn, label):
    return [axes for axes in drawn.figure.axes if axes.get_ylabel() == label]


def ordinates(axes):
    """What lines with a name show, by their names."""
    found = {}
    for container in axes.containers:
        if container.get_label() and hasattr(container, "lines"):
            found[container.get_label()] = container.lines[0].get_ydata()
    return found


def least_font(figure):
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    return min(text.get_fontsize() for text in texts)


@pytest.fixture(scope="module")
def both():
    ten = errors(bands=(*SIX, "VIS"), seed=2)
    ten["e_error"] *= 2
    return [find_series(errors(), "blended"), find_series(ten, "blended")]


def test_medians_of_every_bin_and_band_set_are_drawn(both):
    drawn = error_columns(both, ("snr", "b_tot"), "Errors")
    shapes, magnitudes = panels(drawn, "median")[0], panels(drawn, "median")[2]
    medians = ordinates(shapes)
    np.testing.assert_allclose(medians["LSST $ugrizy$"], STEPS, atol=1e-12)
    np.testing.assert_allclose(medians["LSST + Euclid"], 2 * STEPS, atol=1e-12)
    np.testing.assert_allclose(ordinates(magnitudes)["LSST $ugrizy$"], 2 * STEPS, atol=1e-12)
    assert "400 scenes" in drawn.caption and "16 to 84 %" in drawn.caption


def test_boxes_reach_from_16_to_84_percent(both):
    drawn = error_columns(both[:1], ("snr",), "Errors")
    boxes = panels(drawn, r"$\Delta |e|$")[0].patches
    series, bins = both[0], make_bins(both[0]["snr"], "snr")
    levels, counts = bins.percentiles(series["e_error"], series["snr"])
    assert (counts == 40).all() and len(boxes) == 10
    first = np.percentile(series["e_error"][series["snr"] < bins.edges[1]], (16, 84))
    np.testing.assert_allclose([boxes[0].get_y(), boxes[0].get_y() + boxes[0].get_height()], first)
    np.testing.assert_allclose([box.get_y() for box in boxes], levels[1])


def test_thin_bins_have_no_box_and_no_bin_at_all_is_told(both):
    few = both[0].part(np.arange(N) < 95)  # ten in five bins, nine in the others
    drawn = error_columns([few], ("snr",), "Errors")
    np.testing.assert_allclose(ordinates(panels(drawn, "median")[0])["LSST $ugrizy$"], STEPS[:5], atol=1e-12)
    with pytest.raises(VaeError, match="no bin has 10 scenes"):
        error_columns([both[0].part(np.arange(N) < 50)], ("snr",), "Errors")


def test_all_rows_of_a_column_have_one_scale(both):
    drawn = error_columns(both, ("snr", "b_tot"), "Errors")
    for label in (r"$\Delta |e|$", r"$\Delta r$ [mag]"):
        assert len({axes.get_ylim() for axes in panels(drawn, label)}) == 1
    for rows in (panels(drawn, "median")[:2], panels(drawn, "median")[2:]):
        assert len({axes.get_ylim() for axes in rows}) == 1


def test_the_last_edge_is_within_its_bin_and_beyond_is_nowhere():
    bins = Bins("b_tot", np.array([0.0, 1.0, 2.0]))
    assert bins.numbers(np.array([-0.1, 0.0, 1.0, 2.0, 2.1, np.nan])).tolist() == [-1, 0, 1, 1, -1, -1]


def test_a_shape_whose_truth_has_none_is_no_error():
    table = errors()
    table["truth_flag"] = np.arange(N) < 10
    series = Series("x", table, "blended", "deblender")
    assert np.isnan(series["e_error"][:10]).all() and np.isfinite(series["mag_error"]).all()


def test_alpha_of_ellipticities_times_1_05_is_0_05():
    drawn = alpha_by_snr([find_series(errors(scale=1.05), "blended")], "Bias", n_bootstrap=5)
    axes = panels(drawn, r"$\alpha$, mean of both components")[0]
    ((label, values),) = ordinates(axes).items()
    assert len(values) == 10 and label.startswith("LSST $ugrizy$: +0.050 \u00b1 0.000 (plain +0.050)")
    np.testing.assert_allclose(values, 0.05, atol=1e-9)


def test_alpha_is_clipped_and_its_error_is_of_the_bootstrap():
    table = errors()
    rng = np.random.default_rng(3)
    table["e1"] = table["e1_true"] + rng.normal(0, 0.05, N)
    table["e1"][:4] = -8 * np.sign(table["e1_true"][:4])
    (alpha,), (error,), (plain,), (count,) = alphas(find_series(table, "blended"))
    assert abs(alpha) < 4 * error and 0.001 < error < 0.02
    assert plain < -0.05 and count == N


def test_arrows_are_the_median_errors_on_the_scale_of_the_axes():
    table = errors("prior", "isolated", n=4000)
    table["e1"], table["e2"] = table["e1_true"] + 0.03, table["e2_true"] - 0.02
    table["e1"][::7] += 3  # Outliers move no median.
    drawn = ellipticity_plane(find_series(table, "isolated"))
    (arrows,) = [a for a in drawn.figure.axes[3].collections if hasattr(a, "U")]
    assert len(arrows.U) > 100 and arrows.scale == 1 and arrows.angles == arrows.scale_units == "xy"
    np.testing.assert_allclose(arrows.U, 0.03, atol=1e-9)
    np.testing.assert_allclose(arrows.V, -0.02, atol=1e-9)


def test_distributions_count_every_galaxy_and_do_without_redshifts():
    table = errors("prior", "isolated")
    assert len(distributions(table).figure.axes) == 2
    table["redshift"] = np.linspace(0.1, 1, N)
    drawn = distributions(table)
    counts = [sum(bar.get_height() for bar in axes.patches) for axes in drawn.figure.axes]
    assert len(counts) == 3 and counts[0] == N and min(counts) >= 0.99 * N
    assert "redshift" in drawn.caption
    with pytest.raises(VaeError, match="no column 'r_mag'"):
        distributions(table["e1_true", "e2_true"])


def test_the_corner_shows_the_latents_that_vary_most():
    mean = np.random.default_rng(1).normal(0, 1, (500, 8)) * np.array([1, 0.1, 3, 0.1, 2, 0.1, 0.1, 0.1])
    drawn = latent_corner(mean, number=3)
    assert [axes.get_xlabel() for axes in drawn.figure.axes[-3:]] == ["$z_{2}$", "$z_{4}$", "$z_{0}$"]
    assert len(drawn.figure.axes) == 6 and "500 scenes" in drawn.caption
    with pytest.raises(VaeError, match="one of each at least"):
        latent_corner(np.zeros((0, 8)))


def picture(value, size=20):
    return np.full((size, size, 3), value, np.uint8)


def test_scenes_show_input_output_and_target_with_marks_on_galaxies():
    scenes = [
        SceneImages(
            {"input": picture(10 * k), "output": picture(100), "target": picture(200)}, [[9.5, 9.5], [4, 12]]
        )
        for k in range(3)
    ]  # fmt: skip
    drawn = deblended_scenes(scenes, "Scenes")
    axes = drawn.figure.axes
    assert [a.get_title() for a in axes[:6]] == ["input", "output", "target"] * 2 and len(axes) == 9
    assert [int(a.images[0].get_array()[0, 0, 0]) for a in axes[3:6]] == [10, 100, 200]
    marks = [(line.get_marker(), *line.get_xydata()[0]) for line in axes[0].lines]
    assert marks == [("+", 9.5, 9.5), ("x", 12, 4)]
    assert np.ptp(axes[0].get_xlim()) == 10
    with pytest.raises(VaeError, match="0 sets of panels"):
        deblended_scenes([], "Scenes")


def test_posteriors_of_two_methods_stand_side_by_side_with_their_medians():
    rng = np.random.default_rng(2)
    draws = {"six": (rng.normal(0.1, 0.02, 5000), rng.normal(-0.2, 0.05, 5000))}
    draws["ten"] = (draws["six"][0] / 2, draws["six"][1] / 2)
    one = Posterior(picture(50), [[9.5, 9.5]], draws, {"S/N": 42.0})
    drawn = posterior_distributions([one, one])
    medians = [line.get_xdata()[0] for line in drawn.figure.axes[1].lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(medians, [0.1, 0.05], atol=1e-3)
    assert "5\u202f000 draws" in drawn.caption and drawn.figure.legends[0].get_texts()[1].get_text() == "ten"


@pytest.fixture(scope="module")
def compared():
    worse = errors("sep", seed=1)
    worse["e_error"] = 3 * worse["e_error"] + 0.01
    worse["e_error"][:4] = np.nan
    return compared_series(joined(errors("none", e_error=np.full(N, 9.0)), errors("one_pass"), worse))


def test_methods_are_compared_by_median_half_width_and_failures(compared):
    drawn = compare_methods(compared, "e", SIX)
    strip = drawn.figure.axes[0]
    assert [tick.get_text() for tick in strip.get_yticklabels()] == ["VAE, one pass", "SEP", "not deblended"]
    texts = [text.get_text() for text in strip.texts]
    assert texts[:3] == ["median", "half-width", "failures"]
    width = (np.percentile(compared[1]["e_error"][4:], (16, 84)) @ (-0.5, 0.5)).round(4)
    median = np.median(compared[1]["e_error"][4:])
    assert texts[6:9] == [f"{median:+.4f}", f"{float(f'{width:.3g}'):g}", "4"]
    # What is no deblender does not set the scale.
    assert strip.get_xlim()[1] < 1
    lines = {line.get_label(): line.get_ydata() for line in panels(drawn, r"median $\Delta |e|$")[0].lines}
    snr = compared[0]["snr"]
    edges = np.unique(np.quantile(snr, np.linspace(0, 1, 6)))
    inside = (snr >= edges[0]) & (snr < edges[1])
    assert lines["VAE, one pass"][0] == pytest.approx(np.median(compared[0]["e_error"][inside]))


@pytest.mark.parametrize(
    "metric, value", [("cosine", 0.1), ("ssim", 0.2), ("chi2", 0.5), ("flux", 0.03), ("colour", 0.07)]
)
def test_scores_are_distances_from_the_best(compared, metric, value):
    drawn = compare_methods(compared, metric, SIX)
    label = f"median {METRICS['colour'].label.format(c='g - r')}" if metric == "colour" else None
    row = panels(drawn, label or ("mean" if metric == "flux" else "median"))[0]
    for line in [line for line in row.lines if len(line.get_ydata()) > 2]:
        np.testing.assert_allclose(line.get_ydata(), value)


def test_a_method_looks_the_same_whoever_stands_beside_it():
    assert method_look("scarlet2", 0) == method_look("scarlet2", 5) != method_look("sep")
    colours = {method_look(name).colour for name in ("one_pass", "refined", "iterative", "scarlet2", "sep")}
    assert len(colours) == 5


def summary():
    rows = []
    for method, seconds in (("one_pass", 0.002), ("sep", 0.1), ("none", np.nan)):
        for by, low, high in (("all", np.nan, np.nan), ("snr", 20.0, 50.0), ("snr", 50.0, 100.0)):
            rows.append((method, "blended", by, low, high, 100, seconds, 0.05, 0.1, 1.5, 0.1, 2.5, 0.2))
    names = (
        "method", "kind", "by", "low", "high", "scenes", "seconds_per_source", "e_half_width",
        "mag_half_width",
        "component_ratio", "component_ratio_error", "mag_ratio", "mag_ratio_error",
    )  # fmt: skip
    return Table(rows=rows, names=names, meta={"reference_band": "r"})


def test_cost_and_bound_are_those_of_the_summary():
    axes = compare_cost(summary()).figure.axes
    points = {line.get_label(): line.get_xydata()[0].tolist() for line in axes[1].lines}
    assert points == {"VAE, one pass": [2.0, 0.1], "SEP": [100.0, 0.1]}
    drawn = compare_bound(summary())
    assert [set(ordinates(a)["SEP"].tolist()) for a in drawn.figure.axes] == [{1.5}, {2.5}]
    with pytest.raises(VaeError, match="no column 'mag_ratio'"):
        compare_bound(summary()["method", "kind", "by", "low", "high", "scenes", "component_ratio"])


def test_shear_biases_have_both_components():
    names = ["method", "kind", "scenes"] + [
        f"{x}_{i}{e}" for x in "mc" for i in (1, 2) for e in ("", "_error")
    ]
    rows = [("target", "blended", 50, 0.05, 0.01, 0.04, 0.01, 0, 1e-3, 0, 1e-3)]
    biases = Table(
        rows=[*rows, ("one_pass", "blended", 50, 0.02, 0.01, 0.01, 0.01, 0, 1e-3, 0, 1e-3)], names=names
    )
    drawn = compare_shear(biases)
    lines = [line.get_xdata() for line in drawn.figure.axes[0].lines if line.get_marker() in "os"]
    found = [x[0] for x in lines if len(x)]
    assert found == [0.05, 0.04, 0.02, 0.01]


def test_labels_tell_the_bands():
    assert band_label({"bands": list(SIX)}) == "LSST $ugrizy$"
    assert band_label({"bands": [*SIX, "VIS"], "survey": "arcelin2020"}) == "LSST + Euclid"
    assert band_label({"bands": ["g", "r"], "survey": "hscwide"}) == "hscwide $gr$"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    table = joined(errors(), errors("none", seed=3), errors("prior", "isolated"))
    folder = tmp_path_factory.mktemp("figures")
    others = {"bands": joined(errors(bands=(*SIX, "VIS")), errors("prior", "isolated", bands=(*SIX, "VIS")))}
    others |= {"peaks": errors(seed=5), "real": errors(seed=6, scale=0.7)}
    only = ("figure1", "figure3", "figure4", "figure5", "figure9", "compare_e")
    found = write_figures(table, summary(), folder / "new", others=others, n_bootstrap=3, only=only)
    return {figure.name: figure for figure in found}


def test_each_figure_is_written_as_pdf_and_png_or_left_out_with_a_reason(written):
    drawn = {name for name, figure in written.items() if figure.paths}
    assert drawn == set(written) - {"figure3", "figure9"} and len(drawn) == 4
    for name, figure in written.items():
        if name in drawn:
            assert (
                set(figure.paths) == {"pdf", "png"} and figure.title and figure.caption and not figure.reason
            )
            assert figure.paths["pdf"].read_bytes()[:5] == b"%PDF-"
            assert figure.paths["png"].read_bytes()[1:4] == b"PNG"
        else:
            assert figure.reason and not figure.paths
    assert written["figure9"].reason == "no table of errors of real galaxies: give others 'transferred'"
    assert written["figure3"].reason == "nothing to draw from: give latents"


def test_pdfs_embed_truetype_fonts_and_no_type_3(written):
    for name in ("figure4", "figure5", "compare_e"):
        pdf = written[name].paths["pdf"].read_bytes()
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf


def test_a_table_that_lacks_columns_leaves_figures_out(tmp_path):
    table = joined(errors(), errors("prior", "isolated"))
    table.remove_columns(["cosine", "b_tot", "e1"])
    only = ("figure4", "figure5", "figure6", "figure8", "compare_cosine", "compare_cost")
    found = {f.name: f for f in write_figures(table, None, tmp_path, ("svg",), n_bootstrap=0, only=only)}
    lacking = {"figure4": "e1", "figure6": "b_tot", "figure8": "e1", "compare_cosine": "cosine"}
    for name, column in lacking.items():
        assert f"has no column {column!r}: measure it again" in found[name].reason
    assert found["figure5"].paths["svg"].read_text().startswith("<?xml") and not found["figure5"].reason
    assert found["compare_cost"].reason == "nothing to draw from: give summary"
    empty = write_figures(table[:0], None, tmp_path, ("png",))
    assert all(figure.reason for figure in empty) and len(empty) == 11 + len(METRICS) + 4
    assert all(figure.reason for figure in write_figures(Table(), None, tmp_path))


def test_unknown_formats_and_tables_are_refused(tmp_path):
    with pytest.raises(VaeError, match="format 'eps' is unknown: expected one of pdf, png, svg"):
        write_figures(errors(), None, tmp_path, ("eps",))
    with pytest.raises(VaeError, match=f"expected one of {', '.join(OTHERS)}"):
        write_figures(errors(), None, tmp_path, others={"euclid": errors()})
    with pytest.raises(VaeError, match="figure 'figure2' is unknown: expected one of figure1, figure3"):
        write_figures(errors(), None, tmp_path, only=["figure2"])
    (tmp_path / "file").write_text("")
    with pytest.raises(VaeError, match="give another folder"):
        write_figures(errors(), None, tmp_path / "file")


def test_letters_are_large_enough_for_print_whatever_the_users_settings_are(both, compared):
    with matplotlib.rc_context({"font.size": 3, "xtick.labelsize": 3}):
        found = [error_columns(both, ("snr",), "x"), compare_methods(compared, "e"), compare_cost(summary())]
    for drawn in found:
        assert least_font(drawn.figure) >= LEAST_FONT
        assert drawn.figure.get_figwidth() in (3.5, 7.1)


def test_equal_data_make_equal_files(tmp_path):
    texts = [
        save_figure(compare_cost(summary()).figure, tmp_path / f"{k}.{kind}").read_bytes()
        for kind in ("pdf", "svg")
        for k in range(2)
    ]
    assert texts[0] == texts[1] and texts[2] == texts[3]


@pytest.fixture(scope="module")
def sample():
    pytest.importorskip("galsim")
    from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
    from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
    from lsst.meas.extensions.vae.survey import get_survey

    galaxies, survey = synthetic_galaxies(500, seed=1), get_survey("arcelin2020", ("g", "r", "i"))
    return simulate_stamps(galaxies, survey, SceneSettings(kind="blended"), 8, seed=1, split="test")


def test_examples_are_the_scenes_that_are_asked_for_with_their_galaxies(sample):
    scenes = inputs.scene_examples(sample, {"output": lambda batch: batch.target}, scenes=[5, 2])
    assert list(scenes[0].panels) == ["input", "output", "target"]
    np.testing.assert_array_equal(scenes[0].panels["output"], scenes[0].panels["target"])
    assert (scenes[0].panels["input"] != scenes[1].panels["input"]).any()
    assert [len(scene.centres) for scene in scenes] == [sample.truth["n_galaxies"][k] for k in (5, 2)]
    np.testing.assert_allclose(scenes[0].centres[0], 31.5)
    chosen = inputs.scene_examples(sample, {}, 3, seed=4)
    assert len(chosen) == 3 and deblended_scenes(chosen, "Scenes").figure.axes


class Encoder:
    """A network that knows the truth of the scenes, and has no doubt."""

    bands = ("g", "r", "i")
    architecture = SimpleNamespace(conditional=False)
    floors = {"shape": 0.0, "flux": 0.0}

    def __init__(self, sample, scales):
        self.package = SimpleNamespace(card={"pixel_scale": scales})
        self.sample = sample

    def encode(self, images, noise, psfs=None):
        return np.zeros((len(images), 4)), np.zeros((len(images), 4))

    def decode(self, latents, noise, psfs=None):
        return np.repeat(self.sample.image(self.scene, "target")[None], len(latents), axis=0)


def test_latents_are_those_of_the_first_scenes(sample):
    assert inputs.latent_means(Encoder(sample, [0.2]), sample, 3).shape == (3, 4)
    assert inputs.latent_means(Encoder(sample, [0.2]), sample).shape == (8, 4)


def test_draws_of_a_network_without_doubt_or_error_are_the_truth(sample):
    network = Encoder(sample, [0.2, 0.1])
    network.scene = 3
    (one,) = inputs.posterior_examples(sample, {"sure": network}, n_samples=20, scenes=[3])
    for found in one.errors["sure"]:
        assert found.shape == (20,)
        np.testing.assert_allclose(found, 0, atol=1e-5)
    assert one.facts["galaxies"] == sample.truth["n_galaxies"][3]


def test_draws_of_one_pixel_scale_are_those_of_draw_posterior(sample, monkeypatch):
    target = sample.image(3, "target")[1].sum(dtype=float)
    draws = SimpleNamespace(
        ellipticities=lambda band, psf: np.full((5, 2), (0.3, 0.4)),
        magnitudes=lambda: np.tile([9.0, 0.1 - 2.5 * np.log10(target), 9.0], (5, 1)),
    )
    seen = {}

    def deblend(*args, settings, **kwargs):
        seen["refine"] = settings.refine
        return SimpleNamespace(failed=[False])

    monkeypatch.setattr(deblending, "deblend_blend", deblend)
    monkeypatch.setattr(deblending, "draw_posterior", lambda *args, **kwargs: draws)
    (one,) = inputs.posterior_examples(sample, {"x": Encoder(sample, [0.2])}, n_samples=5, scenes=[3])
    e, magnitude = one.errors["x"]
    true = np.hypot(sample.truth["e1"][3], sample.truth["e2"][3])
    assert e == pytest.approx(0.5 - true, abs=5e-3) and magnitude == pytest.approx(0.1) and seen["refine"]
