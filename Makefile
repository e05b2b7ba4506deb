# The project's commands; `make` alone lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

export PATH := $(HOME)/.cargo/bin:$(PATH)

# CI checks out afresh each time: what was built is kept outside the checkout, and without what only helps to build again by hand.
ifdef CI
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/spilo-ci/target
export CARGO_INCREMENTAL ?= 0
export CARGO_TERM_COLOR ?= never
endif

SPILO := $(or $(CARGO_TARGET_DIR),target)/release/spilo
DEMO := demo

# The test binaries that need no server, of those that Cargo.toml declares.
TESTS := $(shell awk -F'"' '/^\[/ {test = /^\[\[test\]\]/} test && /^name *=/ {print $$2}' Cargo.toml)
TOGETHER := $(filter-out real routing docker simulation,$(TESTS))

# Tests of agents that want the machine for themselves: one keeps all processors busy, the other does harm for as long as it is told to.
ALONE := calm:: soak::

# How many schedules `make sim` runs; FROM=n begins with another one than the first, SEED=n shows a single one, TRACE=1 all of it.
SEEDS ?= 20000
export SEEDS
# How many of them `make test` runs.
SIMULATED := 20000

.PHONY: help setup build demo clean-demo test fmt fmt-check lint deny unit sim integration storage-elsewhere test-aws-emulator soak store-outage recovery-targets bench-local bench-failover bench-backup

help: ## list what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## install what is missing, build, start the cluster 'demo', say what to try next
	@.ci/setup demo
	cargo build --release --locked
	$(SPILO) create cluster $(DEMO)

clean-demo: ## delete the cluster 'demo', its data and its backups
	cargo build --release --locked
	$(SPILO) delete cluster $(DEMO) --confirm $(DEMO) --backups

setup: ## install what is missing to build, run and test (from Debian's packages)
	@.ci/setup test

build: ## build the release binary
	cargo build --release --locked

test: ## everything that CI runs
	@.ci/setup test
	@$(MAKE) --no-print-directory fmt-check lint deny unit
	@$(MAKE) --no-print-directory sim SEEDS=$(SIMULATED)
	@$(MAKE) --no-print-directory integration

fmt: ## format the sources
	cargo fmt

fmt-check:
	@.ci/stage format cargo fmt --check

lint: ## clippy, its warnings as errors
	@.ci/stage clippy cargo clippy --locked --all-targets -- -D warnings

deny:
	@.ci/stage dependencies .ci/deny

unit: ## the tests that need no server
	@.ci/stage 'unit tests' cargo test --locked --lib $(addprefix --test ,$(TOGETHER))

# Dependencies are shared with the other tests: only what is ours is built again, with optimisation.
sim: export CARGO_PROFILE_DEV_OPT_LEVEL = 2
sim: export CARGO_PROFILE_DEV_DEBUG = 0
sim: ## run SEEDS simulated clusters through faults; FROM=, SEED=, TRACE=1, SHRINK=1, SCHEDULE=file
	@.ci/stage simulation cargo test --locked --test simulation -- --test-threads=1 --nocapture

# Agents and their servers wait most of the time, for leases to end and for each other: two such tests fit beside each other. What a test
# prints is shown when it fails.
integration: ## the tests with real PostgreSQL, etcd and Docker
	@.ci/stage 'docker tests' cargo test --locked --test docker -- --test-threads=1 --nocapture
	@.ci/stage 'real tests' cargo test --locked --test real -- --test-threads=2 $(addprefix --skip ,$(ALONE))
	@.ci/stage 'real tests alone' cargo test --locked --test real -- --test-threads=1 --nocapture $(ALONE)
	@.ci/stage 'routing tests' cargo test --locked --test routing -- --test-threads=1 --nocapture

storage-elsewhere: ## ask every promise of a store of a server that somebody else wrote (SeaweedFS, over TLS)
	@.ci/setup test
	@.ci/storage-elsewhere

test-aws-emulator: ## the emulated AWS region, tested by itself (tests/aws/emulator/README.md)
	@.ci/setup demo
	@.ci/stage 'emulated AWS region' tests/aws/emulator/with-venv python -m unittest discover -t . -s tests -v

soak: ## random faults under writing clients, as long as SECONDS says; SEED repeats an earlier walk
	@.ci/setup test
	SPILO_SOAK_SECONDS=$(or $(SECONDS),3600) $(if $(SEED),SPILO_SOAK_SEED=$(SEED)) cargo test --locked --test real -- --nocapture soak

store-outage: ## keep the archive's store away for SECONDS (3600) under a writing client, and see that all of it comes back
	@.ci/setup test
	SPILO_OUTAGE_SECONDS=$(or $(SECONDS),3600) cargo test --locked --test real -- --nocapture a_store_that_is_away

recovery-targets: ## restore to COUNT (60) moments of three timelines that chance chooses, and compare every row; SEED= for those of an earlier run
	@.ci/setup test
	SPILO_TARGETS=$(or $(COUNT),60) $(if $(SEED),SPILO_TARGETS_SEED=$(SEED)) cargo test --locked --test real -- --nocapture recovery_to_any_target

bench-local: ## measure what the README promises, on this machine
	@.ci/setup test
	cargo build --release --locked
	@.ci/bench-local $(SPILO)

bench-failover: ## measure what clients see of each fault, with our agent and with Patroni in turn (ARGS='--runs 3 --faults switchover')
	@.ci/setup test
	cargo build --release --locked
	@.ci/bench-failover $(SPILO) $(ARGS)

bench-backup: ## measure WAL archiving, backups and restores, beside pgBackRest and barman-cloud (ARGS='--runs 1 --what wal')
	@.ci/setup test
	cargo build --release --locked
	@.ci/bench-backup $(SPILO) $(ARGS)
