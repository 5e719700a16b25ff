//! The etcd that HQ makes on its servers for its own state. [`plan`] says what is to be done next, [`change`] does
//! it, [`house`] is what a serving HQ has in hand of its own home, [`files`] are the settings that say where that is.

use std::path::PathBuf;

use crate::db::DbError;
use crate::db::copy::CopyError;
use crate::names::ServerName;
use crate::servers::authority::AuthorityError;
use crate::servers::etcd::circle::CircleError;
use crate::servers::etcd::process::MemberError;
use crate::servers::member::{Health, Seat, Voice};

pub mod act;
pub mod change;
pub mod files;
pub mod house;
pub mod plan;

/// Why there is no such cluster, or the state is not in it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// An even one is no safer than the odd one below it.
    #[error("an etcd has 1, 3 or 5 members and not {0}: of 2 or 4 no more may be lost than of 1 or 3")]
    Count(usize),
    /// A server is one member.
    #[error("`{0}` is named twice")]
    Twice(ServerName),
    /// HQ's own.
    #[error("`{0}` is HQ's own machine, which the state is to outlive; name servers that were added")]
    Own(ServerName),
    /// Somebody else's etcd.
    #[error("HQ's state is in an etcd that somebody else has made ({place}), who also adds its members")]
    Foreign {
        /// Where that is.
        place: String,
    },
    /// A file of the settings.
    #[error("cannot {doing} {}", path.display())]
    Settings {
        /// `read` or `write`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The settings cannot be used.
    #[error(transparent)]
    Etc(#[from] crate::etc::EtcError),
    /// The authority.
    #[error("cannot use the authority of etcd's certificates in {}", path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: AuthorityError,
    },
    /// The members.
    #[error(transparent)]
    Circle(#[from] CircleError),
    /// A server.
    #[error("cannot see to etcd on `{server}`; bring it back, or name another server instead")]
    Member {
        /// Which.
        server: ServerName,
        /// Why.
        source: Box<MemberError>,
    },
    /// It was started.
    #[error("etcd on `{server}` does not come up: {why}")]
    Silent {
        /// Where.
        server: ServerName,
        /// What was heard of it.
        why: String,
    },
    /// The data are on none of the servers.
    #[error("etcd does not answer at {place}, and none of these servers has its data; name those that have")]
    Lost {
        /// Where it should be.
        place: String,
    },
    /// It has been a home already.
    #[error(
        "the etcd on these servers holds a state that an HQ has worked with, and this HQ's own is in files; `quarry db \
         copy` decides which of them counts"
    )]
    Inhabited,
    /// What was found there cannot be read.
    #[error("cannot look into the new etcd; the state stays where it is")]
    Look(#[source] DbError),
    /// The copy.
    #[error("cannot copy the state into etcd; it stays where it is")]
    Copy(#[source] CopyError),
    /// A step does not lead on.
    #[error("etcd does not come to rest; look at `cluster`, then try again")]
    Restless,
    /// It cannot leave.
    #[error(
        "`{server}` is a member of the etcd with HQ's state; name the servers that are to have it instead, such as \
         `cluster etcd {others}`, then remove it"
    )]
    IsMember {
        /// Which.
        server: ServerName,
        /// The others, as words of a command.
        others: String,
    },
}

/// Where the state lives, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// `files` or `etcd`.
    pub home: &'static str,
    /// The folder, or the addresses.
    pub place: String,
    /// The members of the etcd.
    pub members: Vec<ShownMember>,
}

/// A member as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ShownMember {
    /// Its server, or its own name where it is on none of HQ's.
    pub server: String,
    /// Where it answers.
    pub address: String,
    /// `healthy`, `learning` or `away`.
    pub state: &'static str,
    /// Whether it leads.
    pub leader: bool,
    /// Its version.
    pub version: Option<String>,
    /// What its data take on the disk, in bytes.
    pub bytes: Option<u64>,
    /// Why it is away.
    pub why: Option<String>,
}

impl ShownMember {
    /// A seat under the name that its server has.
    pub fn of(seat: &Seat, server: String, address: String) -> Self {
        let (leader, version, bytes, why) = match seat.health.clone() {
            Health::Healthy { leads, version, bytes } => (leads, Some(version), Some(bytes), None),
            Health::Away { why } => (false, None, None, Some(why)),
        };
        let state = match (&why, seat.voice) {
            (Some(_), _) => "away",
            (None, Voice::Learner) => "learning",
            (None, Voice::Voter) => "healthy",
        };
        Self { server, address, state, leader, version, bytes, why }
    }
}

/// The servers that are to be members instead, as words of a command: as many others as an odd number allows.
pub fn instead(others: &[String]) -> String {
    let count = if others.len() >= 3 { 3 } else { 1 };
    let mut words: Vec<&str> = others.iter().take(count).map(String::as_str).collect();
    if words.is_empty() {
        words.push("ANOTHER-SERVER");
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_an_odd_number_of_servers() {
        let check = |others: &[&str], expected: &str| {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            assert_eq!(instead(&others), expected);
        };
        check(&[], "ANOTHER-SERVER");
        check(&["s1", "s2"], "s1");
        check(&["s1", "s2", "s3", "s4"], "s1 s2 s3");
    }
}
