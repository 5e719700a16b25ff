//! The docker command, for what tests look at behind quarry's back.

use std::process::Command;

use super::program::{Done, run};

pub fn docker(words: &[&str]) -> Done {
    run(Command::new("docker").args(words))
}

/// Lines of a listing.
pub fn list(words: &[&str]) -> Vec<String> {
    docker(words).succeeded().text().lines().map(str::to_owned).collect()
}

/// Fails with what to do when there is no engine or no base image.
pub fn required() {
    let base = docker(&["image", "inspect", "debian:bookworm-slim", "--format", "{{.Id}}"]);
    let hint = "run bin/test, which installs docker, starts it and makes the image debian:bookworm-slim";
    assert_eq!(base.code, 0, "{hint}\n{}", base.stderr);
}

/// Builds an image that stands for one from a registry; it stays, because docker's cache makes it free next time.
pub fn image(name: &str, dockerfile: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    let folder = folder.path().to_str().unwrap();
    docker(&["build", "-q", "-t", name, "--label", "quarry.test=stand-in", folder]).succeeded();
}

/// Removes everything that an HQ made.
pub fn sweep(id: &str) {
    let label = format!("label=quarry.hq={id}");
    remove(&["rm", "-f", "-v"], &["ps", "-aq", "--filter", &label]);
    remove(&["network", "rm"], &["network", "ls", "-q", "--filter", &label]);
    let pattern = format!("reference=quarry/*/*:*-{}", &id[..4]);
    let list = ["images", "--filter", &pattern, "--format", "{{.Repository}}:{{.Tag}}"];
    remove(&["rmi", "-f"], &list);
    // Not there is as good.
    let _ = Command::new("nft").args(["delete", "table", "inet", &format!("quarry_hq_{id}")]).output();
}

fn remove(remove: &[&str], list: &[&str]) {
    let found = docker(list).text();
    let found: Vec<&str> = found.split_whitespace().collect();
    if !found.is_empty() {
        docker(&[remove, &found[..]].concat());
    }
}
