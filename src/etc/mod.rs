//! Quarry's own settings: one value a file under /etc/quarry, every file optional.
//!
//! ```text
//! hostnames          one domain a line; stacks answer at <stack>.<hostname>, the first is the one shown
//! env/<NAME>         a variable of every stack; the stack's own covers it
//! build/env/<NAME>   passed into builds: proxies, PIP_INDEX_URL, NPM_CONFIG_REGISTRY
//! build/ca-bundle    certificates builds trust: PEM text, or the path of a file of it
//! build/timeout      30m      build/memory     four fifths of the machine's
//! build/processes    4096     build/spare      1gb of disk that builds leave free
//! build/ports        TCP ports of HQ's own server that builds reach, such as a proxy's; none without
//! build/registries   one host a line, by name or address, inside your own network that images may come from
//! build/syntaxes     images that `# syntax=` may name besides docker's own, one a line
//! release-timeout    30m                lease          15s, after which a silent server may count as gone
//! size               512mb    push-limit       2gb
//! releases-kept      10       port-range       20000-29999       gc/age, gc/disk 85%, gc/events 90d, gc/build-cache
//! subnets            10.208.0.0/12, cut into one subnet for each stack: a /23, smaller ones where there are few
//! embassy/address    169.254.87.91, where containers find what they are linked to; or off
//! embassy/ports      10000-19999, the numbers that ports get there
//! etcd/endpoints     one address a line; with it the state lives in that cluster and not in files
//! etcd/prefix        /quarry            etcd/user, etcd/password, etcd/ca, etcd/cert, etcd/key
//! buildpacks/<NAME>  a buildpack of one's own: a folder with a Dockerfile.j2, or with bin/detect and bin/compile
//! acme/email         certificates come by themselves; whom the authority tells when something is wrong, or nothing
//! acme/directory     production             staging, or the address of any ACME directory
//! acme/ca            its own root, as build/ca-bundle     acme/http-port 80     acme/self-check on
//! router/trusted-proxies  addresses and networks of balancers in front, one a line; they speak for visitors
//! router/proxy-protocol   off; on where they begin connections with the PROXY protocol
//! create-stacks      everyone, who has a key; or operators
//! api-listen         127.0.0.1:8791, where the HTTP api answers; or off. With api.crt and api.key beside it it speaks TLS
//! docker-listen      off; or where docker's clients come in by TCP with a certificate, such as 0.0.0.0:2376
//! submodule-hosts    one host a line, by name or address, inside your own network that submodules may come from
//! submodule-key      path of the SSH key that servers of submodules see; none without
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use crate::env::Env;
use crate::names::{BadName, Domain};
use crate::units::{Megabytes, Millis};

pub mod acme;
mod api;
mod balancers;
mod build;
pub mod cloud;
mod creators;
mod embassy;
pub mod etcd;
pub mod files;
pub mod gc;
mod subnets;

pub use api::Api;
pub use balancers::Balancers;
pub use build::Build;
pub use creators::Creators;
pub use embassy::Embassy;
pub use subnets::Subnets;

/// Quarry's folder unless told otherwise.
pub const ROOT: &str = "/home/quarry";
/// The folder of quarry's settings unless told otherwise.
pub const ETC: &str = "/etc/quarry";

/// Everything that can be set, with its default where nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Domains below which stacks answer as `<stack>.<hostname>`; at least one, the first is the one shown.
    pub hostnames: Vec<Domain>,
    /// Variables of every stack; every other source covers them.
    pub env: Env,
    /// What builds get and may take.
    pub build: Build,
    /// Ports handed out to containers.
    pub ports: RangeInclusive<u16>,
    /// Addresses the networks of stacks are cut from.
    pub subnets: Subnets,
    /// How many releases of a stack can be rolled back to.
    pub releases_kept: u32,
    /// What else is kept, and how long.
    pub gc: gc::Gc,
    /// The largest pack a push may send.
    pub push_limit: Megabytes,
    /// Memory limit of a container that names none.
    pub size: Megabytes,
    /// How long a release command may take.
    pub release_timeout: Millis,
    /// How long a server that has fallen silent is waited for.
    pub lease: Millis,
    /// HQ's own address towards the other servers; found out without it.
    pub address: Option<IpAddr>,
    /// The state's home; this machine's files without it.
    pub etcd: Option<etcd::Etcd>,
    /// Where machines come from; from people without it.
    pub cloud: Option<cloud::Cloud>,
    /// Where certificates of domains come from; from people without it.
    pub acme: Option<acme::Acme>,
    /// Hosts inside that submodules may come from: names or addresses, as their addresses name them.
    pub submodule_hosts: BTreeSet<String>,
    /// The private SSH key with which submodules are fetched.
    pub submodule_key: Option<PathBuf>,
    /// The folder with the owner's buildpacks.
    pub packs: Option<PathBuf>,
    /// Who may make stacks.
    pub creators: Creators,
    /// Balancers in front of the router.
    pub balancers: Balancers,
    /// Where containers find what they are linked to.
    pub embassy: Embassy,
    /// Where the HTTP api answers.
    pub api: Api,
    /// Where docker's clients come in by TCP; nowhere without.
    pub docker: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostnames: vec!["localhost".parse().expect("`localhost` is a domain")],
            env: Env::new(),
            build: Build::default(),
            ports: 20_000..=29_999,
            subnets: Subnets { network: Ipv4Addr::new(10, 208, 0, 0), bits: 12 },
            releases_kept: 10,
            gc: gc::Gc::default(),
            push_limit: Megabytes(2048),
            size: Megabytes(512),
            release_timeout: Millis::seconds(30 * 60),
            lease: Millis::seconds(15),
            address: None,
            etcd: None,
            cloud: None,
            acme: None,
            submodule_hosts: BTreeSet::new(),
            submodule_key: None,
            packs: None,
            creators: Creators::Everyone,
            balancers: Balancers::default(),
            embassy: Embassy::default(),
            api: Api::default(),
            docker: None,
        }
    }
}

