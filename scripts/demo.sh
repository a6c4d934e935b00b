#!/usr/bin/env bash
# Shows the program at work, with nothing but this machine: an S3 server and a MariaDB of its own, mydumper and
# mydumper2s3 side by side. Installs what is missing, and stops everything that it started. As any user.
#
#     scripts/demo.sh                       needs mydumper and MariaDB's programs, and about 2 GB in $TMPDIR for a minute
#     scripts/demo.sh --without-database    a program that writes files as mydumper does stands in for both
#
# MYDUMPER2S3_DEMO_TABLES=8 makes a larger dump than the 3 tables of 100 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh

with_database=yes
case "$*" in
    '') ;;
    --without-database) with_database= ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
tables=${MYDUMPER2S3_DEMO_TABLES:-3}
case $tables in
    '' | *[!0-9]* | 0*)
        echo "MYDUMPER2S3_DEMO_TABLES must be a whole number from 1" >&2
        exit 2
        ;;
esac

need_rust
if [[ $with_database ]]; then
    need_mariadb_and_mydumper
fi
install_missing

bold='' plain=''
if [[ -t 1 && ${TERM:-dumb} != dumb && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi
began=$SECONDS

say() {
    printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

fail() {
    printf 'demo: %s\n' "$1" >&2
    if [[ -s ${2:-} ]]; then
        tail -n 20 "$2" | sed 's/^/    /' >&2
    fi
    exit 1
}

# Whatever the demo starts ends with it, also on ctrl-c: newest first.
started=()
work=

stop_all() {
    trap '' INT TERM
    local index
    for ((index = ${#started[@]} - 1; index >= 0; index--)); do
        stop "${started[index]}"
    done
    if [[ $work ]]; then
        rm -rf "$work"
    fi
}

stop() {
    local pid=$1 tenths
    kill "$pid" 2>/dev/null || return 0
    for ((tenths = 0; tenths < 100; tenths++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# `wait_for 30 log command…`: until it succeeds, or the program started last has ended, or time is up.
wait_for() {
    local seconds=$1 log=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        kill -0 "${started[-1]}" 2>/dev/null || fail "it has ended at once: $*" "$log"
        ((SECONDS < end)) || fail "waited ${seconds} s for: $*" "$log"
        sleep 0.1
    done
}

mebibytes() {
    awk -v bytes="$1" 'BEGIN { printf "%.0f MiB", bytes / 1048576 }'
}

build() {
    say "Building (the first time takes two to five minutes)"
    cargo build --locked --bin mydumper2s3 --example s3_server --example scripted_dumper
    local target
    target=$(cargo metadata --locked --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    programs=${target:-target}/debug
    began=$SECONDS
}

make_room() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/mydumper2s3-demo.XXXXXX")
    local needed=400 free
    if [[ $with_database ]]; then
        needed=$((300 + tables * 400))
    fi
    free=$(df -Pm "$work" | awk 'NR == 2 { print $4 }')
    ((free >= needed)) || fail "$work has $free MB free, and $needed MB are needed; set TMPDIR to another directory"
}

start_s3() {
    say "An S3 server of its own"
    # Neither an account nor a setting of the user's may get in between.
    local name
    for name in $(compgen -e); do
        case $name in
            AWS_* | MYDUMPER2S3_*) unset "$name" ;;
        esac
    done
    export NO_PROXY=127.0.0.1 AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
    mkdir "$work/s3"
    "$programs/examples/s3_server" --bucket backups --dir "$work/s3" >"$work/s3.log" 2>&1 &
    started+=($!)
    wait_for 30 "$work/s3.log" grep -q '^ready: ' "$work/s3.log"
    endpoint=$(sed -n 's/^ready: .*endpoint=\([^ ]*\).*/\1/p' "$work/s3.log")
    AWS_ACCESS_KEY_ID=$(sed -n 's/^ready: .*access_key=\([^ ]*\).*/\1/p' "$work/s3.log")
    AWS_SECRET_ACCESS_KEY=$(sed -n 's/^ready: .*secret_key=\([^ ]*\).*/\1/p' "$work/s3.log")
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION=us-east-1
    export MYDUMPER2S3_ENDPOINT_URL=$endpoint MYDUMPER2S3_BUCKET=backups
    echo "$endpoint, bucket backups"
}

sql() {
    mariadb --no-defaults --socket="$work/mariadb.sock" --user=root "$@"
}

start_mariadb() {
    say "A MariaDB of its own, with sample data"
    local as_user=()
    if [[ $EUID -eq 0 ]]; then
        as_user=(--user=root)
    fi
    mariadb-install-db --no-defaults --datadir="$work/data" --auth-root-authentication-method=normal \
        --skip-test-db "${as_user[@]}" >"$work/mariadb.log" 2>&1 || fail "cannot set up MariaDB" "$work/mariadb.log"
    mariadbd --no-defaults --datadir="$work/data" --socket="$work/mariadb.sock" --pid-file="$work/mariadb.pid" \
        --skip-networking --log-bin=binlog --server-id=1 --innodb-flush-log-at-trx-commit=0 \
        "${as_user[@]}" >>"$work/mariadb.log" 2>&1 &
    started+=($!)
    wait_for 60 "$work/mariadb.log" sql -e 'SELECT 1'
    fill_database
    sql --table -e "
        SELECT table_name, table_rows AS about_rows, ROUND(data_length / 1048576) AS MiB
        FROM information_schema.tables WHERE table_schema = 'shop' AND table_type = 'BASE TABLE' ORDER BY table_name"
}

fill_database() {
    local number
    {
        echo "SET sql_log_bin = 0; CREATE DATABASE shop; USE shop;"
        echo "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(80) NOT NULL);"
        echo "INSERT INTO customers SELECT seq, CONCAT('customer ', seq) FROM seq_1_to_10000;"
        echo "CREATE TABLE \`empty\` (id INT PRIMARY KEY);"
        for ((number = 1; number <= tables; number++)); do
            echo "CREATE TABLE orders_$number (id INT PRIMARY KEY, customer INT NOT NULL, document TEXT NOT NULL);"
            echo "INSERT INTO orders_$number SELECT seq, 1 + seq % 10000, CONCAT("
            echo "SHA2(seq * $number, 512), SHA2(-seq, 512), SHA2(seq + 0.5, 512), SHA2(seq - 0.3, 512),"
            echo "SHA2(seq * 1.7, 512), SHA2(seq * 3.1, 512), SHA2(seq - 0.9, 512)) FROM seq_1_to_100000;"
        done
        echo "ANALYZE TABLE customers;"
        for ((number = 1; number <= tables; number++)); do
            echo "ANALYZE TABLE orders_$number;"
        done
        echo "CREATE VIEW busy AS SELECT customer, COUNT(*) AS orders FROM orders_1 GROUP BY customer;"
    } | sql >/dev/null
}

# Compressing on one core, it takes its time: so there is something to see.
start_mydumper() {
    HOME=$work mydumper --socket "$work/mariadb.sock" --user root --database shop --outputdir "$dump" \
        --triggers --routines --events --threads 1 --compress --chunk-filesize 8 >"$work/mydumper.log" 2>&1 &
    mydumper=$!
}

start_scripted_dumper() {
    mkdir "$work/bin"
    ln -s "$programs/examples/scripted_dumper" "$work/bin/mydumper"
    cat >"$work/script" <<'SCRIPT'
start 1.0
started
open shop-schema-create.sql
text shop-schema-create.sql CREATE DATABASE shop;
close shop-schema-create.sql
open shop.orders-schema.sql
text shop.orders-schema.sql CREATE TABLE orders (id INT PRIMARY KEY);
close shop.orders-schema.sql
generate 200 1000000 10000000
finish
exit 0
SCRIPT
    SCRIPTED_DUMPER_SCRIPT=$work/script "$work/bin/mydumper" -o "$dump" >"$work/mydumper.log" 2>&1 &
    mydumper=$!
}

upload() {
    dump=$work/dump
    mkdir "$dump"
    local command=("$programs/mydumper2s3" --dir "$dump" --bucket backups --interval 1)
    say "mydumper and mydumper2s3, side by side"
    echo "mydumper … --outputdir $dump &"
    echo "mydumper2s3 ${command[*]:1}"
    if [[ $with_database ]]; then
        start_mydumper
    else
        start_scripted_dumper
    fi
    started+=("$mydumper")
    local status=0 of_mydumper=0
    "${command[@]}" --metrics-file "$work/demo.prom" || status=$?
    if ((status > 128)); then
        exit "$status"
    fi
    wait "$mydumper" || of_mydumper=$?
    echo "exit status of mydumper: $of_mydumper, of mydumper2s3: $status"
    ((of_mydumper == 0)) || fail "mydumper failed" "$work/mydumper.log"
    ((status == 0)) || fail "mydumper2s3 failed"
}

metric() {
    sed -n "s/^mydumper2s3_$1{[^}]*} //p" "$work/demo.prom"
}

show() {
    say "The bucket"
    echo "mydumper2s3 list"
    "$programs/mydumper2s3" list
    local prefix
    prefix=$("$programs/mydumper2s3" list --json | sed -n 's/^ *"prefix": "\(.\{1,\}\)",$/\1/p')
    echo "mydumper2s3 verify --prefix $prefix"
    "$programs/mydumper2s3" verify --prefix "$prefix"
    say "The dump directory"
    ls -la "$dump"
    [[ -z $(ls -A "$dump") ]] || fail "$dump is not empty"
    say "The disk that was saved"
    local bytes peak
    bytes=$(metric bytes) peak=$(metric peak_local_bytes)
    echo "dump in the bucket       $(mebibytes "$bytes")"
    echo "on the disk, at the most $(mebibytes "$peak") ($((peak * 100 / bytes)) %)"
}

build
make_room
start_s3
if [[ $with_database ]]; then
    start_mariadb
fi
upload
show
say "Done in $((SECONDS - began)) s (without the build); everything that was started is stopped now."
