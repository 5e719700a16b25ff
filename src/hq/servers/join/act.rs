//! Comes to a new server, lets HQ in for good, looks at what it has, and makes it part of the grid.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{INSTALL_DOCKER, LET_IN};
use crate::docker::bollard::Docker;
use crate::docker::{Container, Engine, Wire};
use crate::grid::Standing;
use crate::hq::fleet::HERE;
use crate::hq::progress::{detail, phase};
use crate::hq::servers::act::is_own;
use crate::hq::servers::{ServerError, Wanted, name_of};
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::launch::label;
use crate::names::{ContainerName, ServerName};
use crate::servers::facts::{Facts, NoFact, SCRIPT};
use crate::servers::ssh::{Address, HostKey, KeyPair, Line, Link, LinkError, Login};
use crate::servers::{Record, Way};

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(20);
/// How long installing docker may take.
const INSTALL: Duration = Duration::from_secs(15 * 60);
/// How long docker may take to answer once it was started.
const START: Duration = Duration::from_secs(30);
/// Pause between two looks whether it answers.
const POLL: Duration = Duration::from_millis(200);

impl Hq {
    /// Adds a server, or mends one that was added by half. `login` is needed once, where HQ's key is not known yet.
    ///
    /// # Errors
    /// [`ServerError::Closed`] when a login is needed; what else stands in the way. Running it again goes on.
    pub async fn add_server(
        self: &Arc<Self>,
        wanted: Wanted,
        login: Option<Login>,
        say: Say<'_>,
    ) -> Result<ServerName, HqError> {
        self.check_awake()?;
        let records = self.server_records().await?;
        let at = |record: &Record| record.way.as_ref().is_some_and(|way| way.address == wanted.address);
        let earlier = records.iter().find(|(_, record)| at(record));
        let host_key = host_key(&wanted, earlier.and_then(|(_, record)| record.way.as_ref()), say).await?;
        let key = self.server_key().await?;
        let link = enter(&wanted.address, &key, &host_key, login).await?;
        let facts = look(&link).await?;
        if is_own(facts.ip) {
            return Err(ServerError::Itself { address: wanted.address }.into());
        }
        let way = Way { address: wanted.address.clone(), host_key, ip: facts.ip, hq: facts.hq };
        let name = choose_name(&wanted, &facts, &way, &records)?;
        // What a rented one is to have is the cloud's word; see there.
        if wanted.order.is_none() && wanted.size.is_some_and(|size| size > facts.memory) {
            return Err(ServerError::Size { server: name, memory: facts.memory }.into());
        }
        let known = records.get(&name).map_or(facts.memory, |record| record.size);
        let memory = match wanted.size.unwrap_or(known) {
            size if size < facts.memory => format!("{size} of its {}", facts.memory),
            size => size.to_string(),
        };
        say(&phase(&format!("{name}: {memory} of memory, {} processors, {}", facts.processors, facts.architecture)));
        let line = Arc::new(Line::open(name.clone(), wanted.address.clone(), Login::Key(key), way.host_key.clone()));
        prepare(&link, line.clone(), &facts, say).await?;
        self.check_free(&wanted.address, &Docker::over(line.clone() as Arc<dyn Wire>)).await?;
        self.bring_agent(&line, &wanted.tags, say).await;
        let _alone = self.records.lock().await;
        // A person may have changed it meanwhile, and others may have come: nobody waits for what was slow to prepare.
        let mut records = self.server_records().await?;
        let now = choose_name(&wanted, &facts, &way, &records)?;
        if now != name {
            return Err(ServerError::Known { name: now }.into());
        }
        let earlier = records.remove(&name);
        let mut record = Record::found(&facts, Some(way), earlier.as_ref());
        record.size = wanted.size.unwrap_or(record.size);
        record.tags.extend(wanted.tags);
        record.order = wanted.order.or(record.order);
        self.keep_server(&name, &record).await?;
        self.join(line, &record);
        let standing = if record.standing == Standing::Draining { "still draining" } else { "up" };
        say(&phase(&format!("{name} is {standing}")));
        Ok(name)
    }

