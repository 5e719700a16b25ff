//! What is wrong with a machine and its HQ, each finding with the command that mends it. [`stats`] looks at the machine,
//! [`act`] at HQ; here it is judged.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::etc::Mistake;

pub mod act;
pub mod stats;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work, or anybody could take it.
    Broken,
    /// It works, and will not for long, or not after something happens that does.
    Soon,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Broken => "broken",
            Severity::Soon => "soon",
        }
    }
}

/// Something that should be otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Of what: `docker`, `disk`, `certificates` …
    pub about: &'static str,
    /// What was found.
    pub what: String,
    /// The command that mends it.
    pub mend: String,
}

impl Finding {
    /// Something that does not work.
    pub fn broken(about: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { severity: Severity::Broken, about, what: what.into(), mend: mend.into() }
    }

    /// Something that will not work for long.
    pub fn soon(about: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { severity: Severity::Soon, about, what: what.into(), mend: mend.into() }
    }
}

/// A machine as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Settings that do not say what they should.
    pub mistakes: Vec<Mistake>,
    /// Files that hold secrets.
    pub secrets: Vec<Secret>,
    /// Pieces that are not there, with the packages that bring them.
    pub missing: Vec<(String, String)>,
    /// The disks of HQ's files and docker's.
    pub disks: Vec<Disk>,
    /// Whether something keeps the clock right; `None` where nobody can tell.
    pub clock: Option<bool>,
    /// Whether memory and processes of containers can be limited.
    pub limits: bool,
    /// Whether systemd runs the machine.
    pub systemd: bool,
    /// Ports from which the system takes those of connections that go out.
    pub ephemeral: Option<(u16, u16)>,
}

/// A file with a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Where.
    pub path: PathBuf,
    /// Who may do what with it.
    pub mode: u32,
    /// Whose it is.
    pub owner: u32,
}

/// A disk that something of HQ's is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The folder.
    pub folder: PathBuf,
    /// All of it, in bytes.
    pub size: u64,
    /// What is left, in bytes.
    pub free: u64,
    /// How many files it can hold; none where it does not count them.
    pub files: u64,
    /// How many more.
    pub files_free: u64,
}

impl Disk {
    /// How full it is, in percent.
    pub fn used(&self) -> u64 {
        percent(self.size, self.free)
    }
}

fn percent(size: u64, free: u64) -> u64 {
    size.saturating_sub(free).saturating_mul(100).checked_div(size).unwrap_or(0)
}

/// From here on a disk is about to be full, in percent.
pub const FILLING: u64 = 85;
/// From here on it is as good as full.
pub const FULL: u64 = 95;

/// What docker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerFacts {
    /// Its version.
    pub version: String,
    /// Containers run on while it is restarted.
    pub live_restore: bool,
    /// Why builds by BuildKit may take all of the machine, if they may.
    pub unlimited: Option<String>,
}

/// What is wrong with a machine.
pub fn of_machine(machine: &Machine, ports: &std::ops::RangeInclusive<u16>) -> Vec<Finding> {
    let mut found: Vec<Finding> = machine.mistakes.iter().map(of_mistake).collect();
    found.extend(machine.secrets.iter().filter_map(of_secret));
    for (piece, packages) in &machine.missing {
        found.push(Finding::broken("programs", format!("{piece} is missing"), format!("apt-get install {packages}")));
    }
    found.extend(machine.disks.iter().flat_map(of_disk));
    if machine.clock == Some(false) {
        let what = "nothing keeps the clock right, by which certificates and leases go";
        found.push(Finding::soon("clock", what, "timedatectl set-ntp true"));
    }
    if !machine.limits {
        let what = "the kernel limits neither memory nor processes of containers";
        let mend = "add `cgroup_enable=memory` to GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub, reboot";
        found.push(Finding::soon("kernel", what, mend));
    }
    if let Some((first, last)) = machine.ephemeral.filter(|(first, last)| first <= ports.end() && last >= ports.start())
    {
        let (start, end) = (ports.start(), ports.end());
        let what = format!("connections that go out take ports {first}-{last}, and containers {start}-{end}");
        let mend = format!("sysctl -w net.ipv4.ip_local_reserved_ports={start}-{end}");
        found.push(Finding::soon("ports", what, mend));
    }
    found
}

