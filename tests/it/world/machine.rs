//! A server, and its engine as one HQ reaches it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use quarry::docker::fake::Fake;
use quarry::docker::{
    Answered, Archive, Asked, Attached, BuildRequest, Container, ContainerRequest, Engine, EngineError, Event, Image,
    LogRequest, Network, Output, Say, Surroundings,
};
use quarry::grid::Standing;
use quarry::names::{ContainerName, ImageId, ServerName};
use quarry::servers::{Record, Way};
use quarry::units::{Megabytes, Millis};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::World;
use super::life::Life;
use super::pushes::SIZE;

/// An engine that answers no ping for this long counts as lost, as with the real client.
const PATIENCE: Duration = Duration::from_secs(10);

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

/// The servers' memory: HQ's own has enough, the others are small enough to fill up.
const SIZES: [u64; 5] = [4000, 1000, 400, 700, 250];

/// The memory of HQ's own server where others can be rented: soon too little.
const SCARCE: Megabytes = Megabytes(500);

/// How a server can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It answers.
    Up,
    /// Nothing comes through.
    Away,
    /// The same, but its agent is heard by another way.
    Heard,
    /// Calls arrive, no answer comes back.
    Stalled,
}

/// A server that outlives every HQ.
pub struct Machine {
    pub name: ServerName,
    pub size: Megabytes,
    pub address: IpAddr,
    pub engine: Fake,
    pub reach: watch::Sender<Reach>,
    /// How many changing calls come before the one that is refused.
    pub refuse: Mutex<Option<u64>>,
    /// HQ took it for lost: what was on it may run elsewhere too, until it counts again.
    lost: AtomicBool,
    /// Somebody gave it up, or its cloud took it away: what was on it begins anew elsewhere.
    given_up: AtomicBool,
    /// Its cloud has destroyed it.
    scrapped: AtomicBool,
}

impl Machine {
    /// One of people's; the first is HQ's own, where others can be rented a small one.
    pub fn new(number: usize, cloud: bool) -> Self {
        let name = if number == 0 { "hq".to_owned() } else { format!("s{number}") };
        let size = if number == 0 && cloud { SCARCE } else { Megabytes(SIZES[number % SIZES.len()]) };
        Self::at(name.parse().unwrap(), format!("10.77.0.{}", number + 10).parse().unwrap(), size)
    }

    pub fn at(name: ServerName, address: IpAddr, size: Megabytes) -> Self {
        Self {
            size,
            name,
            address,
            engine: Fake::new(),
            reach: watch::Sender::new(Reach::Up),
            refuse: Mutex::default(),
            lost: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            scrapped: AtomicBool::new(false),
        }
    }

