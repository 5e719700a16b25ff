//! HQ as a service, installed into a folder: what systemd would read is what systemd takes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::program::{Done, run};

fn install(prefix: &Path, more: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quarry"));
    command.env_remove("QUARRY_ROOT").env_remove("QUARRY_ETC").env_remove("QUARRY_HQ");
    run(command.args(["install", "--prefix"]).arg(prefix).args(more))
}

#[test]
fn a_machine_is_made_hqs_once_and_what_it_had_stays() {
    let prefix = tempfile::tempdir().unwrap();
    let file = |name: &str| prefix.path().join(name);
    fs::create_dir_all(file("etc/docker")).unwrap();
    fs::write(file("etc/docker/daemon.json"), r#"{"log-driver": "journald"}"#).unwrap();
    let told = install(prefix.path(), &["--dry-run"]).succeeded().stderr;
    assert!(told.contains("write") && !file("etc/systemd").exists(), "{told}");
    assert_eq!(install(prefix.path(), &[]).succeeded().stderr, told);
    let daemon: serde_json::Value = serde_json::from_slice(&fs::read(file("etc/docker/daemon.json")).unwrap()).unwrap();
    assert_eq!(
        daemon,
        serde_json::json!({
            "log-driver": "journald",
            "live-restore": true,
            "runtimes": {"quarry": {"path": "/usr/local/bin/quarry-runc"}},
        })
    );
    assert_eq!(fs::read_link(file("usr/local/bin/quarry-runc")).unwrap(), Path::new("quarry"));
    let program = fs::metadata(file("usr/local/bin/quarry")).unwrap();
    assert_eq!(program.permissions().mode() & 0o7777, 0o755);
    assert_eq!(program.len(), fs::metadata(env!("CARGO_BIN_EXE_quarry")).unwrap().len());
    let hq = fs::read_to_string(file("etc/systemd/system/quarry.service")).unwrap();
    assert!(hq.contains("serve --ssh [::]:2222 --http [::]:80 --https [::]:443"), "{hq}");
    assert!(!hq.contains("PrivateTmp"), "HQ does not see a program in /tmp that it is upgraded to: {hq}");
    install(prefix.path(), &[]).succeeded().said(&["everything is as it should be"]);
    // Somebody has changed a unit, and wants other addresses.
    fs::write(file("etc/systemd/system/quarry-router.service"), "x").unwrap();
    let again = install(prefix.path(), &["--ssh", "10.0.0.1:22", "--https", "off"]).succeeded().stderr;
    assert_eq!(again.lines().count(), 2, "{again}");
    let hq = fs::read_to_string(file("etc/systemd/system/quarry.service")).unwrap();
    assert!(hq.contains("serve --ssh 10.0.0.1:22 --http [::]:80 --https off"), "{hq}");
    fs::write(file("etc/docker/daemon.json"), "{").unwrap();
    install(prefix.path(), &[]).ended(1).said(&["daemon.json is no JSON object"]);
}

#[test]
fn systemd_takes_every_unit_without_a_word() {
    let prefix = tempfile::tempdir().unwrap();
    install(prefix.path(), &[]).succeeded();
    let folder = prefix.path().join("etc/systemd/system");
    let units = ["quarry.service", "quarry-router.service", "quarry-agent.service"];
    for name in units {
        // What they run need not be on this machine.
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let text = ["/usr/local/bin/quarry", "/usr/local/lib/quarry/quarry", "/usr/sbin/nginx"]
            .iter()
            .fold(text, |text, program| text.replace(&format!("={program} "), "=/bin/true "));
        fs::write(folder.join(name), text).unwrap();
        let mut command = Command::new("systemd-analyze");
        let done = run(command.args(["verify", "--man=no"]).arg(folder.join(name))).succeeded();
        assert_eq!(done.stderr, "", "{name}");
    }
    // It would tell of what it does not know.
    let broken = folder.join("quarry.service");
    let text = fs::read_to_string(&broken).unwrap().replace("ProtectClock=yes", "ProtectClocks=yes");
    fs::write(&broken, text).unwrap();
    let done = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&broken));
    assert!(done.stderr.contains("ProtectClocks"), "{done}");
}
