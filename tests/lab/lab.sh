# shellcheck shell=bash
# Several servers on one machine: what bin/lab and bin/quickstart call. Whoever sources this has sourced bin/lib.sh.
#
# A lab is a bridge in a network namespace of its own, 10.77.ID.0/24. HQ is the machine itself at .1; server K at .(10+K)
# has its own network, mount, process and host names, its own root (an overlay on the machine's), sshd and dockerd.
# Everything a lab has on disk is in $LABS/ID. Lab 0 is people's; tests take any other that is free.

# On a disk even where /tmp is memory: engines keep their images here.
readonly LABS=/var/tmp/quarry-lab
readonly LAB_IDS=200

# Set by use_lab: the lab's number, folder, the namespace of its bridge, HQ's end of the cable to it, and its network.
LAB='' FOLDER='' SWITCH='' CABLE='' SUBNET=''

lab_needs() {
    need_root "a lab makes network namespaces and mounts"
    install_missing iproute2=ip nftables=nft iptables=iptables openssh-client=ssh openssh-server=/usr/sbin/sshd \
        util-linux=nsenter etcd-server=etcd curl=curl
    mkdir -p /run/sshd
}

use_lab() {
    LAB=$1 FOLDER=$LABS/$1 SWITCH=quarry-lab-$1 CABLE=qlab$1 SUBNET=10.77.$1
}

address_of() {
    printf '%s.%s' "$SUBNET" $((10 + $1))
}

namespace_of() {
    printf 'quarry-lab-%s-s%s' "$LAB" "$1"
}

# on_switch / inside K: `ip` there.
on_switch() {
    ip -n "$SWITCH" "$@"
}

need_lab() {
    [[ -e $FOLDER/key ]] || fail "there is no lab $LAB" "bin/lab up 3"
}

# need_server K
need_server() {
    need_lab
    [[ $1 =~ ^[1-9][0-9]*$ && -e $FOLDER/s$1/settings ]] ||
        fail "lab $LAB has no server \`$1\`; there are:$(servers | sed 's/^/ /' | tr -d '\n')"
}

# need_running K
need_running() {
    need_server "$1"
    is_on "$1" || fail "server $1 is off" "bin/lab poweron $1"
}

servers() {
    local folder
    for folder in "$FOLDER"/s*/settings; do
        [[ ! -e $folder ]] || basename "$(dirname "$folder")" | tr -d s
    done | sort -n
}

# ---- processes, by number and time of birth: numbers are used again ----

# born PID: in the system's ticks since boot; fails when it is gone.
born() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    # A zombie has ended.
    [[ ${stat:0:1} != Z ]] || return 1
    cut -d ' ' -f 20 <<<"$stat"
}

# keep_process FILE PID
keep_process() {
    echo "$2 $(born "$2") $(</proc/sys/kernel/random/boot_id)" >"$1"
}

# process_in FILE: its number; fails when it is gone.
process_in() {
    local pid birth boot
    read -r pid birth boot 2>/dev/null <"$1" || return 1
    [[ $boot == "$(</proc/sys/kernel/random/boot_id)" && $(born "$pid") == "$birth" ]] || return 1
    echo "$pid"
}

is_on() {
    process_in "$FOLDER/s$1/process" >/dev/null
}

# first_process K: of the server, as the machine numbers it.
first_process() {
    local outer
    outer=$(process_in "$FOLDER/s$1/process") || return 1
    tr -d ' ' <"/proc/$outer/task/$outer/children"
}

# within K COMMAND...: runs it in the server.
within() {
    local first
    first=$(first_process "$1") || fail "server $1 is off" "bin/lab poweron $1"
    shift
    nsenter --target "$first" --mount --uts --ipc --net --pid --root --wd "$@"
}

# daemon K NAME: its number there; fails when none runs. What quarry has started there itself is found by its name.
daemon() {
    # shellcheck disable=SC2016 # it is the server's shell that expands
    within "$1" /bin/bash -c '
        pid=$(cat "/run/lab/$1.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null && echo "$pid" && exit
        case $1 in
            agent) pgrep -o -f "^/usr/local/lib/quarry/quarry agent " ;;
            etcd) pgrep -o -x etcd ;;
            *) exit 1 ;;
        esac' - "$2"
}

