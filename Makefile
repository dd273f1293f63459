# make demo, make test: on a fresh machine with Python >= 3.11 nothing else is needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo serve test gpu-check docs fuzz soak kill starts lint packages install triton clean

demo: install
	$(BIN)/glama-demo --out demo

# the page with the embedded network, in a browser; SERVE="--no-open --port 9000" gives options
serve: install
	$(BIN)/glama-serve $(SERVE)

# a process for each core, four at most; PyTorch in each keeps to one, or they wait for each other
test: export OMP_NUM_THREADS = 1
test: install
	$(BIN)/pytest -q -n logical --maxprocesses 4 --dist loadfile

# builds, compares and measures engines on this machine's GPU; GPU_CHECK="--model big-lama" gives options
gpu-check: install
	$(BIN)/python -m glama_deploy.benchmarks.gpu_check $(GPU_CHECK)

# docs/reliability.md explains the three campaigns and their tables
CASES ?= 2000
SEED ?= 0
REQUESTS ?= 10000
THREADS ?= 8
MOMENTS ?= 100

fuzz soak kill: export PYTHONPATH = tests
fuzz kill: export OMP_NUM_THREADS = 1

fuzz: install
	$(BIN)/python -m fuzz --cases $(CASES) --seed $(SEED)

soak: install
	$(BIN)/python -m fuzz.soak --requests $(REQUESTS) --threads $(THREADS) --seed $(SEED)

kill: install
	$(BIN)/python -m fuzz.kill --moments $(MOMENTS) --seed $(SEED)

# first calls of each engine from two threads, in 100 fresh processes of each kind
starts: install
	GLAMA_STARTS=100 $(BIN)/pytest -q tests/runtime/test_first_calls.py

# mypy reads the package once more for Windows and once for macOS: what Python lacks there is an error
lint: install packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pydoclint.main glama_deploy benchmarks engines export
	$(BIN)/hadolint examples/docker/*.Dockerfile examples/space/Dockerfile
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p glama_deploy -p fuzz
	cd build/types && for system in win32 darwin; do ../../$(BIN)/mypy --config-file ../../pyproject.toml \
		--platform $$system --cache-dir ../../.mypy_cache/$$system -p glama_deploy || exit 1; done

# the site in build/site; a broken link, an unknown name in the API reference and a file of another host fail
docs: install packages
	$(BIN)/zensical build --strict --clean
	! grep -rnE '<(script|link|img|iframe)[^>]+(src|href)="?(https?:)?//' build/site --include=*.html

# ruff and pydoclint read the checkout; mypy and the API reference read the packages under the names they are installed by
packages:
	rm -rf build/types && mkdir -p build/types/glama_deploy
	ln -s $(CURDIR)/glama_deploy/* $(CURDIR)/export $(CURDIR)/engines $(CURDIR)/benchmarks build/types/glama_deploy/
	ln -s $(CURDIR)/tests/fuzz build/types/fuzz

install: .venv/installed

# Python 3.10, which JetPack 6 has, needs older versions of some packages
CONSTRAINTS = $$($(BIN)/python -c 'import sys; \
	print("constraints.txt" if sys.version_info >= (3, 11) else "constraints-python3.10.txt")')

.venv/installed: pyproject.toml constraints.txt constraints-python3.10.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the packages of $(CONSTRAINTS) into .venv; the first time takes some minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint "$(CONSTRAINTS)" --editable '.[dev]'
	touch $@

# The real Triton server for tests/remote, and NVIDIA's client, in an environment of their own: the package needs NumPy 1.
# It has the server's program and its Python backend. GLAMA_TRITON=FOLDER uses an environment that is there.
triton: build/triton/installed

build/triton/installed:
	rm -rf build/triton
	$(PYTHON) -m venv build/triton
	build/triton/bin/pip install --quiet --disable-pip-version-check \
		nvidia-pytriton==0.7.0 tritonclient==2.73.0 pillow==13.0.0
	touch $@

clean:
	rm -rf .venv .cache build demo demo.png *.egg-info
