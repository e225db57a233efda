# Nothing but a Rust toolchain, a C compiler and make is assumed; what the tests need
# beside them, `make test-tools` installs.

CARGO ?= cargo

# Tests run in the directories of their crates, where a relative path means another place.
GRANARY_TEST_TOOLS ?= target/test-tools
export GRANARY_TEST_TOOLS := $(abspath $(GRANARY_TEST_TOOLS))

PYTHON ?= python3
# What the benchmark is told, as in BENCH='--only import --rounds 5'.
BENCH ?=

# How often `make soak` kills in each scenario, and how often it damages something.
KILL_ROUNDS ?= 200
DAMAGE_ROUNDS ?= 10000

# Which targets are fuzzed, as in FUZZ='nar narinfo', and for how long each; all if empty.
FUZZ ?=
FUZZ_SECONDS ?= 60

.PHONY: help build test test-tools test-bench soak lint fmt clippy doc check bench bench-loops fuzz

help:
	@echo 'make build       target/release/granary'
	@echo 'make test        all tests, with the tools that they need'
	@echo 'make test-tools  only the tools'
	@echo 'make soak        the tests that kill and damage at random, many more rounds of them'
	@echo 'make lint        formatting, clippy and documentation, warnings denied'
	@echo 'make check       lint and test'
	@echo 'make bench       measures everything beside other programs: docs/performance.md'
	@echo 'make bench-loops measures the inner loops, by Criterion'
	@echo 'make fuzz        looks for inputs that break it, for FUZZ_SECONDS each: CONTRIBUTING.md'

build:
	$(CARGO) build --release --locked

test: test-tools test-bench
	$(CARGO) test --workspace --locked

test-tools:
	scripts/test-tools.sh

# Not among the tests: it takes an hour. Prints what the rounds came upon.
soak: test-tools
	GRANARY_KILL_ROUNDS=$(KILL_ROUNDS) $(CARGO) test --locked -p granary-cli --test it kill:: -- --nocapture
	GRANARY_DAMAGE_ROUNDS=$(DAMAGE_ROUNDS) $(CARGO) test --locked -p granary-engine --test it random_damage:: -- --nocapture

# The benchmark's own parts: formats, tables.
test-bench: test-tools
	PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m bench --self-test

# Not among the tests: it takes half an hour, 30 GB and the network.
bench:
	CARGO='$(CARGO)' PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m bench $(BENCH)

# Each crate's own loops, in some minutes; what they store lies below TMPDIR.
bench-loops:
	$(CARGO) bench --workspace --locked

# Not among the tests, which check the corpus alone: it needs a nightly toolchain, and ends
# when it is told to.
fuzz:
	CARGO='$(CARGO)' scripts/fuzz.sh '$(FUZZ_SECONDS)' $(FUZZ)

lint: fmt clippy doc

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked

check: lint test
