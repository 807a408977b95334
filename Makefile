# One command each; all of them work on a fresh machine. pip, not uv: see CONTRIBUTING.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: install demo studio test lint format unasync page lock protos protos-check quality bench clean

install: $(VENV)/.installed

# torch first and alone, so that nothing later resolves another build of it; torchvision without its dependencies,
# because its wheel's only unmet one is that torch.
$(VENV)/.installed: pyproject.toml clients/pyproject.toml clients/studio/pyproject.toml services/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1' setuptools
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --no-deps torchvision==0.28.0
	$(BIN)/pip install --quiet --editable clients --editable clients/studio --editable 'services[all]' --group dev
	touch $@

demo: install
	$(BIN)/python demo/run.py

# A page over a server on this machine. STUDIO="--studio-port 9000 --studio-open"
studio: install
	$(BIN)/python demo/studio.py $(STUDIO)

# Two workers of a thread each keep two cores busier than one of two: much of the suite waits for processes to start.
# The tests that share a cluster of such processes, and kill them, have the machine for themselves.
# A test that hangs even after its timeout of 300 s shows all stacks and ends its process, so that the suite ends.
HANGING := $(if $(GRAMLET_LONG_TESTS),,-o faulthandler_timeout=400 -o faulthandler_exit_on_timeout=true)

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(HANGING) --ignore tests/e2e
	$(BIN)/python -m pytest $(HANGING) tests/e2e

lint: install protos-check
	$(BIN)/python scripts/unasync.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	BIN=$(BIN) protos/breaking.sh
	BIN=$(BIN) docker/lint.sh
	BIN=$(BIN) clients/studio/lint.sh
	$(BIN)/python scripts/audit.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

# The synchronous client and its tests, from the asynchronous ones.
unasync: install
	$(BIN)/python scripts/unasync.py

# PixiJS, which draws the studio's map, from npm in the version of clients/studio/package-lock.json.
page: install
	BIN=$(BIN) clients/studio/build.sh

# Exact versions and hashes of what the images install.
lock: install
	BIN=$(BIN) scripts/lock.sh

# Presets x pictures by a judge: tests/quality/README.md. QUALITY="--size 512 --presets resnet50/default"
quality: install
	$(BIN)/python -m tests.quality $(QUALITY)

# A low grpcio-tools, in an environment of its own: it sets the users' floor for grpcio and protobuf.
.venv-protos/.installed:
	$(PYTHON) -m venv .venv-protos
	.venv-protos/bin/pip install --quiet grpcio-tools==1.72.2 'mypy-protobuf==3.6.0'
	touch $@

protos: .venv-protos/.installed
	protos/generate.sh .venv-protos/bin clients

protos-check: .venv-protos/.installed
	rm -rf build/protos-check && mkdir -p build/protos-check
	protos/generate.sh .venv-protos/bin build/protos-check
	diff --recursive --brief build/protos-check/gramlet clients/gramlet | grep -E '_pb2|\.proto|^Only in build' \
		&& { echo 'generated code is stale: run make protos'; exit 1; } || true

# Peers are installed beside the environment, so that they cannot change it.
build/peers/.installed:
	$(BIN)/pip install --quiet --no-deps --target build/peers pystiche==1.0.1 neural-style==0.5.7 tqdm
	$(BIN)/pip install --quiet --target build/peers/litserve litserve==0.2.19
	$(BIN)/pip install --quiet --target build/peers/ray 'ray[serve]==2.60.0'
	touch $@

bench: install build/peers/.installed
	PYTHONPATH=build/peers $(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) .venv-protos build out
