# The two commands: `make demo` and `make test`. Each installs what it lacks, says so, and works
# offline afterwards. Everything is built below target/.

CARGO ?= cargo
export TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export ENVOY_BIN ?= $(abspath target)/envoy/bin/envoy
# Data that checks more where it is at hand; the tests pass without it.
CONFORMANCE ?= $(wildcard $(abspath ../shared/conformance))
ifneq ($(CONFORMANCE),)
export SLUIS_CONFORMANCE_DIR ?= $(CONFORMANCE)
endif

.PHONY: help demo demo-attacks test e2e h2spec http2-attacks rotation rotation-credentials conformance rbac-differential oracles lint bench bench-build bench-quick bench-plot release-tuned golden support fuzz setup instructions
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: ## install what demo and test need: Debian packages, and Envoy in target/envoy
	@scripts/setup.sh

demo: setup ## run the credential-injecting egress gateway on this machine and show what happens
	@echo "building sluis and sluis-proxy (the first time takes some minutes)"
	$(CARGO) build --release -p sluis -p sluis-proxy-bin
	@python3 examples/credential-egress/demo.py --bin-dir $(TARGET)/release

demo-attacks: setup ## try the attacks on egress control one by one, in network namespaces (root)
	@scripts/setup.sh attacks
	@echo "building sluis and sluis-proxy (the first time takes some minutes)"
	$(CARGO) build --release -p sluis -p sluis-proxy-bin
	@python3 examples/egress-attacks/demo.py --bin-dir $(TARGET)/release

test: setup ## run every test: units, integration, and the scenario end to end
	$(CARGO) build --workspace
	$(CARGO) test --workspace
	@$(MAKE) --no-print-directory oracles
	@$(MAKE) --no-print-directory http2-attacks
	@$(MAKE) --no-print-directory framing
	@$(MAKE) --no-print-directory e2e

e2e: setup ## run the scenario end to end, with our proxy and with real Envoy in each place
	@scripts/setup.sh judges
	@scripts/setup.sh clients
	@scripts/setup.sh attacks
	$(CARGO) build -p sluis -p sluis-proxy-bin -p sluis-cni
	python3 tests/e2e/run.py --bin-dir $(TARGET)/debug

conformance: setup ## send one corpus of requests through sluis-proxy and through real Envoy, and compare
	@scripts/setup.sh conformance
	$(CARGO) build -p sluis -p sluis-proxy-bin
	target/conformance/bin/python tests/conformance/run.py --bin-dir $(TARGET)/debug
	python3 tests/conformance/grpc_js/run.py --bin-dir $(TARGET)/debug

.PHONY: framing
framing: setup ## send one corpus of bytes through sluis-proxy, nginx, HAProxy, Envoy and hyper, and compare how each frames them
	@scripts/setup.sh framing
	$(CARGO) build -p sluis -p sluis-proxy-bin
	$(CARGO) build -p sluis-http1 --example hyper_hop
	python3 tests/framing/check_judge.py
	python3 tests/framing/run.py --sluis $(TARGET)/debug/sluis --sluis-proxy $(TARGET)/debug/sluis-proxy --hyper $(TARGET)/debug/examples/hyper_hop

rbac-differential: setup ## decide 100,000 random requests by random policies, beside real Envoy
	RBAC_PAIRS=100000 $(CARGO) test -p sluis-proxy --test rbac -- --nocapture

h2spec: setup ## have h2spec judge our HTTP/2, where Go is there to build it
	@scripts/setup.sh h2spec
	@scripts/setup.sh conformance
	@[ ! -x target/h2spec/bin/h2spec ] || { \
		$(CARGO) build -p sluis -p sluis-proxy-bin && \
		target/conformance/bin/python tests/http2/h2spec.py --h2spec target/h2spec/bin/h2spec --bin-dir $(TARGET)/debug; }

http2-attacks: setup ## try the attacks on HTTP/2 one by one, from a client that writes frames by hand
	@scripts/setup.sh conformance
	$(CARGO) build -p sluis -p sluis-proxy-bin
	target/conformance/bin/python tests/http2/attacks.py --bin-dir $(TARGET)/debug

