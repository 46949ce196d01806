# A thin layer over Meson: `make` builds into build/, the other targets are below.
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
MESON_FLAGS ?=
NINJA_FLAGS ?=

# Worktrees share what ccache knows: paths in the objects are relative to the source folder anyway.
export CCACHE_NOHASHDIR := 1
export CCACHE_BASEDIR := $(CURDIR)
ifeq ($(MAKELEVEL),0)
NINJA_QUIET = $(if $(findstring s,$(firstword -$(MAKEFLAGS))),--quiet,)
endif

.PHONY: all build configure check check-fast check-traces demo bench install style format deps clean

all: build

configure:
	@[ -f $(BUILD)/build.ninja ] || scripts/deps.sh --check
	@scripts/configure.sh $(BUILD) $(MESON_FLAGS)

build: configure
	@ninja -C $(BUILD) $(NINJA_FLAGS) $(NINJA_QUIET)

deps:
	@scripts/deps.sh

clean:
	rm -rf $(BUILD) build-*

style: build
	@BUILD=$(BUILD) scripts/style.sh

format:
	@scripts/style.sh --fix
