# Every target does its own set-up: `make demo` and `make test` work on a machine with Python, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The demo's model: a directory (config.json, tokenizer.json, tokenizer_config.json) or a hub id.
MODEL ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo up check format lint types imports proto-lint proto coverage test test-slow faults soak test-unit test-integration \
	bench bench-adapter bench-observability bench-render bench-pick overload simulate load load-ui compare report capacity parity fuzz fuzz-cache fuzz-http e2e-vllm e2e-render e2e-blocks e2e-go chart chart-live clean

help:  ## say what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# ai-dynamo pins a placeholder package, so it is installed without its dependencies (docs/adr/0003). To compile all of
# it would take half a minute more than to compile what is used. xds-protos brings older files of
# opentelemetry-proto's under the same names: the newer ones have to come last.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[dynamo,kubernetes,tracing,stack,chart,dev]'
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt --no-deps ai-dynamo
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt --no-deps --force-reinstall opentelemetry-proto
	@touch $@

setup: $(READY)  ## create the environment in .venv

demo: $(READY)  ## start the whole chain on loopback, send a conversation through it, print what happened
	@$(BIN)/python -m loadtests.stack demo $(if $(MODEL),--model $(MODEL))

up: $(READY)  ## start the whole chain and keep it running; prints a curl command
	@$(BIN)/python -m loadtests.stack up $(if $(MODEL),--model $(MODEL))

check: lint types imports proto-lint coverage chart test  ## everything that must hold before a commit

format: $(READY)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

proto-lint: $(READY)
	$(BIN)/buf lint

