//! An image on its way: what messages call it, and where the registry keeps it.

use crate::docker::Image;
use crate::names::ImageId;

/// The digits of an id that people see.
const SHORT: usize = 12;

/// What is to be brought to servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) id: ImageId,
    /// For messages: its name if it has one.
    pub(super) name: String,
    /// Where the registry keeps it, such as `quarry/blog/web`; always three words, so that all are found by one pattern.
    pub(super) repository: String,
    /// What it is called wherever it comes to; never empty, because an image without a name is anybody's to remove.
    pub(super) tags: Vec<String>,
    /// The processor it is built for.
    pub(super) architecture: String,
}

impl Parcel {
    pub(super) fn new(image: Image) -> Self {
        let hex = tag(&image.id);
        let fetched = format!("quarry/fetched/{}", hex.get(..SHORT).unwrap_or(hex));
        // Names of a registry on loopback are those of another transfer.
        let mut tags: Vec<String> = image.tags.into_iter().filter(|tag| !tag.starts_with("127.0.0.1:")).collect();
        tags.sort();
        let own = tags.iter().find(|tag| tag.starts_with("quarry/") && tag.split('/').count() == 3);
        let repository = own.and_then(|tag| tag.rsplit_once(':')).map_or(&*fetched, |(repository, _)| repository);
        let (repository, name) = (repository.to_owned(), own.or(tags.first()).cloned());
        if tags.is_empty() {
            tags.push(format!("{fetched}:latest"));
        }
        Self {
            name: name.unwrap_or_else(|| image.id.to_string()),
            id: image.id,
            repository,
            tags,
            architecture: image.architecture,
        }
    }

    /// Its tag in the registry.
    pub(super) fn tag(&self) -> &str {
        tag(&self.id)
    }
}

/// The registry's tag for an image: its id, so that a tag never moves on to another one.
fn tag(image: &ImageId) -> &str {
    image.as_str().rsplit(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tags: &[&str], name: &str, repository: &str, kept: &[&str]) {
        let hex = "00ff".repeat(16);
        let image = Image {
            id: format!("sha256:{hex}").parse().unwrap(),
            ports: Vec::new(),
            command: Vec::new(),
            entrypoint: Vec::new(),
            volumes: Vec::new(),
            env: Vec::new(),
            triggers: Vec::new(),
            tags: tags.iter().map(ToString::to_string).collect(),
            labels: Default::default(),
            size: 0,
            architecture: "amd64".to_owned(),
        };
        let parcel = Parcel::new(image);
        assert_eq!((parcel.name.as_str(), parcel.repository.as_str()), (name, repository));
        assert_eq!(parcel.tags, kept);
        assert_eq!(parcel.tag(), hex);
    }

    #[test]
    fn a_built_image_travels_under_its_stack_and_any_other_by_its_id() {
        let loopback = "127.0.0.1:31500/quarry/blog/web:00ff";
        check(&["quarry/blog/web:3", loopback], "quarry/blog/web:3", "quarry/blog/web", &["quarry/blog/web:3"]);
        let (two, shared) = (["redis:7", "quarry/shop/web:1-0a0a"], "quarry/shop/web");
        check(&two, "quarry/shop/web:1-0a0a", shared, &["quarry/shop/web:1-0a0a", "redis:7"]);
        let by_id = "quarry/fetched/00ff00ff00ff";
        check(&["redis:7"], "redis:7", by_id, &["redis:7"]);
        check(&["quarry/other:1"], "quarry/other:1", by_id, &["quarry/other:1"]);
        check(&[], &format!("sha256:{}", "00ff".repeat(16)), by_id, &["quarry/fetched/00ff00ff00ff:latest"]);
    }
}
