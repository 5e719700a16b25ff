//! The shell scripts by which HQ keeps a member on a server, for a POSIX shell with Debian's base system.

/// `FOLDER`: one `name=value` a line. Nothing is changed.
pub const LOOK: &str = r#"
echo "user=$(id -u)"
echo "version=$(etcd --version 2>/dev/null | sed -n 's/^etcd Version: //p')"
[ ! -d "$1/data/member" ] || echo "data=yes"
"#;

/// Installs etcd from the distribution. The member that the package starts is nobody's.
pub const INSTALL: &str = r#"
command -v apt-get >/dev/null || { echo "install etcd 3.4 or later by hand" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
if [ -n "$(dpkg --audit)" ]; then
    dpkg --configure -a >&2 || exit 1
fi
[ ! -d /run/systemd/system ] || systemctl mask etcd.service >/dev/null 2>&1
tries=0
until apt-get -q update >/dev/null; do
    [ $((tries += 1)) -lt 10 ] || exit 1
    sleep 2
done
apt-get -o DPkg::Lock::Timeout=300 -q -y --no-install-recommends install etcd-server >&2 || exit 1
if [ ! -d /run/systemd/system ]; then
    # It may not have been started, nor be set to start: that is as wanted.
    service etcd stop >/dev/null 2>&1
    update-rc.d etcd disable >/dev/null 2>&1 || true
fi
"#;

/// `PATH MODE`, the text on standard input: it takes the place of the one before in one step.
pub const WRITE: &str = r#"
set -e
umask 077
mkdir -p "$(dirname "$1")"
cat >"$1.new"
chmod "$2" "$1.new"
sync "$1.new"
mv -f "$1.new" "$1"
"#;

/// The shell's `end_member FOLDER`, for where no systemd keeps a member running.
macro_rules! end_member {
    () => {
        r#"
end_member() {
    pid=$(cat "$1/pid")
    # It may be ending already.
    kill "$pid" 2>/dev/null || true
    # One that waits for somebody to hang up, or stands still, would never end; its data bear the worst.
    flock -w 8 "$1/lock" true || kill -KILL $(cat "/proc/$pid/task/$pid/children") 2>/dev/null || true
    flock -w 12 "$1/lock" true || { echo "the etcd that runs there does not end" >&2; exit 1; }
}
"#
    };
}

/// `FOLDER`: sees to it that the member runs with the settings that lie there, now and after each boot.
///
/// Where no systemd keeps it running, a shell does, which whatever starts the server's other daemons starts by
/// `/etc/quarry/boot`.
pub const START: &str = concat!(
    end_member!(),
    r##"
set -e
umask 022
etcd=$(command -v etcd)
mkdir -p "$1/data"
as=root
! id etcd >/dev/null 2>&1 || as=etcd
# Only the data and the key are its own: root reads and runs what lies beside them.
for piece in "$1" "$1"/*; do
    [ "$piece" = "$1/data" ] || chown -h root "$piece"
done
chown -R "$as" "$1/data"
chown "$as" "$1/key.pem"
chmod 711 "$1"
chmod 700 "$1/data"
if [ -d /run/systemd/system ]; then
    cat >/etc/systemd/system/quarry-etcd.service.new <<UNIT
[Unit]
Description=The etcd with the state of Quarry's HQ
After=network-online.target
Wants=network-online.target
# A member that cannot start yet is started until it can.
StartLimitIntervalSec=0
[Service]
User=$as
ExecStart=$etcd --config-file $1/etcd.yml
Restart=always
RestartSec=1
LimitNOFILE=65536
OOMScoreAdjust=-500
[Install]
WantedBy=multi-user.target
UNIT
    mv -f /etc/systemd/system/quarry-etcd.service.new /etc/systemd/system/quarry-etcd.service
    systemctl daemon-reload
    systemctl enable -q quarry-etcd.service
    systemctl restart quarry-etcd.service
    exit
fi
mkdir -p /etc/quarry/boot.d
cat >"$1/keep" <<KEEP
#!/bin/sh
# Keeps etcd running until it is told to end.
echo \$\$ >"$1/pid"
trap 'kill \$etcd 2>/dev/null; wait \$etcd; exit' TERM
while :; do
    [ ! -e "$1/log" ] || [ "\$(wc -c <"$1/log")" -lt 10000000 ] || mv -f "$1/log" "$1/log.old"
    setpriv --reuid=$as --regid=$as --clear-groups "$etcd" --config-file "$1/etcd.yml" >>"$1/log" 2>&1 &
    etcd=\$!
    wait \$etcd
    sleep 1
done
KEEP
cat >/etc/quarry/boot.d/etcd.new <<BOOT
#!/bin/sh
setsid flock -n "$1/lock" sh "$1/keep" </dev/null >/dev/null 2>&1 &
BOOT
chmod 755 /etc/quarry/boot.d/etcd.new
mv -f /etc/quarry/boot.d/etcd.new /etc/quarry/boot.d/etcd
if [ ! -e /etc/quarry/boot ]; then
    printf '%s\n' '#!/bin/sh' 'exec /etc/quarry/boot.d/etcd' >/etc/quarry/boot
    chmod 755 /etc/quarry/boot
fi
if ! flock -n "$1/lock" true; then
    # It may be ending already.
    end_member "$1"
fi
/etc/quarry/boot.d/etcd
"##
);

/// `FOLDER`: the member ends, and its data go.
pub const CLEAR: &str = concat!(
    end_member!(),
    r#"
if [ -d /run/systemd/system ]; then
    systemctl disable -q --now quarry-etcd.service 2>/dev/null
    rm -f /etc/systemd/system/quarry-etcd.service
    systemctl daemon-reload
elif [ -e "$1/lock" ] && ! flock -n "$1/lock" true; then
    end_member "$1"
fi
rm -rf "$1" /etc/quarry/boot.d/etcd
"#
);

/// `FOLDER`: the last thing the member complained about.
pub const WHY: &str = r#"
if [ -d /run/systemd/system ]; then
    journalctl -q -o cat -n 1 -u quarry-etcd.service
else
    tail -n 1 "$1/log"
fi
"#;