# daemons K: the names of those that live, in one line.
daemons() {
    local name
    for name in agent dockerd etcd sshd; do
        ! daemon "$1" "$name" >/dev/null || printf '%s ' "$name"
    done
}

# signal_daemon K NAME SIGNAL; returns when one that is killed is gone.
signal_daemon() {
    local pid
    pid=$(daemon "$1" "$2") || fail "no $2 runs on server $1" "bin/lab start $1 $2"
    within "$1" kill "-$3" "$pid"
    [[ $3 != KILL ]] || wait_until 20 is_dead "$1" "$pid"
}

# is_dead K PID
is_dead() {
    ! within "$1" kill -0 "$2" 2>/dev/null
}

# ---- up and down ----

# take_lab OWNER: use_lab with a free number, after removing the labs whose owners are gone. Several may take and remove
# labs at once.
take_lab() {
    local id
    mkdir -p "$LABS"
    exec 8>"$LABS/lock"
    flock 8
    sweep_labs
    for ((id = 1; id <= LAB_IDS; id++)); do
        if mkdir "$LABS/$id" 2>/dev/null; then
            use_lab "$id"
            keep_process "$FOLDER/owner" "$1"
            exec 8>&-
            return
        fi
    done
    fail "all $LAB_IDS labs are taken" "look into $LABS, and take down what nobody needs: QUARRY_LAB=1 bin/lab down"
}

# Labs whose owner is gone, also by a restart of the machine. Lab 0 has none: it lives until `down`.
sweep_labs() {
    local folder
    for folder in "$LABS"/[1-9]*; do
        [[ -d $folder ]] || continue
        if ! process_in "$folder/owner" >/dev/null; then
            # Whoever takes it down at this moment may be faster with one part or the other; what remains is swept by
            # the next, and its number is not free until then.
            (use_lab "$(basename "$folder")" && dismantle_lab && rm -rf "$FOLDER") || true
        fi
    done
}

make_lab() {
    mkdir -p "$FOLDER"
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$FOLDER/key"
    ip netns add "$SWITCH"
    on_switch link add bridge type bridge
    on_switch link set bridge up
    ip link add "$CABLE" type veth peer name hq netns "$SWITCH"
    on_switch link set hq master bridge up
    ip address add "$SUBNET.1/24" dev "$CABLE"
    ip link set "$CABLE" up
    # Frames between two ports that are cut apart go nowhere.
    ip netns exec "$SWITCH" nft -f - <<'RULES'
table bridge lab {
    set apart { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0;
        iifname . oifname @apart drop
    }
}
RULES
    to_the_world -I
}

# to_the_world -I|-D: the machine's rules that let servers install packages.
to_the_world() {
    local mark=(-m comment --comment "$SWITCH") chain=FORWARD
    sysctl -qw net.ipv4.ip_forward=1
    iptables -w 10 -t nat "$1" POSTROUTING -s "$SUBNET.0/24" ! -d "$SUBNET.0/24" "${mark[@]}" -j MASQUERADE
    # Docker forbids what it does not know; its chain for people's rules goes first.
    ! iptables -w 10 -n -L DOCKER-USER >/dev/null 2>&1 || chain=DOCKER-USER
    iptables -w 10 "$1" "$chain" -i "$CABLE" "${mark[@]}" -j ACCEPT
    iptables -w 10 "$1" "$chain" -o "$CABLE" "${mark[@]}" -j ACCEPT
}

# add_server K BASE ETCD: its folder; BASE is the root it stands on, ETCD the members of the cluster.
add_server() {
    local folder=$FOLDER/s$1
    mkdir -p "$folder"/{disk,docker,log}
    # In memory, since an overlay's upper folder cannot lie within its lower one.
    mount -t tmpfs -o size=4g "$SWITCH" "$folder/disk"
    mkdir -p "$folder"/disk/{upper,work}
    ssh-keygen -q -t ed25519 -N '' -C "s$1" -f "$folder/host_key"
    # Linked and not copied: an engine never writes to a layer that is done.
    if [[ $2 == / ]]; then
        cp -al "$LABS/cache/$(base_image)/overlay2" "$folder/docker/"
        cp -a "$LABS/cache/$(base_image)/image" "$folder/docker/"
    fi
    cat >"$folder/settings" <<SETTINGS
NAME=s$1 ADDRESS=$(address_of "$1") BASE=$2 CGROUP=/$SWITCH-s$1
ETCD=$3
SETTINGS
}

