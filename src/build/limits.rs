//! What builds may take of the machine: control groups around them, and the disk beneath.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::docker::{Builder, Surroundings};
use crate::units::Megabytes;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// Where engines put what BuildKit runs; they take no other group for it.
const BUILDKIT: &str = "docker/buildkit";
/// Where they put it when groups are systemd's: in a group for each step beside their own service, `<slice>:docker:<id>`
/// by name. The `cgroupparent` of a request they pass to the classic builder alone (moby, `builder/builder-next`), and
/// the `:` is BuildKit's, whose runc takes the three words for one (moby issue 45796).
const SERVICE: &str = "system.slice/docker.service";
/// What is in the names of those groups.
const STEP: &str = ":docker:";

/// What one build may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Memory of all its processes; no limit when absent.
    pub memory: Option<Megabytes>,
    /// Its processes and threads; no limit when absent.
    pub processes: Option<u32>,
}

/// A control group for builds.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// What the engine is told; nothing where it takes no other group than its own.
    pub parent: Option<String>,
    /// Its folders, which go with it.
    made: Vec<PathBuf>,
    /// Groups of the engine's that have to be limited as they come.
    pub steps: Option<Steps>,
}

/// The groups that an engine makes for the steps of builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    /// Where it makes them.
    folder: PathBuf,
    most: Most,
}

/// Makes the group that the builds of `name` run in.
///
/// # Errors
/// When the system does not let its limits be set.
pub fn group(around: &Surroundings, builder: Builder, name: &str, most: Most) -> io::Result<Group> {
    match (around.cgroup_driver.as_str(), builder) {
        ("systemd", Builder::Classic) => slice(name, most),
        ("systemd", Builder::BuildKit) => {
            let steps = Steps::below(Path::new(GROUPS), most)?;
            Ok(Group { parent: None, made: Vec::new(), steps: Some(steps) })
        }
        (_, Builder::Classic) => {
            let name = format!("quarry-build-{name}");
            let made = folders(Path::new(GROUPS), &name, most)?;
            Ok(Group { parent: Some(format!("/{name}")), made, steps: None })
        }
        // It is the engine's, and stays.
        (_, Builder::BuildKit) => {
            folders(Path::new(GROUPS), BUILDKIT, most).map(|_| Group { parent: None, made: Vec::new(), steps: None })
        }
    }
}

/// Why builds by BuildKit have no limits here, if they have none.
pub fn unlimited(around: &Surroundings) -> Option<String> {
    let most = Most { memory: None, processes: None };
    let is_systemd = around.cgroup_driver == "systemd";
    is_systemd.then(|| Steps::below(Path::new(GROUPS), most).err()).flatten().map(|error| error.to_string())
}

impl Steps {
    /// Those of the engine that is a service of systemd's.
    ///
    /// # Errors
    /// The engine is another service's, or nothing is limited beside it.
    fn below(groups: &Path, most: Most) -> io::Result<Self> {
        let service = groups.join(SERVICE);
        let folder = service.parent().unwrap_or(groups).to_owned();
        let enabled = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
        let is_enabled = |wanted: &&str| enabled.split_whitespace().any(|word| word == *wanted);
        if !service.is_dir() || !["memory", "pids"].iter().all(is_enabled) {
            let what = format!("docker's control groups are systemd's, and not beside {SERVICE} of version 2");
            return Err(io::Error::other(what));
        }
        Ok(Self { folder, most })
    }

    /// Limits those that run. Whose build each is part of cannot be told: the limits are everybody's.
    pub fn bound(&self) {
        let (memory, processes) = self.most.words();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(STEP) {
                // A step that is over needs no limit, and its group has gone.
                let _ = fs::write(entry.path().join("pids.max"), &processes);
                let _ = fs::write(entry.path().join("memory.max"), memory.as_deref().unwrap_or("max"));
                let _ = fs::write(entry.path().join("memory.swap.max"), "0");
            }
        }
    }
}

impl Most {
    /// As control groups read it: bytes, unless there is no limit, and a number or `max`.
    fn words(self) -> (Option<String>, String) {
        let memory = self.memory.map(|memory| memory.bytes().to_string());
        (memory, self.processes.map_or_else(|| "max".to_owned(), |processes| processes.to_string()))
    }
}

