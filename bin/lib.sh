# shellcheck shell=bash
# What bin/quickstart, bin/test and bin/bench share: packages from Debian, dockerd, the base image.
# Whoever sources this has run `set -euo pipefail`.

# Every image quarry builds starts from it.
readonly BASE_IMAGE=debian:bookworm-slim

# Quarry drives this machine's engine, whatever the caller's docker client points at.
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
export DOCKER_HOST=unix:///var/run/docker.sock

# `su` without a login leaves the sbin folders out, and a fresh rustup is not in the PATH of shells that run.
export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin

# How the engine came up when start_engine had to start it: `systemd` or a process id. Empty: it ran already.
ENGINE=

# Empty until the lists of packages have been updated.
PACKAGE_LISTS=

step() {
    printf -- '-----> %s\n' "$*" >&2
}

note() {
    printf '       %s\n' "$*" >&2
}

# fail PROBLEM [WHAT-TO-DO ...]
fail() {
    printf ' !     %s\n' "$@" >&2
    exit 1
}

# has PROOF: a program in the PATH, or a file by its absolute path.
has() {
    case $1 in
        /*) [[ -e $1 ]] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# quietly HINT COMMAND...: shows what the command prints only when it fails.
quietly() {
    local hint=$1 log
    shift
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" | sed 's/^/       /' >&2
        rm -f "$log"
        fail "\`$*\` failed" "$hint"
    fi
    rm -f "$log"
}

# install_missing PACKAGE=PROOF ...
install_missing() {
    local pair missing=()
    for pair; do
        has "${pair#*=}" || missing+=("${pair%%=*}")
    done
    ((${#missing[@]})) || return 0
    has apt-get || fail "not installed: ${missing[*]}" "this is no Debian: install what these packages bring, then run this again"
    ((EUID == 0)) || fail "not installed: ${missing[*]}" "as root: apt-get install ${missing[*]}"
    step "Installing ${missing[*]}"
    local hint="check the network and /etc/apt/sources.list, or install by hand: apt-get install ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Once a run is enough.
    if [[ -z $PACKAGE_LISTS ]]; then
        quietly "$hint" apt-get update
        PACKAGE_LISTS=fresh
    fi
    quietly "$hint" apt-get install -y --no-install-recommends "${missing[@]}"
    for pair; do
        has "${pair#*=}" || fail "${pair#*=} is still missing after installing ${pair%%=*}" "$hint"
    done
}

need_root() {
    ((EUID == 0)) || fail "$1" "run it as root: sudo $0"
}

need_cargo() {
    has cargo || fail "cargo is missing: quarry is built from source" \
        "install Rust for this user: curl https://sh.rustup.rs -sSf | sh -s -- -y, then run this again"
    # The last two are for etcd's protocol, which is compiled from its description.
    install_missing gcc=cc libc6-dev=/usr/include/stdlib.h protobuf-compiler=protoc \
        libprotobuf-dev=/usr/include/google/protobuf/empty.proto
}

# A real etcd to test and measure against.
install_etcd() {
    local came_with_us=
    has etcd || came_with_us=yes
    install_missing etcd-server=etcd etcd-client=etcdctl
    # Debian starts a fresh one on port 2379; nobody here asked for it.
    if [[ $came_with_us && -d /run/systemd/system ]]; then
        systemctl disable --now etcd >/dev/null 2>&1 || note "could not stop Debian's own etcd: systemctl stop etcd"
    fi
}

# What tries the HTTP api by its description.
install_schemathesis() {
    local folder=target/schemathesis
    has "$PWD/$folder/bin/schemathesis" && return
    step "Installing schemathesis"
    local python
    python=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    install_missing "python3-venv=/usr/lib/$python/ensurepip/__init__.py"
    quietly "as root: apt-get install python3-venv" python3 -m venv "$folder"
    quietly "check the network, or pip's settings" "$folder/bin/pip" install schemathesis==4.32.5
}

# The router: nginx with its Lua module.
install_nginx() {
    local came_with_us=
    has nginx || came_with_us=yes
    install_missing nginx-light=nginx libnginx-mod-http-lua=/usr/lib/nginx/modules/ngx_http_lua_module.so \
        lua-resty-core=/usr/share/lua/5.1/resty/core.lua
    # Debian starts a fresh nginx on port 80, which is the router's.
    if [[ $came_with_us && -d /run/systemd/system ]]; then
        systemctl disable --now nginx >/dev/null 2>&1 || note "could not stop Debian's own nginx: systemctl stop nginx"
    elif [[ $came_with_us ]]; then
        service nginx stop >/dev/null 2>&1 || true
    fi
}

# What carries images to other servers. HQ runs a registry of its own.
install_registry() {
    local came_with_us=
    has docker-registry || came_with_us=yes
    install_missing docker-registry=docker-registry
    # Debian starts a fresh one on port 5000, for the whole network to see.
    if [[ $came_with_us && -d /run/systemd/system ]]; then
        systemctl disable --now docker-registry >/dev/null 2>&1 ||
            note "could not stop Debian's own registry: systemctl stop docker-registry"
    elif [[ $came_with_us ]]; then
        # Where nothing starts services it was not started.
        service docker-registry stop >/dev/null 2>&1 || true
    fi
}

engine_answers() {
    docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

install_docker() {
    if ! has docker; then
        # Debian 13 has the client in a package of its own.
        if apt-cache show docker-cli >/dev/null 2>&1; then
            install_missing docker-cli=docker
        else
            install_missing docker.io=docker
        fi
    fi
    engine_answers && return
    install_missing docker.io=dockerd
    # With AppArmor in the kernel the engine needs its parser to start containers.
    if [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y ]]; then
        install_missing apparmor=apparmor_parser
    fi
}

# start_engine LOG PROGRAM: starts dockerd if none answers and sets ENGINE; without systemd its lines go to LOG, and jobs
# get their streams by PROGRAM, which need not be built yet.
start_engine() {
    local log=$1 program deadline=$((SECONDS + 60)) hint
    program=$(realpath -m "$2")
    engine_answers && return
    step "Starting dockerd"
    if [[ -d /run/systemd/system ]]; then
        hint="look at: journalctl -u docker"
        quietly "$hint" systemctl start docker
        ENGINE=systemd
    else
        hint="look at $log"
        mkdir -p "${program%/*}"
        ln -sfn "${program##*/}" "$program-runc"
        setsid dockerd --add-runtime "quarry=$program-runc" >"$log" 2>&1 </dev/null &
        ENGINE=$!
    fi
    until engine_answers; do
        if ((SECONDS > deadline)) || { [[ $ENGINE != systemd ]] && gone "$ENGINE"; }; then
            [[ $ENGINE == systemd ]] || tail -n 5 "$log" | sed 's/^/       /' >&2
            fail "dockerd does not answer on ${DOCKER_HOST#unix://}" "$hint"
        fi
        sleep 0.2
    done
}