base_image() {
    docker image inspect --format '{{slice .Id 7 19}}' "$BASE_IMAGE"
}

# The data of an engine that has the base image, made once.
make_engine_data() {
    local image made data
    image=$(base_image)
    made=$LABS/cache/$image
    [[ ! -d $made ]] || return 0
    step "Preparing the base image for servers (once)"
    # Of earlier base images, and of attempts that were broken off; servers keep what they have linked.
    find "$LABS/cache" -mindepth 1 -maxdepth 1 -regextype egrep -regex '.*/([0-9a-f]{12}|new\..*)' -exec rm -rf {} +
    data=$(mktemp -d "$LABS/cache/new.XXXX")
    mkdir "$data/run"
    # shellcheck disable=SC2016
    unshare --mount --net --pid --fork --kill-child --mount-proc bash -c '
        mount -t tmpfs tmpfs /run
        dockerd --data-root "$1" --exec-root /run/docker --pidfile /run/docker.pid -H unix:///run/docker.sock \
            --bridge none --iptables=false >"$1.log" 2>&1 &
        until docker -H unix:///run/docker.sock version >/dev/null 2>&1; do sleep 0.1; done
        docker -H unix:///run/docker.sock load
        kill %1
        wait' - "$data" < <(docker save "$BASE_IMAGE") >/dev/null
    mv "$data" "$made"
    rm -f "$data.log"
}

# A tree of Debian with sshd and nothing else, made once.
make_bare_tree() {
    [[ ! -d $LABS/cache/bare ]] || return 0
    step "Making a bare Debian (once)"
    install_missing mmdebstrap=mmdebstrap
    local tree
    tree=$(mktemp -d "$LABS/cache/new.XXXX")
    chmod 755 "$tree"
    quietly "are Debian's mirrors out of reach?" mmdebstrap --variant=minbase \
        --include=openssh-server,ca-certificates,iproute2,procps bookworm "$tree"
    cp -r /etc/apt/apt.conf.d /etc/apt/sources.list* "$tree/etc/apt/" 2>/dev/null || true
    cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
    mv "$tree" "$LABS/cache/bare"
}

# bring_up COUNT ETCD BASE: adds the servers that are missing; returns when all answer.
bring_up() {
    local count=$1 members=$2 base=$3 cluster='' k
    mkdir -p "$LABS/cache"
    (
        flock 9
        if [[ $base == / ]]; then make_engine_data; else make_bare_tree; fi
    ) 9>"$LABS/cache/lock"
    [[ -e $FOLDER/key ]] || make_lab
    for ((k = 1; k <= members; k++)); do
        cluster+=${cluster:+,}s$k=http://$(address_of "$k"):2380
    done
    for ((k = 1; k <= count; k++)); do
        [[ -e $FOLDER/s$k/settings ]] || add_server "$k" "$base" "$cluster"
        is_on "$k" || power_on "$k"
    done
    for ((k = 1; k <= count; k++)); do
        wait_until 60 answers "$k" || fail "server $k does not answer" "look at $FOLDER/s$k/log"
    done
    for ((k = 1; k <= members; k++)); do
        wait_until 60 etcd_answers "$k" || fail "etcd on server $k does not answer" "look at $FOLDER/s$k/log/etcd.log"
    done
}

# Not over SSH, which would cost a handshake for each look.
answers() {
    local first
    first=$(first_process "$1") && [[ $first ]] || return 1
    (: </dev/tcp/"$(address_of "$1")"/22) 2>/dev/null || return 1
    [[ $(sed -n 's/^BASE=//p' <(tr ' ' '\n' <"$FOLDER/s$1/settings")) != / ]] ||
        docker -H "unix:///proc/$first/root/run/docker.sock" version >/dev/null 2>&1
}

# True once there is a leader.
etcd_answers() {
    curl --silent --fail --noproxy '*' --max-time 1 "http://$(address_of "$1"):2379/health" | grep -q '"true"'
}

