# What can be done here; `make help` lists it.

GO       ?= go
FUZZTIME ?= 30s
SEEDS    ?= 1000
FROM     ?= 1
FOR      ?= 0
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help build test race lint fmt fuzz e2e robustness bench demo sim model generate docs deb ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the binary, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/hanode ./cmd/hanode

test: ## all tests
	$(GO) test ./...

race: ## all tests with the race detector, long searches shortened (needs a C compiler)
	$(GO) test -race -short -timeout 20m ./...

lint: ## gofumpt, go vet, golangci-lint
	@bad=$$(gofumpt -l .) || exit 1; if [ -n "$$bad" ]; then echo "gofumpt would change:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	golangci-lint run

fmt: ## format all Go files
	gofumpt -w .

fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for f in $$($(GO) test -list '^Fuzz' "$$dir" | grep '^Fuzz'); do \
			echo "$$dir $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$dir"; \
		done; \
	done

e2e: ## the real binary on hosts made of network namespaces
	$(GO) test -count 1 -v -timeout 20m ./test/e2e

bench: ## medians of the outage of each fault, RUNS (20) runs each
	$(GO) run ./bench -runs $(or $(RUNS),20) $(ARGS)

robustness: ## real clusters under every fault, RUNS (7) runs each, with a table
	$(GO) test -count 1 -v -timeout 0 -run TestMatrix ./test/robustness -args -robust.runs $(or $(RUNS),7) $(ARGS)

demo: ## a cluster on this machine, broken and measured
	$(GO) run ./cmd/hanode demo

sim: ## SEEDS (1000) random fault schedules in virtual time: whole agents, then the lease protocol alone
	@mkdir -p bin
	$(GO) test -c -o bin/sim.test ./agent
	cd agent && TMPDIR=$(or $(wildcard /dev/shm),/tmp) ../bin/sim.test -test.timeout 0 -test.run 'TestSim$$' -sim.seeds $(SEEDS) -sim.from $(FROM) -sim.for $(FOR)
	$(GO) test -count 1 -timeout 0 -run 'TestSim$$' ./lease -sim.seeds $(SEEDS)

model: ## every state of the models in docs/model, and each rule broken (needs spin; FULL=1: larger bounds)
	FULL=$(FULL) docs/model/check.sh

generate: ## what is generated: the guard's objects (needs clang) and docs/problems.md
	$(GO) generate ./...
	$(MAKE) docs

docs: ## docs/problems.md from the catalogue of problems
	$(GO) test -count 1 -run TestProblemsPage . -args -update

deb: ## a Debian package (not there yet)
	@echo "there are no packages yet; build the binary with make build and see deploy/" >&2; exit 1

ci: ## what CI runs
	.ci/run

clean: ## what was built
	rm -rf bin dist