    pub fn set_lost(&self, lost: bool) {
        self.lost.store(lost, Ordering::SeqCst);
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    pub fn set_given_up(&self, given_up: bool) {
        self.given_up.store(given_up, Ordering::SeqCst);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    /// Whether it has a container of this node.
    pub fn has(&self, stack: &str, node: &str) -> bool {
        let (mut found, of) = (false, format!("{stack}.{node}."));
        self.engine.each(|container, _| found |= container.name.as_str().starts_with(&of));
        found
    }

    /// What its containers were promised of its memory.
    pub fn used(&self) -> Megabytes {
        let mut used = Megabytes(0);
        self.engine.each(|_, _| used.0 += SIZE.0);
        used
    }

    /// Its power goes, until [`Machine::power_on`].
    pub fn power_off(&self) {
        self.engine.power_off();
        self.reach.send_replace(Reach::Away);
    }

    pub fn power_on(&self) {
        if !self.is_scrapped() {
            self.engine.power_on();
            self.reach.send_replace(Reach::Up);
        }
    }

    /// It is reached like this from now on, if it was reached like that.
    pub fn change_reach(&self, from: Reach, to: Reach) {
        self.reach.send_if_modified(|now| {
            let changes = *now == from && !self.is_scrapped();
            *now = if changes { to } else { *now };
            changes
        });
    }

    /// It is gone for ever.
    pub fn scrap(&self) {
        self.scrapped.store(true, Ordering::SeqCst);
        self.set_given_up(true);
        self.power_off();
    }

    pub fn is_scrapped(&self) -> bool {
        self.scrapped.load(Ordering::SeqCst)
    }

    /// Nothing is wrong with it any more.
    pub async fn mend(&self) {
        *self.refuse.lock().unwrap() = None;
        if self.is_scrapped() {
            return;
        }
        if self.engine.version().await.is_err() {
            self.engine.power_on();
        }
        self.reach.send_replace(Reach::Up);
    }

    /// What HQ knows of it.
    pub fn record(&self) -> Record {
        let way = (self.name.as_str() != "hq").then(|| Way {
            address: format!("root@{}", self.address).parse().unwrap(),
            host_key: HOST_KEY.parse().unwrap(),
            ip: self.address,
            hq: "10.77.0.10".parse().unwrap(),
        });
        Record {
            way,
            hostname: self.name.to_string(),
            tags: Default::default(),
            size: self.size,
            memory: self.size,
            processors: 2,
            architecture: "x86_64".into(),
            standing: Standing::Up,
            order: None,
        }
    }

    pub fn reach(&self) -> Reach {
        *self.reach.borrow()
    }

    /// Waits until it cannot be reached, or has not answered for too long.
    async fn lost(&self) {
        let mut reach = self.reach.subscribe();
        loop {
            let now = *reach.borrow_and_update();
            match now {
                Reach::Away | Reach::Heard => return,
                Reach::Stalled => {
                    if timeout(PATIENCE, reach.changed()).await.is_err() {
                        return;
                    }
                    continue;
                }
                Reach::Up => {}
            }
            let _ = reach.changed().await;
        }
    }

    async fn answers(&self) {
        let _ = self.reach.subscribe().wait_for(|reach| *reach == Reach::Up).await;
    }

    fn unreachable(&self) -> EngineError {
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut).into();
        EngineError::Unreachable { engine: format!("docker on `{}`", self.name), source }
    }

    fn refuses(&self) -> bool {
        let mut refuse = self.refuse.lock().unwrap();
        match &mut *refuse {
            Some(0) => {
                *refuse = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

/// A server's engine as one HQ reaches it.
#[derive(Clone)]
pub struct Docker {
    pub world: Arc<World>,
    pub life: Arc<Life>,
    pub machine: Arc<Machine>,
}

impl Docker {
    /// Takes an image as another engine gave it.
    pub async fn load(&self, image: Image) -> Result<(), EngineError> {
        let engine = self.machine.engine.clone();
        let load = async move {
            engine.load(image);
            Ok(())
        };
        self.change("load an image".to_owned(), load).await
    }

    async fn delay(&self) {
        let longest = if self.world.dice.one_in(16) { 400 } else { 12 };
        sleep(Duration::from_millis(1 + self.world.dice.below(longest))).await;
        self.life.alive().await;
    }

    /// A question.
    async fn ask<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.life.alive().await;
        self.delay().await;
        let answer = self.through(call).await;
        self.life.alive().await;
        answer
    }

    /// A call that changes something. What has reached the engine is done, also when nobody hears of it any more.
    async fn change<T: Send + 'static>(
        &self,
        what: String,
        call: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.life.instant().await;
        self.delay().await;
        if self.machine.refuses() {
            self.world.note(|| format!("{} refuses {what}", self.machine.name));
            return Err(EngineError::Refused { doing: what, message: "as the seed has it".into() });
        }
        let (world, machine, doing) = (self.world.clone(), self.machine.clone(), what.clone());
        let done = async move {
            world.before(&machine, &doing);
            let done = call.await;
            let text = done.as_ref().err().map_or("done".to_owned(), ToString::to_string);
            world.note(|| format!("{}: {doing}: {text}", machine.name));
            world.check(&doing);
            done
        };
        let answer = self.through(done).await;
        self.life.instant().await;
        self.delay().await;
        match answer {
            Ok(_) if matches!(self.machine.reach(), Reach::Away | Reach::Heard) => Err(self.machine.unreachable()),
            answer => answer,
        }
    }

    async fn through<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let machine = self.machine.clone();
        match machine.reach() {
            Reach::Away | Reach::Heard => return Err(machine.unreachable()),
            Reach::Up | Reach::Stalled => {}
        }
        // Half of what a stalled engine was asked for it does later, the other half it never hears of.
        let heard = machine.reach() == Reach::Up || self.world.dice.one_in(2);
        let working = machine.clone();
        let mut work = tokio::spawn(async move {
            working.answers().await;
            call.await
        });
        tokio::select! {
            biased;
            () = machine.lost() => {
                if !heard {
                    work.abort();
                }
                Err(machine.unreachable())
            }
            done = &mut work => done.unwrap(),
        }
    }
}

#[async_trait]
impl Engine for Docker {
    async fn version(&self) -> Result<String, EngineError> {
        let engine = self.machine.engine.clone();
        self.ask(async move { engine.version().await }).await
    }
    async fn architecture(&self) -> Result<String, EngineError> {
        let engine = self.machine.engine.clone();
        self.ask(async move { engine.architecture().await }).await
    }
    async fn surroundings(&self) -> Result<Surroundings, EngineError> {
        let engine = self.machine.engine.clone();
        self.ask(async move { engine.surroundings().await }).await
    }
    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError> {
        let (engine, reference) = (self.machine.engine.clone(), reference.to_owned());
        self.ask(async move { engine.image(&reference).await }).await
    }
    async fn pull(&self, reference: &str, _say: Say<'_>) -> Result<(), EngineError> {
        let (engine, reference) = (self.machine.engine.clone(), reference.to_owned());
        self.change(format!("pull {reference}"), async move { engine.pull(&reference, &|_| {}).await }).await
    }
    async fn push(&self, reference: &str, _say: Say<'_>) -> Result<(), EngineError> {
        let (engine, reference) = (self.machine.engine.clone(), reference.to_owned());
        self.change(format!("push {reference}"), async move { engine.push(&reference, &|_| {}).await }).await
    }
    async fn build(&self, request: BuildRequest, context: Archive, say: Say<'_>) -> Result<ImageId, EngineError> {
        self.machine.engine.build(request, context, say).await
    }
    async fn tag(&self, reference: &str, tag: &str) -> Result<(), EngineError> {
        let (engine, reference, tag) = (self.machine.engine.clone(), reference.to_owned(), tag.to_owned());
        self.change(format!("tag {tag}"), async move { engine.tag(&reference, &tag).await }).await
    }
    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let (engine, reference) = (self.machine.engine.clone(), reference.to_owned());
        self.change(format!("remove-image {reference}"), async move { engine.remove_image(&reference).await }).await
    }
    async fn images(&self, folder: &str) -> Result<Vec<Image>, EngineError> {
        let (engine, folder) = (self.machine.engine.clone(), folder.to_owned());
        self.ask(async move { engine.images(&folder).await }).await
    }
    async fn trim_build_cache(&self, keep: u64) -> Result<u64, EngineError> {
        self.machine.engine.trim_build_cache(keep).await
    }
    async fn save(&self, images: &[ImageId]) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        self.machine.engine.save(images).await
    }
    async fn load(&self, archive: Archive) -> Result<(), EngineError> {
        Engine::load(&self.machine.engine, archive).await
    }
    async fn create(&self, request: ContainerRequest) -> Result<(), EngineError> {
        let engine = self.machine.engine.clone();
        self.change(format!("create {}", request.name), async move { engine.create(request).await }).await
    }
    async fn start(&self, name: &ContainerName) -> Result<(), EngineError> {
        let (engine, name) = (self.machine.engine.clone(), name.clone());
        self.change(format!("start {name}"), async move { engine.start(&name).await }).await
    }
    async fn stop(&self, name: &ContainerName, grace: Millis) -> Result<(), EngineError> {
        let (engine, name) = (self.machine.engine.clone(), name.clone());
        self.change(format!("stop {name}"), async move { engine.stop(&name, grace).await }).await
    }
    async fn signal(&self, name: &ContainerName, signal: &str) -> Result<(), EngineError> {
        let (engine, name, signal) = (self.machine.engine.clone(), name.clone(), signal.to_owned());
        self.change(format!("signal {name}"), async move { engine.signal(&name, &signal).await }).await
    }
    async fn remove(&self, name: &ContainerName) -> Result<(), EngineError> {
        let (engine, name) = (self.machine.engine.clone(), name.clone());
        self.change(format!("remove {name}"), async move { engine.remove(&name).await }).await
    }
    async fn container(&self, name: &ContainerName) -> Result<Option<Container>, EngineError> {
        let (engine, name) = (self.machine.engine.clone(), name.clone());
        self.ask(async move { engine.container(&name).await }).await
    }
    async fn containers(&self, label: &str) -> Result<Vec<Container>, EngineError> {
        let (engine, label) = (self.machine.engine.clone(), label.to_owned());
        self.ask(async move { engine.containers(&label).await }).await
    }
    async fn wait(&self, name: &ContainerName) -> Result<i64, EngineError> {
        let (engine, name) = (self.machine.engine.clone(), name.clone());
        self.ask(async move { engine.wait(&name).await }).await
    }
    async fn logs(
        &self,
        name: &ContainerName,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Output, EngineError>>, EngineError> {
        let (engine, name) = (self.machine.engine.clone(), name.clone());
        let output = self.ask(async move { engine.logs(&name, request).await }).await?;
        Ok(self.until_lost(output))
    }
    async fn attach(&self, name: &ContainerName) -> Result<Attached, EngineError> {
        self.machine.engine.attach(name).await
    }
    async fn keep_running(&self, name: &ContainerName) -> Result<(), EngineError> {
        let (engine, name) = (self.machine.engine.clone(), name.clone());
        self.change(format!("keep {name}"), async move { engine.keep_running(&name).await }).await
    }
    async fn resize(&self, name: &ContainerName, columns: u16, rows: u16) -> Result<(), EngineError> {
        self.machine.engine.resize(name, columns, rows).await
    }
    async fn exec(&self, name: &ContainerName, words: &[String], _say: Say<'_>) -> Result<i64, EngineError> {
        let (engine, name, words) = (self.machine.engine.clone(), name.clone(), words.to_vec());
        self.ask(async move { engine.exec(&name, &words, &|_| {}).await }).await
    }
    async fn networks(&self, label: &str) -> Result<Vec<Network>, EngineError> {
        let (engine, label) = (self.machine.engine.clone(), label.to_owned());
        self.ask(async move { engine.networks(&label).await }).await
    }
    async fn create_network(&self, network: &Network) -> Result<(), EngineError> {
        let (engine, network) = (self.machine.engine.clone(), network.clone());
        self.change(format!("network {}", network.name), async move { engine.create_network(&network).await }).await
    }
    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let (engine, name) = (self.machine.engine.clone(), name.to_owned());
        self.change(format!("remove-network {name}"), async move { engine.remove_network(&name).await }).await
    }
    async fn bridge_address(&self) -> Result<IpAddr, EngineError> {
        Ok(self.machine.address)
    }
    async fn pass(&self, asked: Asked) -> Result<Answered, EngineError> {
        self.machine.engine.pass(asked).await
    }
    async fn events(&self) -> Result<BoxStream<'static, Result<Event, EngineError>>, EngineError> {
        let engine = self.machine.engine.clone();
        let events = self.ask(async move { engine.events().await }).await?;
        Ok(self.until_lost(events))
    }
}

impl Docker {
    /// A stream that breaks off when the server is lost.
    fn until_lost<T: Send + 'static>(
        &self,
        stream: BoxStream<'static, Result<T, EngineError>>,
    ) -> BoxStream<'static, Result<T, EngineError>> {
        let machine = self.machine.clone();
        let items = unfold(Some(stream), move |stream| {
            let machine = machine.clone();
            async move {
                let mut stream = stream?;
                tokio::select! {
                    biased;
                    () = machine.lost() => Some((Err(machine.unreachable()), None)),
                    item = stream.next() => Some((item?, Some(stream))),
                }
            }
        });
        items.boxed()
    }
}