/// A shorter silence is nothing.
const SHORTEST_LEASE: Millis = Millis::seconds(3);

/// One file that does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Its path.
    pub file: PathBuf,
    /// What is wrong, and what a right one looks like.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// Settings that cannot be used: every mistake there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcError(pub Vec<Mistake>);

impl fmt::Display for EtcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings have mistakes")?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for EtcError {}

/// The settings that files with these contents make, by path relative to the folder.
///
/// # Errors
/// Every mistake, with its relative path.
pub fn decide(files: &BTreeMap<String, String>) -> Result<Settings, EtcError> {
    let mut settings = Settings::default();
    let mut mistakes = Vec::new();
    let (mut cluster, mut cloud) = (etcd::Draft::default(), cloud::Draft::default());
    let mut acme = acme::Draft::default();
    for (path, text) in files {
        let done = match path.split_once('/') {
            Some(("etcd", name)) => cluster.set(name, text),
            Some(("cloud", name)) => cloud.set(name, text),
            Some(("acme", name)) => acme.set(name, text),
            Some(("router", name)) => settings.balancers.set(name, text),
            Some(("embassy", name)) => settings.embassy.set(name, text),
            Some(("build", name)) => settings.build.set(name, text),
            Some(("gc", name)) => settings.gc.set(name, text),
            Some(_) | None => set(&mut settings, path, text),
        };
        if let Err(what) = done {
            mistakes.push(Mistake { file: path.into(), what });
        }
    }
    settings.acme = acme.finish();
    let mut missing = Vec::new();
    missing.extend(settings.balancers.lack());
    match cluster.finish() {
        Ok(cluster) => settings.etcd = cluster,
        Err((name, what)) => missing.push(Mistake { file: format!("etcd/{name}").into(), what }),
    }
    match cloud.finish() {
        Ok(cloud) => settings.cloud = cloud,
        Err((name, what)) => missing.push(Mistake { file: format!("cloud/{name}").into(), what }),
    }
    // A file with a mistake of its own is not missing.
    missing.retain(|missing| mistakes.iter().all(|mistake| mistake.file != missing.file));
    mistakes.extend(missing);
    if mistakes.is_empty() { Ok(settings) } else { Err(EtcError(mistakes)) }
}

/// HQ's own SSH key, which `serve` makes here.
pub const HOST_KEY: &str = "host_key";

/// The key of all variables, made when first needed.
pub const ENV_KEY: &str = "env_key";

/// The authority of the etcd that `cluster etcd` makes: its key and certificate.
pub const AUTHORITY: &str = "etcd_authority";

/// The authority of docker's clients.
pub const DOCKER_AUTHORITY: &str = "docker_authority";

/// The servers on which `cluster etcd` has begun, one a line, until the state is there.
pub const BEGUN: &str = "etcd_begun";

/// The certificate of the HTTP api and its key, PEM both.
pub const API_CERTIFICATE: [&str; 2] = ["api.crt", "api.key"];

/// Files that lie beside settings and set nothing: HQ's key, the api's certificate, that of all variables, its etcd's authority and beginnings, what starts the agent
/// at boot, hidden ones, editors' backups, explanations.
pub fn is_setting(name: &str) -> bool {
    ![HOST_KEY, "host_key.pub", ENV_KEY, AUTHORITY, DOCKER_AUTHORITY, BEGUN, "boot", "boot.d"].contains(&name)
        && !API_CERTIFICATE.contains(&name)
        && !name.starts_with('.')
        && !name.ends_with('~')
        && !name.to_ascii_uppercase().starts_with("README")
}

