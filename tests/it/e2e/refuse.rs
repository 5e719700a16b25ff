//! A refused push says why, and changes nothing that serves.

use super::{app, greet, serving, with_app};
use crate::harness::{Hq, Repository, until};

/// Pushes these files over an app that serves; what serves must not notice. Gives what the pusher was told.
fn refused(files: &[(&str, &str)], said: &[&str]) {
    let (hq, repository) = with_app(&[]);
    let before = serving(&hq, "blog");
    repository.write_all(files);
    repository.commit("a mistake");
    let done = hq.push(&repository, "blog").failed().said(said);
    assert!(done.stderr.contains("! [remote rejected] HEAD -> master"), "{done}");
    assert_eq!(serving(&hq, "blog"), before, "{done}");
    // The next good push goes through, with the next number.
    for (name, _) in files {
        std::fs::remove_file(repository.file(name)).unwrap();
    }
    repository.git(&["checkout", "-q", "HEAD~1", "--", "."]).succeeded();
    greet(&repository, "Fixed");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Fixed from release 2\n");
    hq.wait_for_containers(&["stack=blog"], 1);
}

#[test]
fn a_release_command_that_fails_refuses_the_push() {
    let yml = "web:\n  release: echo migrating; echo no such table >&2; exit 7\n";
    let said = ["no such table", " !     the release command of web failed with exit code 7"];
    refused(&[("quarry.yml", yml)], &said);
}

#[test]
fn a_release_command_that_does_not_end_is_ended_and_refuses_the_push() {
    let hq = Hq::start_with(&[("release-timeout", "2s")]);
    let endless = app(&[("quarry.yml", "web:\n  release: printf x; exec sleep 1000\n")]);
    hq.push(&endless, "blog").failed().said(&["the release command of web did not end within 2s"]);
    assert!(hq.containers(&["stack=blog"]).is_empty(), "the command runs on");
}

#[test]
fn a_health_check_that_fails_refuses_the_push() {
    let yml = "web:\n  health: {http: /missing, interval: 200ms, retries: 3, grace: 2s}\n";
    refused(&[("quarry.yml", yml)], &[" !     web did not become healthy within", "404"]);
}

#[test]
fn a_process_that_crashes_refuses_the_push() {
    let crash = "print \"cannot find my config\\n\"; exit 3;\n";
    let said = ["cannot find my config", " !     web ended with exit code 3"];
    refused(&[("app.pl", crash)], &said);
}

#[test]
fn a_process_that_does_not_listen_refuses_the_push() {
    let deaf = "$SIG{TERM} = sub { exit }; sleep 1 while 1;\n";
    // A crash loop and a deaf process look alike from outside; this one has a short limit of its own.
    let yml = "web:\n  health: {tcp: 8080, interval: 200ms, retries: 3, grace: 2s}\n";
    refused(&[("app.pl", deaf), ("quarry.yml", yml)], &[" !     web did not become healthy within"]);
}

#[test]
fn a_build_that_fails_refuses_the_push_and_shows_the_step() {
    let dockerfile =
        "FROM debian:bookworm-slim\nRUN echo compiling && echo syntax error >&2 && exit 4\nCMD [\"true\"]\n";
    refused(&[("Dockerfile", dockerfile)], &["syntax error", " !     node `web`: the build by", "RUN echo compiling"]);
}

#[test]
fn twelve_mistakes_in_quarry_yml_are_told_at_once() {
    let yml = include_str!("../golden/wrong/twelve/quarry.yml");
    let golden = include_str!("../golden/wrong/twelve.mistakes").replace("did you mean `public`?", "");
    let (hq, repository) = with_app(&[]);
    let before = serving(&hq, "blog");
    repository.write("quarry.yml", yml);
    repository.write("public/index.html", "");
    repository.commit("twelve mistakes");
    let done = hq.push(&repository, "blog").failed();
    assert!(golden.lines().count() >= 12);
    for line in golden.lines() {
        assert!(done.stderr.contains(&format!(" !     {}", line.trim_end())), "`{line}` is missing in {done}");
    }
    assert!(done.stderr.contains("(the repository has mistakes)"), "{done}");
    assert_eq!(serving(&hq, "blog"), before);
}

