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
}

/// Makes the group that the builds of `name` run in.
///
/// # Errors
/// When the system does not let its limits be set.
pub fn group(around: &Surroundings, builder: Builder, name: &str, most: Most) -> io::Result<Group> {
    match (around.cgroup_driver.as_str(), builder) {
        ("systemd", Builder::Classic) => slice(name, most),
        ("systemd", Builder::BuildKit) => Err(io::Error::other("BuildKit's groups are systemd's here")),
        (_, Builder::Classic) => {
            let name = format!("quarry-build-{name}");
            let made = folders(Path::new(GROUPS), &name, most)?;
            Ok(Group { parent: Some(format!("/{name}")), made })
        }
        // It is the engine's, and stays.
        (_, Builder::BuildKit) => {
            folders(Path::new(GROUPS), BUILDKIT, most).map(|_| Group { parent: None, made: Vec::new() })
        }
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
    Ok(Group { parent: Some(unit), made: Vec::new() })
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
    let memory = most.memory.map(|memory| memory.bytes().to_string());
    let processes = most.processes.map_or_else(|| "max".to_owned(), |processes| processes.to_string());
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
}
