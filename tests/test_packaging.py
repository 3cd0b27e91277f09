# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package installs as it should, and the rooms keep to doc/design.md's rules.

Sources are read as syntax trees, so that an import inside a function counts.
"""

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "lsst" / "meas" / "extensions" / "vae"
NAME = "lsst.meas.extensions.vae"

HEADER = (
    "# This file is part of meas_extensions_vae.\n#\n"
    "# Copyright the meas_extensions_vae developers.\n# SPDX-License-Identifier: GPL-3.0-or-later\n"
)
NAMESPACE = "import pkgutil\n\n__path__ = pkgutil.extend_path(__path__, __name__)\n"

# Who may import whom. Science rooms, in doc/design.md's order: each may use those left of it.
COMMON = {"errors", "files", "paths", "version"}
SCIENCE = ("survey", "galaxies", "simulation", "network", "deblending", "measurement", "evaluation")
SCIENCE_LIBRARIES = {
    "astropy", "galsim", "h5py", "keras", "numpy", "photutils", "safetensors", "scipy", "threadpoolctl",
}  # fmt: skip
# Beyond those: the source of LSST's numbers, the backends, figures and tables, and others' deblenders.
EXTRA_LIBRARIES = {
    "survey": {"surveycodex"},
    "network": {"tensorflow", "jax", "onnx", "onnxruntime", "openvino"},
    "evaluation": {
        *("matplotlib", "pyarrow"),
        *("jax", "numpyro", "scarlet", "scarlet2", "sep", "lsst.scarlet.lite"),
    },
}
# Adapter rooms: libraries and inner rooms of each. They never import a Task or a command.
ADAPTERS = {
    "afw": ({"astropy", "numpy", "scipy", "h5py", "galsim"}, {"survey"}),
    "config": ({"pydantic", "pydantic_core", "annotated_types", "lsst.pex.config"}, set()),
    "repo": (
        {"astropy", "h5py", "numpy", "lsst"},
        {"afw", "catalogs", "config", "network", "simulation", "survey"},
    ),
}
LONG_FILES = {
    "tests/test_config_pex.py": "one table of cases, read beside lsst.pex.config's verdicts",
}
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
MAY_PICKLE = {
    "tests/test_config_model.py": "checks that configs survive the stack's own pickling",
    "tests/test_config_pex.py": "checks that configs survive the stack's own pickling",
    "tests/test_galaxies_real.py": "checks that galaxies can be sent to worker processes",
    "tests/test_simulation_shards.py": "checks that opened shards can be sent to worker processes",
}


def sources(*folders):
    """Our Python files below some folders, as paths relative to the clone."""
    files = [ROOT / "setup.py"]
    for folder in folders:
        files += sorted((ROOT / folder).rglob("*.py"))
    return [path.relative_to(ROOT) for path in files]


EVERYWHERE = ("python", "bin", "config", "tests", "benchmarks", "requirements")


@cache
def tree(path):
    return ast.parse((ROOT / path).read_text(), str(path))


def imports(path):
    """Dotted names of all the modules that a file of the package imports, ours by their full name."""
    parts = (ROOT / path).relative_to(ROOT / "python").with_suffix("").parts
    home = parts[:-1]  # the package that relative imports start from, in __init__.py too
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(home[: len(home) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            # `from . import x` and `from lsst.meas import x` may name modules.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(module):
    """First name below our package of a module of ours ('' for the package itself), None for others."""
    if module == NAME:
        return ""
    return module[len(NAME) + 1 :].split(".")[0] if module.startswith(NAME + ".") else None


def roomFiles(name):
    path = PACKAGE / name
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [file.relative_to(ROOT) for file in found if file.is_file()]


def trespasses(files, libraries, rooms):
    """Imports of some files that neither the libraries nor the rooms allow."""
    allowed = libraries | sys.stdlib_module_names
    for path in files:
        for module in imports(path):
            inner = room(module)
            if inner is not None and inner not in rooms | COMMON:
                yield f"{path}: {module}"
            elif inner is None and not any(
                module == library or module.startswith(library + ".") for library in allowed
            ):
                yield f"{path}: {module}"


def run(*args, **environment):
    """Run a command outside the clone, on the package that the environment alone gives."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MEAS_EXTENSIONS_VAE_DIR")}
    env.update(environment)
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, env=env, cwd=ROOT.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def runHere(code, *args):
    return run(sys.executable, "-c", code, *args, PYTHONPATH=str(ROOT / "python"))


