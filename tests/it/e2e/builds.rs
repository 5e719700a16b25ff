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

#[test]
fn a_build_that_does_not_end_is_ended() {
    let hq = Hq::start_with(&[("build/timeout", "3s\n")]);
    let endless = building("RUN sleep 1234");
    hq.push(&endless, "endless").failed().said(&["was ended after 3s at `RUN sleep 1234`"]);
    crate::harness::until("the end of the build", || {
        let commands = crate::harness::docker::list(&["ps", "--no-trunc", "--format", "{{.Command}}"]);
        commands.iter().all(|command| !command.contains("sleep 1234")).then_some(())
    });
}

#[test]
fn no_link_in_a_repository_brings_a_file_of_hqs_into_an_image() {
    let hq = Hq::start();
    let secret = hq.file("secret");
    std::fs::write(&secret, "FROM debian:bookworm-slim\nEXPOSE 80\nCMD echo hush-hush\n").unwrap();
    let above = format!("../{}", "../".repeat(20));
    let absolute = secret.display().to_string();
    let relative = format!("{above}{}", absolute.trim_start_matches('/'));
    for target in [absolute.as_str(), &relative] {
        // As what is copied: in the image the link leads into the image itself, and there is nothing.
        let repository = building("RUN mkdir /linked\nCOPY linked /linked/file\nRUN ! grep -r hush /linked");
        std::os::unix::fs::symlink(target, repository.file("linked")).unwrap();
        repository.commit("a link");
        let pushed = hq.push(&repository, "eve");
        assert!(!pushed.stderr.contains("hush-hush"), "{pushed}");
        // A folder on the way to it.
        let folder = std::path::Path::new(target).parent().unwrap();
        let repository = building("COPY folder/secret /file\nRUN cat /file");
        std::os::unix::fs::symlink(folder, repository.file("folder")).unwrap();
        repository.commit("a link");
        hq.push(&repository, "eve").failed();
        // As the Dockerfile, by its own name and by another.
        for (name, yml) in
            [("Dockerfile", "web: {}\n"), ("docker/Own", "web:\n  dockerfile: docker/Own\n  expose: 80\n")]
        {
            let repository = app(&[("quarry.yml", yml), ("docker/more", "")]);
            let _ = std::fs::remove_file(repository.file(name));
            std::os::unix::fs::symlink(target, repository.file(name)).unwrap();
            repository.commit("a link");
            let pushed = hq.push(&repository, "other").failed();
            assert!(!pushed.stderr.contains("hush-hush"), "{pushed}");
        }
        // As the rules of what is left out: no rule of a file outside counts, nor is a word of it said.
        let repository = building("RUN true");
        std::os::unix::fs::symlink(target, repository.file(".dockerignore")).unwrap();
        repository.commit("a link");
        let pushed = hq.push(&repository, "third");
        assert!(!pushed.stderr.contains("hush"), "{pushed}");
    }
    assert!(hq.containers(&["stack=other"]).is_empty());
}
