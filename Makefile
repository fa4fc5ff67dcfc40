# The commands of the README. Every one installs what it needs into .venv, once.
CONFIG ?= deploy/local.yaml
PORT ?=
GRPC_PORT ?=
# The first Python on the PATH that Ray has wheels for; a pyenv shim of a version that is not active
# exists but does not run, hence the try.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
CONSTRAINTS := deploy/constraints.txt
BIN := .venv/bin

.PHONY: help serve install test check format bench gpu-report torture proto audit lock train clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: install ## the service on http://127.0.0.1:8000; CONFIG=deploy/local.yaml PORT=8000 GRPC_PORT=9000
	@$(BIN)/serve-app run $(CONFIG) $(if $(PORT),--port $(PORT)) $(if $(GRPC_PORT),--grpc-port $(GRPC_PORT))

install: .venv/.installed ## .venv with everything in it; nothing to do when up to date

.venv/.installed: pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found; install one, or say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "this Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv: two to five minutes and 6 GB, for PyTorch carries CUDA"
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

test: install ## every test that this machine can run
	$(BIN)/pytest $(ARGS)

check: install ## style, types, the configs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@for config in deploy/*.yaml deploy/kuberay/*.yaml; do $(BIN)/serve-app check $$config || exit 1; done

format: install ## rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## this service beside the alternatives, twenty minutes; ARGS="--repeats 1": ten
	$(BIN)/serve-app bench compare $(ARGS)

gpu-report: install ## every figure that needs a GPU, nine minutes, into gpu-report.md; ARGS="--quick": a toy
	$(BIN)/serve-app bench gpu-report $(ARGS)

# libfaketime is for the fault "clock step", which is skipped without a C compiler: why it is built is in clock.py.
torture: install ## hostile input, faults, a soak: two hours, into torture-report.md; ARGS="--quick": ten minutes
	-CPPFLAGS=-UFAKE_PTHREAD $(BIN)/python -m pip install --quiet --force-reinstall --no-cache-dir --no-binary libfaketime libfaketime==3.0.1
	$(BIN)/serve-app bench torture $(ARGS)

train: install ## the bundled checkpoint, anew
	$(BIN)/python -m serve_app.bundled.train

# Not into .venv: grpcio-tools wants a protobuf of its own. From here, so that the messages know their package:
# else Ray's ordinary proxy cannot pickle them.
proto: ## serve_app/grpc/inference_pb2.py and .pyi, anew from inference.proto
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) -m venv "$$folder" && "$$folder/bin/python" -m pip install --quiet grpcio-tools==1.72.2 && \
	"$$folder/bin/python" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. serve_app/grpc/inference.proto

# Not into .venv: they bring thirty packages. --strict: a package that nobody could be asked about is no good news.
audit: install ## known vulnerabilities of every pinned package; sbom.json: what .venv holds, as CycloneDX
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) -m venv "$$folder" && "$$folder/bin/python" -m pip install --quiet pip-audit==2.10.1 cyclonedx-bom==7.5.0 && \
	"$$folder/bin/cyclonedx-py" environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o sbom.json && \
	{ "$$folder/bin/pip-audit" --strict --no-deps --disable-pip --progress-spinner off -r $(CONSTRAINTS) $(ARGS) || { \
	echo "not clean: a vulnerability above, or an ERROR: PyPI or OSV (ARGS='-s osv') could not be asked, so nothing is known"; \
	exit 1; }; }

lock: install ## rewrite deploy/constraints.txt from what .venv holds
	$(BIN)/python -m pip freeze --exclude-editable > $(CONSTRAINTS)

clean: ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
