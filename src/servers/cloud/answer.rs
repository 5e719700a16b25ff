//! What a cloud's program is told and what it says: one JSON value each way.
//!
//! ```text
//! create   {"owner":"0123abcd","token":"0123abcd-auto1-1763747123","name":"auto1","size":2048,"tags":["ssd"],
//!           "key":"ssh-ed25519 AAAA…"}                                                        a machine
//! list     {"owner":"0123abcd"}                                             {"machines":[a machine, …]}
//! destroy  {"id":"i-0abc","token":"0123abcd-auto1-1763747123"}                          nothing that counts
//!
//! a machine: {"id":"i-0abc","token":"…","state":"creating"|"running"|"stopping",
//!             "address":"10.0.0.7","host_key":"SHA256:…","size":2048}      the last three when they are known
//! ```

use serde::Deserialize;

use super::{BadId, Machine, MachineId, MachineState, Token};
use crate::servers::record::BadAddress;
use crate::servers::ssh::{Address, HostKey};
use crate::units::Megabytes;

/// A machine as a program writes it. What else it says of it is its own business.
#[derive(Debug, Deserialize)]
struct Told {
    id: Id,
    token: String,
    state: MachineState,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    host_key: Option<String>,
    #[serde(default)]
    size: Option<Megabytes>,
}

/// Some clouds have numbers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

#[derive(Debug, Deserialize)]
struct List {
    machines: Vec<Told>,
}

/// An answer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    /// It is no JSON of that shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A token or id.
    #[error(transparent)]
    Id(#[from] BadId),
    /// An address.
    #[error(transparent)]
    Address(#[from] BadAddress),
}

/// The machine that `create` answers with.
///
/// # Errors
/// What is wrong with the answer.
pub fn machine(text: &[u8]) -> Result<Machine, BadAnswer> {
    serde_json::from_slice::<Told>(text)?.checked()
}

/// The machines that `list` answers with, by id.
///
/// # Errors
/// What is wrong with the first that is: half a list would look as if machines had gone.
pub fn machines(text: &[u8]) -> Result<Vec<Machine>, BadAnswer> {
    let told: List = serde_json::from_slice(text)?;
    let mut machines = told.machines.into_iter().map(Told::checked).collect::<Result<Vec<_>, _>>()?;
    machines.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(machines)
}

impl Told {
    fn checked(self) -> Result<Machine, BadAnswer> {
        let id: MachineId = match self.id {
            Id::Text(text) => text.parse()?,
            Id::Number(number) => number.to_string().parse()?,
        };
        let token: Token = self.token.parse()?;
        let address = self.address.filter(|text| !text.is_empty()).map(|text| place(&text)).transpose()?;
        let host_key = self.host_key.filter(|text| !text.is_empty()).map(|text| fingerprint(&text));
        Ok(Machine { id, token, state: self.state, address, host_key, size: self.size.filter(|size| size.0 > 0) })
    }
}

/// `10.0.0.7`, which means root there, or `USER@ADDRESS[:PORT]`.
fn place(text: &str) -> Result<Address, BadAddress> {
    if text.contains('@') { text.parse() } else { format!("root@{text}").parse() }
}

/// A fingerprint, also of a whole public key.
fn fingerprint(text: &str) -> String {
    text.trim().parse().map_or_else(|_| text.trim().to_owned(), |key: HostKey| key.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_with_as_much_as_is_known_of_it() {
        let young = machine(br#"{"id":"i-1","token":"a-b-1","state":"creating","address":"","zone":"eu"}"#).unwrap();
        assert_eq!((young.state, young.address, young.size), (MachineState::Creating, None, None));
        let ready =
            br#"{"id":17,"token":"a-b-1","state":"running","address":"10.0.0.7","host_key":"SHA256:x","size":2048}"#;
        let ready = machine(ready).unwrap();
        assert_eq!((ready.id.to_string(), ready.size), ("17".to_owned(), Some(Megabytes(2048))));
        assert_eq!(ready.address.unwrap().to_string(), "root@10.0.0.7");
        assert_eq!(ready.host_key.as_deref(), Some("SHA256:x"));
        let other = br#"{"id":"i","token":"t","state":"running","address":"debian@[fd00::7]:2222"}"#;
        assert_eq!(machine(other).unwrap().address.unwrap().to_string(), "debian@[fd00::7]:2222");
    }

    #[test]
    fn a_whole_host_key_is_as_good_as_its_fingerprint() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        let text = format!(r#"{{"id":"i","token":"t","state":"running","host_key":"{key} root@a"}}"#);
        let machine = machine(text.as_bytes()).unwrap();
        assert_eq!(machine.host_key, Some(key.parse::<HostKey>().unwrap().fingerprint()));
    }

    #[test]
    fn one_bad_machine_spoils_the_list() {
        let good = r#"{"id":"b","token":"t","state":"running"},{"id":"a","token":"t","state":"stopping"}"#;
        let list = machines(format!(r#"{{"machines":[{good}]}}"#).as_bytes()).unwrap();
        assert_eq!(list.iter().map(|machine| machine.id.to_string()).collect::<Vec<_>>(), ["a", "b"]);
        for bad in [
            r#"{"id":"-x","token":"t","state":"running"}"#,
            r#"{"id":"x","token":"t","state":"asleep"}"#,
            r#"{"id":"x","token":"t","state":"running","address":"-o@h"}"#,
            r#"{"id":"x","state":"running"}"#,
        ] {
            assert!(machines(format!(r#"{{"machines":[{good},{bad}]}}"#).as_bytes()).is_err(), "{bad}");
        }
        assert!(machines(b"").is_err() && machines(b"[]").is_err());
    }
}
