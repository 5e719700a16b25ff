//! What SSH could do besides pushes and commands, asked of a whole HQ by somebody whose key it knows.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::with_app;
use crate::harness::program::run;
use crate::harness::{Hq, until};

/// `ssh` with these options and words.
fn ssh(hq: &Hq, options: &[&str], words: &[&str]) -> crate::harness::program::Done {
    let mut command = Command::new("timeout");
    command.args(["20", "ssh", "-F"]).arg(hq.file("ssh_config")).args(options).arg("hq").args(words);
    run(&mut command)
}

#[test]
fn nothing_is_forwarded_and_no_file_is_copied() {
    let (hq, _repository) = with_app(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let visits: Arc<AtomicUsize> = Arc::default();
    let count = visits.clone();
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    // To HQ's own neighbours: by TCP, and to sockets.
    let inward = format!("127.0.0.1:{port}");
    ssh(&hq, &["-W", &inward], &[]).failed();
    for socket in ["/var/run/docker.sock", &hq.root().join("hq.sock").display().to_string()] {
        let local = hq.file("forwarded.sock");
        let _ = std::fs::remove_file(&local);
        let way = format!("{}:{socket}", local.display());
        let mut tunnel = Command::new("ssh");
        tunnel.arg("-F").arg(hq.file("ssh_config")).args(["-N", "-L", &way, "hq"]);
        let mut tunnel = tunnel.spawn().unwrap();
        let mut stream = until("ssh's own end", || std::os::unix::net::UnixStream::connect(&local).ok());
        let mut said = Vec::new();
        // The client closes what the server has not opened.
        let _ = std::io::Write::write_all(&mut stream, b"GET /version HTTP/1.0\r\n\r\n");
        let _ = std::io::Read::read_to_end(&mut stream, &mut said);
        tunnel.kill().unwrap();
        tunnel.wait().unwrap();
        assert!(said.is_empty(), "{socket} answered: {}", String::from_utf8_lossy(&said));
    }
    // From HQ: nobody listens there for a client.
    let back = format!("0:127.0.0.1:{port}");
    ssh(&hq, &["-o", "ExitOnForwardFailure=yes", "-R", &back], &["ps"]).failed();
    assert_eq!(visits.load(Ordering::SeqCst), 0);

    // Files, and other programs' subsystems.
    for subsystem in ["sftp", "netconf", "../../bin/sh"] {
        ssh(&hq, &["-s"], &[subsystem]).failed().said(&["subsystem request failed"]);
    }
    for mode in ["-O", "-s"] {
        let mut scp = Command::new("timeout");
        scp.args(["20", "scp", mode, "-F"]).arg(hq.file("ssh_config")).arg("hq:/etc/passwd").arg(hq.file("copied"));
        run(&mut scp).failed();
        assert!(!hq.file("copied").exists());
    }
    // The client's agent, its screen and its environment are not asked for, and what it sends of them counts nothing.
    let mut asked = Command::new("ssh");
    asked.arg("-F").arg(hq.file("ssh_config")).args(["-A", "-X", "-o", "SendEnv=LD_PRELOAD QUARRY_ROOT GIT_DIR", "hq"]);
    asked.env("LD_PRELOAD_", "x").env("QUARRY_ROOT", "/nowhere").env("GIT_DIR", "/nowhere").env("DISPLAY", ":99");
    let said = run(asked.args(["run", "blog", "env"])).succeeded().text();
    for name in ["SSH_AUTH_SOCK", "DISPLAY", "GIT_DIR", "/nowhere"] {
        assert!(!said.contains(name), "{said}");
    }
}

#[test]
fn no_word_of_a_command_is_an_option_a_path_or_a_shell_s() {
    let (hq, _repository) = with_app(&[]);
    let trap = hq.file("trap");
    let touch = format!("touch {}", trap.display());
    let names = [
        format!("--upload-pack={touch}"),
        format!("--receive-pack={touch}"),
        "--help".to_owned(),
        "../blog".to_owned(),
        "../../../../etc".to_owned(),
        "/etc/passwd".to_owned(),
        hq.root().join("stacks/blog/repo.git").display().to_string(),
        "blog/../blog".to_owned(),
        format!("blog;{touch}"),
        format!("$({touch})"),
        format!("`{touch}`"),
        "blog\n".to_owned(),
        "blog other".to_owned(),
        "".to_owned(),
        ".".to_owned(),
    ];
    for service in ["git-receive-pack", "git-upload-pack", "git-upload-archive", "git receive-pack", "git upload-pack"]
    {
        for name in &names {
            let quoted = format!("'{}'", name.replace('\'', r"'\''"));
            let done = hq.by_ssh(&[service, &quoted]).failed();
            assert!(done.stderr.starts_with("quarry: "), "{service} {name:?}: {done}");
            assert!(!trap.exists(), "{service} {name:?} ran something");
        }
    }
    for words in [
        format!("ps; {touch}"),
        format!("ps && {touch}"),
        format!("ps $({touch})"),
        format!("sh -c '{touch}'"),
        format!("env set blog 'A;{touch}=x'"),
        "env set blog 'A B=x'".to_owned(),
        "env set blog '=x'".to_owned(),
        "env set blog 'A\n=x'".to_owned(),
        "logs ../blog".to_owned(),
        "destroy -- --force".to_owned(),
    ] {
        hq.by_ssh(&[&words]).failed();
        assert!(!trap.exists(), "`{words}` ran something");
    }
    assert_eq!(hq.quarry(&["env", "list", "blog", "--json"]).succeeded().text().trim(), "{}");
}
