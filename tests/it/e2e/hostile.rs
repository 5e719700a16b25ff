//! A pusher with a key of their own who means harm.

use super::{app, serving, with_app};
use crate::harness::{Hq, Repository, docker};

/// A repository of these files.
fn repository(files: &[(&str, &str)]) -> Repository {
    Repository::with(files)
}

/// The push is refused, these words are said, and nothing came of it.
#[track_caller]
fn refused(hq: &Hq, repository: &Repository, said: &[&str]) {
    hq.push(repository, "eve").failed().said(said);
    assert!(hq.containers(&["stack=eve"]).is_empty());
    assert_eq!(hq.get("eve.localhost", "/").status, 404);
}

#[test]
fn what_would_open_the_server_cannot_be_asked_for_in_quarry_yml() {
    let hq = Hq::start();
    let check = |yml: &str, said: &str| refused(&hq, &repository(&[("quarry.yml", yml)]), &[said]);
    let key = |line: &str| format!("web:\n  container: debian:bookworm-slim\n  expose: 80\n  {line}\n");
    for line in [
        "privileged: true",
        "network: host",
        "network_mode: host",
        "pid: host",
        "ipc: host",
        "userns: host",
        "cap_add: [SYS_ADMIN]",
        "capabilities: [SYS_ADMIN]",
        "devices: [/dev/sda]",
        "security_opt: [seccomp=unconfined]",
        "sysctls: {kernel.core_pattern: x}",
        "extra_hosts: [a:1.2.3.4]",
        "user: root",
    ] {
        check(&key(line), "unknown key");
    }
    for line in [
        "volumes: [/var/run/docker.sock:/var/run/docker.sock]",
        "volumes: [/:/host]",
        "volumes: [../../other/web/data:/data]",
        "volumes: [../x]",
        "volumes: [data]",
    ] {
        check(&key(line), "quarry.yml:4:");
    }
    for line in [
        r"domains: 'a.example; return 200'",
        r"domains: 'a.example{}'",
        r#"domains: "a.example\n}""#,
        r"domains: '$host'",
        r"domains: 'a b.example'",
        r"domains: '*'",
        r"domains: '*.com'",
        r"domains: localhost",
        r"env: {'A=B': x}",
        r#"env: {"A\0": x}"#,
        r"env: {'': x}",
    ] {
        check(&key(line), "");
    }
    for yml in [
        "web:\n  document_root: ../..\n",
        "web:\n  document_root: /etc\n",
        "web:\n  document_root: \"public; return 200 owned\"\n",
        "web:\n  document_root: \"public\\n}\"\n",
        "web:\n  container: debian:bookworm-slim\n  expose: 80\n  health: \"/ HTTP/1.1\\r\\nHost: other\"\n",
        "web:\n  container: debian:bookworm-slim\n  expose: '80; listen 81'\n",
        "web:\n  dockerfile: ../Dockerfile\n  expose: 80\n",
        "web:\n  dockerfile: /etc/passwd\n  expose: 80\n",
        "'../x':\n  container: a\n",
        "\"web\\n\":\n  container: a\n",
    ] {
        check(yml, "");
    }
}

