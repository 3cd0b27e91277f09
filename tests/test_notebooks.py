# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The notebooks of doc/notebooks run from a clean kernel, and are stored with outputs fit to be read."""

import getpass
import importlib.util
import platform
import re
from pathlib import Path

import pytest

pytest.importorskip("nbclient")

import nbformat  # noqa: E402
from nbclient.exceptions import CellExecutionError  # noqa: E402

# What the kernels import; not here, where it would take its seconds.
for _module in ("ipykernel", "matplotlib", "keras", "lsst.daf"):
    if importlib.util.find_spec(_module) is None:
        pytest.skip(f"notebooks need {_module}", allow_module_level=True)

FOLDER = Path(__file__).resolve().parents[1] / "doc" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

# Seconds that a cell may take: ten times as long as the longest does on two idle cores.
LIMIT = 300

# What must be true in the kernel when the last cell is done.
CHECKS = {
    "five-minutes": """
        assert np.median(np.abs(table["off"])) < 0.1 and np.abs(table["chi2"] - 1).max() < 0.1
        assert e.shape == (1000, 2) and magnitudes.shape == (1000, 6)
        assert abs(np.nanmedian(magnitudes[:, r]) - true["mag_r"]) < 0.15
    """,
    "simulate-train-deblend-measure": """
        assert history[-1]["validation_loss"] < history[0]["validation_loss"]
        toy, one, refined = errors
        assert len(results["toy, one pass"].deblendedCatalog) > 20
        assert refined["e1"] < toy["e1"] and refined["r [mag]"] < toy["r [mag]"]
        assert len(objects) > 5 and np.isfinite(objects["deblend_chi2"]).all()
    """,
    "read-the-report": """
        assert dict(zip(overall["method"], overall["e_half_width"]))["refined"] < 0.06
        assert paths[0].name == "report.html" and "figure7" in left_out
        assert len(errors) == 200 and np.abs(worst["mag_r_error"]).min() > errors["mag_r_error"].std()
    """,
    "scarlets-slot": """
        assert {p["deblend_nPeaks"] for p in parents if p["deblend_skipped"]} == {15} and marked.any()
        assert len(objects) == len(models) == sum(p["deblend_nPeaks"] for p in parents) - 15
        assert all(child.getFootprint().isHeavy() for child in children) and lost < 1e-3 * noise
    """,
}


def store():
    spec = importlib.util.spec_from_file_location("store_notebooks", FOLDER / "store.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(path):
    """Kind and text of each stored output; of pictures, their type."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            kind = output.get("name", output.output_type)
            texts = [output.get("text", ""), *(output.get("traceback", ()))]
            for form, data in output.get("data", {}).items():
                texts.append(form if form.startswith("image/") else data)
            yield kind, "".join(texts)


def name_of(path):
    return path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_runs_from_a_clean_kernel_and_its_results_hold(path, tmp_path):
    checks = "\n".join(line.strip() for line in CHECKS.get(path.stem, "").splitlines())
    store().execute(path, tmp_path, timeout=LIMIT, checks=checks)


def test_a_cell_that_fails_fails_the_notebook_and_there_is_no_network(tmp_path):
    cell = nbformat.v4.new_code_cell("import urllib.request; urllib.request.urlopen('http://192.0.2.1/')")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "fails.ipynb")
    with pytest.raises(CellExecutionError, match="executed without a network: no connection to 192.0.2.1"):
        store().execute(tmp_path / "fails.ipynb", tmp_path / "folder", timeout=60)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_stored_as_one_execution_from_top_to_bottom_left_it(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    assert "image/png" in "".join(text for _, text in outputs(path))
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_stored_outputs_have_no_errors_and_no_warnings(path):
    for kind, text in outputs(path):
        assert kind not in ("error", "stderr"), text
        assert not re.search(r"Traceback|Warning|WARN|\bERROR\b", text), text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_stored_notebook_names_no_machine_no_user_and_no_absolute_path(path):
    cells = nbformat.read(path, as_version=4).cells
    for text in [cell.source for cell in cells] + [text for _, text in outputs(path)]:
        assert not re.search(r"(?<![\w.:/<])/[\w.+-]+/[\w.+-]|\b[A-Z]:\\", text), text
        assert set(re.findall(r"\bu/([\w.-]+)/", text)) <= {store().USER}, text
        for name in (platform.node(), getpass.getuser()):
            # "root" and the like are words, too.
            assert len(name) < 5 or name not in text, text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_links_of_a_notebook_lead_somewhere(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    headings = {line.lstrip("# ").replace(" ", "-") for line in prose.splitlines() if line.startswith("#")}
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert (FOLDER / link).exists(), link
