#!/bin/sh
# demo.sh: a store in a file, a daemon, real or generated workloads through it, and what they gained.
#
#   TRACE=FILE          replay this trace instead (.kvt, Mooncake JSON lines, .xz of both)
#   DEMO_SIZE=4GiB      of the store; DEMO_DRAM=512MiB of its memory tier
#   DEMO_BLOCK=64KiB    of the conversation's blocks; DEMO_AGENT_BLOCK=16KiB of the agents'
#   DEMO_REQUESTS=N     only the first N requests of each trace
#   DEMO_DIR=PATH       where the store's file is made while it runs (default: build/demo)
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
dir=${DEMO_DIR:-$build/demo}
size=${DEMO_SIZE:-4GiB}
dram=${DEMO_DRAM:-512MiB}
block=${DEMO_BLOCK:-64KiB}
agent_block=${DEMO_AGENT_BLOCK:-16KiB}
mkdir -p "$dir" "$build/demo"
run=$(mktemp -d "$dir/run.XXXXXX")
run=$(cd "$run" && pwd)
# A socket's path has at most 107 bytes, whatever the checkout's has.
sock_dir=$(mktemp -d "${TMPDIR:-/tmp}/headrace-demo.XXXXXX")
url=unix:$sock_dir/hr.sock
daemon=

stop() {
	if [ -n "$daemon" ]; then
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
		daemon=
	fi
}

# Whatever happens here, a reader that has gone included, the store goes.
cleanup() {
	status=$?
	set +e
	trap - EXIT
	trap '' INT TERM HUP PIPE
	stop
	if [ $status -ne 0 ] && [ -s "$run/headraced.log" ]; then
		echo "the daemon said last:" >&2
		tail -5 "$run/headraced.log" >&2
	fi
	rm -rf "$run" "$sock_dir"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap 'exit 141' PIPE

find_trace() {
	for folder in ${HEADRACE_TRACES:-shared/traces ../shared/traces}; do
		if [ -f "$folder/$1" ]; then
			echo "$folder/$1"
			return
		fi
	done
}

# replay TITLE REPORT BLOCK_BYTES WHAT...: WHAT is a trace's file, or --generate KIND.
replay() {
	title=$1
	report=$build/demo/$2.html
	bytes=$3
	shift 3
	echo
	echo "== $title"
	"$build/headrace" replay "$@" --url "$url" --block-bytes "$bytes" --compare-size "$size" --report "$report" \
		${DEMO_REQUESTS:+--requests "$DEMO_REQUESTS"}
	reports="$reports $report"
}

echo "== a store of $size in a file, and the daemon"
"$build/headrace" format "$run/headrace.img" --size "$size"
"$build/headraced" --device "$run/headrace.img" --dram "$dram" --listen "$url" >"$run/headraced.log" 2>&1 &
daemon=$!
tries=0
until "$build/headrace" stat --url "$url" --json >/dev/null 2>&1; do
	tries=$((tries + 1))
	if [ $tries -gt 600 ] || ! kill -0 "$daemon" 2>/dev/null; then
		echo "demo: the daemon did not get ready" >&2
		exit 1
	fi
	sleep 0.1
done
echo "$url is ready ($dram of memory in front of the file)"

reports=
if [ -n "${TRACE:-}" ]; then
	replay "the trace $TRACE" trace "$block" "$TRACE"
else
	conversation=$(find_trace mooncake_conversation.kvt.xz)
	agents=$(find_trace tau2_b16.kvt.xz)
	if [ -n "$conversation" ]; then
		replay "the conversation trace ($conversation)" conversation "$block" "$conversation"
	else
		replay "a workload generated with the conversation trace's published statistics" conversation "$block" \
			--generate chat --seed 1
	fi
	if [ -n "$agents" ]; then
		replay "an agent trace ($agents)" agents "$agent_block" "$agents"
	else
		replay "a workload generated with the agent trace's published statistics" agents "$agent_block" \
			--generate agent --seed 1
	fi
fi
stop
echo
echo "The store is gone again. What stays:"
for report in $reports; do
	echo "  $report (open it in a browser; it needs no network)"
done