# The rules of the rooms


@pytest.mark.parametrize("name", SCIENCE)
def test_science_rooms_import_science_libraries_and_rooms_left_of_them(name):
    libraries = SCIENCE_LIBRARIES | EXTRA_LIBRARIES.get(name, set())
    rooms = {"", *SCIENCE[: SCIENCE.index(name) + 1]} if name != "survey" else {"survey"}
    assert not list(trespasses(roomFiles(name), libraries, rooms))


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_rooms_import_no_task_and_no_command(name):
    libraries, rooms = ADAPTERS[name]
    assert not list(trespasses(roomFiles(name), libraries, rooms | {name}))


def test_the_bridge_alone_knows_pex_config():
    found = {
        path.name for path in roomFiles("config") if any(m.startswith("lsst.pex") for m in imports(path))
    }
    assert found == {"pexBridge.py"}


def test_every_room_is_known_to_these_rules():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= {*SCIENCE, *ADAPTERS}


def test_a_trespass_is_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = Path("python/lsst/meas/extensions/vae/network/bad.py")
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(
        "import os\nimport numpy as np\nfrom .package import f\nfrom .. import repo\n"
        "def f():\n    from lsst.utils import g\n    from ..cli import main\n"
    )
    found = [line.split(": ")[1] for line in trespasses([path], {"numpy"}, {"network"})]
    assert found == [f"{NAME}.repo", "lsst.utils.g", f"{NAME}.cli.main"]


# The rules of the files


def test_every_file_has_the_header():
    for path in sources(*EVERYWHERE):
        if path.parts[0] == "config":
            continue  # values for users to copy and change, not modules
        text = (ROOT / path).read_text()
        if text.startswith("#!"):
            text = text.split("\n", 1)[1]
        assert text.startswith(HEADER) or text == NAMESPACE, f"{path} lacks the header"


def test_no_file_is_too_long():
    long = {str(p) for p in sources(*EVERYWHERE) if len((ROOT / p).read_text().splitlines()) > 600}
    assert long <= set(LONG_FILES), "over 600 lines: split, or give a reason in LONG_FILES"
    assert set(LONG_FILES) <= long, "short enough by now: strike them from LONG_FILES"


def test_nothing_is_pickled_or_executed():
    for path in sources(*EVERYWHERE):
        for node in ast.walk(tree(path)):
            where = f"{path}:{getattr(node, 'lineno', '')}"
            if isinstance(node, ast.Import | ast.ImportFrom) and str(path) not in MAY_PICKLE:
                modules = (
                    [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                )
                assert not PICKLERS & {m.split(".")[0] for m in modules}, f"{where} imports a pickler"
            if not isinstance(node, ast.Call):
                continue
            options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert not options.get("allow_pickle"), f"{where} allows pickles"
            if isinstance(node.func, ast.Name):
                assert node.func.id not in ("exec", "eval", "compile", "__import__"), f"{where} runs code"
            elif isinstance(node.func, ast.Attribute):
                callee = ast.unparse(node.func)
                assert callee not in ("np.load", "numpy.load") or "allow_pickle" in options, (
                    f"{where}: np.load"
                )
                assert callee != "yaml.load", f"{where}: yaml.safe_load is meant"
                assert options.get("safe_mode", True), f"{where} loads Keras models with their code"


def test_scripts_can_be_run():
    for path in sorted((ROOT / "bin").glob("*.py")):
        assert os.access(path, os.X_OK), f"chmod +x {path.name}"
        assert path.read_text().startswith("#!/usr/bin/env python"), path.name


# Imports


def test_importing_the_package_costs_nothing():
    seconds, heavy = runHere(
        f"import sys, time; t = time.process_time(); import {NAME}; t = time.process_time() - t\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'galsim', 'astropy', 'numpy', 'lsst.daf', 'lsst.pipe'}\n"
        "print(t); print(*heavy & set(sys.modules))"
    ).splitlines()
    assert heavy == ""
    assert float(seconds) < 0.3


def test_all_that_the_package_names_is_there():
    runHere(f"import {NAME} as vae\nfor name in vae.__all__: getattr(vae, name)")


BLOCK = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("lsst.daf", "lsst.pipe", "lsst.pex", "lsst.utils", "lsst.ctrl", "pydantic")):
            raise ModuleNotFoundError(f"{name} is not to be had here", name=name)
