//! An engine in memory, with the real one's contract and hooks for tests.
//!
//! The same calls give the same answers: ids and times count up, nothing is random, time is tokio's and may be paused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

use super::{
    Answered, Archive, Asked, Attached, BuildRequest, Container, ContainerRequest, Engine, EngineError, Event, Image,
    LogRequest, Network, Output, Restart, Say, State, Surroundings,
};
use crate::names::{ContainerName, ImageId};
use crate::units::Millis;

mod behaviour;
mod hooks;
mod image;
mod life;
mod passing;
mod world;

pub use behaviour::Behaviour;
use world::{World, carries, conflict, missing};

/// An engine in memory; clones are the same engine.
#[derive(Clone, Default)]
pub struct Fake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    world: Mutex<World>,
    script: Mutex<Script>,
    /// Moves whenever the world has changed.
    changed: watch::Sender<u64>,
}

/// What a test has asked for.
#[derive(Default)]
struct Script {
    /// By container name, image reference or image id.
    behaviours: BTreeMap<String, Behaviour>,
    calls: Vec<String>,
    /// The number of the changing call that is refused, from 1, counted from the beginning.
    refused: BTreeMap<usize, String>,
    /// So many builds more lose their images.
    lost: usize,
    away: bool,
}

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn answers(&self) -> Result<(), EngineError> {
        if self.script().away {
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
            return Err(EngineError::Unreachable { engine: "the fake engine".to_owned(), source });
        }
        Ok(())
    }

    /// Notes a call that changes something, and refuses it if the test asked for that.
    fn call(&self, what: String) -> Result<(), EngineError> {
        self.answers()?;
        let mut script = self.script();
        script.calls.push(what.clone());
        let number = script.calls.len();
        match script.refused.get(&number) {
            Some(message) => Err(EngineError::Refused { doing: what, message: message.clone() }),
            None => Ok(()),
        }
    }

    fn changed(&self) {
        self.0.changed.send_modify(|version| *version += 1);
    }

    fn behaviour(&self, name: &ContainerName) -> Behaviour {
        let keys = match self.world().containers.get(name) {
            Some(held) => [name.to_string(), held.request.image.clone(), held.container.image.clone()],
            None => return Behaviour::default(),
        };
        let script = self.script();
        keys.iter().find_map(|key| script.behaviours.get(key).cloned()).unwrap_or_default()
    }

    /// Waits until `answer` finds something in the world.
    async fn until<T>(&self, answer: impl Fn(&World) -> Option<T>) -> T {
        let mut changed = self.0.changed.subscribe();
        loop {
            if let Some(found) = answer(&self.world()) {
                return found;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }
}

#[async_trait]
impl Engine for Fake {
    async fn version(&self) -> Result<String, EngineError> {
        self.answers()?;
        Ok("20.10.24".to_owned())
    }

    async fn architecture(&self) -> Result<String, EngineError> {
        self.answers()?;
        Ok(image::ARCHITECTURE.to_owned())
    }

    async fn surroundings(&self) -> Result<Surroundings, EngineError> {
        self.answers()?;
        Ok(Surroundings { cgroup_driver: "cgroupfs".to_owned(), folder: "/".into(), live_restore: true })
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError> {
        self.answers()?;
        Ok(self.world().image(reference).cloned())
    }

    async fn pull(&self, reference: &str, _say: Say<'_>) -> Result<(), EngineError> {
        self.call(format!("pull {reference}"))?;
        self.world().pull(reference)
    }

    async fn push(&self, reference: &str, _say: Say<'_>) -> Result<(), EngineError> {
        self.call(format!("push {reference}"))?;
        self.world().push(reference)
    }

    async fn build(&self, request: BuildRequest, context: Archive, say: Say<'_>) -> Result<ImageId, EngineError> {
        self.call(format!("build {}", request.tag))?;
        let mut bytes = Vec::new();
        let mut context = context;
        context.read_to_end(&mut bytes).await.map_err(|error| EngineError::Refused {
            doing: "read the files to build from".to_owned(),
            message: error.to_string(),
        })?;
        say("Step 1/1 : FROM scratch");
        let image = image::built(&request, &bytes)?;
        let id = image.id.clone();
        let mut script = self.script();
        if script.lost > 0 {
            script.lost -= 1;
            return Ok(id);
        }
        drop(script);
        let mut world = self.world();
        world.images.entry(id.clone()).or_insert(image);
        world.tag(id.as_str(), &request.tag)?;
        Ok(id)
    }

    async fn tag(&self, reference: &str, tag: &str) -> Result<(), EngineError> {
        self.call(format!("tag {reference} {tag}"))?;
        self.world().tag(reference, tag)
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.call(format!("remove_image {reference}"))?;
        self.world().remove_image(reference)
    }

    async fn images(&self, folder: &str) -> Result<Vec<Image>, EngineError> {
        self.answers()?;
        Ok(self.world().images_in(folder))
    }

    async fn trim_build_cache(&self, keep: u64) -> Result<u64, EngineError> {
        self.call(format!("trim_build_cache {keep}"))?;
        Ok(0)
    }

    async fn save(&self, images: &[ImageId]) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        self.answers()?;
        let text = self.world().save(images)?;
        Ok(futures_util::stream::iter([Ok(Bytes::from(text))]).boxed())
    }

    async fn load(&self, mut archive: Archive) -> Result<(), EngineError> {
        self.call("load".to_owned())?;
        let mut text = String::new();
        let read = archive.read_to_string(&mut text).await;
        read.map_err(|error| EngineError::Refused { doing: "load images".to_owned(), message: error.to_string() })?;
        self.world().load(&text)
    }

    async fn create(&self, request: ContainerRequest) -> Result<(), EngineError> {
        self.call(format!("create {}", request.name))?;
        self.world().create(request)
    }

    async fn start(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.call(format!("start {name}"))?;
        self.launch(name)
    }

    async fn stop(&self, name: &ContainerName, grace: Millis) -> Result<(), EngineError> {
        self.call(format!("stop {name}"))?;
        let running = self.world().containers.get(name).is_some_and(world::Held::is_running);
        let deaf = running && self.behaviour(name).deaf;
        if deaf {
            tokio::time::sleep(grace.duration()).await;
        }
        self.world().stop(name, "SIGTERM", if deaf { 137 } else { 143 });
        self.changed();
        Ok(())
    }

    async fn signal(&self, name: &ContainerName, signal: &str) -> Result<(), EngineError> {
        self.call(format!("signal {name} {signal}"))?;
        let code = match signal {
            "SIGKILL" => 137,
            "SIGINT" => 130,
            "SIGHUP" => 129,
            _ => 143,
        };
        self.world().stop(name, signal, code);
        self.changed();
        Ok(())
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.call(format!("remove {name}"))?;
        self.world().remove(name);
        self.changed();
        Ok(())
    }

    async fn container(&self, name: &ContainerName) -> Result<Option<Container>, EngineError> {
        self.answers()?;
        Ok(self.world().containers.get(name).map(|held| held.container.clone()))
    }

    async fn containers(&self, label: &str) -> Result<Vec<Container>, EngineError> {
        self.answers()?;
        let world = self.world();
        let held = world.containers.values().map(|held| &held.container);
        Ok(held.filter(|container| carries(&container.labels, label)).cloned().collect())
    }

    async fn wait(&self, name: &ContainerName) -> Result<i64, EngineError> {
        self.answers()?;
        let ended = |world: &World| match world.containers.get(name) {
            None => Some(Err(missing("container", name.as_str()))),
            Some(held) => match held.container.state {
                State::Exited(code) => Some(Ok(code)),
                State::Created | State::Dead => Some(Ok(0)),
                State::Running | State::Paused | State::Restarting => None,
            },
        };
        self.until(ended).await
    }

    async fn logs(
        &self,
        name: &ContainerName,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Output, EngineError>>, EngineError> {
        self.answers()?;
        let world = self.world();
        let held = world.containers.get(name).ok_or_else(|| missing("container", name.as_str()))?;
        let tail = request.tail.map_or(usize::MAX, |lines| lines as usize);
        let begin = held.log.len().saturating_sub(tail);
        let reading = (self.clone(), name.clone(), begin);
        let lines = futures_util::stream::unfold(reading, move |(fake, name, at)| async move {
            let next = |world: &World| {
                let held = world.containers.get(&name);
                match held.and_then(|held| held.log.get(at)) {
                    Some(line) => Some(Some(line.clone())),
                    None if request.follow && held.is_some_and(world::Held::is_running) => None,
                    None => Some(None),
                }
            };
            let line = fake.until(next).await?;
            let stamp =
                if request.timestamps { format!("1970-01-01T00:00:{at:02}.000000000Z ") } else { String::new() };
            Some((Ok(Output::Stdout(format!("{stamp}{line}\n").into_bytes())), (fake, name, at + 1)))
        });
        Ok(lines.boxed())
    }

    async fn attach(&self, name: &ContainerName) -> Result<Attached, EngineError> {
        self.answers()?;
        let mut world = self.world();
        let held = world.containers.get_mut(name).ok_or_else(|| missing("container", name.as_str()))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let (input, process) = tokio::io::duplex(64 * 1024);
        held.attached = Some(sender);
        held.input = Some(process);
        let output = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|output| (Ok(output), receiver))
        });
        Ok(Attached { output: output.boxed(), input: Box::pin(input) })
    }

    async fn keep_running(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.call(format!("keep {name}"))?;
        match self.world().containers.get_mut(name) {
            Some(held) => held.request.restart = Restart::UnlessStopped,
            None => return Err(missing("container", name.as_str())),
        }
        self.changed();
        Ok(())
    }

    async fn resize(&self, name: &ContainerName, _columns: u16, _rows: u16) -> Result<(), EngineError> {
        self.answers()?;
        match self.world().containers.get(name) {
            Some(held) if held.is_running() => Ok(()),
            Some(_) => Err(conflict(format!("container {name} is not running"))),
            None => Err(missing("container", name.as_str())),
        }
    }

    async fn exec(&self, name: &ContainerName, words: &[String], say: Say<'_>) -> Result<i64, EngineError> {
        self.call(format!("exec {name} {}", words.join(" ")))?;
        match self.world().containers.get(name) {
            Some(held) if held.is_running() => {}
            Some(_) => return Err(conflict(format!("container {name} is not running"))),
            None => return Err(missing("container", name.as_str())),
        }
        let (lines, code) = self.behaviour(name).exec;
        for line in lines {
            say(&line);
        }
        Ok(code)
    }

    async fn networks(&self, label: &str) -> Result<Vec<Network>, EngineError> {
        self.answers()?;
        Ok(self.world().networks.values().filter(|network| carries(&network.labels, label)).cloned().collect())
    }

    async fn create_network(&self, network: &Network) -> Result<(), EngineError> {
        self.call(format!("create_network {}", network.name))?;
        self.world().create_network(network)
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.call(format!("remove_network {name}"))?;
        self.world().remove_network(name)
    }

    async fn bridge_address(&self) -> Result<IpAddr, EngineError> {
        self.answers()?;
        Ok(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1)))
    }

    async fn pass(&self, asked: Asked) -> Result<Answered, EngineError> {
        self.answers()?;
        Ok(passing::answer(&self.world(), &asked))
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Event, EngineError>>, EngineError> {
        self.answers()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        self.world().watchers.push(sender);
        let events = futures_util::stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<Event>| async {
            receiver.recv().await.map(|event| (Ok(event), receiver))
        });
        Ok(events.boxed())
    }
}
