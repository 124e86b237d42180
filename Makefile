# `make help` lists the targets.

# Empty: the first of python3.13, python3.12, python3.11 and python3 that fits.
PYTHON ?=
IMAGES ?=
ifeq ($(IMAGES),)
override IMAGES := out/demo-images
OUTPUT ?= out/demo
score: demo
else
OUTPUT ?= out/labels
endif
# Beside the labels; the report of a bucket is a local file.
REPORT ?= $(if $(findstring ://,$(OUTPUT)),out/report.html,$(OUTPUT)/report.html)

# Recipes read these from the environment: a quote in a name would end a quoted argument.
export PYTHON IMAGES OUTPUT REPORT

# Sets the shell variable python, or ends with one line. TensorFlow has no wheel for Python 3.14.
FIND_PYTHON = if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; \
  else set -- python3.13 python3.12 python3.11 python3; fi; \
  for python do \
    "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
      2> /dev/null && break; python=; \
  done; \
  if [ -z "$$python" ]; then echo "error: $${PYTHON:+PYTHON=$$PYTHON does not fit: }Python 3.11, 3.12 or 3.13 with" \
    "venv is needed; apt install python3.13-venv, or uv python install 3.13, then make PYTHON=python3.13 ..." >&2; \
    exit 1; fi

.DEFAULT_GOAL := help
.PHONY: help python score demo test lint lock

help: ## List the targets.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

python: ## Print the Python that the installation takes; PYTHON=... chooses one.
	@$(FIND_PYTHON); echo "$$python"

# The stamp is written last, so a broken installation is repeated.
.venv/installed: requirements.txt requirements-dev.txt constraints.txt
	@$(FIND_PYTHON); echo "$$python -m venv .venv"; "$$python" -m venv .venv
	PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pip install --quiet --compile -r requirements-dev.txt
	touch $@

# TensorFlow's CUDA libraries are gigabytes: only where there is a driver for them.
DRIVER := $(firstword $(wildcard /proc/driver/nvidia/version) $(shell command -v nvidia-smi))

.venv/cuda: .venv/installed
	@echo "an NVIDIA driver is here ($(DRIVER)): installing TensorFlow's CUDA libraries"
	sed -n 's/^tensorflow==/tensorflow[and-cuda]==/p' requirements.txt > .venv/cuda.txt
	PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pip install --quiet --compile -r .venv/cuda.txt -c constraints.txt
	touch $@

score: .venv/installed $(if $(DRIVER),.venv/cuda) ## Label IMAGES=... into OUTPUT=..., with a report; without IMAGES a demonstration.
	.venv/bin/python -m jobs.score --images "$$IMAGES" --output "$$OUTPUT"
	@.venv/bin/python -m jobs.report --labels "$$OUTPUT" --output "$$REPORT"

# Pictures made from a portrait that comes with matplotlib. Only the default output is made anew.
demo: .venv/installed
	rm -rf out/demo-images $(if $(filter file,$(origin OUTPUT)),out/demo)
	.venv/bin/python -m lib.common.demo out/demo-images

# Files of tests in their order, two at a time: the first ones take longest.
test: lint ## Run the linters and all tests.
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/installed ## Run the linters.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

lock: ## Pin all dependencies again, after a change of requirements*.txt.
	@$(FIND_PYTHON); rm -rf .lock && "$$python" -m venv .lock
	sed '/^-c/d' requirements.txt > .lock/requirements.txt
	sed '/^-r/d' requirements-dev.txt > .lock/requirements-dev.txt
	.lock/bin/python -m pip install --quiet -r .lock/requirements.txt -r .lock/requirements-dev.txt
	(echo '# Every package that requirements.txt and requirements-dev.txt bring along; `make lock` writes it.'; \
	  .lock/bin/python -m pip freeze) > constraints.txt
	rm -rf .lock
