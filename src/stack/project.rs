//! project.toml, the description of Cloud Native Buildpacks: what of it means something here.

use toml::{Table, Value};

use crate::env::Env;
use crate::names::printable::excerpt;

use super::mistakes::{Mistake, Mistakes};

/// What a project.toml asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Project {
    /// Variables of the build.
    pub env: Env,
    pub buildpacks: Vec<String>,
    /// What cannot be had, one thought a line.
    pub said: Vec<String>,
}

impl Project {
    /// The parts of the file that mean something, for the line that tells what was taken.
    pub(super) fn parts(&self) -> Vec<&'static str> {
        let parts = [("build env", !self.env.is_empty()), ("buildpacks", !self.buildpacks.is_empty())];
        parts.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
    }
}

/// Reads the text of the file called `file`, in the older form (`[build]`) and the newer one (`[io.buildpacks]`).
///
/// # Errors
/// When it is not TOML.
pub(super) fn parse(file: &str, text: &str) -> Result<Project, Mistakes> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = &text[..error.span().map_or(0, |span| span.start).min(text.len())];
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Mistake::at(file, before.matches('\n').count() + 1, column, error.message())
    })?;
    let mut project = Project::default();
    let newer = table.get("io").and_then(|io| io.get("buildpacks"));
    let older = table.get("build");
    let lists = [
        (
            newer.and_then(|newer| newer.get("build")).and_then(|build| build.get("env")),
            newer.and_then(|newer| newer.get("group")),
        ),
        (older.and_then(|older| older.get("env")), older.and_then(|older| older.get("buildpacks"))),
    ];
    for (env, packs) in lists {
        for entry in tables(env) {
            variable(entry, file, &mut project);
        }
        let names = tables(packs).filter_map(|pack| pack.get("uri").or_else(|| pack.get("id"))?.as_str());
        project.buildpacks.extend(names.map(str::to_owned));
    }
    for (key, place) in [("exclude", newer), ("exclude", older), ("include", newer), ("include", older)] {
        if place.is_some_and(|place| place.get(key).is_some()) {
            project.said.push(format!("Warning: `{key}` in {file} is passed over; a .dockerignore says the same"));
        }
    }
    Ok(project)
}

fn tables(list: Option<&Value>) -> impl Iterator<Item = &Table> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

fn variable(entry: &Table, file: &str, project: &mut Project) {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let (Some(name), Some(value)) = (text("name"), text("value")) else { return };
    match name.parse() {
        Ok(name) if !value.contains('\0') => project.env.set(name, value),
        Ok(_) | Err(_) => {
            let shown = excerpt(name, 40);
            project.said.push(format!("Warning: the build variable `{shown}` in {file} is none, and is passed over"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_their_variables_and_buildpacks() {
        let newer = "[_]\nschema-version = \"0.2\"\n[io.buildpacks]\nexclude = [\"docs\"]\n[[io.buildpacks.group]]\n\
                     id = \"heroku/python\"\n[[io.buildpacks.build.env]]\nname = \"A\"\nvalue = \"b\"\n";
        let older = "[project]\nid = \"x\"\n[build]\nexclude = [\"docs\"]\n[[build.buildpacks]]\nid = \"heroku/python\"\n\
                     [[build.env]]\nname = \"A\"\nvalue = \"b\"\n";
        for text in [newer, older] {
            let project = parse("project.toml", text).unwrap();
            assert_eq!(
                (project.env.pairs(), project.buildpacks),
                (vec!["A=b".to_owned()], vec!["heroku/python".to_owned()])
            );
            assert_eq!(
                project.said,
                ["Warning: `exclude` in project.toml is passed over; a .dockerignore says the same"]
            );
        }
    }

    #[test]
    fn a_mistake_of_the_syntax_has_its_place_and_other_tables_mean_nothing() {
        assert!(parse("project.toml", "a = 1\n[b\n").unwrap_err().to_string().starts_with("project.toml:2:"));
        assert_eq!(parse("project.toml", "[tool]\nbuild = 1\n").unwrap(), Project::default());
    }
}
