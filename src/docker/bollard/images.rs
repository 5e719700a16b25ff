//! Images: looked up, fetched, named, removed.

use std::collections::HashMap;

use bollard::models::{ImageInspect, ImageSummary};
use bollard::query_parameters::{
    CreateImageOptions, ListImagesOptions, PushImageOptions, RemoveImageOptions, TagImageOptions,
};
use futures_util::StreamExt;

use super::containers::gone_is_success;
use super::{Docker, STREAM, Subject};
use crate::docker::{EngineError, Image, Say};
use crate::names::ImageId;
use crate::names::printable::excerpt;

impl Docker {
    pub(super) async fn inspect_image(&self, reference: &str) -> Result<Option<Image>, EngineError> {
        let subject = image("describe", reference);
        if !is_reference(reference) {
            return Ok(None);
        }
        match self.call(&subject, self.client().inspect_image(reference)).await {
            Ok(inspected) => described(inspected).map(Some).ok_or_else(|| odd(&subject)),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn pull_image(&self, reference: &str, say: Say<'_>) -> Result<(), EngineError> {
        let subject = image("fetch", reference);
        check(reference)?;
        // Without a tag the engine would fetch every tag there is.
        let latest = !reference.contains('@') && !reference.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let options = CreateImageOptions {
            from_image: Some(reference.to_owned()),
            tag: latest.then(|| "latest".to_owned()),
            ..Default::default()
        };
        let mut stream = self.client().create_image(Some(options), None, None);
        while let Some(step) = self.patient_next(&subject, &mut stream).await? {
            let status = step.status.unwrap_or_default();
            // Progress bars come many times a second for each layer; what has ended is news.
            let news = !["Downloading", "Extracting", "Waiting", "Verifying Checksum", "Pulling fs layer"]
                .contains(&status.as_str());
            match step.id {
                Some(layer) if news => say(&format!("{layer}: {status}")),
                None if news && !status.is_empty() => say(&status),
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    pub(super) async fn push_image(&self, reference: &str, say: Say<'_>) -> Result<(), EngineError> {
        let subject = image("push", reference);
        check(reference)?;
        // The engine words it differently from version to version; without a tag it would push every tag there is.
        if self.inspect_image(reference).await?.is_none() {
            return Err(EngineError::NotFound { what: subject.what() });
        }
        let (repository, tag) = split(reference);
        let options = PushImageOptions { tag: Some(tag.unwrap_or("latest").to_owned()), ..Default::default() };
        let mut stream = self.client().push_image(repository, Some(options), None).boxed();
        // Its items do not name the layers they speak of.
        while let Some(step) = self.patient_next(&subject, &mut stream).await? {
            let status = step.status.unwrap_or_default();
            if !status.is_empty() && !["Pushing", "Preparing", "Waiting"].contains(&status.as_str()) {
                say(&status);
            }
        }
        Ok(())
    }

    /// The next item of a stream that may be quiet for long, while the engine answers pings.
    pub(super) async fn patient_next<T>(
        &self,
        subject: &Subject<'_>,
        stream: &mut (impl futures_util::Stream<Item = Result<T, bollard::errors::Error>> + Unpin),
    ) -> Result<Option<T>, EngineError> {
        self.patient(subject, STREAM, async { stream.next().await.transpose() }).await
    }

    pub(super) async fn tag_image(&self, reference: &str, tag: &str) -> Result<(), EngineError> {
        let subject = image("name", reference);
        check(reference)?;
        check(tag)?;
        let (repository, version) = split(tag);
        let options =
            TagImageOptions { repo: Some(repository.to_owned()), tag: Some(version.unwrap_or("latest").to_owned()) };
        self.call(&subject, self.client().tag_image(reference, Some(options))).await
    }

    pub(super) async fn delete_image(&self, reference: &str) -> Result<(), EngineError> {
        let subject = image("remove", reference);
        if !is_reference(reference) {
            return Ok(());
        }
        let remove = || self.client().remove_image(reference, None::<RemoveImageOptions>, None);
        let removed = match self.call(&subject, remove()).await {
            // Two who take away its last names at once are both about to remove the image, and docker fails the second.
            Err(EngineError::Refused { message, .. }) if message.contains("unrecognized image ID") => {
                self.call(&subject, remove()).await
            }
            removed => removed,
        };
        gone_is_success(removed.map(drop))
    }

    pub(super) async fn list_images(&self, folder: &str) -> Result<Vec<Image>, EngineError> {
        let subject = Subject { verb: "list", kind: "images in", name: folder };
        // The engine takes a shell's pattern: the star stops at a slash.
        let filters = HashMap::from([("reference".to_owned(), vec![format!("{folder}/*")])]);
        let options = ListImagesOptions { filters: Some(filters), ..Default::default() };
        let found = self.call(&subject, self.client().list_images(Some(options))).await?;
        let mut images: Vec<_> = found.into_iter().filter_map(summarised).collect();
        images.sort_by(|a, b| (&a.tags, &a.id).cmp(&(&b.tags, &b.id)));
        Ok(images)
    }
}

fn image<'a>(verb: &'static str, reference: &'a str) -> Subject<'a> {
    Subject { verb, kind: "image", name: reference }
}

fn odd(subject: &Subject<'_>) -> EngineError {
    EngineError::Refused { doing: subject.doing(), message: "its answer has no image id".to_owned() }
}

/// References come from repositories and go into the path of a request: what docker would not take never gets there.
fn is_reference(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    text.bytes().all(allowed)
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.len() <= 512
        && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn check(reference: &str) -> Result<(), EngineError> {
    if is_reference(reference) {
        return Ok(());
    }
    let given = excerpt(reference, 80);
    Err(EngineError::NotFound { what: format!("image `{given}`: that is not an image reference such as `redis:7`") })
}

/// Repository and tag; a port's colon belongs to the repository.
fn split(reference: &str) -> (&str, Option<&str>) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        Some(_) | None => (reference, None),
    }
}

fn described(image: ImageInspect) -> Option<Image> {
    let config = image.config.unwrap_or_default();
    let mut ports: Vec<u16> = config.exposed_ports.unwrap_or_default().iter().filter_map(|port| tcp(port)).collect();
    ports.sort_unstable();
    ports.dedup();
    let mut volumes = config.volumes.unwrap_or_default();
    volumes.sort();
    Some(Image {
        id: image.id?.parse().ok()?,
        ports,
        command: config.cmd.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        volumes,
        env: config.env.unwrap_or_default(),
        triggers: config.on_build.unwrap_or_default(),
        tags: image.repo_tags.unwrap_or_default(),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        size: image.size.unwrap_or_default().unsigned_abs(),
        architecture: image.architecture.unwrap_or_default(),
    })
}

/// What a list tells of an image; its configuration stays empty.
fn summarised(image: ImageSummary) -> Option<Image> {
    let id: ImageId = image.id.parse().ok()?;
    let mut tags: Vec<_> = image.repo_tags.into_iter().filter(|tag| tag != "<none>:<none>").collect();
    tags.sort();
    Some(Image {
        id,
        ports: Vec::new(),
        command: Vec::new(),
        entrypoint: Vec::new(),
        volumes: Vec::new(),
        env: Vec::new(),
        triggers: Vec::new(),
        tags,
        labels: image.labels.into_iter().collect(),
        size: image.size.unsigned_abs(),
        architecture: String::new(),
    })
}

/// The port of `8080/tcp`; other protocols are none.
fn tcp(port: &str) -> Option<u16> {
    port.strip_suffix("/tcp").unwrap_or(port).parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_cannot_leave_its_place_in_the_request() {
        for good in ["redis", "redis:7", "localhost:5000/a/b:1", "a@sha256:00", "quarry/blog/web_2:12"] {
            assert!(is_reference(good), "{good}");
        }
        for wrong in ["", "../containers/x", "a/../b", "a?x=1", "a#b", "/a", "a//b", "a b", "a\n", "%2e%2e", ".a"] {
            assert!(!is_reference(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_tag_is_told_from_a_registrys_port() {
        assert_eq!(split("localhost:5000/a"), ("localhost:5000/a", None));
        assert_eq!(split("localhost:5000/a:1"), ("localhost:5000/a", Some("1")));
        assert_eq!(split("a"), ("a", None));
    }

    #[test]
    fn only_tcp_ports_count() {
        assert_eq!(tcp("80/tcp"), Some(80));
        assert_eq!(tcp("53/udp"), None);
        assert_eq!(tcp("81"), Some(81));
    }
}