# Its number is free only when everything else is gone, and is given back under the lock under which it is taken: else
# this could remove what the next who took it has made.
remove_lab() {
    local owner
    owner=$(owner_of_lab)
    dismantle_lab
    mkdir -p "$LABS"
    exec 8>"$LABS/lock"
    flock 8
    [[ $(owner_of_lab) != "$owner" ]] || rm -rf "$FOLDER"
    exec 8>&-
}

owner_of_lab() {
    cat "$FOLDER/owner" 2>/dev/null || true
}

# Removes everything but the folder itself with the name of its owner: as long as that one lives, nobody sweeps it.
dismantle_lab() {
    local k folder
    for k in $(servers); do
        power_off "$k"
    done
    if ip link show "$CABLE" >/dev/null 2>&1; then
        ip link del "$CABLE"
    fi
    while to_the_world -D 2>/dev/null; do :; done
    for folder in /run/netns/"$SWITCH"*; do
        [[ ! -e $folder ]] || case $folder in
            "/run/netns/$SWITCH" | "/run/netns/$SWITCH-s"*) ip netns del "$(basename "$folder")" ;;
        esac
    done
    for folder in "$FOLDER"/s*/disk; do
        ! mountpoint -q "$folder" || umount "$folder"
    done
    # Somebody else may be at it; what stays is removed with the folder.
    find "$FOLDER" -mindepth 1 -maxdepth 1 ! -name owner -exec rm -rf {} + 2>/dev/null || true
    # Control groups outlive those who were in them.
    find /sys/fs/cgroup -depth -type d -path "*/$SWITCH-s*" -exec rmdir {} + 2>/dev/null || true
}

# ---- power ----

power_on() {
    local k=$1 namespace log
    namespace=$(namespace_of "$k")
    log=$FOLDER/s$k/log/boot.log
    ip netns add "$namespace"
    # The same card as before: HQ remembers its address for a while.
    on_switch link add "s$k" type veth peer name eth0 netns "$namespace" \
        address "$(printf '02:77:00:00:%02x:%02x' "$LAB" "$k")"
    on_switch link set "s$k" master bridge up
    ip -n "$namespace" -batch - <<LINK
link set lo up
address add $(address_of "$k")/24 dev eth0
link set eth0 up
route add default via $SUBNET.1
LINK
    # Not \`ip netns exec\`, which hides the control groups from dockerd.
    setsid nsenter --net="/run/netns/$namespace" unshare --mount --pid --uts --ipc --fork --kill-child --mount-proc \
        bash "$LAB_SCRIPTS/boot" "$FOLDER/s$k" >>"$log" 2>&1 </dev/null 8>&- 9>&- &
    keep_process "$FOLDER/s$k/process" $!
}

power_off() {
    local k=$1 process namespace
    namespace=$(namespace_of "$k")
    # The cable goes first, else the kernel would say goodbye on behalf of those who die.
    on_switch link set "s$k" down 2>/dev/null || true
    if process=$(process_in "$FOLDER/s$k/process"); then
        kill -KILL "$process"
        wait_until 20 gone "$process" || fail "server $k (process $process) does not end"
    fi
    rm -f "$FOLDER/s$k/process"
    on_switch link del "s$k" 2>/dev/null || true
    [[ ! -e /run/netns/$namespace ]] || ip netns del "$namespace"
}

# ---- links ----

# apart add|delete K J: frames between two servers, or a server and `hq`.
apart() {
    local one other
    one=$(port_of_server "$2") other=$(port_of_server "$3")
    ip netns exec "$SWITCH" nft "$1" element bridge lab apart "{ $one . $other, $other . $one }"
}

port_of_server() {
    if [[ $1 == hq ]]; then echo hq; else echo "s$1"; fi
}

# slow K RATE|off: both directions of a server's cable, in tc's units, such as 10mbit.
slow() {
    local k=$1 rate=$2 namespace
    namespace=$(namespace_of "$k")
    tc -n "$SWITCH" qdisc del dev "s$k" root 2>/dev/null || true
    tc -n "$namespace" qdisc del dev eth0 root 2>/dev/null || true
    [[ $rate != off ]] || return 0
    tc -n "$SWITCH" qdisc add dev "s$k" root tbf rate "$rate" burst 64kb latency 200ms
    tc -n "$namespace" qdisc add dev eth0 root tbf rate "$rate" burst 64kb latency 200ms
}