fn set(settings: &mut Settings, path: &str, text: &str) -> Result<(), String> {
    let value = text.trim();
    match path.rsplit_once('/').unwrap_or(("", path)) {
        ("", "address") => {
            settings.address = Some(value.parse().map_err(|_| format!("`{value}` is not an IP address"))?)
        }
        ("", "hostnames") => settings.hostnames = hostnames(text)?,
        ("", "port-range") => settings.ports = ports(value)?,
        ("", "subnets") => settings.subnets = value.parse()?,
        ("", "releases-kept") => settings.releases_kept = releases(value)?,
        ("", "push-limit") => settings.push_limit = parse(value)?,
        ("", "size") => settings.size = parse(value)?,
        ("", "lease") => settings.lease = lease(value)?,
        ("", "release-timeout") => settings.release_timeout = parse(value)?,
        ("", "submodule-hosts") => settings.submodule_hosts = hosts(text)?,
        ("", "submodule-key") => settings.submodule_key = Some(key_path(value)?),
        ("", "create-stacks") => settings.creators = value.parse()?,
        ("", "api-listen") => settings.api = value.parse()?,
        ("", "docker-listen") => settings.docker = docker(value)?,
        ("env", name) => variable(&mut settings.env, name, text)?,
        (_, name) => return Err(unknown(name)),
    }
    Ok(())
}

/// Every file but those in `env/`, `build/`, `etcd/`, `cloud/`, `acme/`, `gc/`, `embassy/` and `router/`.
const KNOWN: [&str; 14] = [
    "address",
    "api-listen",
    "docker-listen",
    "hostnames",
    "lease",
    "port-range",
    "subnets",
    "releases-kept",
    "push-limit",
    "size",
    "release-timeout",
    "submodule-key",
    "create-stacks",
    "submodule-hosts",
];

fn unknown(name: &str) -> String {
    format!(
        "there is no setting `{name}`; there are {}, env/<NAME>, build/…, etcd/…, cloud/…, acme/…, embassy/…, gc/… and router/…",
        KNOWN.join(", ")
    )
}

fn docker(value: &str) -> Result<Option<SocketAddr>, String> {
    let wrong = |_| format!("`{value}` is neither an address with a port, such as `0.0.0.0:2376`, nor `off`");
    if value == "off" { Ok(None) } else { value.parse().map(Some).map_err(wrong) }
}

fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn hostnames(text: &str) -> Result<Vec<Domain>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let hostnames: Vec<Domain> = lines.map(hostname).collect::<Result<_, _>>()?;
    if hostnames.is_empty() { Err("no hostname in it; write one domain a line".into()) } else { Ok(hostnames) }
}

fn hostname(line: &str) -> Result<Domain, String> {
    let domain: Domain = line.to_ascii_lowercase().parse().map_err(|error: BadName| error.to_string())?;
    if domain.is_wildcard() {
        return Err(format!("`{domain}` has a `*.`; stacks get a name below each hostname by themselves"));
    }
    Ok(domain)
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let rule = || format!("`{text}` is not a range of ports from 1024 such as `20000-29999`");
    let (first, last) = text.split_once('-').ok_or_else(rule)?;
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| rule());
    match (number(first)?, number(last)?) {
        (first @ 1024.., last) if first <= last => Ok(first..=last),
        _ => Err(rule()),
    }
}

/// Names and addresses, one a line, in small letters.
fn hosts(text: &str) -> Result<BTreeSet<String>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let host = |line: &str| {
        let host = line.to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let good = !host.starts_with('-')
            && host.chars().all(plain)
            && (!host.contains(':') || host.parse::<IpAddr>().is_ok());
        if good {
            Ok(host)
        } else {
            Err(format!("`{line}` is not a host; write a name or an address a line, without a port"))
        }
    };
    lines.map(host).collect()
}

fn key_path(text: &str) -> Result<PathBuf, String> {
    let plain = text.starts_with('/') && !text.contains(['"', '\n', '%']);
    plain.then(|| text.into()).ok_or_else(|| "it is not the absolute path of a private SSH key".into())
}

fn lease(text: &str) -> Result<Millis, String> {
    match parse(text)? {
        lease if lease >= SHORTEST_LEASE => Ok(lease),
        _ => Err(format!("`{text}` is too short: a connection that broke is noticed after about {SHORTEST_LEASE}")),
    }
}

fn releases(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        Ok(0) | Err(_) => Err(format!("`{text}` is not a number of releases from 1")),
    }
}

/// A variable's value is the file's text; the newline that editors put at the end is not part of it.
fn variable(env: &mut Env, name: &str, text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("it contains a NUL character, which no environment can hold".into());
    }
    env.set(parse(name)?, text.strip_suffix('\n').unwrap_or(text));
    Ok(())
}

