//! `serve`: HQ itself. `hook`: what git calls inside its repositories.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::again::{self, Doors, Handed, own_program};
use super::door::HqDoor;
use super::failure::{Exit, Failure};
use super::parts::{Places, with_edge};
use super::systemd::{both, notify};
use super::upgrade::rehearse;
use crate::certs::acme::Acme;
use crate::certs::authority::Authority;
use crate::clock::Clock;
use crate::db::Db;
use crate::db::gate::act::Gate;
use crate::etc::{self, Api, Settings};
use crate::hq::agents::wanted::Ports;
use crate::hq::cloud::Rents;
use crate::hq::cloud::rent::act::OverSsh;
use crate::hq::cluster::house::House;
use crate::hq::push::{Paths, Pushes};
use crate::hq::upgrade::Traffic;
use crate::hq::upgrade::act::Next;
use crate::hq::upgrade::files::{Found, Trial, find};
use crate::hq::{Hq, HqError, git, socket, ssh};
use crate::names::UserName;
use crate::router::edge::Edge;
use crate::router::nginx::{Listen, Nginx};
use crate::servers::cloud::process::Program;
use crate::servers::registry;
use crate::servers::ssh::KeyPair;

/// Run HQ
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Where pushes and commands come in by SSH
    #[arg(long, env = "QUARRY_SSH", default_value = "0.0.0.0:2222", value_name = "ADDRESS:PORT")]
    ssh: SocketAddr,
    /// Where the router answers
    #[arg(long, env = "QUARRY_HTTP", default_value = "0.0.0.0:80", value_name = "ADDRESS:PORT")]
    http: SocketAddr,
    /// Where it answers with certificates, or `off`
    #[arg(long, env = "QUARRY_HTTPS", default_value = "0.0.0.0:443", value_name = "ADDRESS:PORT")]
    https: OrOff,
    /// Where the HTTP api answers, or `off`; without, what the setting api-listen says
    #[arg(long, env = "QUARRY_API", value_name = "ADDRESS:PORT")]
    api: Option<Api>,
    /// Only look whether this program could serve here
    #[arg(long, hide = true)]
    rehearse: bool,
}

/// Where the router answers with certificates, if it does.
#[derive(Debug, Clone, Copy)]
struct OrOff(Option<SocketAddr>);

impl std::str::FromStr for OrOff {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            text => text.parse().map(Some).map(Self).map_err(|_| "it is neither ADDRESS:PORT nor `off`".to_owned()),
        }
    }
}

/// What git calls
#[derive(Debug, clap::Args)]
pub struct Hook {
    /// The hook's name
    name: String,
}

/// Pause before something the state was needed for is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Before HQ begins anew: those who were told why hear it to the end.
const ANSWER: Duration = Duration::from_secs(1);

/// How callers by socket are called: whoever may open it owns the machine.
const ROOT_USER: &str = "root";

/// Why HQ no longer serves.
#[derive(Debug)]
pub enum Ended {
    /// It was told to end.
    ForGood,
    /// Its state lives elsewhere, or another program follows: HQ is to begin anew, as the same process.
    ToBeginAnew(Handed, Next),
    /// It did not come to serve; the program of before may.
    ToGoBack(Handed, Trial, Failure),
}

/// What HQ begins with.
struct Fresh<'a> {
    db: Arc<dyn Db>,
    house: Arc<House>,
    /// Its doors, for HQ that begins anew.
    doors: &'a Doors,
}

