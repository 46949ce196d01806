#!/bin/sh
# configure.sh BUILD_DIR [meson options]: set the build up, or configure it again when a source file came or went.
set -eu
build=$1
shift
files=$(find src include tests bench examples docs/man -name '*.[ch]' -o -name meson.build -o -name '*.[1-8].md' 2>/dev/null | LC_ALL=C sort)
if [ ! -f "$build/build.ninja" ]; then
	mkdir -p "$build"
	meson setup "$build" "$@" >"$build/setup.log" 2>&1 || { cat "$build/setup.log" >&2; exit 1; }
elif [ "$files" != "$(cat "$build/.files" 2>/dev/null)" ]; then
	meson setup --reconfigure "$build" "$@" >"$build/setup.log" 2>&1 || { cat "$build/setup.log" >&2; exit 1; }
fi
echo "$files" >"$build/.files"