fn of_mistake(mistake: &Mistake) -> Finding {
    let mend = match mistake.what.split_once("; chmod ") {
        Some((_, rest)) => format!("chmod {rest}"),
        None => format!("editor {}", mistake.file.display()),
    };
    Finding::broken("settings", mistake.to_string(), mend)
}

fn of_secret(secret: &Secret) -> Option<Finding> {
    let path = secret.path.display();
    if secret.owner != 0 {
        let what = format!("{path} is a secret of HQ's and belongs to somebody else");
        return Some(Finding::broken("secrets", what, format!("chown root: {path}")));
    }
    let open = secret.mode & 0o077 != 0;
    open.then(|| Finding::broken("secrets", format!("others may use {path}"), format!("chmod 600 {path}")))
}

fn of_disk(disk: &Disk) -> Vec<Finding> {
    let folder = disk.folder.display();
    let mut found = Vec::new();
    let full = |used: u64, what: String| match used {
        FULL.. => Some(Finding::broken("disk", what, "quarry gc")),
        FILLING.. => Some(Finding::soon("disk", what, "quarry gc")),
        _ => None,
    };
    let free = disk.free >> 20;
    found.extend(full(disk.used(), format!("the disk of {folder} is {}% full, {free} MB are left", disk.used())));
    let files = percent(disk.files, disk.files_free);
    found.extend(full(files, format!("the disk of {folder} holds {files}% of the files it can hold")));
    found
}

/// What is wrong with docker.
pub fn of_docker(docker: &Result<DockerFacts, String>, systemd: bool) -> Vec<Finding> {
    let facts = match docker {
        Ok(facts) => facts,
        Err(why) => {
            let mend = if systemd { "systemctl restart docker" } else { "setsid dockerd >/var/log/dockerd.log 2>&1 &" };
            return vec![Finding::broken("docker", why.clone(), mend)];
        }
    };
    let mut found = Vec::new();
    if is_older(&facts.version, (20, 10)) {
        let what = format!("docker {} is older than 20.10, which is the oldest that is tested", facts.version);
        found.push(Finding::soon("docker", what, "apt-get install docker.io"));
    }
    if !facts.live_restore {
        let what = "containers end when docker is restarted, for an update of it too";
        found.push(Finding::soon("docker", what, "quarry install"));
    }
    if let Some(why) = &facts.unlimited {
        let what = format!("a build by BuildKit may take all memory and processes of the machine: {why}");
        let mend = "set \"exec-opts\": [\"native.cgroupdriver=cgroupfs\"] in /etc/docker/daemon.json, \
                    systemctl restart docker";
        found.push(Finding::soon("docker", what, mend));
    }
    found
}

/// A version that does not read as one is not judged.
fn is_older(version: &str, than: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < than,
        _ => false,
    }
}

/// Who should listen at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Which port.
    pub port: u16,
    /// What for.
    pub what: &'static str,
    /// The program that should.
    pub wanted: &'static str,
    /// The one that does.
    pub found: Option<String>,
}

/// What is wrong with who listens where.
pub fn of_listening(listening: &[Listening], systemd: bool) -> Vec<Finding> {
    let again = if systemd { "systemctl restart quarry" } else { "quarry serve" };
    let found = listening.iter().filter_map(|listening| {
        let Listening { port, what, wanted, found } = listening;
        match found {
            Some(program) if program == wanted => None,
            Some(program) => {
                let text = format!("{program} listens on port {port}, which is {what}");
                Some(Finding::broken("ports", text, format!("fuser -k {port}/tcp && {again}")))
            }
            None => Some(Finding::broken("ports", format!("nobody listens on port {port}: {what}"), again)),
        }
    });
    found.collect()
}

