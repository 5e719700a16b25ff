//! What is looked at and streamed: passed on to the engine of its server in docker's own words. [`act`] passes it on.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::trouble::Trouble;
use crate::names::ServerName;

pub mod act;

/// A command inside a container, as clients name it: its server, a dot, and the id that the engine there gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecId {
    /// Where.
    pub server: ServerName,
    /// The engine's id.
    pub id: String,
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.server, self.id)
    }
}

impl FromStr for ExecId {
    type Err = Trouble;
    fn from_str(text: &str) -> Result<Self, Trouble> {
        let missing = || Trouble::missing("exec instance", text);
        let (server, id) = text.split_once('.').ok_or_else(missing)?;
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let server = server.parse().map_err(|_| missing())?;
        if is_id { Ok(Self { server, id: id.to_owned() }) } else { Err(missing()) }
    }
}

/// What may be said of a command inside a container.
const EXEC: [&str; 10] = [
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "ConsoleSize",
    "DetachKeys",
    "Tty",
    "Cmd",
    "Env",
    "WorkingDir",
    "User",
];

/// The description of a command inside a container as it goes to the engine.
///
/// # Errors
/// When it asks for rights that the container does not have.
pub fn exec(body: &Value) -> Result<Value, Trouble> {
    if body["Privileged"] == true {
        return Err(Trouble::bad("--privileged is not possible: containers get no rights over their server"));
    }
    let kept = body.as_object().into_iter().flatten().filter(|(key, _)| EXEC.contains(&key.as_str()));
    Ok(Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>()))
}

/// The longest line of an engine's events; what is longer is none.
const LONGEST: usize = 1 << 20;

/// Cuts chunks into lines.
#[derive(Debug, Default)]
pub struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// The lines that are whole now.
    pub fn add(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            if self.open.len() + piece.len() <= LONGEST {
                self.open.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                whole.push(std::mem::take(&mut self.open));
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_inside_is_found_by_its_server_and_id() {
        let id: ExecId = "s1.0aff".parse().unwrap();
        assert_eq!((id.server.as_str(), id.id.as_str(), id.to_string().as_str()), ("s1", "0aff", "s1.0aff"));
        for wrong in ["", "0aff", "s1.", "s1.x/../y", "S1.0a", "s1.0a?b=1"] {
            assert!(wrong.parse::<ExecId>().is_err_and(|trouble| trouble.status == 404), "{wrong}");
        }
    }

    #[test]
    fn a_command_inside_gets_no_more_rights_than_its_container_has() {
        assert!(exec(&json!({ "Cmd": ["sh"], "Privileged": true })).is_err_and(|trouble| trouble.status == 400));
        let kept = exec(&json!({ "Cmd": ["sh"], "Tty": true, "Privileged": false, "Container": "x" })).unwrap();
        assert_eq!(kept, json!({ "Cmd": ["sh"], "Tty": true }));
    }

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let text = b"{\"a\":1}\n{\"b\":2}\n{";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let whole: Vec<Vec<u8>> = text.chunks(size).flat_map(|chunk| lines.add(chunk)).collect();
            assert_eq!(whole, [b"{\"a\":1}\n".to_vec(), b"{\"b\":2}\n".to_vec()], "{size}");
        }
    }
}
