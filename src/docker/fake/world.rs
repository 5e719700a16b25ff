//! What the fake engine holds, and how each call changes it. No waiting and no clock here: `super` does those.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use tokio::sync::mpsc::UnboundedSender;

use crate::docker::{Container, ContainerRequest, EngineError, Event, Image, Network, Output, Restart, State};
use crate::names::{ContainerName, ImageId};

/// Everything the engine knows.
#[derive(Default)]
pub(super) struct World {
    pub(super) images: BTreeMap<ImageId, Image>,
    /// What its registries hold, by reference.
    pushed: BTreeMap<String, Image>,
    /// What its archives hold.
    saved: BTreeMap<ImageId, Image>,
    pub(super) containers: BTreeMap<ContainerName, Held>,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) watchers: Vec<UnboundedSender<Event>>,
    /// How many containers were ever made: ids and times follow from it.
    made: u32,
}

/// A container and what the engine remembers of it.
pub(super) struct Held {
    pub(super) container: Container,
    pub(super) request: ContainerRequest,
    pub(super) log: Vec<String>,
    /// Counts starts: what was planned for an earlier run must not touch a later one.
    pub(super) run: u64,
    /// Takes output while someone is attached.
    pub(super) attached: Option<UnboundedSender<Output>>,
    /// What the attached one types, until the process takes it.
    pub(super) input: Option<tokio::io::DuplexStream>,
    /// Stopped by hand: the restart policy lets it lie.
    stopped: bool,
    /// It ran when the power went.
    on: bool,
}

impl World {
    pub(super) fn image(&self, reference: &str) -> Option<&Image> {
        let tagged = if reference.contains(':') { reference.to_owned() } else { format!("{reference}:latest") };
        self.images.values().find(|image| image.id.as_str() == reference || image.tags.contains(&tagged))
    }

    pub(super) fn tag(&mut self, reference: &str, tag: &str) -> Result<(), EngineError> {
        let id = self.image(reference).ok_or_else(|| missing("image", reference))?.id.clone();
        for image in self.images.values_mut() {
            image.tags.retain(|held| held != tag);
            if image.id == id {
                image.tags.push(tag.to_owned());
                image.tags.sort();
            }
        }
        Ok(())
    }

    pub(super) fn images_in(&self, folder: &str) -> Vec<Image> {
        let lies_there =
            |tag: &String| tag.rsplit_once('/').is_some_and(|(place, _)| super::image::fits(place, folder));
        let named = |image: &&Image| image.tags.iter().any(lies_there);
        let mut images: Vec<_> = self.images.values().filter(named).cloned().collect();
        images.sort_by(|a, b| (&a.tags, &a.id).cmp(&(&b.tags, &b.id)));
        images
    }

    pub(super) fn push(&mut self, reference: &str) -> Result<(), EngineError> {
        let image = self.image(reference).ok_or_else(|| missing("image", reference))?.clone();
        self.pushed.insert(reference.to_owned(), image);
        Ok(())
    }

    /// An image that is here counts as one that a registry has.
    pub(super) fn pull(&mut self, reference: &str) -> Result<(), EngineError> {
        if self.image(reference).is_some() {
            return Ok(());
        }
        let image = self.pushed.get(reference).ok_or_else(|| missing("image", reference))?;
        let id = image.id.clone();
        let unnamed = Image { tags: Vec::new(), ..image.clone() };
        self.images.entry(id.clone()).or_insert(unnamed);
        self.tag(id.as_str(), reference)
    }

    /// An archive names its images, one a line.
    pub(super) fn save(&mut self, images: &[ImageId]) -> Result<String, EngineError> {
        let mut text = String::new();
        for id in images {
            let image = self.images.get(id).ok_or_else(|| missing("image", id.as_str()))?;
            self.saved.insert(id.clone(), Image { tags: Vec::new(), ..image.clone() });
            text.push_str(&format!("{id}\n"));
        }
        Ok(text)
    }

    pub(super) fn load(&mut self, archive: &str) -> Result<(), EngineError> {
        for id in archive.lines() {
            let saved = self.saved.iter().find(|(held, _)| held.as_str() == id);
            let Some((id, image)) = saved else {
                let message = "this is no archive of images".to_owned();
                return Err(EngineError::Refused { doing: "load images".to_owned(), message });
            };
            self.images.entry(id.clone()).or_insert_with(|| image.clone());
        }
        Ok(())
    }

