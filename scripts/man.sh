#!/bin/sh
# man.sh OUT_DIR: docs/man/NAME.SECTION.md as man pages, by pandoc.
set -eu
cd "$(dirname "$0")/.."
out=$1
if ! command -v pandoc >/dev/null 2>&1; then
	echo "headrace: missing: pandoc; \`make deps\` installs it" >&2
	exit 1
fi
mkdir -p "$out"
for page in docs/man/*.[1-8].md; do
	name=$(basename "$page" .md)
	pandoc --standalone --from markdown-smart --to man --output "$out/$name" "$page"
done
echo "man pages are in $out/ (man -l $out/headrace.1)"
