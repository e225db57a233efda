#!/bin/sh
# Fuzzes each target for some seconds, beginning with the committed corpus. What is new and of
# interest goes to target/fuzz-corpus, not into the committed one; what shows a bug goes to
# fuzz/artifacts. Goes on behind a bug with the next target, and fails at the end.
#
# usage: scripts/fuzz.sh SECONDS [TARGET...]
#
# Without targets, it fuzzes all of them. CARGO is the cargo of a rustup.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cargo=${CARGO:-cargo}
# Nothing may take longer for one input, or more memory in all: that is a bug, too.
timeout_s=30
rss_limit_mb=1024
# The longest input that is tried, and that the tests take into the corpus.
max_len=16384

fail() {
    printf 'fuzz: %s\n' "$*" >&2
    exit 1
}

[ $# -gt 0 ] || fail 'usage: scripts/fuzz.sh SECONDS [TARGET...]'
seconds=$1
shift
case $seconds in
    '' | *[!0-9]* | 0) fail "FUZZ_SECONDS is \"$seconds\", and must be a number of seconds, at least 1" ;;
esac

$cargo +nightly --version >/dev/null 2>&1 ||
    fail 'there is no nightly toolchain: rustup toolchain install nightly --profile minimal'
$cargo fuzz --version >/dev/null 2>&1 ||
    fail 'cargo-fuzz is missing: cargo install cargo-fuzz --locked'

cd "$root"
known=$(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//')
[ $# -gt 0 ] || set -- $known
for target in "$@"; do
    [ -f "fuzz/fuzz_targets/$target.rs" ] ||
        fail "there is no target \"$target\"; there are:" $known
done

# The sanitizer is off: our code is safe Rust, and twice as fast without. Overflows and
# assertions are checked all the same.
build_options='--sanitizer none'
$cargo +nightly fuzz build $build_options

# Indexes are files. In memory they cost no syncs.
if [ -z "${TMPDIR:-}" ] && [ -d /dev/shm ] && [ -w /dev/shm ]; then
    TMPDIR=/dev/shm
    export TMPDIR
fi

found=
for target in "$@"; do
    corpus=target/fuzz-corpus/$target
    mkdir -p "$corpus"
    printf '\n== %s: %s s\n' "$target" "$seconds"
    $cargo +nightly fuzz run $build_options "$target" "$corpus" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=$timeout_s -rss_limit_mb=$rss_limit_mb \
        -max_len=$max_len -print_final_stats=1 || found="$found $target"
done
[ -z "$found" ] || fail "bugs found by:$found; what shows them lies in fuzz/artifacts:
    cargo +nightly fuzz run $build_options TARGET FILE    shows one again
    cargo +nightly fuzz tmin $build_options TARGET FILE   makes its file shorter"
