//! The static pack: a folder of files behind nginx.

use super::{PackError, Plan, Repository};

/// Folders that may hold the site, in the order they are tried; the repository itself first.
const ROOTS: [&str; 6] = [".", "public", "dist", "_site", "www", "build"];

/// The page that makes a folder a site.
pub(super) fn detect(repository: &Repository) -> Option<String> {
    ROOTS.iter().map(|root| index(root)).find(|page| repository.has(page))
}

fn index(root: &str) -> String {
    if root == "." { "index.html".to_owned() } else { format!("{root}/index.html") }
}

pub(super) fn plan(repository: &Repository) -> Result<Plan, PackError> {
    let needs = "an index.html, at the top or in public, dist, _site, www or build";
    let root =
        ROOTS.iter().find(|root| repository.has(&index(root))).ok_or(PackError::Missing { pack: "static", needs })?;
    let folder = if *root == "." { "/app".to_owned() } else { format!("/app/{root}") };
    Ok(Plan { command: Some(format!("static-site {folder}")), health: Some("/".to_owned()), ..Plan::default() })
}
