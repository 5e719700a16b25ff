//! app.json, as Heroku and Dokku read it: processes, health checks, scripts, variables, tasks, buildpacks.
//!
//! Keys that belong to shops and catalogues (`name`, `logo`, `addons` and so on) mean nothing here and are passed over,
//! as are those of other programs that keep their settings in a file of this name.

use std::collections::BTreeMap;

use crate::names::{EnvName, NodeName};
use crate::units::Megabytes;

use super::keys::Found;
use super::mistakes::{Mistakes, Notes, shown};
use super::schedule::Schedule;
use super::tree::{Entry, Shape, Tree};
use super::wishes::{Wanted, Wish};
use super::{Command, Health, healthchecks, json, values};

/// What an app.json asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct App {
    pub formation: BTreeMap<NodeName, Formation>,
    pub health: BTreeMap<NodeName, Health>,
    pub predeploy: Option<Command>,
    /// `scripts.postdeploy`: after the first deploy.
    pub postdeploy_first: Option<Command>,
    /// `scripts.dokku.postdeploy`: after each.
    pub postdeploy: Option<Command>,
    pub wishes: Vec<Wish>,
    pub cron: Vec<Cron>,
    pub buildpacks: Vec<String>,
    /// What cannot be had, one thought a line.
    pub said: Vec<String>,
}

/// How many containers of a process, how large.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Formation {
    pub quantity: Option<u32>,
    pub size: Option<Megabytes>,
}

/// A command at its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    pub command: Command,
    pub schedule: Schedule,
}

impl App {
    /// The parts of the file that mean something, for the line that tells what was taken.
    pub(super) fn parts(&self) -> Vec<&'static str> {
        let scripts = self.predeploy.is_some() || self.postdeploy.is_some() || self.postdeploy_first.is_some();
        [
            ("buildpacks", !self.buildpacks.is_empty()),
            ("cron", !self.cron.is_empty()),
            ("env", !self.wishes.is_empty()),
            ("formation", !self.formation.is_empty()),
            ("healthchecks", !self.health.is_empty()),
            ("scripts", scripts),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
        .collect()
    }
}

/// Reads the text of the file called `file`.
///
/// # Errors
/// Every value that is not what it has to be.
pub(super) fn parse(file: &str, text: &str) -> Result<App, Mistakes> {
    let tree = json::read(file, text)?;
    let mut notes = Notes::of(file, Vec::new());
    let mut app = App::default();
    let Shape::Map(entries) = &tree.shape else {
        notes.add(tree.spot, "the file is an object such as `{\"formation\": {\"web\": {\"quantity\": 2}}}`");
        return notes.or(app);
    };
    for entry in entries {
        let found = found(entry);
        match entry.key.as_str() {
            "formation" => app.formation = formation(found, &mut notes),
            "healthchecks" => app.health = healthchecks::read(found, file, &mut app.said, &mut notes),
            "scripts" => scripts(found, &mut app, &mut notes),
            "env" => app.wishes = env(found, file, &mut app.said, &mut notes),
            "cron" => app.cron = cron(found, file, &mut app.said, &mut notes),
            "buildpacks" => app.buildpacks = buildpacks(found, &mut notes),
            _ => {}
        }
    }
    notes.or(app)
}

pub(super) fn found(entry: &Entry) -> Found<'_> {
    Found { written: &entry.key, spot: entry.spot, value: &entry.value }
}

/// The entries of an object; nothing and a mistake where it is none.
pub(super) fn object<'t>(key: Found<'t>, notes: &mut Notes<'_>) -> &'t [Entry] {
    match &key.value.shape {
        Shape::Map(entries) => entries,
        Shape::Nothing => &[],
        Shape::Text(_) | Shape::List(_) => {
            notes.add(key.value.spot, format!("`{}` is an object, not {}", key.written, key.value.what()));
            &[]
        }
    }
}

/// The items of a list; nothing and a mistake where it is none.
pub(super) fn list<'t>(key: Found<'t>, notes: &mut Notes<'_>) -> &'t [Tree] {
    match &key.value.shape {
        Shape::List(items) => items,
        Shape::Nothing => &[],
        Shape::Text(_) | Shape::Map(_) => {
            notes.add(key.value.spot, format!("`{}` is a list, not {}", key.written, key.value.what()));
            &[]
        }
    }
}

/// The name of a process; a mistake where it is none.
pub(super) fn process(entry: &Entry, notes: &mut Notes<'_>) -> Option<NodeName> {
    entry.key.parse().map_err(|error: crate::names::BadName| notes.add(entry.spot, error.to_string())).ok()
}

