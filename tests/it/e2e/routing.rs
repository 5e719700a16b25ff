//! What people order of a stack's routing, by commands and in quarry.yml, from end to end.

use rustix::process::Signal;

use super::{app, greet, with_app};
use crate::harness::lab::Lab;
use crate::harness::web::request;
use crate::harness::{Hq, until};

fn domains(hq: &Hq, stack: &str) -> Vec<(String, String)> {
    let rows = hq.quarry(&["domains", "list", stack, "--json"]).succeeded().json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(|row| (text(&row["domain"]), text(&row["origin"]))).collect()
}

#[test]
fn a_domain_added_by_command_answers_at_once_and_outlives_pushes_rollbacks_and_hq() {
    let (mut hq, repository) = with_app(&[]);
    let answers = |hq: &Hq, domain: &str| hq.get(domain, "/").status;
    assert_eq!(answers(&hq, "shop.test"), 404);
    hq.by_ssh(&["domains", "add", "blog", "Shop.test", "two.test"])
        .succeeded()
        .said(&["shop.test, two.test leads to blog/web"]);
    assert_eq!((answers(&hq, "shop.test"), answers(&hq, "two.test")), (200, 200));
    hq.by_ssh(&["domains", "add", "blog", "shop.test"]).ended(1).said(&["leads to the node `web` already"]);

    greet(&repository, "Second");
    hq.push(&repository, "blog").succeeded();
    assert!(hq.page("shop.test", "/").contains("Second"));
    // A release that has it itself takes it over, and gives it back when it is gone.
    repository.write("quarry.yml", "web:\n  health: /\n  domains: shop.test\n");
    repository.commit("its own");
    hq.push(&repository, "blog").succeeded();
    hq.quarry(&["scale", "blog", "web=2"]).succeeded();
    assert!(domains(&hq, "blog").contains(&("shop.test".to_owned(), "release".to_owned())));
    hq.quarry(&["rollback", "blog"]).succeeded();
    hq.stop(Signal::KILL);
    assert_eq!(answers(&hq, "shop.test"), 200, "with HQ off");
    hq.serve();
    assert_eq!(answers(&hq, "shop.test"), 200);
    let listed = domains(&hq, "blog");
    let expected = [("blog.localhost", "release"), ("shop.test", "command"), ("two.test", "command")];
    assert_eq!(listed, expected.map(|(domain, origin)| (domain.to_owned(), origin.to_owned())));

    hq.by_ssh(&["domains", "remove", "blog", "shop.test"]).succeeded().said(&["blog no longer has shop.test"]);
    assert_eq!((answers(&hq, "shop.test"), answers(&hq, "two.test")), (404, 200));
    hq.by_ssh(&["domains", "remove", "blog", "blog.localhost"]).ended(1).said(&["comes from the repository"]);
    hq.by_ssh(&["domains", "remove", "blog", "none.test"]).ended(1).said(&["has no domain `none.test`"]);
    hq.quarry(&["destroy", "blog", "--force"]).succeeded();
    hq.push(&app(&[("quarry.yml", "web:\n  health: /\n  domains: two.test\n")]), "other").succeeded();
    assert_eq!(answers(&hq, "two.test"), 200, "it is free again");
}