/// The clock of a server beside HQ's own.
pub fn of_clock(server: &str, ahead: i64) -> Option<Finding> {
    const BOUND: i64 = 3;
    let apart = ahead.unsigned_abs();
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let what = format!("the clock of `{server}` is {apart} s {way} HQ's");
    let mend = format!("timedatectl set-ntp true (on {server} and here)");
    (ahead.abs() > BOUND).then(|| Finding::soon("clock", what, mend))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.about, self.what, self.mend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Machine {
        Machine { limits: true, ..Machine::default() }
    }

    fn check(machine: &Machine, expected: &[(&str, &str)]) {
        let found = of_machine(machine, &(20_000..=29_999));
        let told: Vec<(&str, &str)> = found.iter().map(|found| (found.about, found.mend.as_str())).collect();
        assert_eq!(told, expected, "{found:?}");
    }

    #[test]
    fn a_sound_machine_has_no_findings() {
        check(&sound(), &[]);
        check(&Machine { ephemeral: Some((32_768, 60_999)), clock: Some(true), ..sound() }, &[]);
    }

    #[test]
    fn each_finding_has_the_command_that_mends_it() {
        let disk = |free| Disk { folder: "/home/quarry".into(), size: 1000, free, files: 1000, files_free: 1000 };
        check(&Machine { disks: vec![disk(151)], ..sound() }, &[]);
        check(&Machine { disks: vec![disk(150)], ..sound() }, &[("disk", "quarry gc")]);
        assert_eq!(of_disk(&disk(50))[0].severity, Severity::Broken);
        let crowded = Disk { files_free: 10, ..disk(900) };
        check(&Machine { disks: vec![crowded], ..sound() }, &[("disk", "quarry gc")]);
        let secret = |mode, owner| Secret { path: "/etc/quarry/env_key".into(), mode, owner };
        check(&Machine { secrets: vec![secret(0o600, 0)], ..sound() }, &[]);
        check(&Machine { secrets: vec![secret(0o640, 0)], ..sound() }, &[("secrets", "chmod 600 /etc/quarry/env_key")]);
        check(
            &Machine { secrets: vec![secret(0o600, 7)], ..sound() },
            &[("secrets", "chown root: /etc/quarry/env_key")],
        );
        let mistake = |what: &str| Mistake { file: "/etc/quarry/size".into(), what: what.into() };
        check(
            &Machine { mistakes: vec![mistake("`x` is no size")], ..sound() },
            &[("settings", "editor /etc/quarry/size")],
        );
        let open = "others may read it; chmod 600 /etc/quarry/etcd/password";
        check(
            &Machine { mistakes: vec![mistake(open)], ..sound() },
            &[("settings", "chmod 600 /etc/quarry/etcd/password")],
        );
        check(
            &Machine { missing: vec![("nginx".into(), "nginx-light".into())], ..sound() },
            &[("programs", "apt-get install nginx-light")],
        );
        check(&Machine { clock: Some(false), ..sound() }, &[("clock", "timedatectl set-ntp true")]);
        check(
            &Machine { ephemeral: Some((1024, 65_535)), ..sound() },
            &[("ports", "sysctl -w net.ipv4.ip_local_reserved_ports=20000-29999")],
        );
    }

    #[test]
    fn docker_is_asked_for_what_a_restart_of_it_would_do() {
        let facts =
            |version: &str, live_restore| Ok(DockerFacts { version: version.into(), live_restore, unlimited: None });
        assert_eq!(of_docker(&facts("27.5.1", true), true), []);
        let unlimited = facts("27.5.1", true).map(|facts| DockerFacts { unlimited: Some("so".into()), ..facts });
        let found = &of_docker(&unlimited, true)[0];
        assert!(found.what.ends_with(": so") && found.mend.contains("cgroupdriver=cgroupfs"), "{found}");
        assert_eq!(of_docker(&facts("19.3.1", true), true).len(), 1);
        assert_eq!(of_docker(&facts("20.10.24", false), true)[0].mend, "quarry install");
        assert_eq!(of_docker(&Err("it is away".into()), true)[0].mend, "systemctl restart docker");
    }

    #[test]
    fn a_port_is_its_own_programs() {
        let at =
            |found: Option<&str>| Listening { port: 80, what: "HTTP", wanted: "nginx", found: found.map(Into::into) };
        assert_eq!(of_listening(&[at(Some("nginx"))], true), []);
        assert_eq!(of_listening(&[at(None)], true)[0].mend, "systemctl restart quarry");
        assert_eq!(of_listening(&[at(Some("apache2"))], true)[0].mend, "fuser -k 80/tcp && systemctl restart quarry");
        assert_eq!(of_clock("s1", 2), None);
        assert!(of_clock("s1", -9).unwrap().what.contains("9 s behind"));
    }
}