    /// Two HQs on one server would take each other's agent, names and volumes for their own.
    async fn check_free(&self, address: &Address, engine: &dyn Engine) -> Result<(), HqError> {
        match rival(&self.launcher.identity.id, engine.containers(label::HQ).await?) {
            Some((hq, containers)) => Err(ServerError::Foreign { address: address.clone(), hq, containers }.into()),
            None => Ok(()),
        }
    }
}

/// The other HQ's id, and what it runs.
type Rival = (String, Vec<ContainerName>);

/// Whoever else runs containers on an engine: the first by id.
fn rival(own: &str, found: Vec<Container>) -> Option<Rival> {
    let mut rivals: BTreeMap<String, Vec<ContainerName>> = BTreeMap::new();
    for container in found {
        if let Some(hq) = container.labels.get(label::HQ).filter(|hq| *hq != own) {
            rivals.entry(hq.clone()).or_default().push(container.name);
        }
    }
    rivals.into_iter().next()
}

/// The key a server is known by, or shows for the first time.
async fn host_key(wanted: &Wanted, known: Option<&Way>, say: Say<'_>) -> Result<HostKey, ServerError> {
    if let Some(way) = known.filter(|way| wanted.accepts(&way.host_key.fingerprint())) {
        return Ok(way.host_key.clone());
    }
    let key = Link::host_key(&wanted.address).await?;
    let shown = key.fingerprint();
    if !wanted.accepts(&shown) {
        let given = wanted.fingerprint.clone().unwrap_or_default();
        return Err(ServerError::Fingerprint { address: wanted.address.clone(), shown, wanted: given });
    }
    if wanted.fingerprint.is_none() {
        say(&phase(&format!("{} shows the host key {shown}", wanted.address)));
        say(&detail("compare it there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"));
    }
    Ok(key)
}

/// What a server is called from now on: what it is called already, what the person wants, or its own name.
fn choose_name(
    wanted: &Wanted,
    facts: &Facts,
    way: &Way,
    records: &BTreeMap<ServerName, Record>,
) -> Result<ServerName, ServerError> {
    let find = |matches: &dyn Fn(&Record, &Way) -> bool| {
        let mut records = records.iter();
        records.find(|(_, record)| record.way.as_ref().is_some_and(|way| matches(record, way))).map(|(name, _)| name)
    };
    let known = find(&|_, other| other.address == way.address);
    // The same machine under another address would be a slice twice.
    let same = find(&|record, other| record.hostname == facts.hostname && other.host_key == way.host_key);
    if let (None, Some(same)) = (known, same) {
        return Err(ServerError::Known { name: same.clone() });
    }
    // What is published there would be asked for at the wrong one of them.
    if let Some(twin) = find(&|_, other| other.ip == way.ip && other.address != way.address) {
        return Err(ServerError::Twin { address: way.address.clone(), ip: way.ip, server: twin.clone() });
    }
    let name = match (&wanted.name, known) {
        (Some(name), Some(known)) if name != known => return Err(ServerError::Known { name: known.clone() }),
        (_, Some(known)) => return Ok(known.clone()),
        (Some(name), None) => name.clone(),
        (None, None) => name_of(facts).map_err(|_| ServerError::Facts(NoFact { what: "name" }))?,
    };
    let own = || (name.as_str() == HERE).then(|| "HQ's own".to_owned());
    match records.get(&name).map(place).or_else(own) {
        Some(at) => Err(ServerError::Taken { name, at }),
        None => Ok(name),
    }
}

fn place(record: &Record) -> String {
    record.way.as_ref().map_or_else(|| "HQ's own".to_owned(), |way| way.address.to_string())
}

/// Comes in with HQ's key, which a first login has let in.
async fn enter(
    address: &Address,
    key: &KeyPair,
    host_key: &HostKey,
    login: Option<Login>,
) -> Result<Link, ServerError> {
    if let Some(login) = login {
        let given = match &login {
            Login::Key(_) => "private key",
            Login::Password(_) => "password",
        };
        let link = match Link::connect(address, &login, host_key).await {
            Err(LinkError::Refused { address, .. }) => return Err(ServerError::Shut { address, given }),
            other => other?,
        };
        let line = format!("{}\n", key.authorized_key());
        let done = link.exec(&["sh", "-c", LET_IN], line.as_bytes(), LOOK).await?;
        if done.code != 0 {
            return Err(failed(address, "let HQ's key in", &done.stderr));
        }
    }
    match Link::connect(address, &Login::Key(key.clone()), host_key).await {
        Err(LinkError::Refused { address, .. }) => {
            Err(ServerError::Closed { address, shown: host_key.fingerprint(), key: key.authorized_key() })
        }
        other => Ok(other?),
    }
}

