//! Images the fake engine builds: read off the Dockerfile's last words, nothing is run.

use std::io::Read;

use crate::docker::{BuildRequest, EngineError, Image};
use crate::names::ImageId;
use crate::units::hex::sha256;

/// The processor of this engine, and of what it builds.
pub(super) const ARCHITECTURE: &str = "amd64";

/// Whether a place is a folder's, in which a star stands for any one part.
pub(super) fn fits(place: &str, folder: &str) -> bool {
    let (parts, wanted): (Vec<_>, Vec<_>) = (place.split('/').collect(), folder.split('/').collect());
    parts.len() == wanted.len() && parts.iter().zip(wanted).all(|(part, wanted)| wanted == "*" || *part == wanted)
}

/// An image whose id follows from `content`.
pub(super) fn image(content: &[u8], tag: &str) -> Image {
    let id: ImageId = format!("sha256:{}", sha256(content)).parse().expect("a SHA-256 in hexadecimal is an image id");
    let tag = if tag.contains(':') { tag.to_owned() } else { format!("{tag}:latest") };
    Image {
        id,
        ports: Vec::new(),
        command: Vec::new(),
        entrypoint: Vec::new(),
        volumes: Vec::new(),
        env: Vec::new(),
        triggers: Vec::new(),
        tags: vec![tag],
        labels: std::collections::BTreeMap::new(),
        size: content.len() as u64,
        architecture: ARCHITECTURE.to_owned(),
    }
}

/// What building `context` comes to: the same context and request give the same image.
///
/// A line `RUN false` fails the build, as it would.
pub(super) fn built(request: &BuildRequest, context: &[u8]) -> Result<Image, EngineError> {
    let dockerfile = file(context, &request.dockerfile)
        .ok_or_else(|| failed(format!("Cannot locate specified Dockerfile: {}", request.dockerfile)))?;
    let seed = format!("{:?}{dockerfile}", request.args);
    let mut image = image(&[seed.as_bytes(), context].concat(), &request.tag);
    for line in dockerfile.lines() {
        let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        match word {
            "EXPOSE" => image.ports.extend(
                rest.split_whitespace()
                    .filter_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse::<u16>().ok()),
            ),
            "VOLUME" => image.volumes.extend(rest.split_whitespace().map(str::to_owned)),
            "LABEL" => image.labels.extend(rest.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))),
            "CMD" => image.command = words(rest),
            "ENTRYPOINT" => image.entrypoint = words(rest),
            "RUN" if rest == "false" => {
                return Err(failed("The command '/bin/sh -c false' returned a non-zero code: 1".to_owned()));
            }
            _ => {}
        }
    }
    image.ports.sort_unstable();
    image.volumes.sort();
    Ok(image)
}

fn failed(message: String) -> EngineError {
    EngineError::Build { message }
}

fn words(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| ["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

/// One file's text out of a tar.
fn file(tar: &[u8], path: &str) -> Option<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().ok()?.filter_map(Result::ok);
    let mut entry = entries.into_iter().find(|entry| entry.path().is_ok_and(|held| held.to_str() == Some(path)))?;
    let mut text = String::new();
    entry.read_to_string(&mut text).ok()?;
    Some(text)
}