impl Serve {
    /// Runs until SIGTERM or SIGINT, or until HQ's state has moved. Launches under way are left to their journals,
    /// containers and router run on.
    ///
    /// # Errors
    /// When something HQ needs is missing or its addresses are taken.
    pub async fn run(self, places: &Places) -> Result<Ended, Failure> {
        if self.rehearse {
            return rehearse(places).await.map(|()| Ended::ForGood);
        }
        let mut doors = Doors { handed: again::handed(), ..Doors::default() };
        doors.trial = match find(&places.root) {
            Found::Nothing => None,
            Found::Begins(trial) => Some(trial),
            Found::Failed(trial) => {
                let why = Failure::new(Exit::Refused, "this program has ended before it came to serve");
                return Ok(Ended::ToGoBack(doors.into_handed(), trial, why));
            }
        };
        let outcome = self.run_behind(places, &doors).await;
        let trial = doors.on_trial().cloned();
        match (outcome, trial) {
            (Ok(None), trial) => {
                trial.iter().for_each(Trial::postponed);
                Ok(Ended::ForGood)
            }
            (Ok(Some(next)), _) => Ok(Ended::ToBeginAnew(doors.into_handed(), next)),
            (Err(failure), Some(trial)) => Ok(Ended::ToGoBack(doors.into_handed(), trial, failure)),
            (Err(failure), None) => Err(failure),
        }
    }

    /// The same behind these doors; what HQ is to become, if it is to begin anew.
    async fn run_behind(&self, places: &Places, doors: &Doors) -> Result<Option<Next>, Failure> {
        let mut end = Signals::new()?;
        let mut late = pin!(doors.late());
        let settings = places.settings()?;
        let program = own_program()?;
        let mut home = tokio::select! {
            home = places.home_when_up(&settings) => home?,
            () = end.wait() => return Ok(None),
            failure = &mut late => return Err(failure),
        };
        let gate = (!home.db.is_shared()).then(|| Arc::new(Gate::new(home.db.clone())));
        let db = gate.clone().map_or_else(|| home.db.clone(), |gate| gate as Arc<dyn Db>);
        let (house, stop) = (House::new(places.etc.clone(), gate, program), CancellationToken::new());
        let house = Arc::new(house);
        let fresh = Fresh { db, house: house.clone(), doors };
        let served = tokio::select! {
            served = self.serve(places, settings, fresh, stop.clone()) => served.map(|()| None),
            () = end.wait() => Ok(None),
            () = answered(places, &house.again, &stop, &doors.traffic) => Ok(Some(house.next())),
            error = home.lost() => Err(Failure::of(Exit::Refused, &error)),
            failure = late => Err(failure),
        };
        tracing::info!("HQ stops; what runs runs on");
        stop.cancel();
        registry::end(&canonical(&places.root)?).await;
        home.close().await;
        served
    }

    /// Serves until this is dropped, or something HQ needs is missing.
    async fn serve(
        &self,
        places: &Places,
        settings: Settings,
        fresh: Fresh<'_>,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        let began = std::time::Instant::now();
        let front = settings.balancers.clone();
        let mut parts = places.parts(settings, fresh.db, &places.env_key()).await?;
        let root = canonical(&places.root)?;
        parts.root = root.clone();
        let listen = Listen { http: both(self.http), https: self.https.0.map(both).unwrap_or_default(), front };
        let nginx = Arc::new(Nginx::listening(&root, listen));
        let came = nginx.start_or_adopt().await.map_err(|error| Failure::of(Exit::Refused, &error))?;
        tracing::info!(?came, http = %self.http, "the router serves");
        let hq = Hq::new(with_edge(parts, nginx.clone() as Arc<dyn Edge>, self.http));
        hq.inhabit(fresh.house);
        when_up(|| hq.open_servers()).await?;
        when_up(|| hq.recover()).await?;
        if let Some(rents) = rents(&hq.settings) {
            when_up(async || Ok(hq.rent_from(rents.clone()).await?)).await?;
        }
        if let Some(https) = self.https.0 {
            hq.certs.answered_at(https.port());
        }
        if let Some(authority) = authority(&hq.settings, &hq.clock)? {
            hq.certify_by(authority);
        }
        tokio::spawn(async move { nginx.watch().await });
        let door = when_up(|| HqDoor::open(hq.clone())).await?;
        let address = self.open_doors(places, (&root, fresh.doors), door, (hq.traffic.clone(), stop)).await?;
        again::unmark(&root);
        tokio::spawn(seal(hq.clone()));
        tracing::info!(ssh = %address, took = ?began.elapsed(), "HQ is ready");
        // Before anything new runs: this puts up the wall between containers. What a person broke in the tree is told, and
        // read again until it is mended.
        let https = self.https.0.map(|address| address.port());
        let ports = Ports { ssh: address.port(), http: self.http.port(), https };
        let _ = hq.house().map(|house| house.ports.set(ports));
        let want = async || hq.want(ports).await.map_err(HqError::from);
        if let Err(error) = when_up(want).await {
            tracing::error!(error = ?error, "it cannot be read what servers should be: {error}");
        }
        tokio::spawn(hq.clone().watch_servers());
        tokio::spawn(hq.clone().follow_agents(ports));
        tokio::spawn(hq.clone().keep_embassies());
        tokio::spawn(hq.clone().keep_health());
        tokio::spawn(hq.clone().keep_collecting());
        tokio::spawn(hq.clone().keep_size());
        tokio::spawn(hq.clone().keep_certificates());
        tokio::spawn(hq.clone().keep_tasks());
        tokio::spawn(hq.clone().build_anew());
        tokio::spawn(hq.reconcile());
        fresh.doors.open();
        ready(address, self.http).await;
        std::future::pending().await
    }

