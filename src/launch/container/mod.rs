//! From a planned container to what docker is asked for; [`act`] asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::docker::{Attachment, ContainerRequest, Log, Published, Restart};
use crate::env::Env;
use crate::launch::{ContainerPlan, Identity, Role, exchange, label};
use crate::names::{NodeName, StackName};
use crate::stack::Command;
use crate::units::port::Port;

pub mod act;

/// Most processes of one container.
const PIDS: i64 = 4096;

/// The request for a container with this environment; volumes lie below `root`.
pub fn request(plan: &ContainerPlan, env: Env, identity: &Identity, root: &Path) -> ContainerRequest {
    let settings = &plan.settings;
    let command = settings.command.as_ref().map(Command::words).unwrap_or_default();
    let volumes = settings.volumes.iter();
    ContainerRequest {
        name: plan.name.clone(),
        image: settings.image.as_str().to_owned(),
        entrypoint: None,
        command: [command, settings.args.clone()].concat(),
        cwd: settings.cwd.clone(),
        env,
        labels: labels(plan, identity),
        ports: plan.published.iter().map(published).collect(),
        binds: volumes.map(|path| (volume(root, &plan.stack, &plan.node, path.as_str()), path.to_string())).collect(),
        network: Some(Attachment {
            network: plan.network.clone(),
            aliases: match plan.role {
                Role::Node | Role::Service => vec![plan.node.to_string()],
                Role::Once => Vec::new(),
            },
            address: plan.address,
        }),
        memory: Some(settings.size),
        cpus: settings.cpus,
        pids: Some(PIDS),
        // Until it has come up an end is an answer: its exit code and its last lines must not be those of a second try.
        restart: Restart::No,
        hosts: plan.hosts.clone(),
        stop_timeout: settings.grace,
        tty: false,
        stdin: false,
        log: Log::default(),
    }
}

fn labels(plan: &ContainerPlan, identity: &Identity) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = [
        (label::HQ, identity.id.clone()),
        (label::STACK, plan.stack.to_string()),
        (label::NODE, plan.node.to_string()),
        (label::RELEASE, plan.release.to_string()),
        (label::INDEX, plan.index.to_string()),
        (label::ROLE, plan.role.word().to_owned()),
        (label::SIZE, plan.settings.size.0.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(address) = plan.routed() {
        labels.insert(label::ADDRESS.to_owned(), address.to_string());
    }
    if !plan.published.is_empty() {
        labels.insert(label::EXPOSED.to_owned(), exchange::label_text(&plan.published));
    }
    let others = plan.published.iter().filter(|(_, at)| Some(*at) != plan.routed());
    let others: Vec<String> = others.map(|(_, at)| at.port().to_string()).collect();
    if !others.is_empty() {
        labels.insert(label::PORTS.to_owned(), others.join(" "));
    }
    labels
}

fn published((own, at): &(Port, SocketAddr)) -> Published {
    Published { address: at.ip(), port: at.port(), container: *own }
}

/// Where a node's volume lies on the server. Two paths that differ only in where they are cut stay apart.
fn volume(root: &Path, stack: &StackName, node: &NodeName, path: &str) -> PathBuf {
    let inside = path.trim_matches('/').replace('_', "__").replace('/', "_");
    root.join("volumes").join(stack.as_str()).join(node.as_str()).join(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_of_different_paths_never_share_a_folder() {
        let folder = |path: &str| volume(Path::new("/q"), &"s".parse().unwrap(), &"n".parse().unwrap(), path);
        assert_eq!(folder("/data/db"), Path::new("/q/volumes/s/n/data_db"));
        assert_ne!(folder("/a/b"), folder("/a_b"));
    }
}
