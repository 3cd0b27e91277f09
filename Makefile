# `make test` and `make demo` need python3 (3.11 to 3.13), make and a compiler; they set up everything else.
# Another Python: make PYTHON=python3.12 VENV=.venv312 test

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
# More options for pytest: make test ARGS="-k shards -x"
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# The lock files list all that is needed, so pip has nothing to resolve.
INSTALL := $(PIP) install --quiet --no-deps
# One file a test worker at a time: what a file shares, such as TensorFlow, is loaded once.
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadfile
SUPPORTED := (3, 11) <= sys.version_info[:2] <= (3, 13)

.DELETE_ON_ERROR:
.PHONY: help install demo test test-slow lint format wheel lock clean distclean

help:
	@echo 'make demo        the main job: simulate a field, deblend it, measure, write demo/report.html'
	@echo 'make test        the tests; make test-slow for those that take minutes'
	@echo 'make install     $(VENV) with pinned dependencies and this package (demo and test do it)'
	@echo 'make lint        ruff: errors and format; make format rewrites'
	@echo 'make wheel       dist/*.whl'
	@echo 'make lock        pin dependencies anew: make lock PYTHONS="python3.11 python3.12 python3.13"'
	@echo 'make clean       remove what was built; make distclean removes $(VENV) and demo/ too'

# The stamps live in the environment and vanish with it. They are touched last,
# so that an install that was interrupted is taken up again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(not ($(SUPPORTED)))' || { \
		echo "make: $(PYTHON) is `$(PYTHON) --version 2>&1`: Python 3.11 to 3.13 is needed; name one: make PYTHON=python3.12" >&2; \
		exit 2; }
	@echo 'Making $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: requirements/run.txt | $(VENV)/.created
	@echo 'Installing the pinned dependencies (a few minutes, once)'
	@$(INSTALL) -r requirements/run.txt
	@touch $@

# Editable is a plain path in a .pth file; the scripts of bin/ are copied.
$(VENV)/.self: setup.py pyproject.toml python/lsst/meas/extensions/vae/version.py $(wildcard bin/*.py) $(VENV)/.run
	@$(INSTALL) --no-build-isolation --editable .
	@$(PIP) check
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.run
	@$(INSTALL) -r requirements/test.txt
	@touch $@

install: $(VENV)/.self

demo: $(VENV)/.self
	@$(PY) bin/getCosmos.py || echo 'make demo: without COSMOS, going on with synthetic galaxies'
	@$(PY) bin/demo.py --output demo

test: $(VENV)/.self $(VENV)/.test
	$(PYTEST) $(ARGS)

test-slow: $(VENV)/.self $(VENV)/.test
	$(PYTEST) -m slow $(ARGS)

# Both are always run: format's list is wanted even where there are errors.
lint: $(VENV)/.test
	@$(PY) -m ruff check .; errors=$$?; $(PY) -m ruff format --check . && exit $$errors

format: $(VENV)/.test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

wheel: $(VENV)/.test
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -l dist/*.whl

lock:
	$(PYTHON) requirements/lock.py $(if $(PYTHONS),$(PYTHONS),$(PYTHON)) $(ARGS)

clean:
	rm -rf build dist python/*.egg-info .pytest_cache .ruff_cache
	find python bin tests config benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) demo
