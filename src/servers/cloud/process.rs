//! A cloud behind a program of the person's own: any provider's command line, wrapped in a few lines of script.
//!
//! The program is called with one word (`create`, `list` or `destroy`), gets JSON on standard input and answers with JSON
//! on standard output (see [`super::answer`]); an exit code other than 0 is a no, with the reason on standard error.
//! Nothing that comes from a stack or a cloud is ever an argument, and no shell is between.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::answer::{self, BadAnswer};
use super::{Cloud, CloudError, Machine, Order};
use crate::units::Millis;

/// The longest answer that is read, in bytes: some thousands of machines.
const LONGEST: u64 = 4_000_000;

/// A cloud's program.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    patience: Millis,
}

impl Program {
    /// The program at this path, each of whose calls may take so long.
    pub fn new(path: &Path, patience: Millis) -> Self {
        Self { path: path.to_owned(), patience }
    }

    async fn call(&self, verb: Verb, input: &[u8]) -> Result<Vec<u8>, CloudError> {
        let away = |source: std::io::Error| CloudError::Away {
            doing: verb.doing(),
            why: format!("{} cannot be run: {source}", self.path.display()),
        };
        let mut command = Command::new(&self.path);
        command.arg(verb.word()).current_dir("/").kill_on_drop(true).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(away)?;
        // What it has started goes with it, also when HQ gives up on this call altogether.
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let spoken = timeout(self.patience.duration(), converse(&mut child, input)).await;
        let (status, output, errors) = match spoken {
            Ok(spoken) => spoken.map_err(away)?,
            Err(_) => {
                drop(group);
                return Err(CloudError::Late { doing: verb.doing(), after: self.patience });
            }
        };
        if status.success() {
            return Ok(output);
        }
        let text = String::from_utf8_lossy(&errors);
        let last = text.trim().lines().next_back().map(|line| line.chars().filter(|c| !c.is_control()).collect());
        let why = last.filter(|line: &String| !line.is_empty()).unwrap_or_else(|| format!("{status}"));
        Err(CloudError::Refused { doing: verb.doing(), why })
    }
}

/// A group of processes that ends with this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nobody is left when it ended in order.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn converse(child: &mut Child, input: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let tell = async {
        if let Some(mut stdin) = stdin {
            // One that does not read what it is told may know all the same what to say.
            let _ = stdin.write_all(input).await;
        }
        Ok(())
    };
    let ((), output, errors) = tokio::try_join!(tell, read(stdout), read(stderr))?;
    Ok((child.wait().await?, output, errors))
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(LONGEST).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Create,
    List,
    Destroy,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::List => "list",
            Verb::Destroy => "destroy",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Verb::Create => "create a machine",
            Verb::List => "list the machines",
            Verb::Destroy => "destroy a machine",
        }
    }
}

fn understood<T>(verb: Verb, answer: Result<T, BadAnswer>) -> Result<T, CloudError> {
    answer.map_err(|error| CloudError::Nonsense { doing: verb.doing(), why: error.to_string() })
}

#[async_trait]
impl Cloud for Program {
    async fn create(&self, order: &Order) -> Result<Machine, CloudError> {
        let input = serde_json::to_vec(order).expect("an order has a JSON form");
        let machine = understood(Verb::Create, answer::machine(&self.call(Verb::Create, &input).await?))?;
        if machine.token != order.token {
            let why = format!("it made a machine for {} when asked for {}", machine.token, order.token);
            return Err(CloudError::Nonsense { doing: Verb::Create.doing(), why });
        }
        Ok(machine)
    }

    async fn list(&self, owner: &str) -> Result<Vec<Machine>, CloudError> {
        let input = serde_json::json!({ "owner": owner }).to_string();
        understood(Verb::List, answer::machines(&self.call(Verb::List, input.as_bytes()).await?))
    }

    async fn destroy(&self, machine: &Machine) -> Result<(), CloudError> {
        let input = serde_json::json!({ "id": machine.id, "token": machine.token }).to_string();
        self.call(Verb::Destroy, input.as_bytes()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    use super::*;

    /// A program with this text after its first line.
    fn program(folder: &tempfile::TempDir, text: &str) -> Program {
        let path = folder.path().join("cloud");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Program::new(&path, Millis::seconds(20))
    }

    fn order() -> Order {
        let name: crate::names::ServerName = "auto1".parse().unwrap();
        Order {
            owner: "0123abcd".into(),
            token: super::super::Token::new("0123abcd", &name, 7),
            name,
            size: crate::units::Megabytes(2048),
            tags: ["ssd".to_owned()].into(),
            key: "ssh-ed25519 AAAA".into(),
        }
    }

    #[tokio::test]
    async fn a_program_gets_one_word_and_one_value_and_answers_with_one() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"
[ "$#" = 1 ] || exit 9
cat > "$(dirname "$0")/$1.in"
[ "$1" = list ] || echo '{"id":"i-1","token":"0123abcd-auto1-7","state":"creating"}'
[ "$1" != list ] || echo '{"machines":[{"id":"i-1","token":"0123abcd-auto1-7","state":"running","address":"10.0.0.7"}]}'
"#;
        let cloud = program(&folder, script);
        let told = |verb: &str| std::fs::read_to_string(folder.path().join(format!("{verb}.in"))).unwrap();
        let made = cloud.create(&order()).await.unwrap();
        let expected = concat!(
            r#"{"owner":"0123abcd","token":"0123abcd-auto1-7","name":"auto1","size":2048,"tags":["ssd"],"#,
            r#""key":"ssh-ed25519 AAAA"}"#
        );
        assert_eq!(told("create"), expected);
        let listed = cloud.list("0123abcd").await.unwrap();
        assert_eq!((listed.len(), &listed[0].id), (1, &made.id));
        assert_eq!(told("list"), r#"{"owner":"0123abcd"}"#);
        cloud.destroy(&made).await.unwrap();
        assert_eq!(told("destroy"), r#"{"id":"i-1","token":"0123abcd-auto1-7"}"#);
    }

    #[tokio::test]
    async fn every_way_to_fail_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let refused = program(&folder, "echo trying >&2; echo 'quota of 5 reached' >&2; exit 3").list("a").await;
        assert_eq!(refused.unwrap_err().to_string(), "cannot list the machines: the cloud says: quota of 5 reached");
        let silent = program(&folder, "exit 3").list("a").await.unwrap_err();
        assert_eq!(silent.to_string(), "cannot list the machines: the cloud says: exit status: 3");
        let nonsense = program(&folder, "echo hello").list("a").await.unwrap_err();
        assert!(matches!(nonsense, CloudError::Nonsense { .. }), "{nonsense}");
        let another = r#"echo '{"id":"i-1","token":"another","state":"running"}'"#;
        let another = program(&folder, another).create(&order()).await.unwrap_err();
        assert!(another.to_string().ends_with("it made a machine for another when asked for 0123abcd-auto1-7"));
        let missing = Program::new(Path::new("/nowhere/cloud"), Millis::seconds(1)).list("a").await.unwrap_err();
        assert!(matches!(missing, CloudError::Away { .. }), "{missing}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_all_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let mut cloud = program(&folder, "sleep 1000 & echo $! > \"$(dirname \"$0\")/pid\"; wait");
        cloud.patience = Millis(1000);
        assert!(matches!(cloud.list("a").await.unwrap_err(), CloudError::Late { .. }));
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            stat.contains("(sleep)") && !stat.contains(") Z ")
        };
        while lives() {
            assert!(Instant::now() < deadline, "what the program started runs on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
