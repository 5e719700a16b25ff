//! Sites: files below a folder, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use quarry::router::edge::Edge;

use super::lab::{Lab, site, table};

struct Site {
    lab: Lab,
    folder: PathBuf,
}

impl Site {
    async fn start() -> Self {
        let lab = Lab::start().await;
        let folder = lab.folder.path().join("site with $odd \"name\"");
        for below in ["docs/deep", ".git", ".well-known", "empty", "a.dir"] {
            fs::create_dir_all(folder.join(below)).unwrap();
        }
        let files = [
            ("index.html", "front"),
            ("about.html", "about"),
            ("docs/index.html", "docs"),
            ("docs/deep/page.html", "deep"),
            ("style.css", &"a { color: red }\n".repeat(200)),
            (".git/config", "secret"),
            (".env", "secret"),
            (".well-known/security.txt", "mail"),
            ("with space.txt", "space"),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        fs::write(lab.folder.path().join("outside.txt"), "secret").unwrap();
        lab.nginx.set(&table("site", 1, &[("web", &["site.test"], site(&folder))])).await.unwrap();
        Self { lab, folder }
    }

    async fn check(&self, path: &str, status: u16, body: &str) {
        let reply = self.lab.get("site.test", path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        assert!(body.is_empty() || reply.body == body, "{path}: {}", reply.body);
        assert!(!reply.body.contains("secret"), "{path}");
    }
}

#[tokio::test]
async fn files_folders_and_pages_without_their_ending_are_found() {
    let site = Site::start().await;
    for path in ["/", "/index.html", "/?q=1"] {
        site.check(path, 200, "front").await;
    }
    site.check("/about", 200, "about").await;
    site.check("/about.html", 200, "about").await;
    site.check("/docs/", 200, "docs").await;
    site.check("/docs/deep/page", 200, "deep").await;
    site.check("/with%20space.txt", 200, "space").await;
    site.check("/.well-known/security.txt", 200, "mail").await;
    let reply = site.lab.get("site.test", "/docs").await;
    assert_eq!((reply.status, reply.header("location").as_deref()), (301, Some("/docs/")));
}

#[tokio::test]
async fn nothing_outside_the_site_and_no_dot_file_is_shown() {
    let site = Site::start().await;
    symlink(site.lab.folder.path().join("outside.txt"), site.folder.join("link.txt")).unwrap();
    symlink("/etc", site.folder.join("etc")).unwrap();
    symlink("../outside.txt", site.folder.join("404.html")).unwrap();
    let outside = [
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "/docs/..%5c..%5coutside.txt",
        "/link.txt",
        "/link",
        "/etc/passwd",
        "/etc/",
        "/.git/config",
        "/.env",
        "/docs/%2e%2e/.env",
        "/.well-known/../.env",
        "/.well-known/.git/config",
        "/empty/",
        "/none",
        "/none/",
        "/none.html",
        "/index.html/",
        "/index.html/x",
        "/404.html",
        "/%00",
    ];
    for path in outside {
        let reply = site.lab.get("site.test", path).await;
        assert!([400, 404].contains(&reply.status), "{path}: {} {}", reply.status, reply.body);
        assert!(!reply.body.contains("secret") && !reply.body.contains("root:"), "{path}");
    }
}

#[tokio::test]
async fn links_that_stay_inside_the_site_are_followed() {
    let site = Site::start().await;
    symlink("deep", site.folder.join("docs/latest")).unwrap();
    symlink("../about.html", site.folder.join("docs/info.html")).unwrap();
    symlink("docs", site.folder.join("a b")).unwrap();
    symlink(".git", site.folder.join("history")).unwrap();
    symlink("loop", site.folder.join("loop")).unwrap();
    site.check("/docs/latest/page.html", 200, "deep").await;
    site.check("/docs/latest/page", 200, "deep").await;
    site.check("/docs/info", 200, "about").await;
    site.check("/a%20b/", 200, "docs").await;
    site.check("/history/config", 404, "").await;
    site.check("/docs/latest/", 404, "").await;
    site.check("/loop", 404, "").await;
    let reply = site.lab.get("site.test", "/a%20b").await;
    assert_eq!((reply.status, reply.header("location").as_deref()), (301, Some("/a%20b/")));
}

#[tokio::test]
async fn a_missing_page_shows_the_sites_own_page_for_it() {
    let site = Site::start().await;
    let reply = site.lab.get("site.test", "/none").await;
    assert!(reply.status == 404 && reply.body.contains(">404<"), "{}", reply.body);
    fs::write(site.folder.join("404.html"), "our own").unwrap();
    site.check("/none", 404, "our own").await;
    site.check("/.env", 404, "our own").await;
    site.check("/empty/", 404, "our own").await;
}

#[tokio::test]
async fn files_are_revalidated_resumed_and_compressed() {
    let site = Site::start().await;
    let mut client = site.lab.client().await;
    let plain = client.get("site.test", "/style.css").await;
    assert_eq!(plain.header("content-type").as_deref(), Some("text/css; charset=utf-8"));
    let etag = plain.header("etag").unwrap();
    assert!(plain.header("last-modified").is_some());
    let again = client.ask("GET", "site.test", "/style.css", &[&format!("If-None-Match: {etag}")], "").await;
    assert_eq!(again.status, 304);
    let part = client.ask("GET", "site.test", "/style.css", &["Range: bytes=0-1"], "").await;
    assert_eq!((part.status, part.body.as_str()), (206, "a "));
    let packed = client.ask("GET", "site.test", "/style.css", &["Accept-Encoding: gzip"], "").await;
    assert_eq!(packed.header("content-encoding").as_deref(), Some("gzip"));
    assert!(packed.body.len() < plain.body.len() / 4);
    let head = client.ask("HEAD", "site.test", "/style.css", &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some(plain.body.len().to_string())));
    assert_eq!(client.ask("POST", "site.test", "/style.css", &[], "x").await.status, 405);
}

#[tokio::test]
async fn a_switch_to_another_folder_shows_at_once() {
    let site = Site::start().await;
    for release in 2..10 {
        let folder = site.lab.folder.path().join(release.to_string());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("index.html"), format!("release {release}")).unwrap();
        let routes = table("site", release, &[("web", &["site.test"], super::lab::site(&folder))]);
        site.lab.nginx.set(&routes).await.unwrap();
        site.check("/", 200, &format!("release {release}")).await;
    }
}
