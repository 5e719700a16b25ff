//! `cluster [show|etcd]`

use super::context::Context;
use super::failure::Failure;
use crate::hq::cluster::Shown;
use crate::hq::cluster::act::Outcome;
use crate::hq::door::Say;
use crate::names::ServerName;

/// Show where HQ's state lives, and keep it in an etcd on several servers
#[derive(Debug, clap::Args)]
pub struct Cluster {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show where HQ's state lives, and how the members of its etcd stand
    Show,
    /// Make these 1, 3 or 5 servers the members of HQ's etcd, and move its state there: cluster etcd s1 s2 s3
    Etcd {
        /// All that are to be members; who is one and is not named leaves
        #[arg(required = true)]
        servers: Vec<ServerName>,
    },
}

impl Cluster {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Etcd { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the servers cannot be made an etcd, or the state cannot be moved.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self.verb {
            None | Some(Verb::Show) => show(cx).await,
            Some(Verb::Etcd { servers }) => etcd(cx, servers).await,
        }
    }
}

async fn show(cx: &Context) -> Result<(), Failure> {
    let shown = cx.hq.show_cluster().await.map_err(crate::hq::HqError::from)?;
    if cx.out.json {
        return cx.out.value(&shown).await;
    }
    if shown.home == "files" {
        return cx.out.line(&format!("HQ's state is in the files below {}", shown.place)).await;
    }
    cx.out.line(&format!("HQ's state is in etcd at {}", shown.place)).await?;
    cx.out.table(&["MEMBER", "ADDRESS", "STATE", "ROLE", "VERSION", "SIZE"], &cells(&shown)).await?;
    for member in &shown.members {
        if let Some(why) = &member.why {
            cx.out.note(&format!("{} is away: {why}", member.server)).await?;
        }
    }
    Ok(())
}

fn cells(shown: &Shown) -> Vec<Vec<String>> {
    let row = |member: &crate::hq::cluster::ShownMember| {
        let role = match (member.state, member.leader) {
            ("healthy", true) => "leader",
            ("healthy", false) => "follower",
            _ => "",
        };
        let size = member.bytes.map_or_else(String::new, |bytes| format!("{}kb", bytes / 1024));
        let version = member.version.clone().unwrap_or_default();
        vec![member.server.clone(), member.address.clone(), member.state.to_owned(), role.to_owned(), version, size]
    };
    shown.members.iter().map(row).collect()
}

async fn etcd(cx: &Context, servers: Vec<ServerName>) -> Result<(), Failure> {
    let (hq, named) = (cx.hq.clone(), servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let make = move |say: Say| async move { hq.make_cluster(servers, &|line| say.line(line)).await };
    let outcome = cx.beside(make).await??;
    let text = match outcome {
        Outcome::Stayed => format!("HQ's state is in the etcd of {named}"),
        Outcome::Moved => format!(
            "HQ's state is in the etcd of {named}, and HQ begins anew with it; what runs runs on, and the files it was \
             in stay as they were at this moment"
        ),
    };
    cx.out.note(&text).await
}
