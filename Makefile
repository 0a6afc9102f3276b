# make demo    install, segment an average brain (MNI152, skull-stripped), write a report
# make test    install, run all tests
# Both require Python 3.11 or newer and a package index; nothing else is downloaded.
# make web     build the page for browsers (web/dist); also requires Node.js 20.19 or newer with npm
# make web-serve   serve it on this computer

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# test files run in parallel; each process takes a whole file, so that its fixtures are made once
JOBS   ?= 2
SCRIPTS = .ci/run $(shell git ls-files '*.sh' '*.sbatch')

.PHONY: help setup demo test lint types doctest docs web web-serve bench-check clean

help:
	@sed -n 's/^# //p' Makefile

# torch first and pinned: a plain CPU build where the index has one
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,dev,demo,docs,harmonise]'
	touch $@

setup: $(STAMP)

demo: $(STAMP)
	rm -rf demo
	$(BIN)/python benchmarks/make_demo.py demo/bids
	$(BIN)/deepmrseg-bids demo/bids demo/out participant
	$(BIN)/deepmrseg-bids demo/bids demo/out group
	@echo
	@echo "Label maps:  demo/out/sub-MNI152/anat/"
	@echo "Volumes:     demo/out/sub-MNI152/anat/*_morph.tsv, demo/out/group_seg-*_morph.tsv"
	@echo "Report:      open demo/out/sub-MNI152.html and demo/out/group.html in a browser"

# the examples in docstrings too; tests/conftest.py says which files come first
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder \
		--durations 15 --doctest-modules tests deepmrseg_bids

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck $(SCRIPTS)

types: $(STAMP)
	$(BIN)/mypy

doctest: $(STAMP)
	$(BIN)/python -m pytest --doctest-modules deepmrseg_bids

# the site, in site/index.html; a broken link or anchor is an error
docs: $(STAMP)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky \
		-d build/doctrees docs site

# the page for browsers; its packages are those of web/package-lock.json
WEB := web/node_modules/.installed
$(WEB): web/package-lock.json
	cd web && npm ci --ignore-scripts --silent
	touch $@

web: $(STAMP) $(WEB)
	$(BIN)/python web/build_models.py build/web-models
	cd web && npm run --silent build

web-serve:
	$(PYTHON) web/serve.py

# ratios of times inside one run, against their bounds; on an idle machine
bench-check: $(STAMP)
	$(BIN)/python benchmarks/check.py

clean:
	rm -rf $(VENV) demo build dist site web/dist web/node_modules *.egg-info
