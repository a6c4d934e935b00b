# shellcheck shell=bash
# Sourced by the other scripts: says which Debian or Ubuntu packages are needed, and installs them.
#
#     need mydumper command -v mydumper      the package mydumper, unless the command after it succeeds
#     install_missing                        at once, or says why it cannot

# Debian keeps servers where only root's PATH looks.
PATH="$PATH:/usr/sbin:/sbin"
missing_packages=()

need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing_packages+=("$package")
}

# The server without its service: nothing of it starts by itself.
need_mariadb_and_mydumper() {
    need mariadb-server-core command -v mariadbd
    need mariadb-server-core command -v mariadb-install-db
    need mariadb-client-core command -v mariadb
    need mydumper command -v mydumper
    need mydumper command -v myloader
}

need_rust() {
    need gcc command -v cc
    if ! command -v cargo >/dev/null; then
        echo "Rust is missing: https://rustup.rs installs it" >&2
        exit 1
    fi
}

install_missing() {
    [[ ${#missing_packages[@]} -gt 0 ]] || return 0
    local packages as_root=()
    mapfile -t packages < <(printf '%s\n' "${missing_packages[@]}" | sort -u)
    if [[ $EUID -ne 0 ]]; then
        as_root=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
        echo "these packages are missing, and this user cannot install them: ${packages[*]}" >&2
        exit 1
    fi
    echo "installing ${packages[*]}" >&2
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    missing_packages=()
}