oracles: setup ## have botocore and http-message-signatures (PyPI, npm) judge 10,000 random signatures, hpack (PyPI) our HPACK, and oidc-provider requests for tokens
	@scripts/setup.sh oracles
	$(CARGO) build -p sluis-signing --example sign_lines
	PATH=$(abspath target/oracles/node_modules/.bin):$$PATH target/oracles/bin/python tests/oracles/run.py --signer $(TARGET)/debug/examples/sign_lines --node $(abspath target/oracles/node_modules)
	$(CARGO) build -p sluis-http2 --example hpack_lines
	target/oracles/bin/python tests/oracles/hpack_tables.py --lines $(TARGET)/debug/examples/hpack_lines
	target/oracles/node_modules/.bin/node tests/oracles/tokens.mjs $(abspath target/oracles/node_modules) $(TARGET)/debug/examples/sign_lines crates/signing/tests/keys

lint: ## check formatting, lints and the rules of the tree
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	python3 scripts/tidy.py

rotation-credentials: ## credentials from Vault and from files are rotated under 50,000 requests; their source goes down
	cargo build -p sluis -p sluis-proxy-bin
	python3 tests/e2e/check_fake_vault.py
	python3 tests/e2e/rotating_credentials.py --bin-dir $(TARGET)/debug --source vault
	python3 tests/e2e/rotating_credentials.py --bin-dir $(TARGET)/debug --source file

rotation: setup ## change the root and restart the authority under 100,000 requests by mutual TLS; Workload API
	@scripts/setup.sh rotation
	$(CARGO) build -p sluis -p sluis-proxy-bin
	python3 tests/e2e/rotation.py --bin-dir $(TARGET)/debug

golden: ## rewrite the golden files of the translation; look at the diff afterwards
	UPDATE_GOLDEN=1 $(CARGO) test -p sluis-translate golden

support: ## write the page of supported fields anew from the readers
	UPDATE_SUPPORT=1 $(CARGO) test -p sluis-resources --test support --test crds

BENCH = SLUIS_BIN=$(TARGET)/release/sluis SLUIS_PROXY_BIN=$(or $(SLUIS_PROXY_BIN),$(TARGET)/release/sluis-proxy) benches/run.py \
	--open-loop $(TARGET)/release/examples/open_loop --configure $(TARGET)/release/examples/configure

bench-build: setup
	@scripts/setup.sh bench
	$(CARGO) build --release -p sluis -p sluis-proxy-bin
	$(CARGO) build --release -p sluis-proxy --example open_loop --example configure

bench: bench-build ## measure sluis-proxy beside Envoy, HAProxy and nginx: every scenario and the aims, some twenty minutes
	$(BENCH) --calls --markdown $(or $(MARKDOWN),$(TARGET)/bench.md) --remember
	benches/plot.py
	@echo "the result as Markdown: $(or $(MARKDOWN),$(TARGET)/bench.md)"

bench-quick: bench-build ## the chief scenarios in under three minutes; the ratios are kept in benches/history.csv
	$(BENCH) --quick --remember
	benches/plot.py

bench-plot: ## draw benches/history.csv: docs/performance-history.svg
	benches/plot.py

release-tuned: ## build sluis-proxy by a profile, with what runs side by side (less time, half the memory): target/tuned/sluis-proxy, for SLUIS_PROXY_BIN
	@scripts/setup.sh bench
	@scripts/setup.sh instructions
	$(CARGO) build --release -p sluis
	scripts/release_tuned.py --target $(TARGET)

instructions: ## count the instructions of a request's work, and fail when they have grown (UPDATE=--update: write them anew)
	@scripts/setup.sh instructions
	$(CARGO) build -p sluis
	$(CARGO) build --profile gate -p sluis-proxy-bin -p sluis-proxy --bin sluis-proxy --example instructions
	benches/instructions.py --bin-dir $(TARGET)/gate --sluis $(TARGET)/debug/sluis $(UPDATE)

FUZZ_SECONDS ?= 60
FUZZ = RUSTC_BOOTSTRAP=1 $(or $(shell command -v cargo-fuzz),$(abspath target)/tools/bin/cargo-fuzz) fuzz

fuzz: ## fuzz the codecs of HTTP/1.1 and HTTP/2, and the readers of manifests, signing requests and tokens, a minute each (FUZZ_SECONDS=60)
	@command -v cargo-fuzz >/dev/null || [ -x target/tools/bin/cargo-fuzz ] || \
		{ echo "installing cargo-fuzz into target/tools"; $(CARGO) install cargo-fuzz --locked --root target/tools; }
	cd fuzz && for target in request_head response_head chunked converted_head hpack_decode http2_engine manifest signing_request token; do \
		mkdir -p $(abspath target)/fuzz/$$target; dictionary=; \
		case $$target in *head|chunked) dictionary=-dict=dictionaries/http1.dict;; esac; \
		$(FUZZ) run --sanitizer none $$target $(abspath target)/fuzz/$$target corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) $$dictionary || exit 1; done
