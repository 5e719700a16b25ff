//! What is wrong is found, each with the command that mends it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;

use super::with_app;
use crate::harness::program::run;
use crate::harness::{Hq, until};

/// What is found, without what this machine may have of its own.
fn found(hq: &Hq) -> Vec<(String, String)> {
    let done = hq.quarry(&["doctor", "--json"]);
    let all = done.json();
    assert_eq!(done.code, i32::from(!all.as_array().unwrap().is_empty()));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let own = ["docker", "disk", "clock", "kernel"];
    let pairs = all.as_array().unwrap().iter().map(|found| (text(&found["about"]), text(&found["mend"])));
    pairs.filter(|(about, _)| !own.contains(&about.as_str())).collect()
}

#[test]
fn the_doctor_finds_what_is_broken_and_the_command_it_names_mends_it() {
    let (mut hq, repository) = with_app(&[]);
    // The wall is put up beside what HQ does first.
    until("a sound HQ", || found(&hq).is_empty().then_some(()));
    let secret = hq.root().join("image_secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let setting = hq.file("etc/size");
    fs::write(&setting, "big\n").unwrap();
    let mends = found(&hq);
    let expected =
        [("secrets", format!("chmod 600 {}", secret.display())), ("settings", format!("editor {}", setting.display()))];
    assert_eq!(mends, expected.map(|(about, mend)| (about.to_owned(), mend)));
    for (_, mend) in mends {
        run(Command::new("sh").args(["-c", &mend.replace("editor", "rm")])).succeeded();
    }
    assert_eq!(found(&hq), []);
    // A domain that leads nowhere.
    repository.write("quarry.yml", "web:\n  health: /\n  domains: blog.no-such-name.quarry-doctor.org\n");
    repository.commit("a domain");
    hq.push(&repository, "blog").succeeded();
    let lost = found(&hq);
    assert!(lost.len() == 1 && lost[0].0 == "domains" && lost[0].1.starts_with("dig blog.no-such-name"), "{lost:?}");
    // As a table too, by SSH, and for operators only.
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    let table = hq.by_ssh(&["doctor"]).ended(1).text();
    assert!(table.contains("MENDED BY") && table.contains("chmod 600"), "{table}");
    hq.person("eve").run(&["doctor"]).ended(3).said(&["only operators"]);
    // Without HQ it looks all the same.
    hq.stop(Signal::TERM);
    let abouts: Vec<String> = found(&hq).into_iter().map(|(about, _)| about).collect();
    assert_eq!(abouts, ["hq", "secrets"]);
}
