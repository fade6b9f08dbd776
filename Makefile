# Two commands do everything: make demo, make test. The environment is .venv in this folder.

PYTHON ?= python3
BIN := .venv/bin
# No endpoint or key of the person who runs this leaks in: everything below runs on the embedded endpoint.
ALONE := env -u OPENAI_BASE_URL -u OPENAI_API_KEY

.PHONY: install demo lab test check faults fuzz endurance soak cards bench notebooks pictures programs clean

install: .venv/dev

.venv/bin/python:
	$(PYTHON) -m venv .venv || \
	  { $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet "pip==26.3"

.venv/run: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/dev: .venv/run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	@touch $@

demo: .venv/run
	$(ALONE) $(BIN)/completions-magic demo

lab: .venv/dev
	$(BIN)/jupyter lab notebooks/quickstart.ipynb

# The tests drive a real browser and a real curl; on Debian as root they are installed, elsewhere asked for.
programs:
	@missing=; \
	command -v curl >/dev/null || missing="curl"; \
	for browser in chromium chromium-browser google-chrome google-chrome-stable none; do \
	  if [ $$browser = none ]; then missing="$$missing chromium"; elif command -v $$browser >/dev/null; then break; fi; \
	done; \
	[ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y $$missing; } || \
	  { echo "make test needs $$missing: please install it"; exit 1; }

test: check programs
	$(ALONE) $(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile
	$(ALONE) $(BIN)/python -m pytest --quiet --nbval --nbval-current-env notebooks
	$(ALONE) $(BIN)/python notebooks/execute.py --check

check: .venv/dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What servers do wrong, by every way in, and the official client beside them.
faults: .venv/dev
	$(ALONE) PYTHONPATH=tests $(BIN)/python -m faults

# The property tests, on a hundred times as many examples.
fuzz: .venv/dev
	$(ALONE) $(BIN)/python -m pytest --quiet --hypothesis-profile fuzz -m hypothesis

# Ten thousand requests on one connection and as many on one each, after which the server is no larger.
endurance: .venv/dev
	$(ALONE) SERVE_REQUESTS=10000 $(BIN)/python -m pytest --quiet tests/test_serve_load.py

# Twenty thousand requests through one kernel: does anything grow? Four minutes.
soak: .venv/dev
	$(ALONE) PYTHONPATH=tests $(BIN)/python -m soak

# What real servers honour. Their environment is made once, which takes minutes: one of them is compiled.
cards: .venv/dev .venv-foreign/ready
	$(ALONE) PYTHONPATH=tests $(BIN)/python -m cards

.venv-foreign/ready: pyproject.toml
	$(PYTHON) -m venv .venv-foreign || \
	  { $(PYTHON) -m venv --without-pip .venv-foreign && \
	    $(PYTHON) -m pip --python .venv-foreign/bin/python install --quiet pip; }
	.venv-foreign/bin/python -m pip install --quiet "pip==26.3"
	.venv-foreign/bin/python -m pip install --quiet --group cards
	@touch $@

# What loading costs is measured where nothing else is installed: the HTTP library loads more where it finds more.
.venv-plain/run: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m venv --without-pip .venv-plain
	$(BIN)/python -m pip --python .venv-plain/bin/python install --quiet --constraint constraints.txt --editable .
	@touch $@

bench: .venv/dev .venv-plain/run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python -m compileall -q completions_magic  # as pip does for who installs a package
	$(ALONE) $(BIN)/python benchmarks

notebooks: .venv/dev
	$(ALONE) $(BIN)/python notebooks/execute.py

pictures: .venv/dev
	$(ALONE) $(BIN)/python tests/pictures.py

clean:
	rm -rf .venv .venv-plain .venv-foreign
