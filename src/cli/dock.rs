//! Opens HQ to docker's clients that come by TCP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::door::HqDoor;
use super::failure::{Exit, Failure};
use crate::dock::files::authority;
use crate::dock::tcp::{Tls, serve};
use crate::servers::authority::Whom;

/// Lets docker's clients in until `stop`, where a setting says so, with the authority in the settings' folder `etc`.
///
/// # Errors
/// When the address is taken, or the authority cannot be used.
pub async fn open(etc: &Path, door: Arc<HqDoor>, stop: CancellationToken) -> Result<(), Failure> {
    let Some(address) = door.settings().docker else { return Ok(()) };
    let refused = |error: &dyn std::error::Error| Failure::of(Exit::Refused, error);
    let now = door.hq().clock.now();
    let authority = authority(etc, now).map_err(|error| refused(&error))?;
    // A new one at each start: it is for the names that HQ has now.
    let own = authority.issue(&Whom::Engine(names(&door, address)), now).map_err(|error| refused(&error))?;
    let tls = Tls::new(&authority, &own).map_err(|why| {
        Failure::new(Exit::Refused, format!("cannot speak TLS with the authority in {}: {why}", etc.display()))
    })?;
    let listener = TcpListener::bind(address).await.map_err(|source| {
        let advice = "choose another in the setting docker-listen, or write `off` there";
        Failure::new(Exit::Refused, format!("cannot listen on {address} for docker's clients: {source}; {advice}"))
    })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "docker's clients are let in");
    let hq = door.hq();
    tokio::spawn(serve(listener, tls, (hq, door), stop));
    Ok(())
}

/// For whom HQ's certificate is.
fn names(door: &HqDoor, address: SocketAddr) -> Vec<String> {
    let settings = door.settings();
    let mut names: Vec<String> = settings.hostnames.iter().map(ToString::to_string).collect();
    let addresses = [Some(IpAddr::from(Ipv4Addr::LOCALHOST)), Some(address.ip()), settings.address];
    names.extend(addresses.into_iter().flatten().filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
    names.push("localhost".to_owned());
    names.sort();
    names.dedup();
    names
}
