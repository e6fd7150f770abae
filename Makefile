# make book       install into .venv, run the demo profile through the notebooks, build the book, print where it is
# make test       the same environment: tests, notebooks under the smallest profile, a strict build of the book
# make notebooks  bring the outputs of the demo profile into the committed notebooks
# make lint       ruff and mypy
# make lock       requirements.lock anew (needs uv)
# make address    the address of git's remote into _config.yml and the notebooks' Colab cell
# make clean      remove build/ and caches; runs/ (computed results) and .venv stay
# With TORCH=cpu the lock's CUDA packages are left out: torch's own metadata says what it needs, which is none of them
# where pip is set to an index with builds of torch for processors (PIP_EXTRA_INDEX_URL, pip.conf).
PROFILE ?= demo
TORCH ?=
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: book test notebooks lint lock address clean

book: $(INSTALLED)
	@$(BIN)/python -m reproduction.notebooks fill --profile $(PROFILE) --into build/book
	@$(BIN)/jupyter-book build --quiet build/book --path-output build/book
	@echo "The book: $(CURDIR)/build/book/_build/html/index.html"

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $$($(BIN)/python -c "import os; print(min(4, 1 + (os.cpu_count() or 1)))") --dist loadfile --no-loadscope-reorder --nbval-lax tests book

notebooks: $(INSTALLED)
	$(BIN)/python -m reproduction.notebooks refresh --profile demo --into build/book

address: $(INSTALLED)
	$(BIN)/python -m reproduction.notebooks address

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy

lock:
	.ci/lock

$(INSTALLED): requirements.lock pyproject.toml
	@test -x $(BIN)/python || { \
		test -n "$(PYTHON)" || { echo "selm needs Python 3.11, 3.12, 3.13 or 3.14 on the PATH (or make PYTHON=...)" >&2; exit 1; }; \
		$(PYTHON) -m venv .venv; }
	@grep -vE '$(if $(filter cpu,$(TORCH)),^(cuda-|nvidia-|triton=),^#)' requirements.lock >.venv/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -r .venv/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $(INSTALLED)

clean:
	rm -rf build _build .pytest_cache .mypy_cache .ruff_cache .snakemake
