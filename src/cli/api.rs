//! Opens the HTTP api of an HQ that serves.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::door::HqDoor;
use super::failure::{Exit, Failure};
use crate::api::act;
use crate::api::files::tls;
use crate::api::http::serve;
use crate::etc::Api;
use crate::hq::upgrade::Traffic;

/// Lets programs in until `stop`, with certificates of the folders of settings and state.
///
/// # Errors
/// When the address is taken, or a certificate cannot be used.
pub async fn open(
    at: Api,
    (etc, root): (&Path, &Path),
    door: Arc<HqDoor>,
    traffic: Arc<Traffic>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let Api::At(address) = at else { return Ok(()) };
    let names = names(&door, address);
    let tls = tls(etc, root, address, names).map_err(|error| Failure::of(Exit::Refused, &error))?;
    let listener = TcpListener::bind(address).await.map_err(|source| {
        let advice = "choose another with --api or the setting api-listen, or write `off` there";
        Failure::new(Exit::Refused, format!("cannot listen on {address} for the HTTP api: {source}; {advice}"))
    })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, tls = tls.is_some(), "the api answers");
    tokio::spawn(stop.clone().run_until_cancelled_owned(door.hq().keep_outposts(address)));
    tokio::spawn(serve(listener, tls, act::Api::new(door, traffic), stop));
    Ok(())
}

/// For whom a certificate of HQ's own is.
fn names(door: &HqDoor, address: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = door.settings().hostnames.iter().map(ToString::to_string).collect();
    if !address.ip().is_unspecified() {
        names.push(address.ip().to_string());
    }
    names
}
