# Everything that a developer, a reader or CI starts. The work is in tools/; `make help` lists it.

.DEFAULT_GOAL := help
GATES := $(shell tools/gate --list)
ON_HOSTS := example molecule rollout
.PHONY: help setup collection demo demo-down test bench release-notes clean $(GATES)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '%-16s %s\n' 'one gate:' '$(GATES)'

setup: ## Install missing Debian packages and make all Python environments
	@tools/setup

collection: ## Build the artifact and install it in build/collections
	@tools/setup run
	@tools/collection

demo: ## Roll modules out to three real hosts with Redis 6.0, 7.0 and 8.0
	@tools/setup lab run
	@tools/collection
	@tools/demo

demo-down: ## Take the demo's hosts away and leave nothing behind
	@lab/lab.py down --lab demo

test: ## Run every gate and every test
	@tools/setup
	@build/venv/bin/python tools/test.py

$(filter-out $(ON_HOSTS) units pythons importer,$(GATES)):
	@tools/setup run gates
	@tools/gate $@

importer:
	@tools/setup run importer
	@tools/gate $@

units pythons:
	@tools/setup run gates core-2.14 py38
	@tools/gate $@

$(ON_HOSTS):
	@tools/setup lab compiler run core-2.14
	@tools/gate $@

bench: ## Measure what a rollout costs beside what one would do instead, and write it into docs/benchmarks.md
	@tools/setup lab run bench
	@tools/collection
	@build/venv/bin/python benchmarks/fleet.py
	@build/venv/bin/python benchmarks/trial_cost.py
	@build/venv/bin/python benchmarks/cluster_order.py

release-notes: ## Make CHANGELOG.md from the fragments, for the version in galaxy.yml
	@tools/setup run gates
	@tools/release-notes

clean: ## Remove environments, the artifact and logs (not the lab's images)
	rm -rf build/venv* build/mypy-cache build/collections build/work build/stage build/home build/log \
	    build/.collection.* build/.setup.lock build/edgeops-redis_modules-*.tar.gz
