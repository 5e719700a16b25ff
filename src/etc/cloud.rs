//! `cloud/…`: where machines come from when the grid asks for some.

use std::path::PathBuf;

use crate::units::Millis;

/// A cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// The program that makes, lists and destroys machines.
    pub command: PathBuf,
    /// How long one call of it may take.
    pub timeout: Millis,
    /// How long a machine may take from the order until it is a server; a push waits that long for room.
    pub create_timeout: Millis,
}

/// Names of the settings in `cloud/`.
pub const KNOWN: [&str; 3] = ["command", "timeout", "create-timeout"];

/// No program of a cloud is faster.
const SHORTEST: Millis = Millis::seconds(1);

/// The files as far as they have been read.
#[derive(Debug, Default)]
pub struct Draft {
    command: Option<PathBuf>,
    timeout: Option<Millis>,
    create_timeout: Option<Millis>,
    /// There is some file.
    named: bool,
}

impl Draft {
    /// Takes the content of one file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        self.named = true;
        let value = text.trim();
        match name {
            "command" => self.command = Some(program(value)?),
            "timeout" => self.timeout = Some(time(value)?),
            "create-timeout" => self.create_timeout = Some(time(value)?),
            _ => return Err(format!("there is no setting `cloud/{name}`; there are cloud/{}", KNOWN.join(", cloud/"))),
        }
        Ok(())
    }

    /// The cloud all files make; none when there is no file.
    ///
    /// # Errors
    /// The file that is missing, and why it must be there.
    pub fn finish(self) -> Result<Option<Cloud>, (&'static str, String)> {
        let Some(command) = self.command else {
            let what = "it is missing: the absolute path of the program that makes machines";
            return if self.named { Err(("command", what.into())) } else { Ok(None) };
        };
        Ok(Some(Cloud {
            command,
            timeout: self.timeout.unwrap_or(Millis::seconds(60)),
            create_timeout: self.create_timeout.unwrap_or(Millis::seconds(15 * 60)),
        }))
    }
}

fn program(text: &str) -> Result<PathBuf, String> {
    let plain = text.starts_with('/') && !text.contains(char::is_control);
    let rule = "it is not the absolute path of a program; one that needs arguments stands in a script of two lines";
    plain.then(|| text.into()).ok_or_else(|| rule.into())
}

fn time(text: &str) -> Result<Millis, String> {
    match text.parse::<Millis>().map_err(|error| error.to_string())? {
        time if time >= SHORTEST => Ok(time),
        _ => Err(format!("`{text}` is too short: at least {SHORTEST}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(files: &[(&str, &str)]) -> Result<Option<Cloud>, String> {
        let mut draft = Draft::default();
        files.iter().try_for_each(|(name, text)| draft.set(name, text))?;
        draft.finish().map_err(|(name, what)| format!("{name}: {what}"))
    }

    #[test]
    fn a_cloud_is_a_program_and_two_times() {
        assert_eq!(made(&[]), Ok(None));
        let cloud = made(&[("command", "/usr/local/bin/my cloud\n")]).unwrap().unwrap();
        assert_eq!(cloud.command, PathBuf::from("/usr/local/bin/my cloud"));
        assert_eq!((cloud.timeout, cloud.create_timeout), (Millis(60_000), Millis(900_000)));
        let cloud = made(&[("command", "/c"), ("timeout", "5s"), ("create-timeout", "2m")]).unwrap().unwrap();
        assert_eq!((cloud.timeout, cloud.create_timeout), (Millis(5000), Millis(120_000)));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (files, expected) in [
            (&[("command", "my-cloud")][..], "absolute path"),
            (&[("command", "")], "absolute path"),
            (&[("timeout", "5s")], "command: it is missing"),
            (&[("timeout", "10ms")], "too short"),
            (&[("create-timeout", "soon")], "`soon` is not"),
            (&[("token", "x")], "there is no setting `cloud/token`; there are cloud/command, cloud/timeout"),
        ] {
            assert!(made(files).unwrap_err().contains(expected), "{files:?}");
        }
    }
}
