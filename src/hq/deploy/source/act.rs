//! Reads a checkout off the async threads.

use std::path::{Path, PathBuf};

use super::{BUILD_DIR, build_folder, within};
use crate::buildpacks::Repository;
use crate::buildpacks::files::shelf;
use crate::env::Env;
use crate::hq::HqError;
use crate::names::InnerPath;
use crate::stack::routing::too_long;
use crate::stack::{Described, Mistake, Mistakes, Stack, describe, files};

/// What a stack is made of.
pub struct Source {
    /// What it is.
    pub described: Described,
    /// The files it was described by.
    pub repository: Repository,
    /// The folder that they lie in.
    pub folder: PathBuf,
}

/// Reads and describes a checkout, or the folder of it that `env` names; `packs` holds the owner's buildpacks.
///
/// # Errors
/// Every mistake of its files; a folder that is not there; buildpacks that are none.
pub async fn read_checkout(checkout: &Path, packs: Option<&Path>, env: &Env) -> Result<Source, HqError> {
    let inner = build_folder(env).map_err(HqError::Mistakes)?;
    let (checkout, packs) = (checkout.to_owned(), packs.map(Path::to_owned));
    let read = move || read(&checkout, packs.as_deref(), inner.as_ref());
    tokio::task::spawn_blocking(read).await.expect("reading a checkout does not panic")
}

fn read(checkout: &Path, packs: Option<&Path>, inner: Option<&InnerPath>) -> Result<Source, HqError> {
    let folder = match inner {
        Some(inner) => inside(checkout, inner)?,
        None => checkout.to_owned(),
    };
    let mut repository = files::read(&folder)?;
    if let Some(packs) = packs {
        repository.shelf = shelf(packs)?;
    }
    let mut described = describe(&repository).map_err(HqError::Mistakes)?;
    read_pages(&folder, &mut described.stack).map_err(HqError::Mistakes)?;
    if let Some(inner) = inner {
        within(inner, &mut described.stack);
        described.said.insert(0, format!("Folder {inner} ({BUILD_DIR})"));
    }
    Ok(Source { described, repository, folder })
}

/// Reads the pages that the router is to show.
fn read_pages(folder: &Path, stack: &mut Stack) -> Result<(), Mistakes> {
    let mut mistakes = Vec::new();
    for node in stack.nodes.values_mut() {
        for (status, path) in &node.pages {
            match files::read_text(folder, path) {
                Ok(text) => drop(node.rules.pages.insert(*status, text)),
                Err(why) => mistakes.push(Mistake::of_repository(format!("the page `{path}` for {status} {why}"))),
            }
        }
    }
    let lengths = stack.nodes.values().flat_map(|node| node.rules.pages.values().map(String::len));
    mistakes.extend(too_long(lengths).map(Mistake::of_repository));
    if mistakes.is_empty() { Ok(()) } else { Err(Mistakes::sorted(mistakes)) }
}

/// A folder of the checkout; no link leads out of it.
fn inside(checkout: &Path, inner: &InnerPath) -> Result<PathBuf, HqError> {
    let missing = || {
        let message = format!("{BUILD_DIR} is `{inner}`, and there is no such folder in the repository");
        HqError::Mistakes(Mistake::of_repository(message).into())
    };
    let folder = checkout.join(inner.as_str()).canonicalize().map_err(|_| missing())?;
    let root = checkout.canonicalize().map_err(|_| missing())?;
    if folder.starts_with(root) && folder.is_dir() { Ok(folder) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::env::from_arguments;

    #[tokio::test]
    async fn a_folder_of_the_checkout_is_a_repository_of_its_own_and_no_link_leads_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let checkout = dir.path().join("src");
        fs::create_dir_all(checkout.join("apps/web/public")).unwrap();
        fs::write(checkout.join("apps/web/public/index.html"), "x").unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/index.html"), "x").unwrap();
        symlink("../outside", checkout.join("link")).unwrap();
        let read = async |value: &str| {
            let env = from_arguments([format!("{BUILD_DIR}={value}").as_str()]).unwrap();
            read_checkout(&checkout, None, &env).await
        };
        let source = read("apps/web").await.unwrap();
        assert_eq!(
            source.described.said,
            ["Folder apps/web (QUARRY_BUILD_DIR)", "Detected static (public/index.html)"]
        );
        assert!(source.folder.ends_with("apps/web"));
        for value in ["nothing", "link", "apps/web/public/index.html"] {
            let told = read(value).await.err().unwrap().to_string();
            assert!(told.contains("no such folder"), "{told}");
        }
        let told = read("").await.err().unwrap().to_string();
        assert!(told.starts_with("nothing deployable"), "{told}");
    }
}