    /// Takes the tag away, and the image with its last one.
    pub(super) fn remove_image(&mut self, reference: &str) -> Result<(), EngineError> {
        let Some(id) = self.image(reference).map(|image| image.id.clone()) else { return Ok(()) };
        let user = self.containers.values().find(|held| held.container.image == id.as_str());
        let Some(image) = self.images.get_mut(&id) else { return Ok(()) };
        let (by_id, others) = (image.id.as_str() == reference, image.tags.len() > 1);
        if by_id && others {
            return Err(conflict(format!("image {id} is referenced by more than one name")));
        }
        match user {
            Some(held) if by_id || !others => {
                let name = &held.container.name;
                Err(conflict(format!("image {reference} is in use by container {name}")))
            }
            Some(_) | None => {
                image.tags.retain(|tag| tag != reference);
                if by_id || image.tags.is_empty() {
                    self.images.remove(&id);
                }
                Ok(())
            }
        }
    }

    pub(super) fn create(&mut self, request: ContainerRequest) -> Result<(), EngineError> {
        let name = request.name.clone();
        if let Some(held) = self.containers.get(&name) {
            let id = &held.container.id;
            return Err(conflict(format!("the container name \"/{name}\" is already in use by container {id}")));
        }
        let image = self.image(&request.image).ok_or_else(|| missing("image", &request.image))?.id.to_string();
        self.made += 1;
        let container = Container {
            id: format!("{:064x}", self.made),
            name: name.clone(),
            image,
            labels: request.labels.clone(),
            state: State::Created,
            addresses: BTreeMap::new(),
            created: i64::from(self.made),
        };
        let held = Held {
            container,
            request,
            log: Vec::new(),
            run: 0,
            attached: None,
            input: None,
            stopped: false,
            on: false,
        };
        self.containers.insert(name.clone(), held);
        self.tell(&name, "create");
        Ok(())
    }

    /// Starts a container; the number of its run, or `None` when it runs already.
    pub(super) fn start(&mut self, name: &ContainerName) -> Result<Option<u64>, EngineError> {
        let held = self.containers.get(name).ok_or_else(|| missing("container", name.as_str()))?;
        if held.is_running() {
            return Ok(None);
        }
        self.check_ports(name, &held.request)?;
        let address = self.address(&held.request)?;
        let Some(held) = self.containers.get_mut(name) else { return Ok(None) };
        held.run += 1;
        held.stopped = false;
        held.container.state = State::Running;
        held.container.addresses = address.into_iter().collect();
        let run = held.run;
        self.tell(name, "start");
        Ok(Some(run))
    }

    fn check_ports(&self, name: &ContainerName, request: &ContainerRequest) -> Result<(), EngineError> {
        let others = self.containers.values().filter(|held| held.is_running() && held.container.name != *name);
        for taken in others.flat_map(|held| &held.request.ports) {
            let same = |port: &&crate::docker::Published| {
                let transports = (port.container.transport, taken.container.transport);
                (port.address, port.port) == (taken.address, taken.port) && transports.0 == transports.1
            };
            if let Some(port) = request.ports.iter().find(same) {
                return Err(conflict(format!(
                    "Bind for {}:{} failed: port is already allocated",
                    port.address, port.port
                )));
            }
        }
        Ok(())
    }

    /// The network's name and the address a starting container gets there.
    fn address(&self, request: &ContainerRequest) -> Result<Option<(String, IpAddr)>, EngineError> {
        let Some(attachment) = &request.network else { return Ok(None) };
        let name = &attachment.network;
        let network = self.networks.get(name).ok_or_else(|| missing("network", name))?;
        let (base, size) = subnet(&network.subnet);
        let taken: Vec<_> = self.containers.values().filter_map(|held| held.container.addresses.get(name)).collect();
        let free = |address: &Ipv4Addr| !taken.contains(&&IpAddr::V4(*address));
        // As with the real one its own choice lies in the upper half; the last address is the broadcast.
        let mut pool = (size / 2..size.saturating_sub(1)).map(|i| Ipv4Addr::from(base + i));
        let chosen = match attachment.address {
            Some(fixed) => Some(fixed).filter(free),
            None => pool.find(free),
        };
        let address =
            chosen.ok_or_else(|| conflict(format!("no free address in {}: Address already in use", network.subnet)))?;
        Ok(Some((name.clone(), IpAddr::V4(address))))
    }