async fn look(link: &Link) -> Result<Facts, ServerError> {
    let done = link.exec(&["sh", "-c", SCRIPT], tokio::io::empty(), LOOK).await?;
    Ok(Facts::parse(&String::from_utf8_lossy(&done.stdout))?)
}

/// Makes a server ready for containers. What is there already costs a look.
async fn prepare(link: &Link, line: Arc<Line>, facts: &Facts, say: Say<'_>) -> Result<(), HqError> {
    check_docker(link, line, facts, say).await
}

/// Docker answers over the line; where it does not, it is installed and started.
async fn check_docker(link: &Link, line: Arc<Line>, facts: &Facts, say: Say<'_>) -> Result<(), HqError> {
    let engine = Docker::over(line as Arc<dyn Wire>);
    if let Ok(version) = engine.version().await {
        say(&detail(&format!("docker {version}")));
        return Ok(());
    }
    let address = link.address();
    if !facts.is_root {
        return Err(ServerError::NoDocker { address: address.clone() }.into());
    }
    say(&detail("docker does not answer; installing it from the distribution"));
    let done =
        link.exec(&["sh", "-c", INSTALL_DOCKER], tokio::io::empty(), INSTALL).await.map_err(ServerError::Link)?;
    if done.code != 0 {
        return Err(failed(address, "install docker", &done.stderr).into());
    }
    let until = Instant::now() + START;
    loop {
        match engine.version().await {
            Ok(version) => {
                say(&detail(&format!("docker {version}")));
                return Ok(());
            }
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => sleep(POLL).await,
        }
    }
}

pub(in crate::hq::servers) fn failed(address: &Address, doing: &'static str, stderr: &[u8]) -> ServerError {
    let text = String::from_utf8_lossy(stderr);
    let why = text.trim().lines().next_back().unwrap_or("it gives no reason").to_owned();
    ServerError::Failed { doing, address: address.clone(), why }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::grid::Architecture;
    use crate::units::Megabytes;

    const KEYS: [&str; 2] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X",
    ];

    fn facts(hostname: &str, ip: &str) -> Facts {
        Facts {
            hostname: hostname.to_owned(),
            memory: Megabytes(1024),
            processors: 1,
            architecture: Architecture::from("x86_64"),
            is_root: true,
            ip: ip.parse().unwrap(),
            hq: "10.0.0.1".parse().unwrap(),
        }
    }

    fn way(address: &str, ip: &str, key: usize) -> Way {
        let (address, host_key) = (address.parse().unwrap(), KEYS[key].parse().unwrap());
        Way { address, host_key, ip: ip.parse().unwrap(), hq: "10.0.0.1".parse().unwrap() }
    }

    #[test]
    fn two_servers_that_call_themselves_by_one_address_are_never_both_added() {
        let record = Record::found(&facts("a", "192.168.1.10"), Some(way("root@203.0.113.1", "192.168.1.10", 0)), None);
        let records = BTreeMap::from([("a".parse().unwrap(), record)]);
        let choose = |hostname: &str, address: &str, ip: &str, key: usize| {
            let way = way(address, ip, key);
            let (address, tags) = (way.address.clone(), BTreeSet::new());
            let wanted = Wanted { address, name: None, tags, size: None, fingerprint: None, order: None };
            choose_name(&wanted, &facts(hostname, ip), &way, &records).map_err(|error| error.to_string())
        };
        let twin = choose("b", "root@203.0.113.2", "192.168.1.10", 1).unwrap_err();
        assert!(twin.contains("calls itself 192.168.1.10, as `a` does"), "{twin}");
        assert_eq!(choose("b", "root@203.0.113.2", "192.168.1.11", 1).unwrap().as_str(), "b");
        // Again, also after it was installed anew.
        assert_eq!(choose("a", "root@203.0.113.1", "192.168.1.10", 1).unwrap().as_str(), "a");
        let other_way = choose("a", "root@198.51.100.1", "192.168.1.10", 0).unwrap_err();
        assert!(other_way.contains("added as `a` already"), "{other_way}");
    }
}
