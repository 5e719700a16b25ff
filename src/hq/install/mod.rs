//! HQ as a service of its machine: which files that takes and what has to be run; [`files`] carries it out.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::agent::bootstrap;
use crate::agent::files::FOLDER;
use crate::docker::handover;

pub mod files;
pub mod units;

/// Where HQ's program lies.
pub const PROGRAM: &str = "/usr/local/bin/quarry";
/// The same as docker's runtime for those who get their streams past docker: [`handover::PROGRAM`] beside it.
pub const RUNTIME_PROGRAM: &str = "/usr/local/bin/quarry-runc";
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
    /// The same program by another name beside it.
    Link {
        /// Where.
        path: PathBuf,
        /// What it leads to.
        to: PathBuf,
    },
    /// A command for the running system.
    Run {
        /// Its words.
        words: Vec<String>,
        /// Where it has nothing to do.
        unless: Fact,
    },
}

/// The running system is so: every line that a command says is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its words.
    pub words: Vec<String>,
    /// What it says.
    pub says: String,
}

/// The nginx that the machine has of its own. The router is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Neighbour {
    /// It holds none of the router's ports.
    Away,
    /// It holds one, and shows the page that its package brings.
    Idle,
    /// It holds this one.
    Busy {
        /// Which.
        port: u16,
        /// What somebody has set up there.
        sites: Vec<String>,
    },
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
    /// Somebody's sites would be gone.
    #[error(
        "nginx serves port {port}, which is to be the router's, by {}; to have it end: systemctl disable --now \
         nginx.service; or choose another port with --http and --https", .sites.join(", ")
    )]
    Neighbour {
        /// Which.
        port: u16,
        /// What is set up there.
        sites: Vec<String>,
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

/// The units, of which the agent's is started with the first HQ.
const UNITS: [&str; 3] = ["quarry.service", "quarry-router.service", "quarry-agent.service"];

/// What there is to do where docker's settings read like this, whatever of it is done already.
///
/// # Errors
/// [`InstallError::Daemon`], [`InstallError::Neighbour`].
pub fn plan(wish: &Wish, daemon: Option<&str>, neighbour: &Neighbour) -> Result<Vec<Step>, InstallError> {
    let file = |path: &str, text: String| Step::File { path: path.into(), text };
    let unit = |name: &str, text: String| file(&format!("/etc/systemd/system/{name}"), text);
    let mut steps = vec![
        Step::Program,
        Step::Link { path: RUNTIME_PROGRAM.into(), to: "quarry".into() },
        // Everybody may pass, since the router's workers have sites below it; what holds values is closed by itself.
        Step::Folder { path: wish.root.clone(), mode: 0o711 },
        Step::Folder { path: wish.etc.clone(), mode: 0o755 },
        file("/usr/lib/sysusers.d/quarry.conf", units::user(&wish.root)),
        file(DAEMON, settings_of_docker(daemon)?),
        unit("quarry.service", units::hq(wish)),
        unit("quarry-router.service", units::router(&wish.root)),
        unit("quarry-agent.service", bootstrap::unit(bootstrap::PROGRAM, FOLDER)),
        run("systemd-sysusers /usr/lib/sysusers.d/quarry.conf", "id -un quarry", "quarry"),
        run(
            "systemctl daemon-reload",
            &format!("systemctl show --property=NeedDaemonReload --value {}", UNITS.join(" ")),
            "no",
        ),
        // A setting of its own: its containers would end with a docker that is restarted without.
        reload_docker(),
    ];
    match neighbour {
        Neighbour::Away => {}
        Neighbour::Idle => {
            let active = "systemctl is-active nginx.service";
            steps.push(run("systemctl disable --now --quiet nginx.service", active, "inactive"));
        }
        Neighbour::Busy { port, sites } => {
            return Err(InstallError::Neighbour { port: *port, sites: sites.clone() });
        }
    }
    for unit in ["quarry-router.service", "quarry.service"] {
        let enabled = format!("systemctl is-enabled {unit}");
        steps.push(run(&format!("systemctl enable --quiet {unit}"), &enabled, "enabled"));
    }
    steps.push(run("systemctl start quarry.service", "systemctl is-active quarry.service", "active"));
    Ok(steps)
}

fn run(line: &str, unless: &str, says: &str) -> Step {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    Step::Run { words: words(line), unless: Fact { words: words(unless), says: says.to_owned() } }
}

/// Has docker read its settings again, until it says that it has them.
fn reload_docker() -> Step {
    let settings = format!("{{{{.LiveRestoreEnabled}}}} {{{{(index .Runtimes \"{}\").Path}}}}", handover::RUNTIME);
    let words = ["docker", "info", "--format", &settings].map(str::to_owned).to_vec();
    let reload = ["systemctl", "reload-or-restart", "docker.service"].map(str::to_owned).to_vec();
    Step::Run { words: reload, unless: Fact { words, says: format!("true {RUNTIME_PROGRAM}") } }
}

/// Docker's settings, with which containers run on while it is restarted, and jobs get their streams past it. All else in
/// them stays.
fn settings_of_docker(daemon: Option<&str>) -> Result<String, InstallError> {
    let mut settings: Map<String, Value> = match daemon.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => serde_json::from_str(text).map_err(|error| InstallError::Daemon(error.to_string()))?,
        None => Map::new(),
    };
    let before = settings.clone();
    settings.insert("live-restore".to_owned(), Value::Bool(true));
    let runtimes = settings.entry("runtimes").or_insert_with(|| json!({}));
    let runtimes =
        runtimes.as_object_mut().ok_or_else(|| InstallError::Daemon("its `runtimes` are none".to_owned()))?;
    runtimes.insert(handover::RUNTIME.to_owned(), json!({ "path": RUNTIME_PROGRAM }));
    // Somebody's own writing of the same settings is left as it is.
    if before == settings
        && let Some(text) = daemon
    {
        return Ok(text.to_owned());
    }
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
            let text = settings_of_docker(before).unwrap();
            let mut expected: Value = serde_json::from_str(expected).unwrap();
            expected["live-restore"] = json!(true);
            expected["runtimes"]["quarry"] = json!({ "path": "/usr/local/bin/quarry-runc" });
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
            assert_eq!(settings_of_docker(Some(&text)).unwrap(), text, "once is enough");
        };
        check(None, "{}");
        check(Some("\n"), "{}");
        check(Some(r#"{"live-restore":false,"dns":["10.0.0.1"]}"#), r#"{"dns":["10.0.0.1"]}"#);
        let other = r#"{"runtimes":{"crun":{"path":"/usr/bin/crun"},"quarry":{"path":"/old"}}}"#;
        check(Some(other), other);
        let own =
            r#"{ "mtu": 1400, "live-restore" : true, "runtimes": {"quarry": {"path": "/usr/local/bin/quarry-runc"}} }"#;
        assert_eq!(settings_of_docker(Some(own)).unwrap(), own);
        for wrong in ["[]", "{", "true", r#"{"runtimes":[]}"#] {
            assert!(settings_of_docker(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_neighbour_ends_only_where_it_is_in_the_way_and_nobody_misses_it() {
        let everywhere = |port| SocketAddr::from(([0; 4], port));
        let wish = Wish {
            root: "/home/quarry".into(),
            etc: "/etc/quarry".into(),
            ssh: everywhere(2222),
            http: everywhere(80),
            https: None,
        };
        let ends = |neighbour: &Neighbour| {
            let steps = plan(&wish, None, neighbour).unwrap();
            let names =
                |step: &Step| matches!(step, Step::Run { words, .. } if words.contains(&"nginx.service".to_owned()));
            steps.iter().any(names)
        };
        assert!(!ends(&Neighbour::Away));
        assert!(ends(&Neighbour::Idle));
        let busy = Neighbour::Busy { port: 80, sites: vec!["shop".into(), "wiki".into()] };
        let told = plan(&wish, None, &busy).unwrap_err().to_string();
        assert!(told.contains("port 80") && told.contains("shop, wiki"), "{told}");
        assert!(told.contains("systemctl disable --now nginx.service"), "{told}");
    }

    #[test]
    fn a_prefix_holds_everything() {
        assert_eq!(below(Some(Path::new("/p")), Path::new("/etc/x")), Path::new("/p/etc/x"));
        assert_eq!(below(None, Path::new("/etc/x")), Path::new("/etc/x"));
    }
}
