# Two commands do everything: make demo, make test. The environment is .venv in this folder.

PYTHON ?= python3
BIN := .venv/bin
# No endpoint or key of the person who runs this leaks in: everything below runs on the embedded endpoint.
ALONE := env -u OPENAI_BASE_URL -u OPENAI_API_KEY

.PHONY: install demo lab test check notebooks pictures clean

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

test: check
	$(ALONE) $(BIN)/python -m pytest --quiet
	$(ALONE) $(BIN)/python -m pytest --quiet --nbval --nbval-current-env notebooks

check: .venv/dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: .venv/dev
	$(ALONE) $(BIN)/python notebooks/execute.py

pictures: .venv/dev
	$(ALONE) $(BIN)/python tests/pictures.py

clean:
	rm -rf .venv
