# All targets set up what they need in .venv; nothing but make and Python >= 3.11 has to be there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# make train and make eval work on what fvrid build-syn, build-real and split wrote
DATA   ?= data/fvrid-syn
REAL   ?= $(if $(filter data/fvrid-syn,$(DATA)),$(if $(wildcard data/fvrid-real/dataset.json),data/fvrid-real))
RECIPE ?= default
RUN    ?= runs/$(RECIPE)
SET    ?=
GPUS   ?= 1

DEMO   := build/demo

.DEFAULT_GOAL := help
.PHONY: help install demo train eval report test test-fast lint format mini depth ablation-data ablate ablate-stages ablate-methods settle check-mini bench

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## install everything into .venv

$(VENV)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: install  ## the whole path on FVRID-Mini: dataset, training, scores, reports (five minutes or so)
	rm -rf $(DEMO)
	$(BIN)/fvrid build-syn --src mini --out $(DEMO)/fvrid-syn
	$(BIN)/fvrid split $(DEMO)/fvrid-syn
	$(BIN)/fvrid build-real --src mini --out $(DEMO)/fvrid-real
	$(BIN)/fvrid split $(DEMO)/fvrid-real
	$(BIN)/fvrid verify $(DEMO)/fvrid-syn
	$(BIN)/fvrid report $(DEMO)/fvrid-syn -o $(DEMO)/dataset.html
	$(BIN)/sjdl train --data $(DEMO)/fvrid-syn --real $(DEMO)/fvrid-real --recipe manifests/demo.toml --run $(DEMO)/run
	$(BIN)/sjdl report --run $(DEMO)/run --data $(DEMO)/fvrid-syn --real $(DEMO)/fvrid-real --betas 0,0.8,1.6,3.2
	@echo "the dataset:  $(DEMO)/dataset.html"
	@echo "the training: $(DEMO)/run/report.html"
	@echo "the results:  $(DEMO)/run/results.html"

train: install  ## train: DATA= REAL= RECIPE= RUN= SET="epochs=10 p=8" GPUS=4; RESUME=1 goes on with a run
	$(if $(filter-out 1,$(GPUS)),$(BIN)/torchrun --standalone --nproc-per-node $(GPUS) -m -- sjdl_model,$(BIN)/sjdl) \
	    train $(if $(RESUME),--resume) --data $(DATA) $(if $(REAL),--real $(REAL)) --recipe $(RECIPE) --run $(RUN) $(addprefix --set ,$(SET))

eval: install  ## score a run on DATA, and on REAL where there is one: DATA= REAL= RUN=
	$(BIN)/sjdl eval --run $(RUN) --data $(DATA)
	$(if $(REAL),$(BIN)/sjdl eval --run $(RUN) --data $(REAL))

report: install  ## every condition of a run on DATA, and on REAL where there is one, as a page: DATA= REAL= RUN=
	$(BIN)/sjdl report --run $(RUN) --data $(DATA) $(if $(REAL),--real $(REAL))

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: install  ## all tests
	$(PYTEST) -m "slow or not slow"

test-fast: install  ## all but those that kill processes, compile or train until something is learned
	$(PYTEST)

lint: install  ## check style, types and the import rule; edits nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## let ruff edit
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mini: install  ## render FVRID-Mini again (hours; goes on where it stopped), pack it into the package, check it
	$(BIN)/fvrid render --out build/mini/clear --seed 1 --vehicles 600 --views 8 --size 128 --samples 12
	$(BIN)/fvrid render --out build/mini/real --seed 2 --vehicles 550 --views 6 --fog mixed --pairs 40 --size 128 --samples 12
	$(BIN)/python -m fvrid_tools.sources.mini_pack build/mini/clear build/mini/real fvrid_tools/mini
	$(BIN)/python benchmarks/mini_texture.py

depth: install  ## train the weights of --depth dcnf again: render scenes (goes on where it stopped), train, measure
	$(BIN)/fvrid render --wide --out build/wide --seed 4 --vehicles 1000 --views 5 --size 128 --samples 8
	$(BIN)/fvrid depth train --scenes build/wide --scenes mini --seed 0 --out fvrid_tools/depth/dcnf/dcnf.safetensors
	mkdir -p build/bench
	$(BIN)/python benchmarks/depth_quality.py --out build/bench/depth_quality.json

check-mini: install  ## measure FVRID-Mini: texture, the gap of its fog, difficulty (trains), the fog's physics; JSON to build/bench
	mkdir -p build/bench
	status=0; for script in benchmarks/mini_*.py; do \
	    $(BIN)/python $$script --out build/bench/$$(basename $$script .py).json || status=1; done; exit $$status

JOBS   ?= 2
SEEDS  ?= 3
ARMS   ?= controls,table4,past
TABLES ?= build/ablation/tables
KNOWN   = $(if $(SET),,$(addprefix --known ,$(wildcard docs/ablation.json)))
ABLATE  = $(BIN)/sjdl ablate --data build/ablation/syn --real build/ablation/real --recipe ablation --jobs $(JOBS) $(addprefix --set ,$(SET))
CONTROLLED = --counterparts build/ablation/counterparts

ablation-data: install
	$(BIN)/fvrid render --out build/mini/counterparts --seed 2 --vehicles 550 --views 6 --fog mixed --counterparts --size 128 --samples 12
	$(BIN)/fvrid build-syn --src mini --out build/ablation/syn
	$(BIN)/fvrid build-real --src mini --out build/ablation/real
	$(BIN)/fvrid build-syn --src mini --root build/mini/counterparts --out build/ablation/counterparts
	for data in syn real counterparts; do $(BIN)/fvrid split build/ablation/$$data || exit 1; done

ablate: ablation-data  ## what defogging buys, on FVRID-Mini: bounds, Table 4, what goes past it: ARMS= SEEDS= JOBS= (days of two cores; goes on)
	$(ABLATE) $(CONTROLLED) $(KNOWN) --seeds $(SEEDS) --arms $(ARMS) --out $(TABLES)

ablate-stages: ablation-data  ## the same of Table 5, where to share (sjdl is conv_2), one seed (hours; goes on)
	$(ABLATE) $(CONTROLLED) $(KNOWN) --seeds 1 --arms baseline,sjdl,conv_3,conv_4,conv_5 --out build/ablation/stages

ablate-methods: ablation-data  ## the same of Table 3, other methods in two stages and in one, one seed (hours; goes on)
	$(ABLATE) $(CONTROLLED) $(KNOWN) --seeds 1 --arms baseline,sjdl,table3 --out build/ablation/methods

SETTLED ?= build/ablation/explore

settle: ablation-data  ## the recipe's open readings and what goes past the paper, on validation vehicles (hours; goes on; SET=epochs=3)
	$(ABLATE) $(CONTROLLED) --validation --seeds 1 --out $(SETTLED) --arms headroom,baseline,sjdl,readings,past \
	    --arm wide@baseline:fog.redraw=true,fog.preset=wide \
	    --arm statistics_ibn@baseline:domain_statistics=true,ibn=true \
	    --arm statistics_contrast@baseline:domain_statistics=true,local_contrast=true \
	    --arm statistics_ibn_contrast@baseline:domain_statistics=true,ibn=true,local_contrast=true \
	    --arm statistics_ibn_contrast_physical@baseline:domain_statistics=true,ibn=true,local_contrast=true,fog.redraw=true,fog.preset=physical

bench: install  ## measure every speed claim; JSON to build/bench
	mkdir -p build/bench
	status=0; for script in benchmarks/bench_*.py; do \
	    $(BIN)/python $$script --out build/bench/$$(basename $$script .py).json || status=1; done; exit $$status