#[test]
fn a_quarry_yml_that_is_no_plain_small_file_is_refused_at_once() {
    let hq = Hq::start();
    let bomb: String =
        (1..=9).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "))).collect();
    refused(&hq, &repository(&[("quarry.yml", &format!("a0: &a0 [x]\n{bomb}"))]), &["quarry.yml"]);
    let huge = "# padding\n".repeat(2_000_000);
    refused(&hq, &repository(&[("quarry.yml", &huge)]), &["quarry.yml"]);
    let deep = format!("web: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    refused(&hq, &repository(&[("quarry.yml", &deep)]), &["quarry.yml"]);
    for target in ["/etc/shadow", "../../../../etc/shadow", "/dev/zero", "/dev/stdin"] {
        let linked = repository(&[("README", "a link\n")]);
        std::os::unix::fs::symlink(target, linked.file("quarry.yml")).unwrap();
        linked.commit("a link");
        refused(&hq, &linked, &["quarry.yml"]);
    }
}

#[test]
fn what_belongs_to_git_in_a_repository_is_content_and_nothing_more() {
    let hq = Hq::start();
    let trap = hq.file("trap");
    let script = format!("#!/bin/sh\ntouch {}\n", trap.display());
    let names = ["hooks/post-checkout", "hooks/pre-receive", "hooks/post-receive", "config"];
    let mut files: Vec<(&str, &str)> = names.iter().map(|name| (*name, script.as_str())).collect();
    let attributes = "* filter=evil diff=evil\n";
    let settings = format!("[filter \"evil\"]\n\tsmudge = touch {}\n[core]\n\thooksPath = hooks\n", trap.display());
    files.extend([(".gitattributes", attributes), (".gitconfig", settings.as_str())]);
    let repository = app(&files);
    hq.push(&repository, "eve").succeeded();
    assert!(!trap.exists(), "something of the repository was run at HQ");
    // A tree with .git in it is none that git itself would make.
    let blob = repository.git(&["hash-object", "-w", "config"]).succeeded().text();
    let inner = repository.git(&["mktree"]).text();
    drop(inner);
    let line = format!("100644 blob {}\t.git\n", blob.trim());
    let tree = crate::harness::program::run_with(
        crate::harness::repository::git(repository.path()).arg("mktree"),
        line.as_bytes(),
    );
    let tree = tree.succeeded().text();
    let commit = repository.git(&["commit-tree", tree.trim(), "-m", "trap"]).succeeded().text();
    let pushed = hq.push_as(&repository, "eve", &["-f", &format!("{}:refs/heads/master", commit.trim())]);
    pushed.failed();
    assert_eq!(hq.page("eve.localhost", "/"), "Hello from release 1\n");
}

#[test]
fn escapes_of_a_terminal_reach_no_pusher_and_no_listing() {
    let hq = Hq::start();
    let docker = "FROM debian:bookworm-slim\nRUN printf '\\033]0;owned\\007\\033[2J\\rgone\\n'\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD exec perl app.pl\n";
    let repository = app(&[("Dockerfile", docker)]);
    repository.write("more", "x");
    repository.commit("evil \u{1b}]0;owned\u{7}\u{202e}subject");
    let pushed = hq.push(&repository, "eve").succeeded();
    // Git takes any character above these for a branch.
    let branch = "refs/heads/\u{9b}2J\u{202e}live";
    let stored = hq.push_as(&repository, "eve", &[&format!("HEAD:{branch}")]);
    assert!(stored.stderr.contains("\\u{9b}2J\\u{202e}live"), "{stored}");
    let ours: String =
        stored.stderr.lines().filter(|line| line.starts_with("----->") || line.starts_with(" !")).collect();
    let listed = hq.by_ssh(&["releases", "eve"]).succeeded();
    let back = hq.by_ssh(&["events"]).succeeded();
    for text in [&pushed.stderr, &ours, &listed.text(), &back.text()] {
        assert!(!text.contains("\u{1b}]") && !text.contains('\u{7}') && !text.contains('\u{202e}'), "{text:?}");
        assert!(!text.contains("\u{1b}[2J") && !text.contains('\u{9b}'), "{text:?}");
    }
}

#[test]
fn another_stack_s_image_is_no_base_for_one_s_own() {
    let (hq, _repository) = with_app(&[("secret-plans", "hush\n")]);
    let tag = docker::list(&["images", "--format", "{{.Repository}}:{{.Tag}}", "quarry/blog/web"]).remove(0);
    assert!(tag.len() > "quarry/blog/web:1-".len() + 20, "{tag} can be guessed");
    let suffix = hq.id()[..4].to_owned();
    for guess in ["quarry/blog/web".to_owned(), "quarry/blog/web:1".to_owned(), format!("quarry/blog/web:1-{suffix}")] {
        let yml = format!("web:\n  container: {guess}\n  expose: 80\n");
        refused(&hq, &repository(&[("quarry.yml", &yml)]), &["is not on this server"]);
        let docker = format!("FROM {guess}\nEXPOSE 80\n");
        refused(&hq, &repository(&[("Dockerfile", &docker)]), &[]);
        let docker = format!("FROM debian:bookworm-slim\nCOPY --from={guess} /app /app\nEXPOSE 80\n");
        refused(&hq, &repository(&[("Dockerfile", &docker)]), &[]);
    }
    // An id is no name, nor are its first digits: the engine would find the image by either.
    let id = docker::list(&["images", "-q", "--no-trunc", &tag]).remove(0);
    let hex = id.strip_prefix("sha256:").unwrap();
    let short = (4..).map(|length| &hex[..length]).find(|short| !short.bytes().all(|byte| byte.is_ascii_digit()));
    for (guess, said) in [(id.as_str(), "is the id of an image"), (hex, "is the id"), (&hex[..12], "is the id")]
        .into_iter()
        .chain(short.map(|short| (short, "is not on this server")))
    {
        let yml = format!("web:\n  container: '{guess}'\n  expose: 80\n");
        refused(&hq, &repository(&[("quarry.yml", &yml)]), &[said]);
        for docker in [
            format!("FROM {guess}\nEXPOSE 80\n"),
            format!("ARG A={}\nFROM ${{A:-x}}{}\nEXPOSE 80\n", &guess[..2], &guess[2..]),
            format!("FROM {}\\\n{}\nEXPOSE 80\n", &guess[..2], &guess[2..]),
            format!("FROM debian:bookworm-slim\nCOPY --from={guess} /app /app\nEXPOSE 80\n"),
            format!("FROM debian:bookworm-slim\nCOPY --fr\\om={guess} /app /app\nEXPOSE 80\n"),
            format!(
                "FROM debian:bookworm-slim\nRUN --mount=type=bind,from={guess},target=/x cp -r /x/app /\nEXPOSE 80\n"
            ),
        ] {
            refused(&hq, &repository(&[("Dockerfile", &docker)]), &[said]);
        }
    }
    // Nor by a stage of that name, which is an image's until the stage is done.
    if let Some(short) = short.filter(|short| short.starts_with(|c: char| c.is_ascii_lowercase())) {
        let docker = format!("FROM debian:bookworm-slim AS {short}\nCOPY --from={short} /app /app\nEXPOSE 80\n");
        refused(&hq, &repository(&[("Dockerfile", &docker)]), &["is not on this server"]);
    }
    // Nor is it told to others.
    let eve = hq.person("eve");
    for words in [&["stacks"][..], &["ps"], &["events"], &["stacks", "show", "blog"]] {
        assert!(!eve.run(words).stderr.contains(&tag));
    }
}

#[test]
fn a_tree_of_very_many_files_is_refused_and_leaves_nothing() {
    let (hq, _repository) = with_app(&[]);
    let before = serving(&hq, "blog");
    let wide = Repository::empty();
    let blob = crate::harness::program::run_with(
        crate::harness::repository::git(wide.path()).args(["hash-object", "-w", "--stdin"]),
        b"x",
    );
    let blob = blob.succeeded().text();
    // A thousand folders that are one tree of a thousand files: a pack of a few kilobytes, a million files on disk.
    let tree = |mode: &str, kind: &str, id: &str| {
        let lines: String = (0..1000).map(|n| format!("{mode} {kind} {}\tn{n}\n", id.trim())).collect();
        let made = crate::harness::program::run_with(
            crate::harness::repository::git(wide.path()).arg("mktree"),
            lines.as_bytes(),
        );
        made.succeeded().text()
    };
    let inner = tree("100644", "blob", &blob);
    let outer = tree("040000", "tree", &inner);
    let commit = wide.git(&["commit-tree", outer.trim(), "-m", "wide"]).succeeded().text();
    wide.git(&["update-ref", "refs/heads/master", commit.trim()]).succeeded();
    let refused = hq.push_as(&wide, "wide", &["master"]).failed();
    refused.said(&["files"]);
    assert!(!hq.root().join("stacks/wide/src/n0").exists());
    assert_eq!(before, serving(&hq, "blog"));
}

#[test]
fn a_wildcard_laid_over_another_s_domain_takes_nothing_from_it() {
    let (hq, _blog) = with_app(&[("quarry.yml", "web:\n  health: /\n  domains: [www.example.test]\n")]);
    let over = "web:\n  health: /\n  domains: ['*.example.test', '*.test']\n";
    let thief = app(&[("quarry.yml", over), ("greeting", "Caught\n")]);
    hq.push(&thief, "eve").failed().said(&["`*.test` covers a whole top-level domain"]);
    thief.write("quarry.yml", &over.replace(", '*.test'", ""));
    thief.commit("less of it");
    hq.push(&thief, "eve").succeeded();
    assert_eq!(hq.page("www.example.test", "/"), "Hello from release 1\n");
    assert_eq!(hq.page("other.example.test", "/"), "Caught from release 1\n");
    // Below the server's own name every stack answers at its own.
    for domain in ["*.localhost", "*.blog.localhost", "x.blog.localhost"] {
        thief.write("quarry.yml", &format!("web:\n  health: /\n  domains: ['{domain}']\n"));
        thief.commit(domain);
        hq.push(&thief, "eve").failed().said(&[domain]);
    }
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
}
