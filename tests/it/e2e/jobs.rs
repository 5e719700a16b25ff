//! Jobs: run by name and image, attached or by themselves, on the server that they name.

use rustix::process::Signal;

use super::servers::fleet_with;
use super::{greet, with_app};
use crate::harness::lab::Lab;
use crate::harness::{Hq, docker, until};

const IMAGE: &str = "debian:bookworm-slim";

/// `(job, runs, state)` of every job that is listed.
fn listed(hq: &Hq) -> Vec<(String, bool, String)> {
    let jobs = hq.quarry(&["jobs", "list", "--json"]).succeeded().json();
    let row = |job: &serde_json::Value| {
        let text = |key: &str| job[key].as_str().unwrap().to_owned();
        (format!("{}/{}", text("stack"), text("job")), job["daemonized"].as_bool().unwrap(), text("state"))
    };
    jobs.as_array().unwrap().iter().map(row).collect()
}

/// What came of the runs of a job, the oldest first.
fn outcomes(hq: &Hq, job: &str) -> Vec<serde_json::Value> {
    let runs = hq.quarry(&["jobs", "history", job, "--json"]).succeeded().json();
    runs.as_array().unwrap().iter().map(|run| run["outcome"].clone()).collect()
}

#[test]
fn a_job_that_somebody_is_attached_to_hands_its_streams_and_its_exit_code_through() {
    let hq = Hq::start();
    let bytes: Vec<u8> = (0..1_500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (bob, probe) = (hq.person("bob"), ["jobs", "run", "--image", IMAGE, "--", "true"]);
    bob.run(&probe).ended(1).said(&["--stack", "ask an operator"]);
    hq.by_ssh(&probe).succeeded();
    bob.run(&probe).failed();
    hq.quarry(&["rights", "grant", "bob", "jobs", "deploy"]).succeeded();
    bob.run(&probe).succeeded();
    let done = hq.by_ssh_with(&["jobs", "run", "--image", IMAGE, "--", "cat"], &bytes);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout == bytes, "{} bytes came back of {}", done.stdout.len(), bytes.len());
    let words =
        ["jobs", "run", "--name", "probe", "--image", IMAGE, "--", "sh", "-c", "'echo out; echo aside >&2; exit 42'"];
    let done = hq.by_ssh(&words).ended(42);
    assert_eq!((done.text().as_str(), done.stderr.as_str()), ("out\n", "aside\n"));
    assert_eq!(outcomes(&hq, "probe"), [serde_json::json!({"exited": 42})]);
    // Who has nothing more to say may still read.
    let words = [
        "jobs",
        "run",
        "--image",
        IMAGE,
        "--",
        "sh",
        "-c",
        "'exec >&- 2>&-; cat >/all; test $(wc -c </all) = 1500000'",
    ];
    hq.by_ssh_with(&words, &bytes).succeeded();
    // A description with everything in it, of which flags cover a part.
    let description =
        format!("{{\"image\": \"{IMAGE}\", \"command\": [\"sh\", \"-c\", \"echo $A $B\"], \"env\": {{\"A\": 1}}}}");
    let done = hq.by_ssh_with(&["jobs", "run", "-"], description.as_bytes()).succeeded();
    assert_eq!(done.text(), "1\n");
    let flags = ["jobs", "run", "-", "--env", "B=2"];
    assert_eq!(hq.quarry_with(&flags, description.as_bytes()).succeeded().text(), "2\n");
    hq.wait_for_containers(&["role=once"], 0);
    assert_eq!(listed(&hq), []);
}

#[test]
fn what_is_wrong_with_a_job_is_said_and_nothing_is_left_of_it() {
    let hq = Hq::start();
    let broken = "imag: x\ndomains: a.test\nports: 99999\n";
    let said = hq.quarry_with(&["jobs", "run", "-"], broken.as_bytes()).ended(1);
    said.said(&[
        "1:1: unknown key",
        "did you mean `image`",
        "2:1: `domains` means nothing",
        "job:3:8: `ports` is a port from 1",
    ]);
    hq.quarry(&["jobs", "run", "--image", "no-such-image:1", "--", "true"]).failed().said(&["no-such-image:1"]);
    hq.quarry(&["jobs", "run", "--image", IMAGE, "-d", "--", "true"]).ended(1).said(&["needs a `name`"]);
    hq.quarry(&["jobs", "run", "--image", IMAGE, "--server", "s9", "--", "true"]).ended(3).said(&["s9"]);
    hq.quarry(&["jobs", "run", "--name", "gone", "--image", IMAGE, "-d", "--", "no-such-program"]).failed();
    hq.quarry(&["jobs", "kill", "gone"]).ended(1).said(&["`jobs` has no job `gone`; it has: none"]);
    assert_eq!(listed(&hq), []);
    hq.wait_for_containers(&[], 0);
}