    /// Ends run `run` of a container with `code`; whether it is to be started again.
    pub(super) fn end(&mut self, name: &ContainerName, run: u64, code: i64) -> bool {
        let Some(held) = self.containers.get_mut(name).filter(|held| held.is_running() && held.run == run) else {
            return false;
        };
        let again = held.request.restart == Restart::UnlessStopped && !held.stopped;
        held.container.state = if again { State::Restarting } else { State::Exited(code) };
        held.container.addresses.clear();
        held.attached = None;
        held.input = None;
        self.tell(name, "die");
        again
    }

    /// Ends a container by hand. Gone or not running is success, and ends a restart that is due.
    pub(super) fn stop(&mut self, name: &ContainerName, signal: &str, code: i64) {
        let Some(held) = self.containers.get_mut(name) else { return };
        held.stopped = true;
        let run = held.run;
        match held.container.state {
            State::Running | State::Paused => {
                self.tell(name, "kill");
                self.end(name, run, code);
                if signal == "SIGTERM" {
                    self.tell(name, "stop");
                }
            }
            State::Restarting => held.container.state = State::Exited(code),
            State::Created | State::Exited(_) | State::Dead => {}
        }
    }

    /// Ends everything that runs, as when the power goes.
    pub(super) fn cut_off(&mut self) {
        self.watchers.clear();
        for held in self.containers.values_mut() {
            held.on = held.is_running() || held.container.state == State::Restarting;
            if held.on {
                held.run += 1;
                held.container.state = State::Exited(255);
                held.container.addresses.clear();
                held.attached = None;
                held.input = None;
            }
        }
    }

    /// What the engine starts again when it comes up itself.
    pub(super) fn due_at_boot(&self) -> Vec<ContainerName> {
        let due = |held: &&Held| held.on && !held.stopped && held.request.restart == Restart::UnlessStopped;
        self.containers.values().filter(due).map(|held| held.container.name.clone()).collect()
    }

    pub(super) fn remove(&mut self, name: &ContainerName) {
        self.stop(name, "SIGKILL", 137);
        if self.containers.contains_key(name) {
            self.tell(name, "destroy");
            self.containers.remove(name);
        }
    }

    pub(super) fn create_network(&mut self, network: &Network) -> Result<(), EngineError> {
        match self.networks.get(&network.name) {
            Some(held) if held.subnet == network.subnet => Ok(()),
            Some(held) => {
                let Network { name, subnet, .. } = network;
                Err(conflict(format!("network `{name}` exists with subnet {} and not {subnet}", held.subnet)))
            }
            None => {
                self.networks.insert(network.name.clone(), network.clone());
                Ok(())
            }
        }
    }

    pub(super) fn remove_network(&mut self, name: &str) -> Result<(), EngineError> {
        let user = self.containers.values().find(|held| held.container.addresses.contains_key(name));
        if let Some(held) = user {
            return Err(conflict(format!("network {name} has active endpoints: {}", held.container.name)));
        }
        self.networks.remove(name);
        Ok(())
    }

    /// Tells those who watch what happened to a container.
    pub(super) fn tell(&mut self, name: &ContainerName, action: &str) {
        let labels = self.containers.get(name).map(|held| held.container.labels.clone()).unwrap_or_default();
        let event = Event { container: name.to_string(), labels, action: action.to_owned() };
        self.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
    }
}

impl Held {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.container.state, State::Running | State::Paused)
    }
}

/// First address and number of addresses of `10.0.0.0/24`; a subnet that is none has no addresses.
fn subnet(text: &str) -> (u32, u32) {
    let parsed = text.split_once('/').and_then(|(base, bits)| {
        let base: Ipv4Addr = base.parse().ok()?;
        Some((u32::from(base), 1_u32.checked_shl(32_u32.checked_sub(bits.parse().ok()?)?)?))
    });
    parsed.unwrap_or((0, 0))
}

/// Whether labels carry `key` or `key=value`.
pub(super) fn carries(labels: &BTreeMap<String, String>, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|held| held == value),
        None => labels.contains_key(label),
    }
}

pub(super) fn missing(kind: &str, name: &str) -> EngineError {
    EngineError::NotFound { what: format!("{kind} `{name}`") }
}

pub(super) fn conflict(message: String) -> EngineError {
    EngineError::Conflict { message }
}
