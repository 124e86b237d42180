# The two commands of the README: `make score` labels images, `make test` checks everything.

PYTHON ?= python3
IMAGES ?=
OUTPUT ?= out/labels
DEMO := out/demo-images
# Beside the labels; a bucket's report is a local file.
REPORT ?= $(if $(findstring ://,$(OUTPUT)),out/report.html,$(OUTPUT)/report.html)

# By the environment: in the commands a quote in a name would end the text.
export IMAGES OUTPUT REPORT

.PHONY: score test lint lock

# The stamp is the last thing written: an installation that broke off is done again.
.venv/installed: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pip install --quiet --compile -r requirements-dev.txt
	touch $@

# Without IMAGES: pictures made from a portrait that comes with matplotlib, into out/demo.
score: .venv/installed
ifeq ($(IMAGES),)
	rm -rf out/demo $(DEMO)
	.venv/bin/python -m lib.common.demo $(DEMO)
	.venv/bin/python -m jobs.score --images $(DEMO) --output out/demo
	@.venv/bin/python -m jobs.report --labels out/demo --output out/demo/report.html
else
	.venv/bin/python -m jobs.score --images "$$IMAGES" --output "$$OUTPUT"
	@.venv/bin/python -m jobs.report --labels "$$OUTPUT" --output "$$REPORT"
endif

test: lint
	.venv/bin/python -m pytest

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# After a change of requirements*.txt: pin again everything that they bring along.
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	sed '/^-c/d' requirements.txt > .lock/requirements.txt
	sed '/^-r/d' requirements-dev.txt > .lock/requirements-dev.txt
	.lock/bin/python -m pip install --quiet -r .lock/requirements.txt -r .lock/requirements-dev.txt
	(echo '# Every package that requirements.txt and requirements-dev.txt bring along; `make lock` writes it.'; \
	  .lock/bin/python -m pip freeze) > constraints.txt
	rm -rf .lock
