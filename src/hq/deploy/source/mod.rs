//! What a checkout deploys as; see [`act`].

use crate::env::Env;
use crate::names::{EnvName, InnerPath};
use crate::stack::{Mistake, Mistakes, Stack};

pub mod act;

/// The variable of a stack that names the folder of its repository that it is built from.
pub const BUILD_DIR: &str = "QUARRY_BUILD_DIR";

/// The folder that a stack with these variables is built from; `None` for the whole repository.
///
/// # Errors
/// What is named is no folder within a repository.
pub fn build_folder(env: &Env) -> Result<Option<InnerPath>, Mistakes> {
    let name: EnvName = BUILD_DIR.parse().expect("a name written in the program is well formed");
    let named = env.value(&name).unwrap_or_default().trim().trim_start_matches("./").trim_end_matches('/');
    if matches!(named, "" | ".") {
        return Ok(None);
    }
    let no_folder = |_| Mistake::of_repository(format!("{BUILD_DIR} is `{named}`, which is no folder of a repository"));
    Ok(Some(named.parse().map_err(no_folder)?))
}

/// A stack described from `folder` of its repository as one of the whole: what its nodes serve lies deeper.
pub fn within(folder: &InnerPath, stack: &mut Stack) {
    for node in stack.nodes.values_mut() {
        let Some(root) = &node.document_root else { continue };
        let deeper = match root.as_str() {
            "." => folder.to_string(),
            root => format!("{folder}/{root}"),
        };
        node.document_root = Some(deeper.parse().expect("two paths within a repository are one"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::from_arguments;

    #[test]
    fn a_build_folder_stays_within_the_repository() {
        let folder = |value: &str| build_folder(&from_arguments([format!("{BUILD_DIR}={value}").as_str()]).unwrap());
        for (value, expected) in [("web", "web"), ("./apps/web/", "apps/web")] {
            assert_eq!(folder(value).unwrap().unwrap().as_str(), expected);
        }
        for value in ["", ".", "./"] {
            assert_eq!(folder(value).unwrap(), None, "{value}");
        }
        for value in ["..", "/etc", "a/../../b"] {
            let told = folder(value).unwrap_err().to_string();
            assert!(told.contains("QUARRY_BUILD_DIR"), "{told}");
        }
    }

    #[test]
    fn what_a_node_serves_lies_in_the_build_folder() {
        let yml = "a: {type: static, document_root: .}\nb: {type: static, document_root: public}\n";
        let repository = crate::buildpacks::Repository::of([("quarry.yml", yml), ("public/index.html", "")]);
        let mut stack = crate::stack::describe(&repository).unwrap().stack;
        within(&"apps/web".parse().unwrap(), &mut stack);
        let roots: Vec<String> =
            stack.nodes.values().filter_map(|node| Some(node.document_root.as_ref()?.to_string())).collect();
        assert_eq!(roots, ["apps/web", "apps/web/public"]);
    }
}