# protoc names imports by proto package, and `tokenext.v1` would be looked for in our package tokenext: the
# generated modules live below extproc.pb, so the imports are rewritten to say so.
GENERATED := proto/extproc/pb/tokenext/v1
proto: $(READY)  ## regenerate the Python code of proto/tokenext/v1
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto/extproc/pb --pyi_out=proto/extproc/pb \
		--grpc_python_out=proto/extproc/pb proto/tokenext/v1/*.proto
	sed -i.orig -e 's/^from tokenext\.v1 import/from extproc.pb.tokenext.v1 import/' $(GENERATED)/*_pb2*.py*
	rm -f $(GENERATED)/*.orig $(GENERATED)/token_record_pb2_grpc.py  # a file without a service gets an empty one

# The protocol's state machine is small enough to be covered whole, and too important not to be.
coverage: $(READY)  ## fail unless every branch of the session and its table is tested
	$(BIN)/python -m pytest -q tests/extproc/test_session.py tests/extproc/test_session_properties.py \
		--cov=extproc.session --cov=extproc.transitions --cov-branch --cov-report=term-missing --cov-fail-under=100

test: $(READY)  ## run all tests: unit tests, then the chain on real parts
	$(BIN)/python -m pytest -n 2 -m 'not integration'
	$(BIN)/python -m pytest -m 'integration and not slow'

test-slow: $(READY)  ## run the tests that take most of a minute each (5,000 bookings, the simulation, real tokenizers)
	$(BIN)/python -m pytest -m 'slow and not faults'

soak: $(READY)  ## long mixed traffic, every byte checked at both ends (MINUTES=5, MODES=default or full-duplex)
	@$(BIN)/python -m loadtests.soak --minutes $(or $(MINUTES),5) --modes $(or $(MODES),default)

faults: $(READY)  ## break every part of the chain under load; the table is in docs/operations.md (PAGE=file)
	@$(BIN)/python -m tests.faults $(if $(PAGE),--page $(PAGE))

test-unit: $(READY)  ## run the tests that start no process
	$(BIN)/python -m pytest -n 2 -m 'not integration'

test-integration: $(READY)  ## run the tests on real Envoy, NATS and Dynamo
	$(BIN)/python -m pytest -m 'integration and not slow'

bench: $(READY)  ## measure the chain against its alternatives, as ratios in one run (QUICK=1, ONLY=section, PAGE=file)
	@$(BIN)/python -m loadtests.bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) \
		$(if $(MODEL),--model $(MODEL)) $(if $(PAGE),--page $(PAGE))

bench-adapter: $(READY)  ## measure the picker's CPU per request beside that of an empty ext_proc
	@$(BIN)/python -m loadtests.bench.adapter

bench-observability: $(READY)  ## measure what metrics, logs and traces cost a request
	@$(BIN)/python -m loadtests.bench.observability

bench-render: $(READY)  ## measure the render API beside vLLM's own render server (its own environment, 2-3 GB)
	@$(BIN)/python -m loadtests.bench.render

bench-pick: $(READY)  ## measure a pick among 500 endpoints with a subset hint
	@$(BIN)/python -m loadtests.bench.picks

overload: $(READY)  ## four times more than the HTTP port can answer: ids or a 503, nobody waits past the deadline (SECONDS=20)
	@$(BIN)/python -m loadtests.overload $(if $(SECONDS),--seconds $(SECONDS)) $(if $(MODEL),--model $(MODEL))

simulate: $(READY)  ## what following prefixes is worth: four strategies on 8 mocker workers, table and plot
	@$(BIN)/python -m loadtests.simulate

LOAD = $(if $(HOST),--host $(HOST)) $(if $(MODEL),--model $(MODEL)) $(if $(USERS),--users $(USERS)) \
	$(if $(WORKLOAD),--workload $(WORKLOAD)) $(if $(SECONDS),--seconds $(SECONDS)) \
	$(if $(CORPUS),--corpus $(CORPUS)) $(if $(TRACE),--trace $(TRACE))
load: $(READY)  ## send what users would send (HOST, MODEL, USERS, WORKLOAD, SECONDS, CORPUS, TRACE; or the local stack)
	@$(BIN)/python -m loadtests.load $(LOAD)

load-ui: $(READY)  ## the same from locust's own page, http://127.0.0.1:8089
	@$(BIN)/python -m loadtests.load --ui $(LOAD)

compare: $(READY)  ## one workload against plain Envoy, our chain and Dynamo's front end in turn; report in docs/comparison
	@$(BIN)/python -m loadtests.compare $(if $(MODEL),--model $(MODEL)) --out .load/comparison; status=$$?; \
		if [ $$status -lt 2 ]; then $(BIN)/python -m loadtests.report .load/comparison --out docs/comparison; fi; \
		exit $$status

report: $(READY)  ## the page of a run: RUN=folder
	@$(BIN)/python -m loadtests.report $(RUN)

capacity: $(READY)  ## the highest rate that adds at most 20 ms, with one and with two tokenext processes
	@$(BIN)/python -m loadtests.capacity $(if $(MODEL),--model $(MODEL))

parity: $(READY)  ## compare our ids with transformers and Dynamo on real tokenizers and conversations
	@$(BIN)/python -m tests.parity $(if $(CASES),--cases $(CASES)) $(if $(MODELS),--models $(MODELS)) \
		$(if $(PAGE),--page $(PAGE))
	$(BIN)/python -m pytest -q tests/parity/test_canonical.py

FUZZED := loadtests/stack/model qwen3 llama3_1 llama2
fuzz-cache: $(READY)  ## 20,000 hostile conversations per tokenizer: cached ids against uncached ones
	@for model in $(FUZZED); do \
		$(BIN)/python -m tests.fuzz_prefix_cache --conversations 20000 --model $$model || exit 1; \
	done; echo "fuzz-cache: 0 differences over 20,000 conversations for each of: $(FUZZED)"

fuzz: $(READY)  ## fuzz all that reads what others send (SECONDS=600, TARGETS="session record")
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install -q -c constraints.txt -e '.[fuzz]'
	@$(BIN)/python -m tests.fuzz $(TARGETS) $(if $(SECONDS),--seconds $(SECONDS))

fuzz-http: $(READY)  ## requests made of the HTTP port's OpenAPI document: no 5xx (EXAMPLES=300)
	@$(BIN)/python -c 'import schemathesis' 2>/dev/null || $(BIN)/python -m pip install -q -c constraints.txt -e '.[fuzz-http]'
	@$(BIN)/python -m tests.fuzz_http $(if $(EXAMPLES),--examples $(EXAMPLES)) $(if $(SEED),--seed $(SEED))

e2e-vllm: $(READY)  ## the chain in front of a real vLLM on CPU, in an environment of its own (2-3 GB)
	@$(BIN)/python -m tests.e2e_vllm

e2e-blocks: $(READY)  ## our block hashes beside those that a real vLLM publishes, in the same environment
	@$(BIN)/python -m tests.e2e_blocks

e2e-render: $(READY)  ## our HTTP API beside vLLM's own render server, field by field (the same environment)
	@$(BIN)/python -m tests.e2e_render

e2e-go: $(READY)  ## the Go of proto/README.md on the test vectors, in an environment of its own (a minute, 0.4 GB)
	@$(BIN)/python -m tests.e2e_go

chart: $(READY)  ## lint the Helm chart, render it in every combination, and check what it renders
	@$(BIN)/python -m tests.chart

chart-live: $(READY)  ## run what the Helm chart renders on loopback, with each gateway's order of filters
	$(BIN)/python -m pytest tests/chart -m integration

clean:
	rm -rf $(VENV) .stack .cache .pytest_cache .mypy_cache .ruff_cache
