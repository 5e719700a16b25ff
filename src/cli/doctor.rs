//! `doctor`

use tokio::net::UnixStream;

use super::client;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::parts::Places;
use super::print::table;
use crate::docker::bollard::Docker;
use crate::hq::HqError;
use crate::hq::doctor::Finding;
use crate::hq::doctor::act::{examine_machine, examine_wall};

/// What is wrong with this HQ and its machine, each finding with the command that mends it
///
/// Docker, nginx, disk, clock, settings, secrets, ports, servers, certificates, domains, and whether everything runs that
/// should. Ends with 1 when there is something. Works without `serve` too.
#[derive(Debug, clap::Args)]
pub struct Doctor {}

const HEADER: [&str; 4] = ["SEVERITY", "ABOUT", "WHAT", "MENDED BY"];

impl Doctor {
    /// Runs the command.
    ///
    /// # Errors
    /// Code 1 when something is found.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let house = cx.hq.house().ok_or(HqError::Asleep)?;
        let mut found = examine_machine(&cx.hq.root, &house.etc, cx.hq.engines().local()).await;
        found.extend(cx.hq.examine().await);
        found.sort();
        if cx.out.json {
            cx.out.value(&found).await?;
        } else if found.is_empty() {
            cx.out.note("nothing is wrong").await?;
        } else {
            cx.out.table(&HEADER, &rows(&found)).await?;
        }
        verdict(&found)
    }
}

fn rows(found: &[Finding]) -> Vec<Vec<String>> {
    let row = |found: &Finding| {
        vec![found.severity.word().to_owned(), found.about.to_owned(), found.what.clone(), found.mend.clone()]
    };
    found.iter().map(row).collect()
}

fn verdict(found: &[Finding]) -> Result<(), Failure> {
    if found.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Mistake, "")) }
}

/// Asks the HQ that serves here; where none does, this process looks at the machine itself, whatever else is broken.
///
/// # Errors
/// Code 1 when something is found.
pub async fn on_this_machine(places: &Places, words: Vec<String>, json: bool) -> Result<u8, Failure> {
    if UnixStream::connect(places.socket()).await.is_ok() {
        return client::on_this_machine(places, words).await;
    }
    let systemd = std::path::Path::new("/run/systemd/system").is_dir();
    let mend = if systemd { "systemctl start quarry" } else { "quarry serve" };
    let mut found = vec![Finding::broken("hq", "no HQ serves here; what runs runs on, and nothing is healed", mend)];
    found.extend(examine_machine(&places.root, &places.etc, &Docker::local()).await);
    if let Ok(identity) = places.identity() {
        found.extend(examine_wall(&identity).await);
    }
    found.sort();
    let text = match json {
        true => serde_json::to_string_pretty(&found).unwrap_or_default(),
        false => table(&HEADER, &rows(&found), false),
    };
    // Whoever does not listen any more needs no answer.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{text}\n").as_bytes());
    Ok(Exit::Mistake as u8)
}
