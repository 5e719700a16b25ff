//! What a test can ask of the fake engine beside the contract.

use tokio::sync::watch;

use super::{Behaviour, Fake, image};
use crate::docker::{Container, ContainerRequest, Image, Network};
use crate::names::{ContainerName, ImageId};

impl Fake {
    /// An engine without images, containers or networks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an image there, as if it had been pulled; its id follows from the reference.
    pub fn add_image(&self, reference: &str) -> ImageId {
        let image = image::image(reference.as_bytes(), reference);
        let id = image.id.clone();
        self.world().images.insert(id.clone(), image);
        id
    }

    /// Puts an image of another engine there, without its names.
    pub fn load(&self, image: Image) {
        self.world().images.entry(image.id.clone()).or_insert(Image { tags: Vec::new(), ..image });
    }

    /// Gives an image another name and takes the one it had, as a build by that name does; whether the engine answers or
    /// not.
    pub fn retag(&self, reference: &str, tag: &str) {
        let mut world = self.world();
        if world.tag(reference, tag).is_ok() {
            for image in world.images.values_mut() {
                image.tags.retain(|held| held != reference);
            }
        }
    }

    /// Changes what an image says of itself.
    pub fn change_image(&self, reference: &str, change: impl FnOnce(&mut Image)) {
        let mut world = self.world();
        let id = world.image(reference).map(|image| image.id.clone());
        if let Some(image) = id.and_then(|id| world.images.get_mut(&id)) {
            change(image);
        }
    }

    /// Says what a container does when it is started next.
    pub fn behave(&self, name: &ContainerName, behaviour: Behaviour) {
        self.script().behaviours.insert(name.to_string(), behaviour);
    }

    /// Says what containers of an image do; `reference` as the containers will name it, or its id.
    pub fn behave_image(&self, reference: &str, behaviour: Behaviour) {
        self.script().behaviours.insert(reference.to_owned(), behaviour);
    }

    /// Refuses the `number`th call that changes something, from 1, counted from the beginning of this engine.
    pub fn refuse(&self, number: usize, message: &str) {
        self.script().refused.insert(number, message.to_owned());
    }

    /// The images of the next so many builds are gone when they have a name: somebody has removed them meanwhile.
    pub fn lose_builds(&self, count: usize) {
        self.script().lost = count;
    }

    /// The engine stops answering, or answers again.
    pub fn go_away(&self, away: bool) {
        self.script().away = away;
    }

    /// Calls that were to change something, in order: `create blog.web.1.0`, `start …`.
    pub fn calls(&self) -> Vec<String> {
        self.script().calls.clone()
    }

    /// The request a container was made from.
    pub fn request(&self, name: &ContainerName) -> Option<ContainerRequest> {
        self.world().containers.get(name).map(|held| held.request.clone())
    }

    /// Ends a running container, as if its process had ended by itself.
    pub fn fall(&self, name: &ContainerName, code: i64) {
        let run = self.world().containers.get(name).map(|held| held.run);
        if let Some(run) = run {
            self.ended(name, run, code);
        }
    }

    /// Shows every container with the request it was made from, by name, whether the engine answers or not.
    pub fn each(&self, mut look: impl FnMut(&Container, &ContainerRequest)) {
        for held in self.world().containers.values() {
            look(&held.container, &held.request);
        }
    }

    /// Every network, whether the engine answers or not.
    pub fn all_networks(&self) -> Vec<Network> {
        self.world().networks.values().cloned().collect()
    }

    /// Moves whenever a container's state may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Every container behaves from its next start on as if no test had asked for anything else.
    pub fn behave_all(&self) {
        self.script().behaviours.clear();
    }

    /// The server's power goes: everything that runs ends at once, and nothing answers. Nobody is told.
    pub fn power_off(&self) {
        self.go_away(true);
        self.world().cut_off();
        self.changed();
    }

    /// The power is back: what ran and was not stopped by hand is started again, as its policy says.
    pub fn power_on(&self) {
        let due = self.world().due_at_boot();
        for name in due {
            // A port that is taken by now is the container's bad luck, as with the real engine.
            let _ = self.launch(&name);
        }
        self.go_away(false);
    }
}