/// A slice of systemd's. It goes when nothing runs in it any more.
fn slice(name: &str, most: Most) -> io::Result<Group> {
    let unit = format!("quarrybuild{name}.slice");
    systemctl(&["start", &unit])?;
    let memory = most.memory.map_or_else(|| "infinity".to_owned(), |memory| memory.bytes().to_string());
    let processes = most.processes.map_or_else(|| "infinity".to_owned(), |processes| processes.to_string());
    let limits = [format!("TasksMax={processes}"), format!("MemoryMax={memory}"), "MemorySwapMax=0".to_owned()];
    systemctl(&["set-property", "--runtime", &unit, &limits[0], &limits[1], &limits[2]])?;
    Ok(Group { parent: Some(unit), made: Vec::new(), steps: None })
}

fn systemctl(words: &[&str]) -> io::Result<()> {
    let done = Command::new("systemctl").args(words).output()?;
    match done.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned())),
    }
}

/// The group's folder, or folders: before version 2 each controller had a tree of its own.
fn folders(root: &Path, name: &str, most: Most) -> io::Result<Vec<PathBuf>> {
    let (memory, processes) = most.words();
    if root.join("cgroup.controllers").exists() {
        let folder = root.join(name);
        fs::create_dir_all(&folder)?;
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
            fs::write(above.join("cgroup.subtree_control"), "+pids +memory")?;
        }
        fs::write(folder.join("pids.max"), &processes)?;
        fs::write(folder.join("memory.max"), memory.as_deref().unwrap_or("max"))?;
        // Not every kernel counts swap.
        let _ = fs::write(folder.join("memory.swap.max"), "0");
        return Ok(vec![folder]);
    }
    let (pids, limited) = (root.join("pids").join(name), root.join("memory").join(name));
    fs::create_dir_all(&pids)?;
    fs::write(pids.join("pids.max"), &processes)?;
    fs::create_dir_all(&limited)?;
    // Newer kernels always count what is below.
    let _ = fs::write(limited.join("memory.use_hierarchy"), "1");
    fs::write(limited.join("memory.limit_in_bytes"), memory.as_deref().unwrap_or("-1"))?;
    Ok(vec![pids, limited])
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.made {
            // Another build of the same stack may still be in it, or the engine about to leave it.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The bytes that are free on the disk that holds a folder; nothing where it cannot be asked.
pub fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { memory: Some(Megabytes(64)), processes: Some(100) };

    fn text(root: &Path, path: &str) -> String {
        fs::read_to_string(root.join(path)).unwrap()
    }

    #[test]
    fn both_versions_of_control_groups_get_their_limits() {
        let one = tempfile::tempdir().unwrap();
        folders(one.path(), "quarry-build-blog", MOST).unwrap();
        assert_eq!(text(one.path(), "pids/quarry-build-blog/pids.max"), "100");
        assert_eq!(text(one.path(), "memory/quarry-build-blog/memory.limit_in_bytes"), (64 << 20).to_string());

        let two = tempfile::tempdir().unwrap();
        fs::write(two.path().join("cgroup.controllers"), "memory pids").unwrap();
        folders(two.path(), "docker/buildkit", Most { memory: None, ..MOST }).unwrap();
        assert_eq!(text(two.path(), "cgroup.subtree_control"), "+pids +memory");
        assert_eq!(text(two.path(), "docker/cgroup.subtree_control"), "+pids +memory");
        assert_eq!(text(two.path(), "docker/buildkit/pids.max"), "100");
        assert_eq!(text(two.path(), "docker/buildkit/memory.max"), "max");
    }

    #[test]
    fn the_steps_of_buildkit_are_limited_where_systemd_has_the_groups_and_containers_are_not() {
        let groups = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::create_dir_all(groups.path().join("system.slice").join(name)).unwrap();
        assert!(Steps::below(groups.path(), MOST).is_err());
        make("docker.service");
        assert!(Steps::below(groups.path(), MOST).is_err(), "version 1, or nothing counts there");
        fs::write(groups.path().join("system.slice/cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        let steps = Steps::below(groups.path(), MOST).unwrap();
        make("docker-0123.scope");
        make("system.slice:docker:x1y2");
        steps.bound();
        assert_eq!(text(groups.path(), "system.slice/system.slice:docker:x1y2/pids.max"), "100");
        assert_eq!(text(groups.path(), "system.slice/system.slice:docker:x1y2/memory.max"), (64 << 20).to_string());
        for other in ["docker-0123.scope", "docker.service"] {
            assert!(!groups.path().join("system.slice").join(other).join("pids.max").exists(), "{other}");
        }
    }
}