#[test]
fn nobody_gets_a_domain_that_is_another_s_by_command_either() {
    let (hq, _) = with_app(&[("quarry.yml", "web:\n  health: /\n  domains: mine.test\n")]);
    hq.quarry(&["domains", "add", "blog", "added.test"]).succeeded();
    hq.push(&app(&[]), "eves").succeeded();
    for domain in ["mine.test", "added.test", "blog.localhost", "localhost", "*.com"] {
        let refused = hq.by_ssh(&["domains", "add", "eves", &format!("'{domain}'")]).failed();
        assert!(refused.text().contains(domain) || refused.stderr.contains(domain), "{refused}");
        assert!(domains(&hq, "eves").iter().all(|(known, _)| known != domain), "{domain}");
    }
    let taker = app(&[("quarry.yml", "web:\n  health: /\n  domains: added.test\n")]);
    hq.push(&taker, "third").failed().said(&["`added.test` belongs to another stack"]);
    // A domain that waits for its first push is checked with that.
    hq.quarry(&["stacks", "create", "early"]).succeeded();
    hq.quarry(&["domains", "add", "early", "early.test"]).succeeded().said(&["early.test will lead to early/web"]);
    hq.quarry(&["domains", "add", "blog", "early.test"]).succeeded();
    hq.push(&app(&[]), "early").failed().said(&["`early.test` belongs to another stack"]);
    hq.quarry(&["domains", "remove", "early", "early.test"]).succeeded();
    hq.push(&app(&[]), "early").succeeded();
    let eve = hq.person("eve");
    for words in [["domains", "add", "blog"], ["domains", "remove", "blog"]] {
        eve.run(&[&words[..], &["x.test"]].concat()).failed().said(&["there is no stack `blog`"]);
    }
    for words in [&["maintenance", "on", "blog"][..], &["pause", "blog"], &["domains", "list", "blog"]] {
        eve.run(words).failed().said(&["there is no stack `blog`"]);
    }
}

#[test]
fn a_domain_leads_to_another_one_until_it_is_told_not_to() {
    let (hq, repository) = with_app(&[]);
    hq.by_ssh(&["domains", "add", "blog", "shop.test"]).succeeded();
    hq.by_ssh(&["domains", "redirect", "blog", "www.shop.test", "shop.test"])
        .succeeded()
        .said(&["www.shop.test leads to shop.test"]);
    assert_eq!((hq.get("www.shop.test", "/").status, hq.get("shop.test", "/").status), (301, 200));
    hq.by_ssh(&["domains", "redirect", "blog", "shop.test", "www.shop.test"]).ended(1).said(&["cannot lead to"]);
    let listed = hq.by_ssh(&["domains", "list", "blog"]).succeeded().text();
    assert!(listed.lines().any(|line| line.starts_with("www.shop.test ") && line.ends_with(" shop.test")), "{listed}");
    hq.by_ssh(&["domains", "redirect", "blog", "new.test", "new.test"]).ended(1).said(&["it is the same"]);
    assert_eq!(hq.get("new.test", "/").status, 404, "what fails changes nothing");

    // Orders and the repository meet in the table only.
    let circle = "web:\n  health: /\n  domains: x.test\n  router:\n    redirect: {shop.test: www.shop.test}\n";
    repository.write("quarry.yml", circle);
    repository.commit("a circle");
    hq.push(&repository, "blog").failed().said(&["visitors of `shop.test` would be led in a circle"]);
    assert_eq!(hq.get("shop.test", "/").status, 200);
    hq.by_ssh(&["domains", "redirect", "--off", "blog", "www.shop.test"]).succeeded();
    assert_eq!(hq.get("www.shop.test", "/").status, 200);
}

/// One whose build says `building` and then takes some seconds, each time anew.
fn slow_dockerfile() -> String {
    let now = jiff::Timestamp::now();
    let usual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/dockerfile/Dockerfile"));
    usual.unwrap().replacen("WORKDIR", &format!("RUN echo building at {now}; sleep 8\nWORKDIR"), 1)
}

