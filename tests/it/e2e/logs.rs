//! What containers print.

use crate::harness::{Hq, Repository, Running, Terminal, docker, until};

const YML: &str = "red:\n  type: worker\n  dockerfile: Dockerfile\n  run: perl worker.pl\n  scale: 2\nblue:\n  type: worker\n  dockerfile: Dockerfile\n  run: perl worker.pl\n";

fn workers() -> (Hq, Repository) {
    let hq = Hq::start();
    let repository = Repository::sample("six");
    repository.write("quarry.yml", YML);
    repository.commit("workers");
    hq.push(&repository, "jobs").succeeded();
    (hq, repository)
}

#[test]
fn logs_name_the_container_of_each_line() {
    let (hq, _repository) = workers();
    let text = hq.quarry(&["logs", "jobs"]).succeeded().text();
    for title in ["red.1  | red 1 works, round 1", "red.2  | red 2 works, round 1", "blue.1 | blue 1 works, round 1"] {
        assert!(text.contains(title), "{text}");
    }
    assert!(!text.contains('\x1b'), "colours without a terminal");
    let blue = hq.by_ssh(&["logs", "jobs/blue", "-n", "1"]).succeeded().text();
    assert_eq!(blue.lines().count(), 1, "{blue}");
    hq.quarry(&["logs", "jobs/green"]).ended(1);
}

#[test]
fn logs_follow_several_containers_until_the_reader_leaves() {
    let (hq, _repository) = workers();
    for mut following in [
        Running::start(&mut hq.ssh_command(&["logs", "-f", "jobs", "-n", "0"])),
        hq.quarry_beside(&["logs", "-f", "jobs", "-n", "0"]),
    ] {
        for title in ["red.1  | red 1 works", "red.2  | red 2 works", "blue.1 | blue 1 works"] {
            following.wait_for(title);
        }
        following.interrupt();
        following.wait().failed();
    }
    // Those who start later join: of another release, one more, and one that the engine starts again. No line comes twice.
    let mut following = Running::start(&mut hq.ssh_command(&["logs", "-f", "jobs/red", "-n", "0"]));
    following.wait_for("red.2 | red 2 works");
    hq.by_ssh(&["scale", "jobs", "red=3"]).succeeded();
    following.wait_for("red.3 | red 3 works, round 1\n");
    hq.by_ssh(&["restart", "jobs/red"]).succeeded();
    following.wait_for("red.6 | red 6 works, round 1\n");
    let last = hq.wait_for_containers(&["node=red"], 3).pop().unwrap();
    docker::docker(&["restart", "-t", "0", &last]).succeeded();
    until("the line of the container that was started again", || {
        (following.stdout().matches("red.6 | red 6 works, round 1\n").count() >= 2).then_some(())
    });
    assert!(!following.stdout().contains("blue"));
    following.interrupt();
    following.wait().failed();
    // Colours for a person at a terminal.
    let command = format!("ssh -tt -F {} hq logs -f jobs", hq.file("ssh_config").display());
    let mut terminal = Terminal::open(100, 30, &command, |_| ());
    terminal.wait_for("\x1b[36m");
    terminal.wait_for("works");
    let shown = terminal.shown();
    assert!(shown.contains("\x1b[36m") && shown.contains("\r\n"), "{shown:?}");
    terminal.write("\x03");
    terminal.wait();
}
