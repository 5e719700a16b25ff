//! Variables: set, imported, kept with releases.

use super::{app, with_app};
use crate::harness::Hq;

fn value(hq: &Hq, name: &str) -> String {
    hq.page("blog.localhost", &format!("/env/{name}"))
}

#[test]
fn several_variables_are_set_at_once_in_one_release() {
    let (hq, _repository) = with_app(&[]);
    let multi = "-----BEGIN KEY-----\nline two\n\n-----END KEY-----\n";
    let key = format!("KEY={multi}");
    hq.quarry(&["env", "set", "blog", "A=1", "B=with = and 'quotes' and $dollars", &key, "EMPTY="])
        .succeeded()
        .said(&["-----> Launching release 2 with the new variables"]);
    assert_eq!(value(&hq, "A"), "1");
    assert_eq!(value(&hq, "B"), "with = and 'quotes' and $dollars");
    assert_eq!(value(&hq, "KEY"), multi);
    assert_eq!(hq.quarry(&["env", "get", "blog", "KEY"]).succeeded().text(), format!("{multi}\n"));
    let listed = hq.quarry(&["env", "blog", "--json"]).succeeded().json();
    assert_eq!((&listed["A"], &listed["EMPTY"]), (&"1".into(), &"".into()));

    // A listing is a .env file that can be imported again.
    let text = hq.quarry(&["env", "list", "blog"]).succeeded().text();
    hq.quarry(&["stacks", "create", "copy"]).succeeded();
    hq.quarry_with(&["env", "import", "copy"], text.as_bytes()).succeeded();
    assert_eq!(hq.quarry(&["env", "copy", "--json"]).succeeded().json(), listed);

    hq.by_ssh(&["env", "unset", "blog", "A", "B"]).succeeded();
    assert_eq!((value(&hq, "A"), value(&hq, "KEY")), (String::new(), multi.to_owned()));
    // Nothing to do is no release.
    hq.quarry(&["env", "set", "blog", "EMPTY="]).succeeded().said(&["nothing to change"]);
    hq.quarry(&["env", "set", "blog", "1A=x"]).ended(1).said(&["1A"]);
    hq.quarry(&["env", "set", "blog", "NOVALUE"]).failed();
    assert_eq!(hq.quarry(&["releases", "blog", "--json"]).succeeded().json().as_array().unwrap().len(), 3);
}

#[test]
fn dotenv_and_json_come_on_standard_input() {
    let (hq, _repository) = with_app(&[]);
    let dotenv = "# comment\nexport HOST=db.example\nTEXT=\"two\\nlines\"\nRAW='$not ${expanded}'\n";
    hq.by_ssh_with(&["env", "import", "blog", "--no-restart"], dotenv.as_bytes())
        .succeeded()
        .said(&["-----> Kept HOST RAW TEXT for the next release of blog"]);
    assert_eq!(value(&hq, "HOST"), "", "without a restart nothing changes");
    hq.by_option_with(&["env", "import", "blog"], b"{\"PORTS\": 3, \"HOST\": \"other\"}").succeeded();
    assert_eq!((value(&hq, "HOST"), value(&hq, "PORTS")), ("other".into(), "3".into()));
    assert_eq!((value(&hq, "TEXT"), value(&hq, "RAW")), ("two\nlines".into(), "$not ${expanded}".into()));
    hq.quarry_with(&["env", "import", "blog", "--replace"], b"ONLY=this\n").succeeded();
    assert_eq!(hq.quarry(&["env", "blog"]).succeeded().text(), "ONLY=this\n");
    hq.quarry_with(&["env", "import", "blog"], b"A=\"open").ended(1).said(&["never closes"]);
    hq.quarry_with(&["env", "import", "blog"], b"{\"A\": [1]}").ended(1);
}

