//! The application that is pushed: a Dockerfile whose dependencies stay in docker's cache, some sources, a server.

use super::place::Place;
use super::repository::Repository;

/// The port it listens on.
pub const PORT: u16 = 8080;

const SERVER: &str = include_str!("app.pl");

/// Sixteen megabytes that a build installs once, and every file of the repository on top.
const DOCKERFILE: &str = "FROM debian:bookworm-slim
WORKDIR /app
COPY dependencies ./
RUN mkdir vendor && head -c 16777216 /dev/urandom > vendor/library
COPY . .
CMD [\"perl\", \"app.pl\"]
";

const QUARRY: &str = "web:
  dockerfile: Dockerfile
  expose: 8080
  health: /
";

/// Its repository: 50 files of 4 KB beside the server.
pub fn repository(place: &Place, name: &str) -> Repository {
    let source = "A line of a source file, sixty-four characters with its newline\n".repeat(64);
    let mut files: Vec<(String, &[u8])> =
        (0..50).map(|number| (format!("sources/{number}.txt"), source.as_bytes())).collect();
    for (name, text) in [
        ("app.pl", SERVER),
        ("Dockerfile", DOCKERFILE),
        ("quarry.yml", QUARRY),
        ("dependencies", "library = 1.0\n"),
        ("version", "0\n"),
    ] {
        files.push((name.to_owned(), text.as_bytes()));
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    Repository::with(place, name, &files)
}

/// quarry.yml with these domains besides the stack's own.
pub fn with_domains(domains: &[String]) -> String {
    let list: Vec<&str> = domains.iter().map(String::as_str).collect();
    format!("{QUARRY}  domains: [{}]\n", list.join(", "))
}
