//! Carries the steps of an installation out, each only where it is not done. Everything here blocks.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::{DAEMON, Fact, InstallError, Neighbour, PROGRAM, Step, below};
use crate::router::process::holder;

/// What becomes of steps that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// They are done.
    Do,
    /// They are only told.
    Tell,
}

/// Docker's settings as they are.
///
/// # Errors
/// They cannot be read.
pub fn daemon(prefix: Option<&Path>) -> Result<Option<String>, InstallError> {
    let path = below(prefix, Path::new(DAEMON));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InstallError::File { doing: "read", path, source }),
    }
}

/// The machine's own nginx, as far as these ports are concerned.
pub fn neighbour(ports: &[u16]) -> Neighbour {
    let held = |port: &&u16| {
        let holder = holder(([0, 0, 0, 0], **port).into());
        let groups =
            holder.and_then(|holder| fs::read_to_string(format!("/proc/{}/cgroup", holder.pid.as_raw_nonzero())).ok());
        groups.is_some_and(|groups| groups.lines().any(|group| group.ends_with("/nginx.service")))
    };
    let Some(port) = ports.iter().find(held) else { return Neighbour::Away };
    let mut sites = sites(Path::new("/etc/nginx"));
    // Elsewhere than on Debian nobody can say what the package brought.
    let changed = Command::new("dpkg").args(["--verify", "nginx-common"]).output();
    sites.extend(changed.map(|output| changed_settings(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default());
    match sites.is_empty() {
        true => Neighbour::Idle,
        false => Neighbour::Busy { port: *port, sites },
    }
}

/// What somebody has set up in nginx's folder, beside the site that its package brings.
fn sites(folder: &Path) -> Vec<String> {
    let names = |folder: &str, is_site: fn(&str) -> bool, below: &Path| {
        let entries = fs::read_dir(below.join(folder)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_site(name)).map(|name| format!("{folder}/{name}")).collect::<Vec<_>>()
    };
    let mut sites = names("sites-enabled", |name| name != "default", folder);
    sites.extend(names("conf.d", |name| name.ends_with(".conf"), folder));
    sites.sort();
    sites
}

/// Settings of which dpkg says (`--verify`, a `5` at the third place) that they are no longer as they were brought.
fn changed_settings(verified: &str) -> Vec<String> {
    let changed = verified.lines().filter(|line| line.chars().nth(2) == Some('5'));
    changed.filter_map(|line| line.split_once(" /etc/nginx/")).map(|(_, name)| name.to_owned()).collect()
}

/// Does what is due of these steps, or only tells it, one after the other; how many there were.
///
/// # Errors
/// What stands in the way; what was done by then stays.
pub fn carry_out(
    steps: &[Step],
    prefix: Option<&Path>,
    work: Work,
    tell: impl Fn(&str),
) -> Result<usize, InstallError> {
    let mut count = 0;
    for step in steps {
        if !is_due(step, prefix)? {
            continue;
        }
        count += 1;
        tell(&told(step, prefix));
        if work == Work::Do {
            perform(step, prefix)?;
        }
    }
    Ok(count)
}

/// Whether there is something to do.
fn is_due(step: &Step, prefix: Option<&Path>) -> Result<bool, InstallError> {
    Ok(match step {
        Step::Folder { path, .. } => !below(prefix, path).is_dir(),
        Step::File { path, text } => fs::read_to_string(below(prefix, path)).ok().as_deref() != Some(text),
        Step::Link { path, to } => fs::read_link(below(prefix, path)).ok().as_deref() != Some(to),
        Step::Program => !is_program(&below(prefix, Path::new(PROGRAM))),
        // The system is asked itself: an installation that was cut off may have told it nothing of its files.
        Step::Run { unless, .. } => prefix.is_none() && !holds(unless),
    })
}

fn holds(fact: &Fact) -> bool {
    let Ok(output) = Command::new(&fact.words[0]).args(&fact.words[1..]).output() else { return false };
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines = said.lines().filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some() && lines.all(|line| line == fact.says)
}

/// Whether a file is this very program.
fn is_program(path: &Path) -> bool {
    crate::hq::upgrade::process::is_own(path).unwrap_or(false)
}

/// What a step does, for a person.
fn told(step: &Step, prefix: Option<&Path>) -> String {
    match step {
        Step::Folder { path, .. } => format!("make {}", below(prefix, path).display()),
        Step::File { path, .. } => format!("write {}", below(prefix, path).display()),
        Step::Link { path, .. } => format!("make {}", below(prefix, path).display()),
        Step::Program => format!("copy this program to {}", below(prefix, Path::new(PROGRAM)).display()),
        Step::Run { words, .. } => format!("run {}", words.join(" ")),
    }
}

fn perform(step: &Step, prefix: Option<&Path>) -> Result<(), InstallError> {
    match step {
        Step::Folder { path, mode } => {
            let path = below(prefix, path);
            let made = fs::create_dir_all(&path);
            let made = made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode)));
            made.map_err(|source| InstallError::File { doing: "make", path, source })
        }
        Step::Link { path, to } => {
            let path = below(prefix, path);
            link(&path, to).map_err(|source| InstallError::File { doing: "make", path, source })
        }
        Step::File { path, text } => {
            let path = below(prefix, path);
            replace(&path, 0o644, |new| fs::write(new, text))
        }
        Step::Program => {
            let path = below(prefix, Path::new(PROGRAM));
            replace(&path, 0o755, |new| fs::copy("/proc/self/exe", new).map(drop))
        }
        Step::Run { words, .. } => run(words),
    }
}

