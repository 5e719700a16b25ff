//! How servers are heard, told to one HQ as its connections and their agents would tell it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use quarry::hq::Hq;
use quarry::hq::agents::Voice;
use quarry::hq::fleet::presence::{Presence, Signs};
use tokio::time::{Instant, sleep};

use super::World;
use super::machine::Reach;

/// Tells an HQ of all its servers.
pub async fn tell(world: Arc<World>, hq: Arc<Hq>) {
    let lease = hq.settings.lease.duration();
    let mut silent: BTreeMap<IpAddr, Instant> = BTreeMap::new();
    let mut known: BTreeMap<IpAddr, Presence> = BTreeMap::new();
    loop {
        for (server, member) in hq.members() {
            let machine = world.machine_at(member.ground.address).filter(|_| server != *hq.engines().here());
            let Some(machine) = machine else { continue };
            let since = match machine.reach() {
                Reach::Up | Reach::Stalled => {
                    silent.remove(&machine.address);
                    None
                }
                Reach::Away | Reach::Heard => {
                    Some(silent.entry(machine.address).or_insert_with(Instant::now).elapsed())
                }
            };
            let told = match (machine.reach(), since) {
                (Reach::Away, Some(silent)) if silent >= lease => Voice::Gone,
                (Reach::Away, Some(_)) => Voice::Suspect,
                _ => Voice::Up,
            };
            hq.note_signs(&server, Signs { silent: since, told: Some(told) });
            let now = hq.presence(&server);
            let before = known.insert(machine.address, now);
            if before.is_some_and(|before| before != now) {
                world.note(|| format!("HQ takes {server} for {now:?}"));
            }
            match (before, now) {
                (_, Presence::Gone) => machine.set_lost(true),
                (Some(Presence::Gone | Presence::Returning), Presence::Up) => machine.set_lost(false),
                _ => {}
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}