fn certificates(text: &str) -> Result<String, String> {
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(text.to_owned())
    } else {
        Err("there is no PEM certificate in it (`-----BEGIN CERTIFICATE-----`)".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(files: &[(&str, &str)]) -> Result<Settings, EtcError> {
        decide(&files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn nothing_set_is_the_defaults() {
        assert_eq!(decided(&[]), Ok(Settings::default()));
        let defaults = [
            ("hostnames", "localhost"),
            ("build/timeout", "30m"),
            ("port-range", "20000-29999"),
            ("subnets", "10.208.0.0/12"),
            ("releases-kept", "10"),
            ("push-limit", "2gb"),
            ("size", "512mb"),
            ("release-timeout", "30m"),
            ("lease", "15s"),
            ("api-listen", "127.0.0.1:8791"),
            ("docker-listen", "off"),
        ];
        assert_eq!(decided(&defaults), Ok(Settings::default()));
    }

    #[test]
    fn every_file_sets_its_value() {
        let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let settings = decided(&[
            ("hostnames", "# ours\nApps.Example.com\n\nlocalhost\n"),
            ("env/TZ", "Europe/Berlin\n"),
            ("env/KEY", "two\nlines\n\n"),
            ("build/env/PIP_INDEX_URL", "http://packages.example/simple\n"),
            ("build/ca-bundle", pem),
            ("build/timeout", "90s\n"),
            ("build/memory", "2g"),
            ("port-range", "30000 - 30999\n"),
            ("subnets", "172.16.0.0/20"),
            ("releases-kept", "3"),
            ("push-limit", "100mb"),
            ("size", "256"),
            ("release-timeout", "2m"),
            ("lease", "5s"),
            ("submodule-hosts", "# ours\nGit.internal\n10.1.2.3\nfd00::1\n"),
            ("submodule-key", "/etc/quarry/keys/submodules\n"),
        ])
        .unwrap();
        assert_eq!(
            settings.hostnames.iter().map(Domain::as_str).collect::<Vec<_>>(),
            ["apps.example.com", "localhost"]
        );
        assert_eq!(settings.env.pairs(), ["KEY=two\nlines\n", "TZ=Europe/Berlin"]);
        assert_eq!(settings.build.env.pairs(), ["PIP_INDEX_URL=http://packages.example/simple"]);
        assert_eq!(settings.build.ca_bundle.as_deref(), Some(pem));
        assert_eq!((settings.build.timeout, settings.build.memory), (Millis(90_000), Some(Megabytes(2048))));
        assert_eq!((settings.ports, settings.subnets.to_string()), (30_000..=30_999, "172.16.0.0/20".to_owned()));
        assert_eq!(settings.submodule_hosts, ["git.internal", "10.1.2.3", "fd00::1"].map(str::to_owned).into());
        assert_eq!(settings.submodule_key.as_deref(), Some(std::path::Path::new("/etc/quarry/keys/submodules")));
        assert_eq!((settings.releases_kept, settings.push_limit, settings.size), (3, Megabytes(100), Megabytes(256)));
        assert_eq!((settings.release_timeout, settings.lease), (Millis(120_000), Millis(5000)));
    }

    #[test]
    fn every_mistake_is_reported_with_its_file() {
        let mistakes = [
            ("api-listen", "8791"),
            ("build/ca-bundle", "/not/read/here"),
            ("build/memory", "much"),
            ("build/timeout", "2d"),
            ("docker-listen", "2376"),
            ("env/1A", "x"),
            ("env/NUL", "a\0"),
            ("hostname", "example.com"),
            ("hostnames", "*.example.com"),
            ("port-range", "80-90"),
            ("push-limit", ""),
            ("releases-kept", "0"),
            ("size", "0"),
            ("submodule-hosts", "git.example:22"),
            ("submodule-key", "-----BEGIN OPENSSH PRIVATE KEY-----"),
            ("subnets", "10.208.0.1/12"),
        ];
        let error = decided(&mistakes).unwrap_err();
        let files: Vec<String> = error.0.iter().map(|mistake| mistake.file.display().to_string()).collect();
        assert_eq!(files, mistakes.map(|(file, _)| file));
        assert!(
            error
                .to_string()
                .contains("\n  subnets: `10.208.0.1/12` does not begin on its boundary; write `10.208.0.0/12`")
        );
        assert!(
            error.to_string().contains("there is no setting `hostname`; there are address, api-listen, docker-listen,")
        );
        for wrong in ["8.8.8.0/24", "10.0.0.0/27", "10.0.0.0/7", "10.0.0.0", "x/12"] {
            assert!(wrong.parse::<Subnets>().is_err(), "{wrong}");
        }
        for wrong in ["9-", "5000", "30000-20000", "1-99999"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
