//! Names of images, as docker reads them: `[server[:port]/]path[:tag][@digest]`.

/// The name of an image, with everything in it that docker adds by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `server` or `server:port`; Docker Hub's own is `docker.io`.
    registry: String,
    path: String,
    /// `latest` where none is named.
    tag: String,
    digest: Option<String>,
}

/// Docker Hub, and its older name.
const HUB: [&str; 2] = ["docker.io", "index.docker.io"];

/// The fewest digits that are an id and cannot be meant as a name: docker shows so many.
const SHORT_ID: usize = 12;

/// Whether a text is an image's id and not its name. Shorter ones are names such as `ace`, and only that.
pub fn is_id(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.starts_with("sha256:") || text.len() >= SHORT_ID && hex(text)
}

impl Reference {
    /// Takes a reference apart. What is no reference falls into parts that are none either: docker refuses it.
    pub fn new(text: &str) -> Self {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            Some(_) | None => (rest, "latest"),
        };
        let is_server = |part: &str| {
            part.contains(['.', ':']) || part == "localhost" || part.contains(|c: char| c.is_ascii_uppercase())
        };
        let (registry, path) = match name.split_once('/') {
            Some((server, path)) if is_server(server) && !HUB.contains(&server) => (server, path.to_owned()),
            Some((server, path)) if HUB.contains(&server) => (HUB[0], own(path)),
            Some(_) | None => (HUB[0], own(name)),
        };
        Self { registry: registry.to_owned(), path, tag: tag.to_owned(), digest }
    }

    /// Whether an image has this very name, of those the engine lists. An engine also finds an image by the first digits
    /// of its id; a digest it finds only by the name it came under.
    pub fn is_one_of(&self, tags: &[String]) -> bool {
        self.digest.is_some() || tags.iter().any(|tag| Self::new(tag) == *self)
    }

    /// The host of the registry it names; none for Docker Hub, which nobody needs to name.
    pub fn registry(&self) -> Option<&str> {
        if self.registry == HUB[0] {
            return None;
        }
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            Some(_) | None => &self.registry,
        };
        Some(host.trim_start_matches('[').trim_end_matches(']'))
    }

    /// The name without tag and digest, such as `docker.io/library/debian`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }
}

/// A path on Docker Hub; images of its own are in `library`.
fn own(path: &str) -> String {
    if path.contains('/') { path.to_owned() } else { format!("library/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_the_same_in_every_spelling() {
        let check = |text: &str, tags: &[&str], expected: bool| {
            let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
            assert_eq!(Reference::new(text).is_one_of(&tags), expected, "{text} {tags:?}");
        };
        for text in ["debian", "debian:latest", "library/debian", "docker.io/debian", "index.docker.io/library/debian"]
        {
            check(text, &["other:1", "debian:latest"], true);
        }
        check("debian:12", &["debian:latest"], false);
        check("localhost:5000/a", &["localhost:5000/a:latest"], true);
        check("localhost:5000/a", &["a:latest"], false);
        check("ghcr.io/a/b:1", &["ghcr.io/a/b:1"], true);
        check("a:1@sha256:00", &[], true);
        // The first digits of an id, with what docker would make of them.
        for id in ["04df", "04df:latest", "sha256:04df", "d"] {
            check(id, &["quarry/blog/web:1-secret"], false);
        }
    }

    #[test]
    fn ids_are_told_from_names() {
        for id in ["sha256:04df", "04df0123abcd", &"0a".repeat(32)] {
            assert!(is_id(id), "{id}");
        }
        for name in ["ace", "04df", "debian", "a@sha256:00", "facade", "deadbeefcafe:1"] {
            assert!(!is_id(name), "{name}");
        }
    }

    #[test]
    fn the_registry_that_is_named_is_known() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Reference::new(text).registry(), expected, "{text}");
        };
        for hub in ["debian", "team/app:1", "docker.io/a", "index.docker.io/team/app", "docker.io/a/b@sha256:00"] {
            check(hub, None);
        }
        check("10.0.0.5:5000/x", Some("10.0.0.5"));
        check("localhost/x:1", Some("localhost"));
        check("ghcr.io/a/b@sha256:00", Some("ghcr.io"));
        check("HOST/x", Some("HOST"));
        check("[fd00::1]:5000/x", Some("fd00::1"));
        check("[fd00::1]/x", Some("fd00::1"));
        assert_eq!(Reference::new("docker/dockerfile:1").repository(), "docker.io/docker/dockerfile");
    }
}
