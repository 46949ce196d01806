#!/bin/sh
# headers_alone.sh ROOT CC: every internal header compiles by itself, so that no file depends on the order of its includes.
set -u
root=$1
shift
cd "$root" || exit 1
failed=0
for header in $(find src tests/lib -name '*.h' 2>/dev/null | LC_ALL=C sort); do
	if ! "$@" -x c -std=gnu17 -fsyntax-only -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-function \
		-Wno-unused-const-variable -Isrc -Iinclude -Itests "$header"; then
		echo "does not compile alone: $header"
		failed=1
	fi
done
exit $failed
