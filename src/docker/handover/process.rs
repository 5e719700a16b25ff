//! This program in the place of runc.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use jiff::Timestamp;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde_json::json;

use super::{FOLDER, PROGRAM, RUNC, socket};

/// Whether this program was called as the runtime.
pub fn is_meant(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(PROGRAM))
}

/// Does what containerd's shim asks of a runtime with these words.
pub fn run(words: &[OsString]) -> ExitCode {
    let Err(error) = become_runc(words);
    // This is where the shim looks for the reason, for docker to tell it.
    if let Some(log) = value(words, "--log") {
        let line = json!({ "level": "error", "msg": error.to_string(), "time": Timestamp::now().to_string() });
        let _ = std::fs::write(log, format!("{line}\n"));
    }
    eprintln!("{PROGRAM}: {error}");
    ExitCode::FAILURE
}

fn become_runc(words: &[OsString]) -> io::Result<Infallible> {
    if let Some(id) = made(words) {
        let [reads, prints, complains] = socket::fetch(Path::new(FOLDER), id).map_err(|error| {
            let why = format!("nobody hands its streams over any more ({error}); run the job again");
            io::Error::new(error.kind(), why)
        })?;
        dup2_stdin(reads)?;
        dup2_stdout(prints)?;
        dup2_stderr(complains)?;
    }
    let error = Command::new(RUNC).args(words).exec();
    Err(io::Error::new(error.kind(), format!("{PROGRAM} cannot become {RUNC}: {error}")))
}

/// The id of the container that is to be made, when that is what is asked.
fn made(words: &[OsString]) -> Option<&str> {
    let (id, rest) = words.split_last()?;
    let id = id.to_str().filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))?;
    rest.iter().any(|word| word == "create").then_some(id)
}

/// What follows an option.
fn value<'a>(words: &'a [OsString], option: &str) -> Option<&'a OsStr> {
    let place = words.iter().position(|word| word == option)?;
    words.get(place + 1).map(OsString::as_os_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_made_gets_streams() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let make = words("--root /r --log /l --log-format json create --bundle /b --pid-file /p 0123abcd");
        assert_eq!(made(&make), Some("0123abcd"));
        assert_eq!(value(&make, "--log"), Some(OsStr::new("/l")));
        assert_eq!(made(&words("--root /r --log /l start 0123abcd")), None);
        assert_eq!(made(&words("--root /r create ../x")), None);
        assert_eq!(made(&[]), None);
        assert!(is_meant(OsStr::new("/usr/local/bin/quarry-runc")) && !is_meant(OsStr::new("quarry")));
    }
}