fn formation(key: Found<'_>, notes: &mut Notes<'_>) -> BTreeMap<NodeName, Formation> {
    let mut formation = BTreeMap::new();
    for process_entry in object(key, notes) {
        let Some(name) = process(process_entry, notes) else { continue };
        let mut one = Formation::default();
        for entry in object(found(process_entry), notes) {
            let found = found(entry);
            match entry.key.as_str() {
                "quantity" => one.quantity = values::number(found, 0, 100, notes),
                "memory" => one.size = values::parsed(found, notes),
                "size" => one.size = one.size.or(dyno(found, notes)),
                _ => {}
            }
        }
        formation.insert(name, one);
    }
    formation
}

/// Memory of Heroku's sizes; an amount such as `512mb` is understood, too.
fn dyno(key: Found<'_>, notes: &mut Notes<'_>) -> Option<Megabytes> {
    let (spot, text) = values::word(key, notes)?;
    let megabytes = match text.to_ascii_lowercase().as_str() {
        "free" | "hobby" | "eco" | "basic" | "standard-1x" | "1x" | "private-s" => 512,
        "standard-2x" | "2x" | "private-m" => 1024,
        "performance-m" | "pm" => 2560,
        "performance-l" | "pl" | "private-l" => 14336,
        _ => match text.parse() {
            Ok(size) => return Some(size),
            Err(_) => {
                let message = format!("`size` is a size of Heroku's or an amount of memory, not {}", shown(text));
                notes.add(spot, message);
                return None;
            }
        },
    };
    Some(Megabytes(megabytes))
}

