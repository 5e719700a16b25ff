//! The whole, as its users meet it: real `git push`, `ssh` and HTTP against `quarry serve` with real docker and nginx.

use crate::harness::{Hq, Repository};

mod aftermath;
mod agents;
mod apart;
mod api;
mod backup;
mod bombs;
mod builds;
mod busy;
mod certs;
mod cloud;
mod cluster;
mod commands;
mod docker;
mod doctor;
mod doors;
mod embassy;
mod env;
mod etcd;
mod events;
mod falls;
mod foreign;
mod gc;
mod git;
mod health;
mod hostile;
mod inward;
mod jobs;
mod killed;
mod local;
mod logs;
mod lost;
mod packs;
mod push;
mod refuse;
mod rights;
mod rollback;
mod routing;
mod run;
mod servers;
mod services;
mod state;
mod tasks;
mod tunnels;
mod upgrade;
mod wall;

/// The sample with a Dockerfile and these files besides, committed. It has a health check, which spares each test the
/// seconds in which a container without one may still die.
fn app(files: &[(&str, &str)]) -> Repository {
    let repository = Repository::sample("dockerfile");
    repository.write("quarry.yml", "web:\n  health: /\n");
    repository.write_all(files);
    repository.commit("the app");
    repository
}

/// What the app greets with, changed and committed.
fn greet(repository: &Repository, text: &str) {
    repository.write("greeting", &format!("{text}\n"));
    repository.commit(text);
}

/// An HQ on which the app is live as `blog`.
fn with_app(files: &[(&str, &str)]) -> (Hq, Repository) {
    let hq = Hq::start();
    let repository = app(files);
    hq.push(&repository, "blog").succeeded();
    (hq, repository)
}

/// What a refused push must leave as it was: the page, the containers, the branch, the listing of releases.
#[derive(Debug, PartialEq, Eq)]
struct Serving {
    page: String,
    containers: Vec<String>,
    branch: String,
    releases: serde_json::Value,
}

fn serving(hq: &Hq, stack: &str) -> Serving {
    Serving {
        page: hq.page(&format!("{stack}.localhost"), "/"),
        containers: hq.containers(&[&format!("stack={stack}")]),
        branch: hq.git(&hq.root(), &["ls-remote", &hq.url(stack)]).succeeded().text(),
        releases: hq.quarry(&["releases", stack, "--json"]).succeeded().json(),
    }
}
