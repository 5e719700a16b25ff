//! `config [list|show|write|remove]`

use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::network::report;
use crate::hq::door::Stdin;
use crate::network::config::{BadPath, ConfigPath, LIMIT};

/// List, show, write and remove files that every server is given
#[derive(Debug, clap::Args)]
pub struct Config {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them
    List,
    /// Print one
    Show {
        /// Its absolute path on the servers
        path: ConfigPath,
    },
    /// Write the file on standard input to every server: config write /etc/app.conf < FILE
    Write {
        /// Its absolute path on the servers
        path: ConfigPath,
    },
    /// Take one away from every server, and put back what was there before
    Remove {
        /// Its absolute path on the servers
        path: ConfigPath,
    },
}

#[derive(Debug, Serialize)]
struct Row {
    path: String,
    bytes: usize,
}

impl Config {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Write { .. } | Verb::Remove { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such file, it is too long, or a server cannot have it.
    pub async fn run(self, cx: &Context, stdin: Stdin) -> Result<(), Failure> {
        match self.verb {
            None | Some(Verb::List) => list(cx).await,
            Some(Verb::Show { path }) => show(cx, &path).await,
            Some(Verb::Write { path }) => write(cx, &path, stdin).await,
            Some(Verb::Remove { path }) => remove(cx, &path).await,
        }
    }
}

async fn list(cx: &Context) -> Result<(), Failure> {
    let files = cx.hq.config_files().await?;
    let rows: Vec<Row> =
        files.iter().map(|(path, contents)| Row { path: path.to_string(), bytes: contents.0.len() }).collect();
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let cells: Vec<Vec<String>> = rows.into_iter().map(|row| vec![row.path, row.bytes.to_string()]).collect();
    cx.out.table(&["PATH", "BYTES"], &cells).await
}

async fn show(cx: &Context, path: &ConfigPath) -> Result<(), Failure> {
    let contents = cx.hq.config_files().await?.remove(path).ok_or_else(|| none(path))?;
    cx.out.data(contents.0).await
}

async fn write(cx: &Context, path: &ConfigPath, stdin: Stdin) -> Result<(), Failure> {
    let own = [cx.hq.root.clone(), crate::agent::files::FOLDER.into(), crate::etc::ETC.into()];
    path.outside(&own).map_err(|error: BadPath| Failure::of(Exit::Mistake, &error))?;
    if let Some(clash) = clash(path, cx.hq.config_files().await?.keys()) {
        return Err(Failure::new(Exit::Mistake, clash));
    }
    let too_long = || Failure::new(Exit::Mistake, format!("a config file has at most {LIMIT} bytes"));
    let bytes = stdin.at_most(LIMIT).await.ok_or_else(too_long)?;
    report(cx, cx.hq.write_config(path, Some(&bytes)).await?, &format!("{path} is written")).await
}

/// Why a file cannot be beside the others: what is a file in one path is a folder in another.
fn clash<'a>(path: &ConfigPath, mut others: impl Iterator<Item = &'a ConfigPath>) -> Option<String> {
    others.find_map(|other| match (path.as_path(), other.as_path()) {
        (new, old) if new == old => None,
        (new, old) if old.starts_with(new) => Some(format!("`{path}` is a folder: the config file `{other}` is in it")),
        (new, old) if new.starts_with(old) => Some(format!("`{other}` is a config file and no folder")),
        _ => None,
    })
}

async fn remove(cx: &Context, path: &ConfigPath) -> Result<(), Failure> {
    if !cx.hq.config_files().await?.contains_key(path) {
        return Err(none(path));
    }
    report(cx, cx.hq.write_config(path, None).await?, &format!("{path} is as it was before")).await
}

fn none(path: &ConfigPath) -> Failure {
    Failure::new(Exit::Mistake, format!("there is no config file `{path}`; `config list` lists those there are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_folder_of_others() {
        let others: Vec<ConfigPath> = ["/etc/app/main.conf", "/etc/motd"].map(|path| path.parse().unwrap()).into();
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(clash(&path.parse().unwrap(), others.iter()).as_deref(), expected, "{path}");
        };
        check("/etc/app/main.conf", None);
        check("/etc/app/other.conf", None);
        check("/etc/motd2", None);
        check("/etc/app", Some("`/etc/app` is a folder: the config file `/etc/app/main.conf` is in it"));
        check("/etc/motd/today", Some("`/etc/motd` is a config file and no folder"));
    }
}
