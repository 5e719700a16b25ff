//! Comes to a new server, lets HQ in for good, looks at what it has, and makes it part of the grid.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{INSTALL_DOCKER, LET_IN};
use crate::docker::bollard::Docker;
use crate::docker::{Engine, Wire};
use crate::grid::Standing;
use crate::hq::fleet::HERE;
use crate::hq::progress::{detail, phase};
use crate::hq::servers::{ServerError, Wanted, name_of};
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::names::ServerName;
use crate::servers::facts::{Facts, SCRIPT};
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
        let _alone = self.joining.lock().await;
        let records = self.server_records().await?;
        let at = |record: &Record| record.way.as_ref().is_some_and(|way| way.address == wanted.address);
        let earlier = records.iter().find(|(_, record)| at(record));
        let host_key = self.host_key(&wanted, earlier.and_then(|(_, record)| record.way.as_ref()), say).await?;
        let key = self.server_key().await?;
        let link = enter(&wanted.address, &key, &host_key, login).await?;
        let facts = look(&link).await?;
        let way = Way { address: wanted.address.clone(), host_key, ip: facts.ip, hq: facts.hq };
        let name = match (&wanted.name, earlier) {
            (Some(name), Some((known, _))) if name != known => {
                return Err(ServerError::Known { name: known.clone() }.into());
            }
            (_, Some((known, _))) => known.clone(),
            (Some(name), None) => name.clone(),
            (None, None) => name_of(&facts).map_err(|_| ServerError::Facts(no_name()))?,
        };
        let same = |record: &Record| {
            record.hostname == facts.hostname && record.way.as_ref().is_some_and(|other| other.host_key == way.host_key)
        };
        if let (None, Some((known, _))) = (earlier, records.iter().find(|(_, record)| same(record))) {
            return Err(ServerError::Known { name: known.clone() }.into());
        }
        let other = records.get(&name).filter(|_| earlier.is_none());
        if let Some(at) = other.map(place).or_else(|| (name.as_str() == HERE).then(|| "HQ's own".to_owned())) {
            return Err(ServerError::Taken { name, at }.into());
        }
        say(&phase(&format!(
            "{name}: {} of memory, {} processors, {}",
            facts.memory, facts.processors, facts.architecture
        )));
        let line = Arc::new(Line::open(name.clone(), wanted.address.clone(), Login::Key(key), way.host_key.clone()));
        check_docker(&link, line.clone(), &facts, say).await?;
        let mut record = Record::found(&facts, Some(way), earlier.map(|(_, record)| record));
        record.size = wanted.size.unwrap_or(record.size);
        record.tags.extend(wanted.tags);
        self.keep_server(&name, &record).await?;
        self.join(line, &record);
        let standing = if record.standing == Standing::Draining { "still draining" } else { "up" };
        say(&phase(&format!("{name} is {standing}")));
        Ok(name)
    }

    /// The key a server is known by, or shows for the first time.
    async fn host_key(&self, wanted: &Wanted, known: Option<&Way>, say: Say<'_>) -> Result<HostKey, ServerError> {
        let host_key = match known {
            Some(way) => way.host_key.clone(),
            None => {
                let shown = Link::host_key(&wanted.address).await?;
                say(&phase(&format!("{} shows the host key {}", wanted.address, shown.fingerprint())));
                say(&detail("compare it there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"));
                shown
            }
        };
        let (shown, address) = (host_key.fingerprint(), wanted.address.clone());
        match wanted.fingerprint.clone() {
            Some(wanted) if wanted != shown => Err(ServerError::Fingerprint { address, shown, wanted }),
            Some(_) | None => Ok(host_key),
        }
    }
}

fn place(record: &Record) -> String {
    record.way.as_ref().map_or_else(|| "HQ's own".to_owned(), |way| way.address.to_string())
}

fn no_name() -> crate::servers::facts::NoFact {
    crate::servers::facts::NoFact { what: "name" }
}

/// Comes in with HQ's key, which a first login has let in.
async fn enter(
    address: &Address,
    key: &KeyPair,
    host_key: &HostKey,
    login: Option<Login>,
) -> Result<Link, ServerError> {
    if let Some(login) = login {
        let link = Link::connect(address, &login, host_key).await?;
        let line = format!("{}\n", key.authorized_key());
        let done = link.exec(&["sh", "-c", LET_IN], line.as_bytes(), LOOK).await?;
        if done.code != 0 {
            return Err(failed(address, "let HQ's key in", &done.stderr));
        }
    }
    match Link::connect(address, &Login::Key(key.clone()), host_key).await {
        Err(LinkError::Refused { address, .. }) => Err(ServerError::Closed { address, key: key.authorized_key() }),
        other => Ok(other?),
    }
}

async fn look(link: &Link) -> Result<Facts, ServerError> {
    let done = link.exec(&["sh", "-c", SCRIPT], tokio::io::empty(), LOOK).await?;
    Ok(Facts::parse(&String::from_utf8_lossy(&done.stdout))?)
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
    let done = link.exec(&["sh", "-c", INSTALL_DOCKER], tokio::io::empty(), INSTALL).await.map_err(ServerError::Link)?;
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

fn failed(address: &Address, doing: &'static str, stderr: &[u8]) -> ServerError {
    let text = String::from_utf8_lossy(stderr);
    let why = text.trim().lines().next_back().unwrap_or("it gives no reason").to_owned();
    ServerError::Failed { doing, address: address.clone(), why }
}
