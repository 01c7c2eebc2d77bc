.PHONY: help demo down test bench bench-deploy bench-wake bench-density bench-scale bench-faults bench-jobs bench-router hostile-router simulate-jobs recording screenshots build install

help: ## List what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: ## From a bare machine to a pushed app that answers on its URL
	@scripts/demo.sh

down: ## Stop what the demo started; its state is kept
	@scripts/down.sh

test: ## Formatting, lints and every test
	@scripts/test.sh

bench: ## Measure: push to live, requests a second, memory, the API over a large database
	@scripts/bench.sh

bench-deploy: ## Measure: from a one-line change to its first answer, with every phase, for Node, Django and Go
	@scripts/bench-deploy.sh

bench-wake: ## Measure: what a request pays that finds its app asleep
	@scripts/bench-wake.sh

bench-density: ## Measure: how many small web processes one machine carries, and what each costs
	@scripts/bench-density.sh

bench-scale: ## Measure: the control plane alone, with up to 250,000 instances of 50,000 apps in memory
	@scripts/bench-scale.sh

bench-jobs: ## Measure: how many containers of scheduled jobs this machine starts a second
	@scripts/bench-jobs.sh

bench-router: ## Measure: what a request costs the router, beside haproxy
	@scripts/bench-router.sh

hostile-router: ## Let hostile clients loose on the router: slow ones, many, scanners of TLS
	@scripts/hostile-router.sh

bench-faults: ## Measure: what faults cost visitors, and for how long
	@scripts/bench-faults.sh

simulate-jobs: ## Run a million jobs over a day that is simulated, on SQLite; PLATFORM_TEST_DATABASE=postgresql for the other one
	cargo test --release -p controller --lib a_million_runs_a_day -- --ignored --nocapture

recording: ## Record docs/demo.svg anew, on the platform that `make demo` started
	@scripts/record.py

screenshots: ## Make the pictures in docs/screenshots anew
	@scripts/screenshots.sh

build: ## Build the release binary
	cargo build --release --bin platform

install: build ## Put the program into PREFIX/bin, its manual pages into PREFIX/share/man (default /usr/local)
	install -D -m 755 $${CARGO_TARGET_DIR:-target}/release/platform $${PREFIX:-/usr/local}/bin/platform
	$${PREFIX:-/usr/local}/bin/platform man --dir $${PREFIX:-/usr/local}/share/man/man1
