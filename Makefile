# demo, check, test, test-long and mutate each make the environment they need, and make it anew when pyproject.toml changes.
#
#   PYTHON=python3.13          the interpreter to make environments from
#   ENVIRONMENTS=DIR           where they are made
#   ORACLE=1                   install PyTorch beside the tests, and fail without it; TORCH=torch==X.Y chooses which
#   REQUIRE=host,scipy         tools whose tests must run: a missing one is an error, not a skip
#   PYTEST_ARGS="-k network"   further arguments for pytest
#   CUDA_EXTRA=cuda12          the demo's CUDA extra, empty for none; default: what fits the driver

PYTHON ?= python3
ENVIRONMENTS ?= .venv
TORCH ?= torch
CUDA_EXTRA ?= $(shell $(PYTHON) tools/cuda_extra.py)

DEMO := $(ENVIRONMENTS)/demo
TEST := $(ENVIRONMENTS)/test
TEST_READY := $(TEST)/.installed $(if $(ORACLE),$(TEST)/.oracle)

empty :=
comma := ,
REQUIRED := $(subst $(empty) ,$(comma),$(strip $(REQUIRE) $(if $(ORACLE),torch)))
PYTEST := $(TEST)/bin/python -m pytest $(if $(REQUIRED),--require $(REQUIRED)) $(PYTEST_ARGS)

.PHONY: demo environment check test test-long mutate clean
.DELETE_ON_ERROR:

demo: $(DEMO)/.installed
	$(DEMO)/bin/gpubackprop train mnist-5k --out build/demo/mnist-5k
	$(DEMO)/bin/gpubackprop train digits --out build/demo/digits
	$(DEMO)/bin/python examples/scikit_learn.py

environment: $(TEST_READY)

check: $(TEST)/.installed
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/ruff check .
	$(TEST)/bin/mypy

test: check $(TEST_READY)
	$(PYTEST)

# An empty -m takes back pyproject.toml's "not slow".
test-long: check $(TEST_READY)
	$(PYTEST) -m ""

# Every fault planted in the kernels; "test" tries a third of them.
mutate: $(TEST_READY)
	$(PYTEST) -m "" tests/test_mutations.py tests/test_sanitizers.py

clean:
	rm -rf $(DEMO) $(TEST) build dist

define new_environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gpubackprop needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name a newer one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) has no venv or no pip. Debian and Ubuntu keep them in a package of their own: apt-get install python3-venv" >&2; exit 1; }
rm -rf $(@D)
$(PYTHON) -m venv $(@D)
endef

$(DEMO)/.installed: pyproject.toml
	$(new_environment)
	extra='$(CUDA_EXTRA)' && $(@D)/bin/python -m pip install --quiet --editable ".[demo$${extra:+,$$extra}]"
	touch $@

$(TEST)/.installed: pyproject.toml
	$(new_environment)
	$(@D)/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(TEST)/.oracle: $(TEST)/.installed
	$(@D)/bin/python -m pip install --quiet "$(TORCH)"
	touch $@
