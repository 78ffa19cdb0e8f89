# make demo · make test · make check · make docs · make faults · make mutation      (each makes .venv first)
PYTHON ?= python3
BIN := .venv/bin

# A CPU build of PyTorch is enough here; where its own index can be reached it saves gigabytes.
# TORCH_INDEX= (empty) takes whatever pip is set up for.
TORCH_INDEX ?= $(shell command -v curl >/dev/null 2>&1 && curl -sfIm 5 -o /dev/null \
  https://download.pytorch.org/whl/cpu/torch/ && echo https://download.pytorch.org/whl/cpu)

# Tests run on as many processes as there are cores, with one torch thread each; those of one file share what they prepare.
WORKERS ?= -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Threads that wait must not spin: it halves the speed of small machines.
export GOMP_SPINCOUNT = 0
export OMP_WAIT_POLICY = passive

# What is imported is compiled once, and only then: pip would compile all of it, in more than a minute.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test faults check types docs mutation format clean

# The extra `render` would ask an index for igm-clevr-render; its folder in this repository is installed instead.
.venv/installed: pyproject.toml packages/igm-clevr-render/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python tools/install.py $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(BIN)/python tools/install.py -c constraints.txt -e '.[all,dev,docs,faces]' -e packages/igm-clevr-render
	touch $@

demo: .venv/installed
	$(BIN)/igm invert examples/images --overlay demo
	$(BIN)/igm invert examples/cells --model blood-cells --overlay demo
	$(BIN)/igm invert examples/faces --concepts attributes --overlay demo
	$(BIN)/igm zero-shot examples/animals --overlay demo
	$(BIN)/igm generate "3-5 pos" -n 8 -o demo/drawn --grid demo/drawn.png
	@echo "pictures with what was found drawn in, and a sheet of drawn ones: demo/"

# ARGS="-m slow" runs the long ones.
test: .venv/installed
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

# What igm does with bad inputs, planted files and sudden ends; ARGS="images --only tiff" runs some.
faults: .venv/installed
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(MAKE) --jobs=2 types test

types: .venv/installed
	$(BIN)/mypy

# The site of the documentation, in build/site; a warning is an error.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the site: build/site/index.html"

# Changes single lines of core and tells which changes no test notices; ARGS="--sample 25" tries some, ARGS=metrics one file.
mutation: .venv/installed
	$(BIN)/python tools/mutation.py $(ARGS)

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo build dist
