//! HQ as a service of its machine: which files that takes and what has to be run; [`files`] carries it out.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::agent::bootstrap;
use crate::agent::files::FOLDER;

pub mod files;
pub mod units;

/// Where HQ's program lies.
pub const PROGRAM: &str = "/usr/local/bin/quarry";
/// Docker's settings.
pub const DAEMON: &str = "/etc/docker/daemon.json";

/// What a machine is made to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// HQ's root folder.
    pub root: PathBuf,
    /// Its settings.
    pub etc: PathBuf,
    /// Where pushes come in.
    pub ssh: SocketAddr,
    /// Where the router answers.
    pub http: SocketAddr,
    /// The same with certificates, or nothing.
    pub https: Option<SocketAddr>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A folder with this mode.
    Folder {
        /// Where.
        path: PathBuf,
        /// Who may do what with it.
        mode: u32,
    },
    /// A file with this text, in one step.
    File {
        /// Where.
        path: PathBuf,
        /// What it says.
        text: String,
    },
    /// This program is HQ's.
    Program,
    /// A command for the running system.
    Run(Vec<String>),
}

/// Why nothing, or not everything, was installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Docker's settings are not what they should be.
    #[error("{DAEMON} is no JSON object: {0}; mend it, or move it away")]
    Daemon(String),
    /// A file.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A command.
    #[error("`{command}` failed: {why}")]
    Command {
        /// Which.
        command: String,
        /// Its last words.
        why: String,
    },
}

/// What there is to do where docker's settings read like this, whatever of it is done already.
///
/// # Errors
/// [`InstallError::Daemon`].
pub fn plan(wish: &Wish, daemon: Option<&str>) -> Result<Vec<Step>, InstallError> {
    let file = |path: &str, text: String| Step::File { path: path.into(), text };
    let unit = |name: &str, text: String| file(&format!("/etc/systemd/system/{name}"), text);
    let run = |words: &[&str]| Step::Run(words.iter().map(|word| (*word).to_owned()).collect());
    Ok(vec![
        Step::Program,
        // Everybody may pass, since the router's workers have sites below it; what holds values is closed by itself.
        Step::Folder { path: wish.root.clone(), mode: 0o711 },
        Step::Folder { path: wish.etc.clone(), mode: 0o755 },
        file("/usr/lib/sysusers.d/quarry.conf", units::user(&wish.root)),
        file(DAEMON, live_restore(daemon)?),
        unit("quarry.service", units::hq(wish)),
        unit("quarry-router.service", units::router(&wish.root)),
        unit("quarry-agent.service", bootstrap::unit(bootstrap::PROGRAM, FOLDER)),
        run(&["systemd-sysusers", "/usr/lib/sysusers.d/quarry.conf"]),
        run(&["systemctl", "daemon-reload"]),
        // It holds the router's port.
        run(&["systemctl", "disable", "--now", "--quiet", "nginx.service"]),
        run(&["systemctl", "reload-or-restart", "docker.service"]),
        run(&["systemctl", "enable", "--quiet", "quarry-router.service"]),
        run(&["systemctl", "enable", "--now", "--quiet", "quarry.service"]),
    ])
}

/// Docker's settings, with which containers run on while it is restarted. All else in them stays.
fn live_restore(daemon: Option<&str>) -> Result<String, InstallError> {
    let mut settings: Map<String, Value> = match daemon.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => serde_json::from_str(text).map_err(|error| InstallError::Daemon(error.to_string()))?,
        None => Map::new(),
    };
    // Somebody's own writing of the same settings is left as it is.
    if settings.get("live-restore") == Some(&Value::Bool(true))
        && let Some(text) = daemon
    {
        return Ok(text.to_owned());
    }
    settings.insert("live-restore".to_owned(), Value::Bool(true));
    let text = serde_json::to_string_pretty(&settings).map_err(|error| InstallError::Daemon(error.to_string()))?;
    Ok(text + "\n")
}

/// A path of the system below another root, such as a folder in which an image is made.
pub fn below(prefix: Option<&Path>, path: &Path) -> PathBuf {
    match prefix {
        Some(prefix) => prefix.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_settings_of_docker_stay() {
        let check = |before: Option<&str>, expected: &str| {
            let text = live_restore(before).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::from_str::<Value>(expected).unwrap());
            assert_eq!(live_restore(Some(&text)).unwrap(), text, "once is enough");
        };
        check(None, r#"{"live-restore":true}"#);
        check(Some("\n"), r#"{"live-restore":true}"#);
        check(Some(r#"{"live-restore":false,"dns":["10.0.0.1"]}"#), r#"{"live-restore":true,"dns":["10.0.0.1"]}"#);
        let own = "{ \"live-restore\" : true, \"mtu\": 1400 }";
        assert_eq!(live_restore(Some(own)).unwrap(), own);
        for wrong in ["[]", "{", "true"] {
            assert!(live_restore(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_holds_everything() {
        assert_eq!(below(Some(Path::new("/p")), Path::new("/etc/x")), Path::new("/p/etc/x"));
        assert_eq!(below(None, Path::new("/etc/x")), Path::new("/etc/x"));
    }
}
