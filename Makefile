# `make demo` and `make test` need nothing but Python 3.11 and a C compiler; each makes .venv when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints/ci.txt
INSTALLED := $(VENV)/.installed
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# Threads that wait do not spin: on a shared machine spinning slows everybody down, several times over.
export OMP_WAIT_POLICY := passive
# Each part says what it took: bash's own `time`.
SHELL := /bin/bash
export TIMEFORMAT := (%0R s, of CPU %0U + %0S s)
# One thread a process: models are tiny, and two threads wait for each other longer than they compute. By itself tests/chain
# takes all cores; beside another lane it has one thread too.
PYTEST := time OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.PHONY: demo oncology chains test corpora lanes lint unit privacy pages runs distributed prove kills faults chain slurm bench-small soak bench bundle evidence clean

demo: $(INSTALLED) .cache/demo/smollm2/config.json
	$(BIN)/python -m data_pipelines.corpora.hkcancor
	$(BIN)/aisc train experiment=demo
	$(BIN)/aisc runs show demo --replies

oncology: $(INSTALLED) .cache/demo/smollm2/config.json
	$(BIN)/python -m data_pipelines.corpora.oncology
	$(BIN)/aisc train experiment=oncology_sft

# Both chains from raw data to a release, on real corpora: the longer run; reckoned at 24 minutes on two idle cores, not timed.
chains: $(INSTALLED) .cache/demo/smollm2/config.json
	$(BIN)/python -m data_pipelines.corpora.ctcpc
	$(BIN)/python -m data_pipelines.corpora.hkcancor
	$(BIN)/python -m data_pipelines.corpora.script_pairs --pairs 150 --tokenizer .cache/demo/smollm2 --to .cache/demo/script_pairs_150
	$(BIN)/python -m data_pipelines.corpora.oncology
	$(BIN)/python -m data_pipelines.corpora.icd_pairs --pairs 150 --to .cache/demo/icd_pairs_150
	$(BIN)/aisc train experiment=hkgai_chain
	$(BIN)/aisc train experiment=oncology_chain

# The short checks first, on all cores: what fails, fails in minutes. Then the long ones, in two lanes.
test: lint unit privacy pages corpora lanes

# Most parts keep one core busy, tests/slurm less: two at a time take little longer than the longer one. What waits (slurm,
# faults, kills) comes beside what computes on one core, and before tests/distributed, whose ranks fill both. What a part
# says comes when it ends.
LANES := slurm chain faults kills runs distributed prove bench-small
lanes: $(INSTALLED)
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs=2 --output-sync=target $(LANES)

# Before the lanes, so that no two parts write them at once.
corpora: $(INSTALLED) .cache/demo/smollm2/config.json
	$(BIN)/python -m data_pipelines.corpora.hkcancor
	$(BIN)/python -m data_pipelines.corpora.oncology

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > .lint-imports.txt || (cat .lint-imports.txt; exit 1)
	-$(BIN)/python -m benchmarks.evidence check

unit: $(INSTALLED) .cache/demo/smollm2/config.json
	$(PYTEST) --numprocesses=2 --dist=loadfile tests/unit

# Identifiers of people in notes of three languages: what is found, what is not, false alarms on real sentences.
privacy: $(INSTALLED)
	$(PYTEST) tests/privacy

# The report and the board page in a real browser without a window: apt-get installs it when missing, as root. In CI never left out.
pages: $(INSTALLED)
	@status=0; $(BIN)/python -m tests.pages.packages || status=$$?; \
	case $$status in 0) $(PYTEST) tests/pages ;; 3) ;; *) exit $$status ;; esac

runs: $(INSTALLED)
	$(PYTEST) tests/runs tests/chains

distributed: $(INSTALLED) .cache/demo/smollm2/config.json
	$(PYTEST) tests/distributed

# Planted bugs are named, sound configurations and the shipped experiments pass.
prove: $(INSTALLED) .cache/demo/smollm2/config.json
	$(PYTEST) tests/prove

kills: $(INSTALLED)
	$(PYTEST) tests/kills

# Killed, suspended, failing ranks under torchrun.
faults: $(INSTALLED)
	$(PYTEST) tests/faults

# The main job on real input, and what it leaves.
chain: $(INSTALLED) .cache/demo/smollm2/config.json
	time $(BIN)/python -m pytest -q tests/chain

# A real Slurm of three nodes on this machine: installed through apt-get when missing, as root. In CI ($CI) never left out.
slurm: $(INSTALLED)
	@status=0; $(BIN)/python -m tests.slurm.packages || status=$$?; \
	case $$status in 0) $(PYTEST) tests/slurm ;; 3) ;; *) exit $$status ;; esac

# Full counts, in shards that continue where they stopped; each writes docs/evidence/NAME.json.
soak: $(INSTALLED)
	$(BIN)/python -m tests.soak

# Ratios against a reference in the same run.
bench: $(INSTALLED) .cache/demo/smollm2/config.json
	$(BIN)/python -m data_pipelines.corpora.hkcancor
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.prepare
	$(BIN)/python -m benchmarks.resume
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.saving
	$(BIN)/python -m benchmarks.payload
	$(BIN)/python -m benchmarks.labelled_positions
	$(BIN)/python -m benchmarks.demo

# Every benchmark once, at small size: that it runs, not what it measures.
bench-small: $(INSTALLED) .cache/demo/smollm2/config.json
	$(BIN)/python -m benchmarks.packing --documents 20000 --no-record
	$(BIN)/python -m benchmarks.reading --documents 2000 --no-record
	$(BIN)/python -m benchmarks.resume --documents 5000 --no-record
	$(BIN)/python -m benchmarks.prepare --documents 500 --no-record
	$(BIN)/python -m benchmarks.overhead --quick
	$(BIN)/python -m benchmarks.saving --quick
	$(BIN)/python -m benchmarks.payload --quick
	$(BIN)/python -m benchmarks.labelled_positions --quick
	$(BIN)/python -m benchmarks.privacy --no-record
	$(BIN)/python -m benchmarks.gates --documents 5000 --no-record
	$(BIN)/python -m benchmarks.gpu --tiny

# For nodes without internet: dist/aisc-bundle-*/, wheels of exactly constraints/ci.txt with checksums and install.sh.
# CUDA instead of CPU wheels: make bundle CONSTRAINTS=FILE, with exact versions of everything (not run by us).
CONSTRAINTS ?= constraints/ci.txt
bundle: $(INSTALLED)
	$(BIN)/python -m install.bundle --constraints $(CONSTRAINTS)

evidence: $(INSTALLED)
	$(BIN)/python -m benchmarks.evidence check

.cache/demo/smollm2/config.json: | $(INSTALLED)
	$(BIN)/python -m train.convert_gguf

# torch first: DeepSpeed's build looks for it. Another spec than this would pull the CUDA build on a machine without GPU.
$(INSTALLED): pyproject.toml constraints/ci.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 setuptools wheel ninja numpy
	$(PIP) --no-build-isolation --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .cache build dist *.egg-info