#[test]
fn a_domain_of_another_stack_is_refused() {
    let (hq, _blog) = with_app(&[("quarry.yml", "web:\n  domains: [www.example.test]\n")]);
    assert_eq!(hq.page("www.example.test", "/"), "Hello from release 1\n");
    for domain in ["www.example.test", "blog.localhost"] {
        let thief = app(&[("quarry.yml", &format!("web:\n  domains: [{domain}]\n")), ("greeting", "Stolen\n")]);
        hq.push(&thief, "thief").failed().said(&[&format!(" !     the domain `{domain}` belongs to another stack")]);
        assert_eq!(hq.page(domain, "/"), "Hello from release 1\n");
    }
    assert!(hq.containers(&["stack=thief"]).is_empty());
    assert_eq!(hq.get("thief.localhost", "/").status, 404);
}

#[test]
fn what_cannot_be_a_push_is_refused_with_one_clear_line() {
    let hq = Hq::start();
    let nothing = Repository::with(&[("notes.txt", "nothing to run\n")]);
    hq.push(&nothing, "notes").failed().said(&[" !     ", "Procfile"]);
    // Nothing of the stack that this push has made stays; one that was made on purpose does.
    until("the end of the empty stack", || {
        let stacks = hq.quarry(&["stacks", "--json"]).succeeded().json();
        stacks.as_array().unwrap().is_empty().then_some(())
    });
    hq.quarry(&["stacks", "create", "kept"]).succeeded();
    hq.push(&nothing, "kept").failed();
    hq.quarry(&["stacks", "show", "kept"]).succeeded();
    let site = Repository::sample("static");
    hq.push(&site, "Not_A-Name").failed().said(&["Not_A-Name"]);
    hq.push(&site, "../../etc").failed();
    // A key that nobody added; what cannot be asked for a password is told what to do.
    hq.make_key("stranger");
    let config = std::fs::read_to_string(hq.file("ssh_config")).unwrap();
    let config = config.replace("id_ed25519", "stranger").replace("BatchMode yes", "").replace("ERROR", "INFO");
    std::fs::write(hq.file("ssh_config"), config).unwrap();
    hq.push(&site, "site").failed().said(&[
        "quarry: this key is unknown here; ask the admin to run: quarry keys add NAME < key.pub",
        "Permission denied (publickey",
    ]);
    assert!(hq.quarry(&["ps"]).succeeded().text().lines().count() <= 1);
}

#[test]
fn a_full_disk_refuses_the_push_and_leaves_everything_valid() {
    let hq = Hq::prepare(&[], |root| {
        std::fs::create_dir(root).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs", root.to_str().unwrap()];
        crate::harness::program::run(std::process::Command::new("mount").args(mount)).succeeded();
    });
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    let before = serving(&hq, "blog");
    let filler = hq.root().join("filler");
    for left in [40, 0] {
        // First hardly any room, then none at all.
        fill(&filler, left);
        greet(&repository, &format!("With {left} left"));
        let done = hq.push(&repository, "blog").failed();
        let told = ["MB are free under", "no space left", "No space left on device"];
        assert!(told.iter().any(|words| done.stderr.contains(words)), "{done}");
        std::fs::remove_file(&filler).unwrap();
        assert_eq!(serving(&hq, "blog"), before, "{done}");
    }
    // Variables do not fit either, and stay whole.
    fill(&filler, 0);
    hq.quarry(&["env", "set", "blog", &format!("A={}", "x".repeat(100_000))]).failed();
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(hq.quarry(&["env", "list", "blog", "--json"]).succeeded().text().trim(), "{}");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "With 0 left from release 2\n");
}

/// Writes until that many megabytes are left.
fn fill(path: &std::path::Path, left: u64) {
    use std::io::Write;
    let disk = rustix::fs::statvfs(path.parent().unwrap()).unwrap();
    let size = (disk.f_bavail * disk.f_frsize).saturating_sub(left * 1024 * 1024);
    let mut file = std::fs::File::create(path).unwrap();
    let chunk = vec![1; 1 << 16];
    let mut written = 0;
    until("a full disk", || {
        while written < size {
            match file.write(&chunk) {
                Ok(count) => written += count as u64,
                Err(_) => return Some(()),
            }
        }
        Some(())
    });
}