# stop_engine ENGINE: the other way round.
stop_engine() {
    if [[ $1 == systemd ]]; then
        systemctl stop docker.socket docker
    elif [[ $(cat "/proc/$1/comm" 2>/dev/null) == dockerd ]]; then
        kill "$1"
        # Its containers get ten seconds to stop.
        wait_until 30 gone "$1" || note "dockerd (process $1) is still stopping"
    fi
}

# gone PID: it has ended, even if its parent has not looked yet.
gone() {
    [[ ! -e /proc/$1 ]] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# wait_until SECONDS COMMAND...: false when the command does not come true in time.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

has_base_image() {
    docker image inspect "$BASE_IMAGE" >/dev/null 2>&1
}

# From docker's registry, or, where that does not answer, made of Debian's packages.
make_base_image() {
    has_base_image && return
    step "Fetching the base image $BASE_IMAGE"
    docker pull --quiet "$BASE_IMAGE" >/dev/null 2>&1 && return
    step "No registry answers: making $BASE_IMAGE of Debian's packages"
    install_missing mmdebstrap=mmdebstrap
    (
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' EXIT
        quietly "docker's registry and Debian's mirrors are out of reach: connect the network, or load the image from a \
machine that has it: docker save $BASE_IMAGE | ssh THIS-MACHINE docker load" \
            mmdebstrap --variant=minbase bookworm "$folder/base.tar"
        quietly "is the disk full?" docker import --change 'CMD ["bash"]' "$folder/base.tar" "$BASE_IMAGE"
    )
}