    /// The listener this process had before it began anew, or a new one.
    async fn listen(&self, handed: &Handed) -> std::io::Result<TcpListener> {
        let fits = |listener: &std::net::TcpListener| {
            listener.local_addr().is_ok_and(|address| [0, address.port()].contains(&self.ssh.port()))
        };
        match again::ssh(handed).filter(fits) {
            Some(listener) => TcpListener::from_std(listener),
            None => TcpListener::bind(self.ssh).await,
        }
    }

    async fn open_doors(
        &self,
        places: &Places,
        (root, doors): (&Path, &Doors),
        door: Arc<HqDoor>,
        (traffic, stop): (Arc<Traffic>, CancellationToken),
    ) -> Result<SocketAddr, Failure> {
        let refused = |error: &dyn std::error::Error| Failure::of(Exit::Refused, error);
        let program = own_program()?;
        git::install_hooks(&root.join("hooks")).map_err(|error| refused(&error))?;
        // Nobody was inside before.
        let _ = doors.traffic.set(traffic.clone());
        let pushes = Arc::new(Pushes::of(traffic.clone()));
        let paths = Paths { socket: root.join("git.sock"), program };
        let key = KeyPair::open_or_create(&places.etc.join(etc::HOST_KEY)).map_err(|error| refused(&error))?;
        let listener = self.listen(&doors.handed).await.map_err(|source| {
            Failure::new(
                Exit::Refused,
                format!("cannot listen on {} for SSH: {source}; choose another with --ssh", self.ssh),
            )
        })?;
        // Without it those who knock while HQ begins anew are turned away.
        let _ = listener.as_fd().try_clone_to_owned().map(|same| doors.ssh.set(same));
        let address = listener.local_addr().unwrap_or(self.ssh);
        let hooks = socket::listen(&paths.socket).map_err(|error| refused(&error))?;
        tokio::spawn(socket::serve_hooks(hooks, door.clone(), pushes.clone(), stop.clone()));
        let at = self.api.unwrap_or(door.settings().api);
        super::api::open(at, (&places.etc, root), door.clone(), traffic.clone(), stop.clone()).await?;
        super::dock::open(&places.etc, door.clone(), stop.clone()).await?;
        let server = ssh::Server::new(key, ssh::Limits::default(), paths, door.clone(), pushes);
        tokio::spawn(Arc::new(server).serve(listener, stop.clone()));
        let socket = match again::socket(&doors.handed).map(UnixListener::from_std) {
            Some(Ok(socket)) => socket,
            Some(Err(_)) | None => socket::listen(&root.join("hq.sock")).map_err(|error| refused(&error))?,
        };
        let _ = socket.as_fd().try_clone_to_owned().map(|same| doors.socket.set(same));
        let user: UserName = ROOT_USER.parse().expect("`root` is a user name");
        tokio::spawn(socket::serve(socket, door, traffic, user, stop));
        Ok(address)
    }
}

