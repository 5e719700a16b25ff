//! The texts of systemd's units. Each is as closed as what it runs bears; why something stays open is said beside it.

use std::path::Path;

use super::{PROGRAM, Wish};
use crate::agent::files::FOLDER;

/// What none of them needs.
const CLOSED: &str = "\
NoNewPrivileges=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap
";

/// HQ. It becomes another program as the same process, so that its main process is always the one that was started.
///
/// Open are: control groups, in which builds get their limits; netlink, for the wall between containers; memory that is
/// written and run, for the router's Lua when HQ starts that; `/usr/local`, where it and the agent are replaced, and
/// `/etc/systemd/system`, where the agent's unit is kept up to date; `/tmp`, where it writes nothing, and where programs
/// lie that it is upgraded to; `/run/quarry`, where jobs fetch their streams. What it has started outlives it, hence
/// `KillMode`.
pub fn hq(wish: &Wish) -> String {
    let Wish { root, etc, ssh, http, https } = wish;
    let https = https.map_or_else(|| "off".to_owned(), |https| https.to_string());
    let (root, etc) = (root.display(), etc.display());
    // The first start of the agent makes its folder from here.
    let agent = FOLDER.trim_start_matches("/var/lib/");
    format!(
        "[Unit]
Description=Quarry's HQ
After=network-online.target docker.service quarry-router.service
Wants=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
Environment=QUARRY_ROOT={root} QUARRY_ETC={etc}
ExecStart={PROGRAM} serve --ssh {ssh} --http {http} --https {https}
Restart=always
RestartSec=1
TimeoutStartSec=infinity
KillMode=process
Slice=quarry-hq.slice
LimitNOFILE=65536
OOMScoreAdjust=-500
{CLOSED}ProtectSystem=strict
ReadWritePaths={root} {etc} /etc/systemd/system /usr/local
StateDirectory={agent}
RuntimeDirectory=quarry
RuntimeDirectoryPreserve=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID CAP_SYS_PTRACE CAP_SYS_RESOURCE

[Install]
WantedBy=multi-user.target
"
    )
}

/// The router at boot, before HQ is there and without it. From then on HQ sees to it that it runs, and starts it in a
/// scope of its own where it has ended: so systemd does not.
pub fn router(root: &Path) -> String {
    let folder = root.join("router");
    let folder = folder.display();
    format!(
        "[Unit]
Description=Quarry's router
After=network-online.target
Wants=network-online.target
Before=quarry.service
ConditionPathExists={folder}/current/nginx.conf

[Service]
Type=forking
PIDFile={folder}/nginx.pid
ExecStartPre=-/bin/rm -f {folder}/control/socket
ExecStart=/usr/sbin/nginx -c current/nginx.conf -p {folder}
ExecReload=/bin/kill -HUP $MAINPID
KillSignal=SIGQUIT
TimeoutStopSec=10
Slice=quarry-router.slice
LimitNOFILE=1048576
OOMScoreAdjust=-800
{CLOSED}ProtectSystem=strict
ReadWritePaths={folder}
PrivateTmp=yes
PrivateDevices=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID

[Install]
WantedBy=multi-user.target
"
    )
}

/// The user after whom everything is called. Nobody logs in as it: HQ's own SSH server knows people by their keys.
pub fn user(root: &Path) -> String {
    format!("u quarry - \"Quarry\" {} /usr/sbin/nologin\n", root.display())
}
