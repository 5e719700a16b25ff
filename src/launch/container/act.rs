//! Makes containers, and runs those that run once.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::BoxStream;
use tokio::time::timeout;

use super::request;
use crate::db::{DbError, Key, layout};
use crate::docker::lines::Lines;
use crate::docker::{Container, ContainerRequest, Engine, EngineError, LogRequest, Output, State};
use crate::env::Env;
use crate::launch::act::{LaunchError, Launcher, Say, on_disk};
use crate::launch::compose::environment;
use crate::launch::{ContainerPlan, files, label};
use crate::names::{ServerName, StackName};
use crate::units::Millis;

/// What a process of a stack that is gone has to end in order.
const LAST_GRACE: Millis = Millis(10_000);

impl Launcher {
    /// Makes a container; one of this name that an interrupted launch left behind is replaced.
    pub(in crate::launch) async fn make(
        &self,
        docker: &dyn Engine,
        container: &ContainerPlan,
        request: ContainerRequest,
    ) -> Result<(), EngineError> {
        match docker.create(request.clone()).await {
            Err(EngineError::Conflict { .. })
                if docker.container(&container.name).await?.is_some_and(|found| {
                    found.labels.get(label::HQ) == Some(&self.identity.id) && found.state != State::Running
                }) =>
            {
                docker.remove(&container.name).await?;
                docker.create(request).await
            }
            other => other,
        }
    }

    /// A container's request with its environment composed and its volumes' folders made.
    ///
    /// # Errors
    /// When the stack's variables or volume folders cannot be had.
    pub async fn request(&self, plan: &ContainerPlan) -> Result<ContainerRequest, LaunchError> {
        let stack_env = self.env_of(&plan.stack, plan.env_version).await.map_err(LaunchError::State)?;
        let request = request(plan, environment(&self.etc_env, &stack_env, plan), &self.identity, &self.root);
        for (folder, _) in &request.binds {
            self.make_volume(&plan.server, folder).await?;
        }
        Ok(request)
    }

    /// The variables of one version; none when it is not kept.
    ///
    /// # Errors
    /// When the tree cannot be read, or the version is damaged.
    pub async fn env_of(&self, stack: &StackName, version: u64) -> Result<Env, DbError> {
        let key = layout::env_version(stack, version);
        let Some(entry) = self.db.read(&key).await? else { return Ok(Env::new()) };
        let text = self.opened(&key, &entry.value)?;
        serde_json::from_slice(&text).map_err(|_| DbError::Damaged {
            // Not what stands there: it may be part of a value.
            what: "it holds no variables".to_owned(),
            place: self.db.place(&key),
            key,
        })
    }

    /// What a key of the tree holds, opened.
    ///
    /// # Errors
    /// [`DbError::Damaged`] when it does not open.
    pub fn opened<'a>(&self, key: &Key, value: &'a [u8]) -> Result<Cow<'a, [u8]>, DbError> {
        self.seal.open(value).map_err(|error| DbError::Damaged {
            key: key.clone(),
            what: error.to_string(),
            place: self.db.place(key),
        })
    }

    async fn make_volume(&self, server: &ServerName, folder: &Path) -> Result<(), LaunchError> {
        if server == self.engines.here() {
            return on_disk(folder.to_owned(), files::make_volume).await;
        }
        let supply = |error| LaunchError::Supply { doing: format!("keep data on {server}"), source: Box::new(error) };
        self.supply.make_folder(server, folder).await.map_err(supply)
    }

    /// Makes and starts a container; the inner error is docker's.
    pub(in crate::launch) async fn boot(
        &self,
        container: &ContainerPlan,
    ) -> Result<Result<(), EngineError>, LaunchError> {
        let request = self.request(container).await?;
        let docker = self.engine(&container.server)?;
        if let Err(error) = self.make(&*docker, container, request).await {
            return Ok(Err(error));
        }
        Ok(docker.start(&container.name).await)
    }

    /// Removes everything a stack that is gone has on another server.
    pub(in crate::launch) async fn sweep(
        &self,
        stack: &StackName,
        server: &ServerName,
        network: &str,
    ) -> Result<(), LaunchError> {
        let engine = |source| LaunchError::Engine { doing: format!("remove what `{stack}` has on {server}"), source };
        let docker = self.engine(server)?;
        let found = docker.containers(label::HQ).await.map_err(engine)?;
        let own = |found: &&Container| {
            let text = |name: &str| found.labels.get(name).map(String::as_str);
            text(label::HQ) == Some(&self.identity.id) && text(label::STACK) == Some(stack.as_str())
        };
        try_join_all(found.iter().filter(own).map(|found| async {
            docker.stop(&found.name, LAST_GRACE).await?;
            docker.remove(&found.name).await
        }))
        .await
        .map_err(engine)?;
        docker.remove_network(network).await.map_err(engine)?;
        self.remove_images(&*docker, stack, &BTreeSet::new()).await.map_err(engine)?;
        let folder = self.root.join("volumes").join(stack.as_str());
        let supply =
            |error| LaunchError::Supply { doing: format!("remove the volumes of `{stack}`"), source: Box::new(error) };
        self.supply.remove_folder(server, &folder).await.map_err(supply)
    }

    /// Removes the images built for a stack from one engine, but those that are needed or that others use.
    ///
    /// # Errors
    /// What docker says.
    pub async fn remove_images(
        &self,
        docker: &dyn Engine,
        stack: &StackName,
        needed: &BTreeSet<String>,
    ) -> Result<(), EngineError> {
        let folder = format!("quarry/{stack}");
        let images = docker.images(&folder).await?;
        for image in images.into_iter().filter(|image| !needed.contains(image.id.as_str())) {
            let own = |tag: &&String| tag.starts_with(&format!("{folder}/")) && self.identity.has_made(tag);
            for tag in image.tags.iter().filter(own) {
                match docker.remove_image(tag).await {
                    Err(EngineError::Conflict { .. } | EngineError::NotFound { .. }) | Ok(()) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Runs a command to its end in a container of its own.
    pub(in crate::launch) async fn once(&self, container: &ContainerPlan, say: Say<'_>) -> Result<(), LaunchError> {
        let name = &container.name;
        let engine = |source| LaunchError::Engine { doing: format!("run {name}"), source };
        let request = self.request(container).await?;
        let docker = self.engine(&container.server)?;
        self.make(&*docker, container, request).await.map_err(engine)?;
        docker.start(name).await.map_err(engine)?;
        let ended = async {
            let logs = LogRequest { tail: None, follow: true, timestamps: false };
            say_output(docker.logs(name, logs).await?, say).await;
            docker.wait(name).await
        };
        let ended = timeout(self.release_timeout.duration(), ended).await;
        docker.remove(name).await.map_err(engine)?;
        let overdue = |_| LaunchError::Overdue { node: container.node.clone(), limit: self.release_timeout };
        match ended.map_err(overdue)?.map_err(engine)? {
            0 => Ok(()),
            code => Err(LaunchError::Command { what: "release command", node: container.node.to_string(), code }),
        }
    }
}

/// Says a container's output line by line.
pub(in crate::launch) async fn say_output(mut output: BoxStream<'static, Result<Output, EngineError>>, say: Say<'_>) {
    let indented = |line: &str| say(&format!("       {}", line.trim_end()));
    let mut lines = Lines::default();
    while let Some(Ok(Output::Stdout(bytes) | Output::Stderr(bytes))) = output.next().await {
        lines.add(&bytes, &indented);
    }
    lines.end(&indented);
}
