#!/bin/sh
# deps.sh: what Headrace needs to build and to run its tests.
#   deps.sh --check   say what is missing and what installs it; 0 when nothing is
#   deps.sh --ensure  install what is missing, saying so; nothing when nothing is
#   deps.sh           the same as --ensure, and says when nothing was missing
set -eu

# What to look for, and the Debian package that has it: a pkg-config module, cmd:NAME, or py:MODULE.
build_needs='
cmd:cc=gcc cmd:make=make cmd:pkg-config=pkg-config cmd:meson=meson cmd:ninja=ninja-build cmd:python3=python3
liburing=liburing-dev libisal=libisal-dev libcrypto=libssl-dev jansson=libjansson-dev libcyaml=libcyaml-dev yaml-0.1=libyaml-dev
libcurl=libcurl4-openssl-dev libmicrohttpd=libmicrohttpd-dev libzstd=libzstd-dev liblz4=liblz4-dev
liblzma=liblzma-dev cmocka=libcmocka-dev'
check_needs="$build_needs cmd:c++=g++ py:pytest=python3-pytest cmd:xz=xz-utils"
all_needs="$check_needs cmd:clang=clang cmd:clang-format=clang-format cmd:clang-tidy=clang-tidy cmd:ccache=ccache
cmd:pandoc=pandoc cmd:fio=fio cmd:redis-server=redis-server cmd:redis-benchmark=redis-tools hiredis=libhiredis-dev"

missing() {
	for need in $1; do
		what=${need%=*}
		package=${need#*=}
		case $what in
		cmd:*) command -v "${what#cmd:}" >/dev/null 2>&1 ;;
		py:*) python3 -c "import ${what#py:}" >/dev/null 2>&1 ;;
		*) pkg-config --exists "$what" 2>/dev/null ;;
		esac || printf '%s ' "$package"
	done
}

install_missing() {
	packages=$(missing "$1")
	if [ -z "$packages" ]; then
		return 0
	fi
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "headrace: missing: $packages(names of Debian 12); there is no apt-get here, install them by hand" >&2
		exit 1
	fi
	sudo=
	if [ "$(id -u)" != 0 ]; then
		if ! command -v sudo >/dev/null 2>&1; then
			echo "headrace: missing: $packages; run as root: apt-get install $packages" >&2
			exit 1
		fi
		sudo=sudo
	fi
	echo "headrace: installing what is missing: $packages"
	export DEBIAN_FRONTEND=noninteractive
	$sudo apt-get update -qq </dev/null
	# shellcheck disable=SC2086 # a list of words is meant
	$sudo apt-get install -y -qq --no-install-recommends $packages </dev/null >/dev/null
	packages=$(missing "$1")
	if [ -n "$packages" ]; then
		echo "headrace: still missing after the installation: $packages" >&2
		exit 1
	fi
}

case ${1:-} in
--check)
	packages=$(missing "$build_needs")
	if [ -n "$packages" ]; then
		echo "headrace: missing to build: $packages" >&2
		echo "headrace: \`make deps\` installs it" >&2
		exit 1
	fi
	;;
--ensure)
	install_missing "$check_needs"
	;;
'')
	install_missing "$all_needs"
	echo "headrace: everything that the build, the tests and the benchmarks need is here"
	;;
*)
	echo "usage: scripts/deps.sh [--check | --ensure]" >&2
	exit 2
	;;
esac