#[test]
fn variables_that_break_the_app_are_refused_with_their_release() {
    let start =
        "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD test -z \"$BREAK\" && exec perl app.pl\n";
    let hq = Hq::start();
    let repository = app(&[("Dockerfile", start)]);
    hq.push(&repository, "blog").succeeded();
    hq.quarry(&["env", "set", "blog", "BREAK=yes"]).ended(3).said(&["web ended with exit code 1"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    assert_eq!(hq.quarry(&["env", "blog", "--json"]).succeeded().text().trim(), "{}");
    hq.wait_for_containers(&["stack=blog"], 1);
}

#[test]
fn the_order_in_which_variables_cover_each_other_is_the_promised_one() {
    let hq = Hq::start_with(&[("env/ONE", "etc\n"), ("env/TWO", "etc\n"), ("env/THREE", "etc\n"), ("env/PORT", "1\n")]);
    let repository = app(&[("quarry.yml", "web:\n  env: {THREE: node}\n")]);
    hq.quarry(&["stacks", "create", "blog"]).succeeded();
    hq.quarry(&["env", "set", "blog", "TWO=stack", "THREE=stack"]).succeeded();
    hq.push(&repository, "blog").succeeded();
    let values = ["ONE", "TWO", "THREE", "PORT", "QUARRY_NODE", "QUARRY_STACK"].map(|name| value(&hq, name));
    assert_eq!(values, ["etc", "stack", "node", "8080", "web", "blog"]);
}

/// Every file below a folder that has this text in it, and every process with it in its command line.
fn shows(folders: &[&std::path::Path], text: &str) -> Vec<String> {
    let holds = |path: &std::path::Path| {
        // What went away meanwhile shows nothing.
        std::fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    let mut found = Vec::new();
    let mut open: Vec<_> = folders.iter().map(|folder| folder.to_path_buf()).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() && !path.is_symlink() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() && holds(&path) {
            found.push(path.display().to_string());
        }
    }
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    found.extend(processes.filter(|path| holds(path)).map(|path| path.display().to_string()));
    found
}

#[test]
fn values_lie_nowhere_in_the_open() {
    let (mut hq, repository) = with_app(&[]);
    let canary = "canary-in-the-coal-mine";
    let given = format!("SECRET={canary}\n");
    hq.by_ssh_with(&["env", "import", "blog"], given.as_bytes()).succeeded();
    assert_eq!(value(&hq, "SECRET"), canary);
    super::greet(&repository, "Again");
    hq.push(&repository, "blog").succeeded();
    hq.by_ssh(&["run", "blog", "true"]).succeeded();
    hq.by_ssh(&["scale", "blog", "web=2"]).succeeded();
    hq.by_ssh(&["rollback", "blog"]).succeeded();
    // A release that breaks, and its error.
    repository.write("quarry.yml", "web:\n  health: /\n  release: exit 7\n");
    repository.commit("breaks");
    let refused = hq.push(&repository, "blog").failed();
    assert!(!refused.stderr.contains(canary), "{refused}");
    assert_eq!(shows(&[&hq.root(), &hq.file("etc"), &hq.file("serve.log")], canary), [""; 0]);

    // What somebody writes by hand counts, and is sealed when HQ begins.
    let by_hand = hq.root().join("stacks/blog/env/HAND");
    std::fs::write(&by_hand, format!("{canary}\n")).unwrap();
    assert_eq!(hq.by_ssh(&["env", "get", "blog", "HAND"]).succeeded().text(), format!("{canary}\n"));
    hq.stop(rustix::process::Signal::TERM);
    hq.serve();
    crate::harness::until("the sealing", || shows(&[&hq.root()], canary).is_empty().then_some(()));
    assert_eq!(hq.by_ssh(&["env", "get", "blog", "HAND"]).succeeded().text(), format!("{canary}\n"));
}

#[test]
fn a_new_key_seals_everything_and_without_its_key_nothing_opens() {
    let (mut hq, _repository) = with_app(&[]);
    let file = hq.file("etc/env_key");
    hq.by_ssh(&["env", "set", "blog", "A=one"]).succeeded();
    hq.by_ssh(&["env", "set", "blog", "A=two"]).succeeded();
    let old = std::fs::read_to_string(&file).unwrap();
    let secret = |text: &str| text.lines().last().unwrap().to_owned();
    hq.by_ssh(&["env", "rotate"]).succeeded().said(&["sealed with a new key; keep a copy of", "env_key"]);
    let new = std::fs::read_to_string(&file).unwrap();
    assert!(!new.contains(&secret(&old)), "the old key is gone");
    assert_eq!(hq.by_ssh(&["env", "get", "blog", "A"]).succeeded().text(), "two\n");
    hq.by_ssh(&["rollback", "blog"]).succeeded();
    assert_eq!(value(&hq, "A"), "one");

    hq.stop(rustix::process::Signal::TERM);
    std::fs::write(&file, old).unwrap();
    hq.serve();
    hq.by_ssh(&["env", "blog"]).ended(3).said(&["it is sealed with another key than that of this HQ"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 4\n", "what runs runs on");
    hq.stop(rustix::process::Signal::TERM);
    std::fs::write(&file, new).unwrap();
    hq.serve();
    assert_eq!(hq.by_ssh(&["env", "get", "blog", "A"]).succeeded().text(), "one\n");
}