#[test]
fn a_job_that_runs_by_itself_is_kept_up_until_it_is_killed() {
    let mut hq = Hq::start();
    let ticker =
        ["jobs", "run", "-d", "--name", "ticker", "--image", IMAGE, "--", "sh", "-c", "echo began; sleep 1000"];
    hq.quarry(&ticker).succeeded().said(&["jobs/ticker runs"]);
    assert_eq!(listed(&hq), [("jobs/ticker".to_owned(), true, "running".to_owned())]);
    until("what it prints", || hq.quarry(&["jobs", "logs", "ticker"]).text().contains("began").then_some(()));
    hq.quarry(&ticker).ended(1).said(&["`jobs` has a node `ticker` already"]);
    assert!(hq.quarry(&["jobs", "show", "ticker"]).succeeded().text().contains("\"ticker\""));

    // Whatever ends it but `jobs kill`, it comes back: with HQ, and with one that was killed.
    let before = hq.containers(&["node=ticker"]);
    docker::docker(&["rm", "-f", &before[0]]).succeeded();
    let back = || (listed(&hq) == [("jobs/ticker".to_owned(), true, "running".to_owned())]).then_some(());
    until("it to be made again", back);
    until("HQ to be done with it", || (!hq.root().join("journal/jobs.json").exists()).then_some(()));
    hq.stop(Signal::KILL);
    let now = hq.containers(&["node=ticker"]);
    hq.serve();
    assert_eq!(hq.containers(&["node=ticker"]), now);

    hq.quarry(&["jobs", "kill", "ticker"]).succeeded().said(&["jobs/ticker has ended"]);
    hq.wait_for_containers(&["node=ticker"], 0);
    assert_eq!((listed(&hq), outcomes(&hq, "ticker")), (Vec::new(), vec![serde_json::json!("ended")]));
    // Its name is free again.
    hq.quarry(&ticker).succeeded();
    hq.quarry(&["jobs", "kill", "ticker"]).succeeded();
}

#[test]
fn somebody_who_is_attached_sees_the_end_of_a_job_that_is_killed_or_loses_its_hq() {
    let mut hq = Hq::start();
    let begin = |hq: &Hq, name: &str| {
        let mut running = hq.quarry_beside(&[
            "jobs",
            "run",
            "--name",
            name,
            "--image",
            IMAGE,
            "--",
            "sh",
            "-c",
            "echo up; sleep 1000",
        ]);
        running.wait_for("up");
        running
    };
    let running = begin(&hq, "first");
    assert_eq!(listed(&hq), [("jobs/first".to_owned(), false, "running".to_owned())]);
    hq.quarry(&["jobs", "kill", "first"]).succeeded();
    running.wait().failed();
    let running = begin(&hq, "second");
    hq.stop(Signal::KILL);
    running.wait().failed();
    hq.serve();
    hq.wait_for_containers(&["role=once"], 0);
    assert_eq!(outcomes(&hq, "second"), [serde_json::json!({"failed": "HQ ended while it ran"})]);
}

#[test]
fn a_push_of_its_stack_ends_a_job_that_is_not_static() {
    let (hq, repository) = with_app(&[]);
    for (name, more) in [("passing", None), ("lasting", Some("--static"))] {
        let words = ["jobs", "run", "-d", "--stack", "blog", "--name", name, "--image", IMAGE];
        let end = ["--", "sleep", "1000"];
        let words: Vec<&str> = words.into_iter().chain(more).chain(end).collect();
        hq.by_ssh(&words).succeeded();
    }
    hq.by_ssh(&["jobs", "kill", "blog/web"]).ended(1).said(&["`web` is a node of the repository of `blog`"]);
    let taken = ["jobs", "run", "--stack", "blog", "--name", "web", "--image", IMAGE, "--", "true"];
    hq.by_ssh(&taken).ended(1).said(&["`blog` has a node `web` already"]);
    let lasting = hq.containers(&["node=lasting"]);
    greet(&repository, "Second");
    hq.push(&repository, "blog").succeeded();
    hq.wait_for_containers(&["node=passing"], 0);
    assert_eq!(hq.containers(&["node=lasting"]), lasting, "it is left as it is");
    assert_eq!(listed(&hq), [("blog/lasting".to_owned(), true, "running".to_owned())]);
    hq.by_ssh(&["destroy", "blog", "--force"]).succeeded();
    hq.wait_for_containers(&[], 0);
}

#[test]
fn a_job_runs_on_the_server_it_names_and_keeps_what_it_has_there() {
    let lab = Lab::up(2);
    let hq = fleet_with(&lab, 2, &[("lease", "5s")]);
    hq.quarry(&["servers", "tag", "s2", "ssd"]).succeeded();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for choice in [["--server", "s1"], ["--viking-host", "s2"], ["--filter", "ssd"]] {
        let words = [&["jobs", "run", "--image", IMAGE][..], &choice, &["--", "cat"]].concat();
        let done = hq.quarry_with(&words, &bytes);
        assert!(done.code == 0 && done.stdout == bytes, "{choice:?}: {} bytes, {}", done.stdout.len(), done.stderr);
    }
    let server = || {
        let jobs = hq.quarry(&["jobs", "list", "--json"]).succeeded().json();
        jobs[0]["server"].as_str().unwrap().to_owned()
    };
    // Its history decides where it goes the next time.
    let keeper = ["jobs", "run", "-d", "--name", "keeper", "--image", IMAGE, "--volume", "/data"];
    let first = [&keeper[..], &["--filter", "ssd", "--", "sh", "-c", "echo kept >/data/it; sleep 1000"]].concat();
    hq.quarry(&first).succeeded();
    assert_eq!(server(), "s2");
    hq.quarry(&["jobs", "kill", "keeper"]).succeeded();
    let again = [&keeper[..], &["--", "sh", "-c", "cat /data/it; sleep 1000"]].concat();
    hq.quarry(&again).succeeded();
    assert_eq!(server(), "s2");
    until("what it kept", || hq.quarry(&["jobs", "logs", "keeper"]).text().contains("kept").then_some(()));
}
