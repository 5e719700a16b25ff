//! Packs of the server's owner, beside the built-in ones: each a folder of quarry's settings.

use std::collections::BTreeMap;

use super::{PackError, Plan, Repository};

/// The packs of the server's owner, by the name of their folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shelf {
    packs: BTreeMap<String, Own>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// A template of the form of the built-in ones.
    Template(Template),
    /// Files of a buildpack of Heroku's API, by their path in its folder.
    Scripts(BTreeMap<String, Vec<u8>>),
}

/// `Dockerfile.j2`, and what `pack.toml` says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The template's text.
    pub text: String,
    /// Files that show a repository to be of its kind; any of them. None: it is only used where it is named.
    detect: Vec<String>,
    /// Files that are copied before the dependencies are installed, as far as they are there.
    copies: Vec<String>,
    command: Option<String>,
    health: Option<String>,
}

/// A folder that is no pack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPack {
    /// Its name cannot be written in quarry.yml.
    #[error("its name is lowercase letters, digits and dashes, and not that of a built-in pack")]
    Name,
    /// Neither form.
    #[error("it has neither a `Dockerfile.j2` nor `bin/detect` and `bin/compile`")]
    Neither,
    /// `pack.toml` does not say what it should.
    #[error("`pack.toml`: {0}")]
    About(String),
    /// A file of a template that is no text.
    #[error("`{0}` is not UTF-8 text")]
    NotText(String),
}

impl Shelf {
    /// Puts a folder's files on the shelf.
    ///
    /// # Errors
    /// When they are no pack.
    pub fn put(&mut self, name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<(), BadPack> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let built_in = super::PACKS.iter().any(|pack| pack.name == name);
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) || built_in {
            return Err(BadPack::Name);
        }
        let own = match files.get(TEMPLATE) {
            Some(text) => Own::Template(Template::of(text, files.get(ABOUT))?),
            None if files.contains_key("bin/detect") && files.contains_key("bin/compile") => Own::Scripts(files),
            None => return Err(BadPack::Neither),
        };
        self.packs.insert(name.to_owned(), own);
        Ok(())
    }

    /// The templates, by name.
    pub(super) fn templates(&self) -> impl Iterator<Item = (&str, &Template)> {
        self.packs.iter().filter_map(|(name, own)| match own {
            Own::Template(template) => Some((name.as_str(), template)),
            Own::Scripts(_) => None,
        })
    }

    /// The files of a buildpack of Heroku's API.
    pub fn scripts(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        match self.packs.get(name)? {
            Own::Scripts(files) => Some(files),
            Own::Template(_) => None,
        }
    }

    /// The names of all of them.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.packs.keys().map(String::as_str)
    }
}

const TEMPLATE: &str = "Dockerfile.j2";
const ABOUT: &str = "pack.toml";

/// The keys of `pack.toml`.
const KEYS: [&str; 4] = ["command", "copies", "detect", "health"];

impl Template {
    fn of(text: &[u8], about: Option<&Vec<u8>>) -> Result<Self, BadPack> {
        let utf8 =
            |bytes: &[u8], file: &str| String::from_utf8(bytes.to_vec()).map_err(|_| BadPack::NotText(file.to_owned()));
        let about = about.map_or(Ok(String::new()), |about| utf8(about, ABOUT))?;
        let table: toml::Table =
            about.parse().map_err(|error: toml::de::Error| BadPack::About(error.message().to_owned()))?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(BadPack::About(format!("unknown key `{}`; there are {}", key.escape_debug(), KEYS.join(", "))));
        }
        let list = |key: &str| match table.get(key) {
            None => Ok(Vec::new()),
            Some(toml::Value::Array(items)) if items.iter().all(toml::Value::is_str) => {
                Ok(items.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect())
            }
            Some(_) => Err(BadPack::About(format!("`{key}` is a list of file names"))),
        };
        let word = |key: &str| match table.get(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(BadPack::About(format!("`{key}` is text"))),
        };
        Ok(Self {
            text: utf8(text, TEMPLATE)?,
            detect: list("detect")?,
            copies: list("copies")?,
            command: word("command")?,
            health: word("health")?,
        })
    }

    pub(super) fn recognises(&self, repository: &Repository) -> Option<String> {
        self.detect.iter().find(|path| repository.has(path)).cloned()
    }

    pub(super) fn plan(&self, repository: &Repository) -> Result<Plan, PackError> {
        let mut files = super::dependencies::Files::default();
        files.take(repository, &self.copies.iter().map(String::as_str).collect::<Vec<_>>());
        let mut plan = Plan { command: self.command.clone(), health: self.health.clone(), ..Plan::default() };
        plan.values.push(("copies", files.lines()));
        if files.needs_source() {
            plan.values.push(("source_first", "yes".to_owned()));
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        all.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_folder_is_a_template_or_scripts_or_refused() {
        let mut shelf = Shelf::default();
        let about = "detect = [\"deno.json\"]\ncommand = \"deno run main.ts\"\n";
        shelf.put("deno", files(&[("Dockerfile.j2", "FROM a"), ("pack.toml", about)])).unwrap();
        shelf.put("crystal", files(&[("bin/detect", ""), ("bin/compile", "")])).unwrap();
        assert_eq!(shelf.names().collect::<Vec<_>>(), ["crystal", "deno"]);
        assert!(shelf.scripts("crystal").is_some() && shelf.scripts("deno").is_none());
        let refused = |name: &str, all: &[(&str, &str)]| Shelf::default().put(name, files(all)).unwrap_err();
        let template = ("Dockerfile.j2", "");
        assert_eq!(refused("a", &[("bin/detect", "")]), BadPack::Neither);
        for name in ["python", "A", "../x", "-", ""] {
            assert_eq!(refused(name, &[template]), BadPack::Name, "{name}");
        }
        for about in ["detect = 1", "[", "detects = []", "command = []"] {
            assert!(matches!(refused("a", &[template, ("pack.toml", about)]), BadPack::About(_)), "{about}");
        }
    }
}
