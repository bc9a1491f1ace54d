# What can be done here; `make help` lists it.

GO       ?= go
FUZZTIME ?= 30s
SEEDS    ?= 1000
FROM     ?= 1
FOR      ?= 0
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help build test race lint fmt fuzz e2e e2e-hosts hosts-tools fresh robustness bench bench-heartbeat demo sim model generate docs deb rpm ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

e2e-hosts: hosts-tools ## the package on booted Debian hosts: the whole story, RUNS (1) times a chapter (root)
	HANODE_HOSTS=1 $(GO) test -count 1 -v -timeout 60m ./test/hosts -args -hosts.runs $(or $(RUNS),1) $(ARGS)

hosts-tools: # what e2e-hosts boots hosts with; only where apt-get is, and as root
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		for t in systemd-nspawn:systemd-container mmdebstrap:mmdebstrap lintian:lintian ansible:ansible-core ansible-lint:ansible-lint ssh:openssh-client cloud-init:cloud-init rpm:rpm; do \
			command -v $${t%%:*} >/dev/null || missing="$$missing $${t##*:}"; \
		done; \
		[ -z "$$missing" ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; }; \
	fi

fresh: ## README's commands on a newly bootstrapped Debian with only Go and git (root); TESTS replaces the second
	test/fresh.sh

bench: ## medians of the outage of each fault, RUNS (20) runs each
	$(GO) run ./bench -runs $(or $(RUNS),20) $(ARGS)

bench-heartbeat: ## the old story beside Debian's heartbeat, RUNS (3) times, 1.5 minutes each (root; installs heartbeat)
	@if ! [ -x /usr/libexec/heartbeat/heartbeat ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends heartbeat net-tools; fi
	$(GO) run ./bench -what heartbeat -runs $(or $(RUNS),3)

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

deb: ## Debian packages, in dist/ (amd64 and arm64)
	cd deploy/pack && $(GO) run . -formats deb $(if $(RELEASE),-version $(RELEASE)) -out ../../dist

rpm: ## RPM packages, in dist/ (amd64 and arm64)
	cd deploy/pack && $(GO) run . -formats rpm $(if $(RELEASE),-version $(RELEASE)) -out ../../dist

ci: ## what CI runs
	.ci/run

clean: ## what was built
	rm -rf bin dist
