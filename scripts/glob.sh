#!/bin/sh
# glob.sh PATTERN...: the files that match, relative to the folder whose meson.build asks, sorted; nothing when none does.
set -eu
cd "${MESON_SOURCE_ROOT:-.}/${MESON_SUBDIR:-.}"
LC_ALL=C
export LC_ALL
for pattern in "$@"; do
	for file in $pattern; do
		if [ -f "$file" ]; then
			echo "$file"
		fi
	done
done