fn replace(path: &Path, mode: u32, write: impl Fn(&Path) -> io::Result<()>) -> Result<(), InstallError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".quarry-new");
    let new = Path::new(&name);
    let done = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        write(new)?;
        fs::set_permissions(new, fs::Permissions::from_mode(mode))?;
        fs::File::open(new)?.sync_all()?;
        fs::rename(new, path)
    };
    done().map_err(|source| InstallError::File { doing: "write", path: path.to_owned(), source })
}

/// Makes a symbolic link, whatever was there.
fn link(path: &Path, to: &Path) -> io::Result<()> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    symlink(to, path)
}

fn run(words: &[String]) -> Result<(), InstallError> {
    let failed = |why: String| InstallError::Command { command: words.join(" "), why };
    let output = Command::new(&words[0]).args(&words[1..]).output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_that_was_cut_off_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("unit"), "[Unit]\n").unwrap();
        let words = |program: &str, name: &str| vec![program.to_owned(), file(name).to_str().unwrap().to_owned()];
        let started = Fact { words: words("ls", "started"), says: file("started").to_str().unwrap().to_owned() };
        // The files were all written, and then somebody pulled the plug.
        let steps = [
            Step::File { path: file("unit"), text: "[Unit]\n".to_owned() },
            Step::Run { words: words("touch", "started"), unless: started },
        ];
        let due = |prefix, work| carry_out(&steps, prefix, work, |_| {}).unwrap();
        assert_eq!(due(None, Work::Tell), 1);
        assert_eq!(due(None, Work::Do), 1);
        assert_eq!(due(None, Work::Do), 0);
        fs::remove_file(file("started")).unwrap();
        let image = tempfile::tempdir().unwrap();
        assert_eq!(due(Some(image.path()), Work::Do), 1, "the file, and nothing of the machine that makes the image");
        assert!(!file("started").exists());
    }

    #[test]
    fn a_fact_holds_where_every_line_says_so() {
        let check = |script: &str, expected: bool| {
            let words = ["sh", "-c", script].map(str::to_owned).to_vec();
            assert_eq!(holds(&Fact { words, says: "no".to_owned() }), expected, "{script}");
        };
        check("echo no; echo; echo no; exit 3", true);
        check("echo no; echo yes", false);
        check("exit 0", false);
        assert!(!holds(&Fact { words: vec!["/nothing/there".to_owned()], says: String::new() }));
    }

    #[test]
    fn what_somebody_has_set_up_in_nginx_is_told_from_what_its_package_brings() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["sites-enabled", "conf.d", "sites-available"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["sites-enabled/default", "sites-available/old", "conf.d/notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(sites(folder.path()), [""; 0]);
        fs::write(folder.path().join("sites-enabled/shop"), "").unwrap();
        fs::write(folder.path().join("conf.d/wiki.conf"), "").unwrap();
        assert_eq!(sites(folder.path()), ["conf.d/wiki.conf", "sites-enabled/shop"]);
        let verified = "??5?????? c /etc/nginx/sites-available/default\nmissing   c /etc/nginx/win-utf\n";
        assert_eq!(changed_settings(verified), ["sites-available/default"]);
    }
}