#[test]
fn what_the_router_would_refuse_is_refused_before_anything_changes() {
    let hq = Hq::start();
    let node = |name: &str, domains: &str| {
        format!("{name}:\n  dockerfile: Dockerfile\n  type: web\n  health: /\n  domains: {domains}\n")
    };
    let led = "  router:\n    redirect: [b.test]\n";
    for yml in [
        format!("{}{led}{}", node("web", "a.test"), node("admin", "b.test")),
        format!("{}{}", node("web", "x.test"), node("admin", "blog.localhost")),
        format!("{}{}", node("web", "admin.blog.localhost"), node("admin", "x.test")),
    ] {
        hq.push(&app(&[("quarry.yml", &yml)]), "blog").failed().said(&["would lead to `admin` and to `web`"]);
    }
    // Somebody else gets the domain while the image is built.
    hq.push(&app(&[]), "quick").succeeded();
    let slow = app(&[("quarry.yml", "web:\n  health: /\n  domains: x.test\n")]);
    slow.write("Dockerfile", &slow_dockerfile());
    slow.commit("slow");
    let mut push = hq.push_beside(&slow, "blog");
    push.wait_for("building");
    hq.quarry(&["domains", "add", "quick", "x.test"]).succeeded();
    push.wait().failed().said(&["`x.test` belongs to another stack"]);
    assert_eq!(hq.get("x.test", "/").status, 200);
    hq.quarry(&["stacks", "list"]).succeeded();
    hq.push(&app(&[]), "blog").succeeded();
}

#[test]
fn a_stack_is_closed_and_opened_again_and_a_push_changes_nothing_about_that() {
    let (hq, repository) = with_app(&[]);
    hq.by_ssh(&["maintenance", "on", "blog"]).succeeded();
    let page = |hq: &Hq| {
        let reply = hq.get("blog.localhost", "/");
        (reply.status, reply.text())
    };
    assert!(page(&hq).0 == 503 && page(&hq).1.contains("Back soon"), "{:?}", page(&hq));
    greet(&repository, "Second");
    hq.push(&repository, "blog").succeeded();
    hq.by_ssh_with(&["maintenance", "on", "--page", "blog"], b"<h1>Moving house</h1>").succeeded();
    assert_eq!(page(&hq), (503, "<h1>Moving house</h1>".to_owned()));
    let long = vec![b'x'; 40_000];
    hq.by_ssh_with(&["maintenance", "on", "--page", "blog"], &long).ended(1).said(&["32768 bytes at most"]);
    assert_eq!(hq.by_ssh(&["maintenance", "show", "blog"]).succeeded().text(), "maintenance\n");
    hq.by_ssh(&["maintenance", "off", "blog"]).succeeded();
    assert!(page(&hq).1.contains("Second"));

    // Also while somebody builds, and what is built comes to a closed stack.
    repository.write("Dockerfile", &slow_dockerfile());
    repository.write("greeting", "Third\n");
    repository.commit("slow");
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("building");
    hq.by_ssh(&["maintenance", "on", "blog"]).succeeded();
    assert_eq!(page(&hq).0, 503);
    assert!(!push.has_ended(), "it did not wait for the push");
    push.wait().succeeded();
    assert_eq!(page(&hq).0, 503);
    hq.by_ssh(&["maintenance", "off", "blog"]).succeeded();
    assert!(page(&hq).1.contains("Third"), "{:?}", page(&hq));
}

#[test]
fn requests_of_a_paused_stack_wait_for_the_end_of_a_push() {
    let (hq, repository) = with_app(&[]);
    hq.by_ssh(&["pause", "blog"]).succeeded().said(&["requests wait"]);
    let visitors: Vec<_> = (0..5)
        .map(|_| {
            let to = hq.http;
            std::thread::spawn(move || request(to, "GET", "blog.localhost", "/", b"").unwrap())
        })
        .collect();
    greet(&repository, "Second");
    hq.push(&repository, "blog").succeeded();
    assert!(visitors.iter().all(|visitor| !visitor.is_finished()), "they wait");
    hq.by_ssh(&["resume", "blog"]).succeeded();
    for visitor in visitors {
        let reply = visitor.join().unwrap();
        assert!(reply.status == 200 && reply.text().contains("Second"), "{}", reply.text());
    }
    hq.by_ssh(&["pause", "blog", "--hold", "2h"]).ended(2).said(&["`--hold` is a time from 1s to 10m0s"]);
}