sys.meta_path.insert(0, Refuse())
"""


def test_science_rooms_import_without_lsst_packages():
    modules = [
        ".".join(path.relative_to("python").with_suffix("").parts).removesuffix(".__init__")
        for name in SCIENCE
        for path in roomFiles(name)
    ]
    assert len(modules) > 20
    runHere(BLOCK + f"from importlib import import_module\nfor name in {modules}: import_module(name)")


def test_training_starts_without_lsst_packages():
    out = runHere(
        BLOCK
        + f"sys.argv = ['train', '--help']; runpy.run_module('{NAME}.network.train', run_name='__main__')"
    )
    assert "--train" in out


# Installs


def venv(path):
    """A virtual environment that also sees what this one has installed, except this package.

    A path in a .pth file is searched, but the .pth files in it, such as an editable install's, are not read.
    """
    run(sys.executable, "-m", "venv", "--without-pip", path)
    site = next((path / "lib").glob("python*/site-packages"))
    outer = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    (site / "outer.pth").write_text("\n".join(outer) + "\n")
    return path / "bin" / "python", site


def clone(folder):
    """What a wheel is built from, apart, so that no build litters the clone."""
    for name in ("python", "bin", "config", "pipelines"):
        skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "COPYRIGHT"):
        shutil.copy(ROOT / name, folder)
    return folder


def pip(*args):
    options = ("--disable-pip-version-check", "--no-input", "-q")
    return run(sys.executable, "-m", "pip", *options, *args, PIP_NO_INDEX="1")


SIMULATE = f"""
import lsst.daf.butler, {NAME} as vae
from {NAME}.galaxies import synthetic_galaxies
from {NAME}.paths import getDataDir, getPackageDir
task = vae.SimulateBlendsTask(config=vae.SimulateBlendsConfig(nScenes=4, survey="lsst10yr"))
sample = task.run(synthetic_galaxies(200, seed=1)).blendStamps
assert sample.n_scenes == 4 and sample.image(0).shape == (6, 64, 64) and sample.image(0).sum() > 0
assert list(getDataDir("config").glob("*.py")) and list(getDataDir("pipelines").glob("*.yaml"))
assert list(getPackageDir().glob("configs/*.yaml")) and (getPackageDir() / "py.typed").is_file()
print(vae.__file__, getDataDir("config"), len(list(getPackageDir().glob("models/*.vae.zip"))))
"""


def test_a_task_runs_from_an_installed_wheel(tmp_path):
    source = clone(tmp_path / "clone")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source)
    (wheel,) = tmp_path.glob("meas_extensions_vae-*.whl")
    shutil.rmtree(source)
    python, site = venv(tmp_path / "venv")
    pip("--python", python, "install", "--no-deps", wheel)
    file, config, models = run(python, "-c", SIMULATE).split()
    package = site / Path(*NAME.split("."))
    assert Path(file) == package / "__init__.py"
    assert Path(config) == package / "_data" / "config"
    assert int(models) == len(list(PACKAGE.glob("models/*.vae.zip")))
    installed = {path.name for path in python.parent.glob("*.py")}
    assert installed >= {path.name for path in (ROOT / "bin").glob("*.py")}
    assert "--config-file" in run(python.parent / "deblendVae.py", "--help")
    version = run(
        python, "-c", f"import {NAME}, importlib.metadata as m; print(m.version('meas-extensions-vae'))"
    )
    assert version.strip() in (PACKAGE / "version.py").read_text()


def test_an_editable_install_is_a_plain_path(tmp_path):
    source = clone(tmp_path / "clone")
    python, site = venv(tmp_path / "venv")
    pip("--python", python, "install", "--no-deps", "--no-build-isolation", "-e", source)
    (pth,) = site.glob("__editable__*.pth")
    assert pth.read_text().strip() == str(source / "python")
    out = run(
        python, "-c", f"import lsst.daf.butler, {NAME}, {NAME}.paths as p; print(p.getDataDir('pipelines'))"
    )
    assert Path(out.strip()) == source / "pipelines"


def test_a_clone_on_the_path_is_enough(tmp_path):
    python, _ = venv(tmp_path / "venv")
    code = f"import {NAME}.paths as p, lsst.daf.butler; print(p.__file__, p.getDataDir('config'))"
    file, config = run(python, "-c", code, PYTHONPATH=str(ROOT / "python")).split()
    assert Path(file) == PACKAGE / "paths.py"
    assert Path(config) == ROOT / "config"
