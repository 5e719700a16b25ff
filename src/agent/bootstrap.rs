//! How an agent comes to a server: the shell scripts that HQ runs there, for a POSIX shell with Debian's base system.

/// Where HQ puts its own program on a server.
pub const PROGRAM: &str = "/usr/local/lib/quarry/quarry";

/// What an agent needs on its server, with the package each piece is in.
pub const PACKAGES: [(&str, &str); 2] = [("/usr/sbin/nft", "nftables"), ("/bin/ip", "iproute2")];

/// What a server needs beside to route.
pub const ROUTER_PACKAGES: [(&str, &str); 3] = [
    ("/usr/sbin/nginx", "nginx-light"),
    ("/usr/lib/nginx/modules/ngx_http_lua_module.so", "libnginx-mod-http-lua"),
    ("/usr/share/lua/5.1/resty/core.lua", "lua-resty-core"),
];

/// `PROGRAM`: one `name=value` a line. Nothing is changed.
pub const LOOK: &str = r#"
echo "user=$(id -u)"
echo "machine=$(uname -m)"
echo "digest=$(sha256sum "$1" 2>/dev/null | cut -d ' ' -f 1)"
"#;

/// `PIECE...`: says which of them are not there.
pub const MISSING: &str = r#"
for piece; do
    [ -e "$piece" ] || echo "$piece"
done
"#;

/// `PACKAGE...`: installs them. The nginx that a package starts is not the router's, and would hold its port.
pub const INSTALL: &str = r#"
command -v apt-get >/dev/null || { echo "install these by hand: $*" >&2; exit 1; }
if [ -d /run/systemd/system ] && [ ! -e /etc/nginx ]; then
    systemctl mask nginx.service >/dev/null 2>&1 || true
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q update >/dev/null 2>&1 || true
apt-get -q -y --no-install-recommends install "$@" >&2
"#;

/// `PROGRAM DIGEST`, the program on standard input: it takes the place of the one before in one step.
pub const UPLOAD: &str = r#"
set -e
umask 022
mkdir -p "$(dirname "$1")"
new=$1.new.$$
trap 'rm -f "$new"' EXIT
cat >"$new"
if [ "$(sha256sum "$new" | cut -d ' ' -f 1)" != "$2" ]; then
    echo "the program did not arrive whole; is the disk full?" >&2
    exit 1
fi
chmod 755 "$new"
sync "$new"
mv -f "$new" "$1"
"#;

/// `PROGRAM DIGEST FOLDER UNIT`: sees to it that this program runs as the server's agent, now and after each boot. Says
/// `runs`, `changed` or `started`.
///
/// With systemd its service ends with the agent alone: the router it has started serves on. It comes before docker, so
/// that the rules are there before the containers that docker starts at boot. Without, whatever starts the server's
/// other daemons has to run `/etc/quarry/boot`, which starts those of `boot.d` beside it; until it does, HQ starts the
/// agent when it finds it dead.
pub const START: &str = r##"
set -e
umask 022
mkdir -p "$3" /etc/quarry
write() {
    [ "$(cat "$1" 2>/dev/null)" != "$2" ] || return 1
    printf '%s\n' "$2" >"$1.new" && chmod "$3" "$1.new" && mv -f "$1.new" "$1"
}
running() {
    [ -e "$1" ] && ! flock -n "$1" true && pid=$(cat "$1") && [ -n "$pid" ] && [ -d "/proc/$pid" ]
}
same() {
    [ "$(sha256sum "/proc/$pid/exe" 2>/dev/null | cut -d ' ' -f 1)" = "$1" ]
}
if [ -d /run/systemd/system ]; then
    changed=no
    write /etc/systemd/system/quarry-agent.service "$4" 644 && changed=yes
    [ $changed = no ] || systemctl daemon-reload
    systemctl enable -q quarry-agent.service
    if [ $changed = no ] && running "$3/lock" && same "$2"; then
        echo runs
    else
        systemctl restart quarry-agent.service
        echo started
    fi
    exit
fi
write /etc/quarry/boot "#!/bin/sh
for daemon in /etc/quarry/boot.d/*; do [ ! -x \"\$daemon\" ] || \"\$daemon\"; done
exec $1 agent --folder $3" 755 || true
if ! running "$3/lock"; then
    [ ! -e "$3/log" ] || mv -f "$3/log" "$3/log.old"
    setsid "$1" agent --folder "$3" >>"$3/log" 2>&1 </dev/null &
    echo started
elif same "$2"; then
    echo runs
else
    kill -HUP "$pid"
    echo changed
fi
"##;

/// The agent as a service of systemd's. It writes config files wherever they belong, supervises programs of any kind and
/// changes the packet filter: closed is what none of these needs. What it has started outlives it, hence `KillMode`.
pub fn unit(program: &str, folder: &str) -> String {
    format!(
        "[Unit]
Description=Quarry's agent
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0
Before=docker.service

[Service]
ExecStart={program} agent --folder {folder}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1
KillMode=process
Slice=quarry-agent.slice
LimitNOFILE=1048576
OOMScoreAdjust=-500
ProtectClock=yes
ProtectKernelLogs=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"
    )
}

/// `PROGRAM FOLDER`: ends the agent for good, and takes away what was brought.
pub const DISMISS: &str = r#"
if [ -d /run/systemd/system ]; then
    systemctl disable -q --now quarry-agent.service 2>/dev/null
    rm -f /etc/systemd/system/quarry-agent.service
    systemctl daemon-reload
elif [ -e "$2/lock" ] && ! flock -n "$2/lock" true; then
    kill "$(cat "$2/lock")"
    flock -w 10 "$2/lock" true
fi
ip -4 -oneline address show dev lo label lo:quarry 2>/dev/null | while read -r _ _ _ address _; do
    ip address del "$address" dev lo
done
rm -rf "$2" "$1" /etc/quarry/boot
"#;