/// `predeploy` and `postdeploy`, by themselves as Heroku has them or in Dokku's own object.
fn scripts(key: Found<'_>, app: &mut App, notes: &mut Notes<'_>) {
    for entry in object(key, notes) {
        match entry.key.as_str() {
            "predeploy" => app.predeploy = app.predeploy.take().or(script(found(entry), notes)),
            "postdeploy" => app.postdeploy_first = script(found(entry), notes),
            "dokku" => {
                for entry in object(found(entry), notes) {
                    match entry.key.as_str() {
                        "predeploy" => {
                            app.predeploy = script(found(entry), notes);
                            app.said.extend(app.predeploy.as_ref().map(|_| NOT_KEPT.to_owned()));
                        }
                        "postdeploy" => app.postdeploy = script(found(entry), notes),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Dokku keeps what its `predeploy` writes.
const NOT_KEPT: &str = "app.json: `predeploy` runs in the new image before any traffic; files it writes are not kept";

fn script(key: Found<'_>, notes: &mut Notes<'_>) -> Option<Command> {
    match &key.value.shape {
        Shape::Nothing => None,
        Shape::Text(text) if text.trim().is_empty() => None,
        Shape::Text(_) | Shape::List(_) | Shape::Map(_) => {
            values::word(key, notes).map(|(_, text)| Command::Shell(text.trim().to_owned()))
        }
    }
}

fn env(key: Found<'_>, file: &str, said: &mut Vec<String>, notes: &mut Notes<'_>) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for entry in object(key, notes) {
        let name: EnvName = match entry.key.parse() {
            Ok(name) => name,
            Err(error) => {
                notes.add(entry.spot, format!("{error}"));
                continue;
            }
        };
        if name.as_str() == "PORT" || name.as_str().starts_with("QUARRY_") {
            said.push(format!("Warning: {file}:{} names {name}, which quarry sets itself", entry.spot.line));
            continue;
        }
        wishes.extend(wanted(entry, &name, file, said, notes).map(|wanted| Wish { name: name.clone(), wanted }));
    }
    wishes
}

/// A text is the default value; an object says more. Like on Heroku, what has no value and is not `required: false`
/// has to be set by a person.
fn wanted(entry: &Entry, name: &EnvName, file: &str, said: &mut Vec<String>, notes: &mut Notes<'_>) -> Option<Wanted> {
    let entries = match &entry.value.shape {
        Shape::Map(entries) => entries,
        Shape::Text(text) if !text.contains('\0') => return Some(Wanted::Default(text.clone())),
        Shape::Nothing => return Some(Wanted::Required),
        Shape::Text(_) | Shape::List(_) => {
            notes.add(
                entry.value.spot,
                format!("the value of {} is {}, not text", shown(name.as_str()), entry.value.what()),
            );
            return None;
        }
    };
    let (mut value, mut required, mut secret, mut again) = (None, true, false, false);
    for entry in entries {
        let found = found(entry);
        match (entry.key.as_str(), &entry.value.shape) {
            ("value", Shape::Text(text)) if !text.contains('\0') => value = Some(text.clone()),
            ("value", Shape::Nothing) => {}
            ("value", _) => notes.add(entry.value.spot, format!("the value of `{name}` is not text")),
            ("required", _) => required = values::flag(found, notes).unwrap_or(true),
            ("sync", _) => again = values::flag(found, notes).unwrap_or(false),
            ("generator", Shape::Text(text)) if text == "secret" => secret = true,
            ("generator", Shape::Nothing) => {}
            ("generator", _) => {
                let place = entry.spot.line;
                said.push(format!(
                    "Warning: {file}:{place} has a generator for {name} other than `secret`, which is not run"
                ));
            }
            _ => {}
        }
    }
    match value {
        Some(text) if again => Some(Wanted::Always(text)),
        Some(text) => Some(Wanted::Default(text)),
        None if secret => Some(Wanted::Secret),
        None => required.then_some(Wanted::Required),
    }
}

fn cron(key: Found<'_>, file: &str, said: &mut Vec<String>, notes: &mut Notes<'_>) -> Vec<Cron> {
    let mut all = Vec::new();
    for item in list(key, notes) {
        let (mut command, mut schedule, mut is_off) = (None, None, false);
        for entry in object(Found { written: "cron", spot: item.spot, value: item }, notes) {
            let found = found(entry);
            match (entry.key.as_str(), &entry.value.shape) {
                ("command", _) => command = Some(values::command(found, notes)),
                ("schedule", _) => schedule = Some(values::parsed(found, notes)),
                ("maintenance", _) => is_off = values::flag(found, notes).unwrap_or(false),
                ("concurrency_policy", Shape::Text(policy)) if policy != "allow" => {
                    let line = entry.spot.line;
                    said.push(format!("Warning: {file}:{line} `concurrency_policy: {}` is passed over", shown(policy)));
                }
                _ => {}
            }
        }
        match (command, schedule) {
            (Some(Some(command)), Some(Some(schedule))) if !is_off => all.push(Cron { command, schedule }),
            (None, _) | (_, None) if !matches!(item.shape, Shape::Text(_) | Shape::List(_)) => {
                notes.add(item.spot, "a task of `cron` needs a `command` and a `schedule`");
            }
            (_, _) => {}
        }
    }
    all
}

/// A list of names and addresses, or of objects with a `url`.
fn buildpacks(key: Found<'_>, notes: &mut Notes<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for item in list(key, notes) {
        let url = match &item.shape {
            Shape::Map(entries) => entries.iter().find(|entry| entry.key == "url").map(found),
            Shape::Text(_) => Some(Found { written: "buildpacks", spot: item.spot, value: item }),
            Shape::Nothing | Shape::List(_) => None,
        };
        match url {
            Some(url) => all.extend(values::word(url, notes).map(|(_, text)| text.trim().to_owned())),
            None => notes.add(item.spot, "a buildpack is an object with its `url`"),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn what_heroku_and_dokku_write_is_understood() {
        let app = parse("app.json", include_str!("../../tests/it/golden/good/app-json/app.json")).unwrap();
        assert_eq!(app.parts(), ["buildpacks", "cron", "env", "formation", "healthchecks", "scripts"]);
        assert_eq!(app.formation[&name("web")], Formation { quantity: Some(2), size: Some(Megabytes(1024)) });
        assert_eq!(app.formation[&name("worker")], Formation { quantity: Some(1), size: Some(Megabytes(256)) });
        let shell = |text: &str| Some(Command::Shell(text.to_owned()));
        assert_eq!((app.predeploy, app.postdeploy_first), (shell("./migrate"), shell("./seed")));
        assert_eq!(app.postdeploy, shell("./notify"));
        let wishes: Vec<_> = app.wishes.iter().map(|wish| (wish.name.as_str(), wish.wanted.clone())).collect();
        let expected = [
            ("LOG_LEVEL", Wanted::Default("info".into())),
            ("SECRET_KEY", Wanted::Secret),
            ("API_TOKEN", Wanted::Required),
            ("MODE", Wanted::Always("live".into())),
        ];
        assert_eq!(wishes, expected);
        assert_eq!(app.cron.len(), 1);
        assert_eq!(app.buildpacks, ["heroku/python"]);
    }

    #[test]
    fn the_file_of_another_program_asks_for_nothing() {
        for text in ["{}", r#"{"expo": {"name": "x", "env": 1}}"#, r#"{"name": "x", "addons": ["a:b"], "logo": 1}"#] {
            assert_eq!(parse("app.json", text).unwrap(), App::default(), "{text}");
        }
    }

    #[test]
    fn all_mistakes_are_told_with_their_place() {
        let text = r#"{
  "formation": {"Web": {}, "web": {"quantity": "many", "size": "huge"}, "worker": 2},
  "env": {"1ST": "x", "LIST": []},
  "scripts": {"postdeploy": {}},
  "cron": [{"command": "x", "schedule": "daily"}, {"command": "x"}],
  "buildpacks": ["a", {"name": "b"}]
}"#;
        let told = parse("app.json", text).unwrap_err().to_string();
        let places: Vec<&str> =
            told.lines().filter_map(|line| line.strip_prefix("app.json:")?.split(' ').next()).collect();
        assert_eq!(
            places,
            ["2:17:", "2:48:", "2:64:", "2:83:", "3:11:", "3:31:", "4:29:", "5:41:", "5:51:", "6:23:"],
            "{told}"
        );
    }
}
