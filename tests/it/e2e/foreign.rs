//! Repositories as Heroku and Dokku know them are pushed as they are.

use super::app;
use crate::harness::{Hq, Repository};

const APP: &str = include_str!("../../samples/dockerfile/app.pl");
const DOCKERFILE: &str = "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . ./\n";

#[test]
fn app_json_gives_a_stack_its_variables_and_runs_its_scripts() {
    let json = r#"{
  "env": {"SECRET": {"generator": "secret"}, "LEVEL": "info", "TOKEN": {"description": "of the payment service"}},
  "healthchecks": {"web": [{"type": "startup", "path": "/env/LEVEL", "content": "info"}]},
  "formation": {"web": {"quantity": 2, "memory": "64mb"}},
  "scripts": {"dokku": {"predeploy": "echo before $LEVEL", "postdeploy": "echo after $QUARRY_RELEASE"}, "postdeploy": "echo seeded"},
  "cron": [{"command": "echo cleaned", "schedule": "@daily"}]
}"#;
    let hq = Hq::start();
    let repository = Repository::with(&[
        ("app.json", json),
        ("Procfile", "web: perl app.pl\nrelease: echo migrated\n"),
        ("Dockerfile", DOCKERFILE),
        ("app.pl", APP),
    ]);
    hq.push(&repository, "blog").failed().said(&[
        "app.json: the variable TOKEN is required and not set; set it and push again: env set blog TOKEN=…",
        "`stacks create blog` before",
    ]);
    hq.quarry(&["stacks", "create", "blog"]).succeeded();
    hq.quarry(&["env", "set", "blog", "TOKEN=t"]).succeeded();
    let done = hq.push(&repository, "blog").succeeded().said(&[
        "app.json sets SECRET, LEVEL",
        "before info",
        "migrated",
        "seeded",
        "after 1",
    ]);
    assert_eq!(hq.page("blog.localhost", "/env/LEVEL"), "info");
    let secret = hq.page("blog.localhost", "/env/SECRET");
    assert!(secret.len() == 64 && !done.stderr.contains(&secret), "{secret}");
    assert_eq!(hq.containers(&["stack=blog", "node=web"]).len(), 2);
    assert!(hq.containers(&["node=cron-1"]).is_empty() && !done.stderr.contains("cron-1 rests"), "{done}");
    hq.quarry(&["scale", "blog", "cron-1=1"]).failed().said(&["`cron-1` is a task"]);
    // The secret stays, and what comes once has come.
    hq.quarry(&["env", "set", "blog", "--no-restart", "LEVEL=info again"]).succeeded();
    repository.commit("again");
    let again = hq.push(&repository, "blog").succeeded().said(&["after 2"]);
    assert!(!again.stderr.contains("seeded") && !again.stderr.contains("app.json sets"), "{again}");
    assert_eq!(hq.page("blog.localhost", "/env/SECRET"), secret);
    assert_eq!(hq.page("blog.localhost", "/env/LEVEL"), "info again");
}

#[test]
fn a_page_without_the_text_of_checks_refuses_the_push() {
    let hq = Hq::start();
    let repository = Repository::with(&[
        ("CHECKS", "WAIT=1\nATTEMPTS=2\n/  Hello from\n"),
        ("Procfile", "web: perl app.pl\n"),
        ("Dockerfile", DOCKERFILE),
        ("app.pl", APP),
    ]);
    hq.push(&repository, "blog").succeeded().said(&["CHECKS: pages that have to answer"]);
    repository.write("greeting", "something else\n");
    repository.commit("another text");
    hq.push(&repository, "blog").failed().said(&["GET / answered without the text that is looked for"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
}

#[test]
fn a_procfile_beside_a_dockerfile_goes_through_its_entrypoint() {
    let entry = "#!/bin/sh\nexport GREETING=\"$*\"\nexec \"$@\"\n";
    let dockerfile =
        format!("{DOCKERFILE}RUN chmod +x entry\nENTRYPOINT [\"/app/entry\"]\nCMD [\"false\"]\nEXPOSE 8080 9090\n");
    let hq = Hq::start();
    let repository = Repository::with(&[
        ("entry", entry),
        ("Procfile", "web: perl app.pl --port $PORT\n"),
        ("Dockerfile", &dockerfile),
        ("app.pl", APP),
    ]);
    hq.push(&repository, "blog")
        .succeeded()
        .said(&["web is routed at the first port it exposes, 8080, and not at 9090"]);
    assert_eq!(hq.page("blog.localhost", "/env/GREETING"), "perl app.pl --port 8080");
}

#[test]
fn a_folder_of_the_repository_is_built_by_itself() {
    let hq = Hq::start();
    let repository = app(&[("apps/site/index.html", "<h1>The site</h1>\n"), ("apps/site/.env", "A=b\n")]);
    hq.quarry(&["stacks", "create", "blog"]).succeeded();
    hq.quarry(&["env", "set", "blog", "QUARRY_BUILD_DIR=apps/site"]).succeeded();
    hq.push(&repository, "blog").succeeded().said(&[
        "-----> Folder apps/site (QUARRY_BUILD_DIR)",
        "-----> Detected static (index.html)",
        "-----> .env sets no variables of the stack",
    ]);
    assert_eq!(hq.page("blog.localhost", "/"), "<h1>The site</h1>\n");
    hq.quarry(&["env", "set", "blog", "--no-restart", "QUARRY_BUILD_DIR=apps/other"]).succeeded();
    repository.commit("again");
    hq.push(&repository, "blog").failed().said(&["QUARRY_BUILD_DIR is `apps/other`, and there is no such folder"]);
    assert_eq!(hq.page("blog.localhost", "/"), "<h1>The site</h1>\n");
}

#[test]
fn workers_alone_run_without_a_domain() {
    let hq = Hq::start();
    let repository = Repository::with(&[
        ("Procfile", "bot: perl -e '$| = 1; $SIG{TERM} = sub { exit }; print \"bot works\\n\"; sleep 1 while 1'\n"),
        ("Dockerfile", DOCKERFILE),
    ]);
    hq.push(&repository, "robot").succeeded();
    assert_eq!(hq.containers(&["stack=robot", "node=bot"]).len(), 1);
    assert_eq!(hq.get("robot.localhost", "/").status, 404);
}
