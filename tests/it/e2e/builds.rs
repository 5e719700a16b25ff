//! What a build may take of the machine.

use super::{app, serving, with_app};
use crate::harness::{Hq, Repository};

/// An app whose image this step is part of.
fn building(step: &str) -> Repository {
    let text =
        format!("FROM debian:bookworm-slim\n{step}\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD exec perl app.pl\n");
    app(&[("Dockerfile", &text)])
}

#[test]
fn a_build_that_starts_processes_without_end_is_refused_and_disturbs_nobody() {
    let hq = Hq::start_with(&[("build/processes", "64\n")]);
    hq.push(&app(&[]), "blog").succeeded();
    let before = serving(&hq, "blog");
    let crowd = "RUN for n in $(seq 200); do sleep 30 & done; wait";
    hq.push(&building(crowd), "crowd").failed().said(&["a build may have 64 processes (`build/processes`)"]);
    let crowd = "RUN --mount=type=tmpfs,target=/scratch for n in $(seq 200); do sleep 30 & done; wait";
    hq.push(&building(crowd), "crowd").failed().said(&["a build may have 64 processes (`build/processes`)"]);
    assert_eq!(before, serving(&hq, "blog"));
}

#[test]
fn a_build_that_takes_all_memory_is_refused_with_the_limit() {
    let hq = Hq::start_with(&[("build/memory", "64mb\n")]);
    let eater = "RUN perl -e 'my @all; push @all, \"x\" x 1000000 while 1'";
    hq.push(&building(eater), "eater")
        .failed()
        .said(&["perhaps because a build may take 64mb of memory (`build/memory`)"]);
}

#[test]
fn a_build_that_fills_the_disk_is_ended_before_it_is_full() {
    let (hq, _repository) = with_app(&[]);
    let folder = crate::harness::docker::docker(&["info", "--format", "{{.DockerRootDir}}"]).text();
    let disk = rustix::fs::statvfs(folder.trim()).unwrap();
    let free = disk.f_bavail * disk.f_frsize / (1024 * 1024);
    drop(hq);
    let hq = Hq::start_with(&[("build/spare", &format!("{}mb\n", free - 600))]);
    let filler = "RUN dd if=/dev/zero of=/full bs=1M count=4000";
    hq.push(&building(filler), "filler").failed().said(&["are left on the disk", "must stay free (`build/spare`)"]);
    crate::harness::until("the end of the build", || {
        let commands = crate::harness::docker::list(&["ps", "-a", "--no-trunc", "--format", "{{.Command}}"]);
        commands.iter().all(|command| !command.contains("of=/full")).then_some(())
    });
}
