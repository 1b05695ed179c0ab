# make run    builds the binary, starts the server with its examples, prints what to try
# make test   installs what the tests need and passes them all
# make bench  measures calls beside plain HTTP servers in one run

GO      ?= go
BIN     ?= bin/brasa
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

export CGO_ENABLED = 0

.PHONY: all build run test test-deps lint bench bench-json spawner check-spawner node-addon jar check-jar check-dll clean

all: build

build:
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/brasa

run: build
	./$(BIN) serve --examples

# The tests use real interpreters and, for the spawner's check, a C compiler. As root on Debian
# they are installed; elsewhere the tests that miss one say so and are skipped.
test-deps:
	@sh ./test/deps.sh

test: test-deps check-spawner check-jar check-dll lint
	$(GO) test -timeout 20m ./...

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'fix: gofmt -w .'; exit 1; }
	$(GO) vet ./...

# All of it takes about twelve minutes; ONLY=KEY,KEY measures some.
bench: build
	$(GO) run ./internal/bench/cmd -brasa $(BIN) -only '$(ONLY)'

bench-json: build
	@$(GO) run ./internal/bench/cmd -brasa $(BIN) -only '$(ONLY)' -json

# Rebuild the static C program that makes the sandboxes, for both architectures.
spawner:
	sh internal/sandbox/spawner/build.sh

# Fail if the committed programs are not what the source builds.
check-spawner:
	@sh internal/sandbox/spawner/build.sh -check

# Rebuild the addon of Node.js, for both architectures.
node-addon:
	sh runtimes/node/native/build.sh

# Rebuild the bootstrap of Java.
jar:
	sh runtimes/java/build.sh

# Fail if the committed jar is not what the source builds.
check-jar:
	@sh runtimes/java/build.sh -check

# Fail if the committed bootstrap of .NET is not what the source builds.
check-dll:
	@sh runtimes/dotnet/build.sh -check

clean:
	rm -rf bin