/// Closes what stands open of variables, behind everybody's back.
async fn seal(hq: Arc<Hq>) {
    match hq.seal_env().await {
        Ok(0) => {}
        Ok(values) => tracing::info!(values, "variables that stood open are sealed"),
        Err(error) => tracing::warn!(error = ?error, "not all variables are sealed"),
    }
}

/// Waits until HQ is to begin anew. Nobody is let in any more then, and those who are inside have a moment.
async fn answered(
    places: &Places,
    again: &CancellationToken,
    stop: &CancellationToken,
    traffic: &OnceLock<Arc<Traffic>>,
) {
    again.cancelled().await;
    if let Err(error) = again::mark(&places.root) {
        tracing::warn!(%error, "commands do not know that HQ begins anew");
    }
    stop.cancel();
    let gone = async {
        match traffic.get() {
            Some(traffic) => traffic.until(|state| state.guests == 0).await,
            None => std::future::pending().await,
        }
    };
    // Those who stay longer are not waited for: nothing of theirs has begun that the journal does not know.
    let _ = tokio::time::timeout(ANSWER, gone).await;
}

/// What `work` does, tried again while the state cannot be reached.
async fn when_up<T, F>(work: impl Fn() -> F) -> Result<T, HqError>
where
    F: Future<Output = Result<T, HqError>>,
{
    loop {
        match work().await {
            Err(HqError::State(error)) if error.is_away() => {
                tracing::warn!(%error, "HQ waits for its state");
                tokio::time::sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

/// Where machines come from, if that is set.
fn rents(settings: &Settings) -> Option<Rents> {
    let cloud = settings.cloud.as_ref()?;
    Some(Rents {
        cloud: Arc::new(Program::new(&cloud.command, cloud.timeout)),
        gate: Arc::new(OverSsh),
        create_timeout: cloud.create_timeout,
    })
}

/// Where certificates come from, if that is set.
fn authority(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Option<Arc<dyn Authority>>, Failure> {
    let Some(acme) = &settings.acme else { return Ok(None) };
    let authority = Acme::new(&acme.directory, acme.email.as_deref(), acme.ca.as_deref(), clock.clone());
    Ok(Some(Arc::new(authority.map_err(|error| Failure::of(Exit::Mistake, &error))?)))
}

fn canonical(root: &Path) -> Result<PathBuf, Failure> {
    root.canonicalize()
        .map_err(|source| Failure::new(Exit::Refused, format!("cannot use {}: {source}", root.display())))
}

/// One line on standard output for whoever started HQ; its end may be closed.
async fn ready(ssh: SocketAddr, http: SocketAddr) {
    if let Err(error) = notify("READY=1") {
        tracing::warn!(%error, "systemd does not hear that HQ is ready");
    }
    say(&format!("ready: ssh {ssh} http {http}\n")).await;
}

async fn say(line: &str) {
    use tokio::io::AsyncWriteExt;
    let mut out = tokio::io::stdout();
    let _ = out.write_all(line.as_bytes()).await;
    let _ = out.flush().await;
}

/// The signals that end HQ. They are caught from the first moment, so that an early one ends it in order too.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let refused = |source: std::io::Error| Failure::new(Exit::Bug, format!("cannot wait for signals: {source}"));
        let term = signal(SignalKind::terminate()).map_err(refused)?;
        let int = signal(SignalKind::interrupt()).map_err(refused)?;
        Ok(Self { term, int })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
