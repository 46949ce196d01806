#!/bin/bash
# tap.sh PROGRAM [ARGUMENT...]: runs a cmocka program. Its skipped tests say "not ok N # SKIP", which meson takes for failures.
set -o pipefail
"$@" | sed -u 's/^not ok \([0-9]*\) # SKIP \(.*\)$/ok \1 - \2 # SKIP/'