#[test]
fn the_rules_of_quarry_yml_come_and_go_with_their_release() {
    let yml = "web:\n  health: /\n  domains: shop.test\n  router:\n    redirect: www.shop.test\n    body: 1mb\n    \
               hsts: 1y\n    pages: {503: pages/503.html}\n    snippet: |\n      add_header X-Own yes always;\n";
    let (hq, repository) = with_app(&[]);
    repository.write_all(&[("quarry.yml", yml), ("pages/503.html", "our own page")]);
    repository.commit("rules");
    hq.push(&repository, "blog").succeeded();
    let header = |hq: &Hq| hq.get("shop.test", "/").head.lines().any(|line| line.to_lowercase() == "x-own: yes");
    assert!(header(&hq));
    assert_eq!(hq.get("www.shop.test", "/").status, 301);
    let large = vec![b'x'; (1 << 20) + 1];
    let reply = request(hq.http, "POST", "shop.test", "/", &large);
    assert!(reply.is_err() || reply.unwrap().status == 413);
    hq.quarry(&["scale", "blog", "web=0"]).succeeded();
    assert_eq!(hq.get("shop.test", "/").text(), "our own page");
    hq.quarry(&["scale", "blog", "web=1"]).succeeded();
    until("the page is back", || (hq.get("shop.test", "/").status == 200).then_some(()));

    // What nginx does not take is refused before anything changes.
    repository.write("quarry.yml", &yml.replace("add_header X-Own yes always;", "gzip_comp_level 77;"));
    repository.commit("a wrong snippet");
    let refused = hq.push(&repository, "blog").failed();
    refused.said(&["the router refused the snippet: `gzip_comp_level \"77\";`: value must be between 1 and 9"]);
    repository.write("quarry.yml", &yml.replace("add_header X-Own yes always;", "proxy_pass http://127.0.0.1:1;"));
    repository.commit("a hostile snippet");
    hq.push(&repository, "blog").failed().said(&["`proxy_pass` is not one of those that a stack may use"]);
    repository.write("quarry.yml", &yml.replace("pages/503.html", "../../etc/passwd"));
    repository.commit("a hostile page");
    hq.push(&repository, "blog").failed().said(&["is a path within the repository"]);
    assert!(header(&hq), "what was refused changed nothing");
    hq.quarry(&["rollback", "blog"]).succeeded();
    assert!(hq.get("blog.localhost", "/").status == 200 && hq.get("shop.test", "/").status == 404);
    assert!(!header(&hq));
}

#[test]
fn routers_of_other_servers_have_the_same_rules_and_modes() {
    let lab = Lab::up(1);
    let hq = Hq::start();
    let key = std::fs::read(lab.folder().join("key")).unwrap();
    let far = lab.server(1).ip();
    hq.quarry_with(&["servers", "add", &format!("root@{far}"), "--tags", "router"], &key).succeeded();
    let there = std::net::SocketAddr::from((far, hq.http.port()));
    // How visitors from here look to the far server.
    let visitor = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    visitor.connect(there).unwrap();
    let visitor = visitor.local_addr().unwrap().ip();
    let yml = format!(
        "web:\n  health: /\n  domains: docs.test\n  router:\n    allow: [{visitor}]\n    redirect: www.docs.test\n    \
         snippet: add_header X-Own yes always;\n"
    );
    hq.push(&app(&[("quarry.yml", yml.as_str())]), "docs").succeeded();
    let get = |host: &str, path: &str| request(there, "GET", host, path, b"").unwrap();
    let reply =
        until("the far router shows the stack", || Some(get("docs.test", "/")).filter(|reply| reply.status == 200));
    let own = reply.head.lines().filter(|line| line.to_lowercase() == "x-own: yes").count();
    assert_eq!(own, 1, "{}", reply.head);
    assert_eq!(hq.get("docs.test", "/").status, 403, "to HQ's router a visitor has another address");
    assert_eq!(get("www.docs.test", "/").status, 301);
    hq.quarry(&["maintenance", "on", "docs"]).succeeded();
    assert_eq!((get("docs.test", "/").status, hq.get("docs.test", "/").status), (503, 503), "when the command is done");
    hq.quarry(&["maintenance", "off", "docs"]).succeeded();
    assert_eq!(get("docs.test", "/").status, 200);
}
