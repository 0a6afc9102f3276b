# make demo    set up everything, segment one real head, open the report at the end
# make test    set up everything, run all tests
# Both need Python 3.11 or newer and a package index; nothing else is downloaded.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help demo test lint types doctest clean

help:
	@sed -n 's/^# //p' Makefile

# torch first and pinned: a plain CPU build where the index has one
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,dev,demo]'
	touch $@

demo: $(STAMP)
	rm -rf demo
	$(BIN)/python benchmarks/make_demo.py demo/bids
	$(BIN)/deepmrseg-bids demo/bids demo/out participant
	$(BIN)/deepmrseg-bids demo/bids demo/out group
	@echo
	@echo "Label maps:  demo/out/sub-MNI152/anat/"
	@echo "Volumes:     demo/out/sub-MNI152/anat/*_morph.tsv, demo/out/group_seg-*_morph.tsv"
	@echo "Report:      open demo/out/sub-MNI152.html in a browser"

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

doctest: $(STAMP)
	$(BIN)/python -m pytest --doctest-modules deepmrseg_bids

clean:
	rm -rf $(VENV) demo build dist *.egg-info
