//! Tasks: at their times, by hand, side by side, and over an HQ that dies.

use rustix::process::Signal;

use super::{app, greet};
use crate::harness::{Hq, Repository, until};

/// The app with a task.
fn with_task(command: &str, more: &str) -> Repository {
    let text = format!(
        "web:\n  dockerfile: Dockerfile\n  health: /\nnightly:\n  type: task\n  dockerfile: Dockerfile\n  run: {command}\n{more}"
    );
    app(&[("quarry.yml", &text)])
}

/// `(result, by)` of the runs.
fn runs(hq: &Hq) -> Vec<(serde_json::Value, String)> {
    let runs = hq.quarry(&["tasks", "history", "blog/nightly", "--json"]).succeeded().json();
    let by = |run: &serde_json::Value| run["by"].as_str().unwrap_or("schedule").to_owned();
    runs.as_array().unwrap().iter().map(|run| (run["outcome"].clone(), by(run))).collect()
}

#[test]
fn a_task_is_run_by_hand_and_its_output_and_exit_code_are_kept() {
    let hq = Hq::start();
    let repository = with_task("sh -c 'echo tidied $QUARRY_NODE; echo badly >&2; exit 3'", "  schedule: 0 3 * * *\n");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.containers(&["stack=blog"]).len(), 1, "a task does not stand");
    let done = hq.by_ssh(&["tasks", "run", "blog/nightly"]).ended(3);
    assert!(done.text().contains("tidied nightly") && done.text().contains("badly"), "{done}");
    assert_eq!(runs(&hq), [(serde_json::json!({"exited": 3}), "ada".to_owned())]);
    assert!(hq.by_ssh(&["tasks", "logs", "blog/nightly", "1"]).succeeded().text().contains("tidied nightly"));
    let listed = hq.by_ssh(&["tasks"]).succeeded().text();
    assert!(listed.contains("0 3 * * *") && listed.contains("exit code 3"), "{listed}");
    hq.wait_for_containers(&["stack=blog"], 1);
    hq.by_ssh(&["tasks", "run", "blog/web"]).ended(1).said(&["`blog` has no task `web`; it has: nightly"]);
    hq.by_ssh(&["tasks", "logs", "blog/nightly", "9"]).ended(1).said(&["nothing is kept of run 9"]);

    // With the next release it runs that one's code.
    repository.write("greeting", "x\n");
    greet(&repository, "Second");
    hq.push(&repository, "blog").succeeded();
    hq.by_ssh(&["tasks", "run", "blog/nightly"]).ended(3);
    hq.by_ssh(&["destroy", "blog", "--force"]).succeeded();
    assert!(!hq.root().join("stacks/blog").exists());
}

#[test]
fn a_stack_of_tasks_alone_needs_nothing_that_stands() {
    let hq = Hq::start();
    let text = "nightly:\n  type: task\n  dockerfile: Dockerfile\n  run: echo tidied\n  schedule: '@daily'\n";
    hq.push(&app(&[("quarry.yml", text)]), "blog").succeeded();
    assert!(hq.by_ssh(&["tasks", "run", "blog/nightly"]).succeeded().text().contains("tidied"));
    assert_eq!(hq.by_ssh(&["run", "blog", "echo", "here"]).succeeded().text(), "here\n");
    hq.by_ssh(&["destroy", "blog", "--force"]).succeeded();
}

#[test]
fn a_task_runs_at_its_times_until_it_is_suspended() {
    let hq = Hq::start();
    hq.push(&with_task("echo tick", "  schedule: '* * * * *'\n  timezone: Europe/Berlin\n"), "blog").succeeded();
    let patience = std::time::Duration::from_secs(90);
    crate::harness::wait::until_within(patience, "the task's minute", || {
        runs(&hq).contains(&(serde_json::json!({"exited": 0}), "schedule".to_owned())).then_some(())
    });
    hq.by_ssh(&["tasks", "suspend", "blog/nightly"]).succeeded().said(&["blog/nightly is suspended"]);
    assert!(hq.by_ssh(&["tasks", "list", "blog"]).succeeded().text().contains("suspended"));
    hq.by_ssh(&["tasks", "resume", "blog/nightly"]).succeeded().said(&["blog/nightly runs at its times"]);
    let refused = with_task("echo tick", "  schedule: '@daily'\n  timezone: Europe/Atlantis\n");
    hq.push_as(&refused, "blog", &["-f", "HEAD"]).failed().said(&["knows no time zone `Europe/Atlantis`"]);
}

#[test]
fn a_run_outlives_hq_and_is_finished_by_the_next_one() {
    let mut hq = Hq::start();
    hq.push(&with_task("sh -c 'sleep 5; echo survived'", "  schedule: '@yearly'\n"), "blog").succeeded();
    hq.by_ssh(&["tasks", "run", "blog/nightly", "--detach"]).succeeded().said(&["run 1 of blog/nightly has begun"]);
    hq.stop(Signal::KILL);
    hq.serve();
    until("the end of the run", || (runs(&hq) == [(serde_json::json!({"exited": 0}), "ada".to_owned())]).then_some(()));
    assert_eq!(hq.by_ssh(&["tasks", "logs", "blog/nightly"]).succeeded().text(), "survived\n");
    hq.wait_for_containers(&["stack=blog"], 1);
}
