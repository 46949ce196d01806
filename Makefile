# A thin layer over Meson: `make` builds into build/. `make help` lists the targets.
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
MESON_FLAGS ?=

# Worktrees share what ccache knows: paths in the objects are relative to the source folder anyway.
export CCACHE_NOHASHDIR := 1
export CCACHE_BASEDIR := $(CURDIR)
export BUILD

.PHONY: all build help configure ensure check check-fast check-traces demo bench install man fuzz style format deps clean

all: build

help:
	@echo "make               build into $(BUILD)/: headrace, headraced, libheadrace"
	@echo "make demo          a store, a daemon, a replayed trace and its report, in one go"
	@echo "make check         every test; check-fast: those of two minutes; check-traces: whole production traces"
	@echo "make bench         speed, beside Redis and fio in the same run"
	@echo "make install       PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)"
	@echo "make man           man pages from docs/man (needs pandoc)"
	@echo "make fuzz          libFuzzer over the parsers, FUZZ_SECONDS=$(FUZZ_SECONDS) each"
	@echo "make style         clang-format and clang-tidy; format: applies clang-format"
	@echo "make deps          installs what building, testing and benchmarking need (Debian 12)"
	@echo "make clean         removes $(BUILD)/ and its siblings"

configure:
	@[ -f $(BUILD)/build.ninja ] || scripts/deps.sh --check
	@scripts/configure.sh $(BUILD) $(MESON_FLAGS)

build: configure
	@ninja -C $(BUILD) --quiet

# On a bare machine these install what is missing, and say so.
ensure:
	@scripts/deps.sh --ensure

check: ensure
	@$(MAKE) --no-print-directory build
	@scripts/check.py full

check-fast: ensure
	@$(MAKE) --no-print-directory build
	@scripts/check.py fast

check-traces: ensure
	@$(MAKE) --no-print-directory build
	@scripts/check.py traces

demo: ensure
	@$(MAKE) --no-print-directory build
	@scripts/demo.sh

bench: deps
	@$(MAKE) --no-print-directory build
	@bench/run.py
	@$(BUILD)/bench_index_memory
	@$(BUILD)/bench_engine_memory

# Into a build of its own, so that its prefix does not make everybody's build start again.
install:
	@[ -f $(BUILD)-install/build.ninja ] || scripts/deps.sh --check
	@if [ -f $(BUILD)-install/build.ninja ]; then meson configure $(BUILD)-install -Dprefix=$(PREFIX); fi
	@scripts/configure.sh $(BUILD)-install -Dprefix=$(PREFIX) -Dtests=false $(MESON_FLAGS)
	@ninja -C $(BUILD)-install --quiet
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD)-install --no-rebuild --quiet
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ] && command -v ldconfig >/dev/null; then ldconfig; fi
	@echo "installed in $(DESTDIR)$(PREFIX)"

man: configure
	@scripts/man.sh $(BUILD)/man

# Longer than the corpora in `make check`: libFuzzer with sanitizers, each target for FUZZ_SECONDS.
FUZZ_SECONDS ?= 60
fuzz:
	@CC=clang scripts/configure.sh $(BUILD)-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
	@ninja -C $(BUILD)-fuzz --quiet
	@for target in $(BUILD)-fuzz/tests/fuzz_*[!p]; do \
		[ -x $$target ] && [ -f $$target ] || continue; \
		name=$$(basename $$target | sed s/fuzz_//); \
		mkdir -p $(BUILD)-fuzz/corpus/$$name; \
		$$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=0 $(BUILD)-fuzz/corpus/$$name tests/fuzz/corpus/$$name || exit 1; \
	done

style: build
	@scripts/style.sh

format:
	@scripts/style.sh --fix

deps:
	@scripts/deps.sh

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fault $(BUILD)-fuzz $(BUILD)-install
