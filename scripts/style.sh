#!/bin/sh
# style.sh [--fix | --format-only] [FILE...]: clang-format and clang-tidy over the C sources, quiet when all is well.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
mode=check
case ${1:-} in
--fix) mode=fix; shift ;;
--format-only) mode=format; shift ;;
esac
for tool in clang-format clang-tidy; do
	if ! command -v "$tool" >/dev/null 2>&1; then
		echo "headrace: missing: $tool; \`make deps\` installs it" >&2
		exit 1
	fi
done
files=${*:-$(find src include tests bench examples -name '*.[ch]' 2>/dev/null | LC_ALL=C sort)}
if [ "$mode" = fix ]; then
	# shellcheck disable=SC2086 # a list of files is meant
	exec clang-format -i $files
fi
unformatted=
for f in $files; do
	clang-format --dry-run -Werror "$f" >/dev/null 2>&1 || unformatted="$unformatted $f"
done
if [ -n "$unformatted" ]; then
	echo "headrace: \`make format\` would change:" >&2
	for f in $unformatted; do
		echo "  $f" >&2
	done
	exit 1
fi
if [ "$mode" = format ]; then
	exit 0
fi
# Each translation unit once; headers come with the files that include them.
sources=$(for f in $files; do case $f in *.c) grep -q "\"\(\.\./\)*$f\"" "$build/compile_commands.json" && echo "$f" ;; esac; done || true)
if [ -n "$sources" ]; then
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	if ! echo "$sources" | xargs -P "$(nproc)" -n 4 clang-tidy -p "$build" --quiet \
		--extra-arg=-Wno-unknown-warning-option >"$log" 2>/dev/null; then
		cat "$log" >&2
		exit 1
	fi
fi
