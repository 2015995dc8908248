# Fairlead. `make` explains itself.
GO        ?= go
# One static, reproducible binary: no cgo, no paths of this machine.
BUILD      = CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w"
LINT       = $(GO) tool -modfile=tools/lint/go.mod golangci-lint
PLATFORMS  = linux/amd64 linux/arm64 linux/arm darwin/amd64 darwin/arm64 windows/amd64

.DEFAULT_GOAL := help
.PHONY: help build cross demo test race sim faults interop live lint fmt generate fuzz bench bench-hub check

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/fairlead
	$(BUILD) -o bin/fairlead ./cmd/runtime

cross: ## build for every platform, into dist/
	@for p in $(PLATFORMS); do \
	  os=$${p%/*}; arch=$${p#*/}; ext=; [ $$os = windows ] && ext=.exe; \
	  echo "building dist/fairlead-$$os-$$arch$$ext"; \
	  GOOS=$$os GOARCH=$$arch GOARM=7 $(BUILD) -o dist/fairlead-$$os-$$arch$$ext ./cmd/runtime || exit 1; \
	done

demo: ## hub, runtime and a plugin in one minute
	$(GO) run ./cmd/runtime demo --for 20s

test: ## the tests, as the README says
	$(GO) test ./...

race: ## the tests with the race detector, shuffled
	$(GO) test -race -shuffle=on ./...

sim: ## one world of the simulator again, with its transcript (SEED=n)
	$(GO) test ./internal/sim -run TestSeeds -sim.seed=$(SEED)

faults: ## the built program killed, stopped and cut off (ten minutes)
	$(GO) test -tags faults -timeout 25m -parallel 3 ./internal/faults

interop: ## against others' programs: mosquitto, Microsoft's SDKs, proxies (minutes)
	$(GO) test -tags interop -timeout 20m ./internal/interop

live: ## against the hub of Azure's that FAIRLEAD_LIVE_SERVICE_CS names (docs/azure.md)
	$(GO) test -count=1 -v -timeout 40m -tags live -run '^TestLive$$' ./internal/live

lint: ## formatting, vet, staticcheck and the linters of .golangci.yml, go.mod
	$(LINT) run
	$(LINT) fmt --diff
	$(GO) mod tidy -diff

fmt: ## format everything
	$(LINT) fmt

generate: ## generate code again (proto)
	$(GO) generate ./...

T ?= 10s
P ?= ./...
F ?= Fuzz
fuzz: ## each fuzz target for T (10s); P=./package F=FuzzName for one
	@GO=$(GO) .ci/fuzz $(T) $(P) $(F)

R ?= 7
bench: ## the figures of docs/benchmarks.md beside a peer's, R rounds (7; five minutes), ONLY some
	$(GO) test -count=1 -timeout 60m -run '^TestFigures$$' -v ./internal/bench -figures -rounds $(R) $(if $(ONLY),-only $(ONLY))

bench-hub: ## the hub's figures of docs/benchmarks-hub.md beside mosquitto's, R rounds (7; five minutes)
	$(GO) test -count=1 -timeout 60m -run '^TestFigures$$' -v ./internal/bench/hubload -figures -rounds $(R)

check: ## what CI runs
	./.ci/run
