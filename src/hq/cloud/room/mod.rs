//! Where an operation waits for room; see [`act`].

use std::collections::BTreeMap;

use super::rental::{Rental, Stage};
use super::{Trouble, Wants};
use crate::hq::servers::Listed;
use crate::names::ServerName;
use crate::units::Megabytes;

pub mod act;

/// A rented machine that is no server, as listings show servers.
pub fn listed(server: &ServerName, rental: &Rental, trouble: Option<&Trouble>) -> Listed {
    Listed {
        name: server.clone(),
        address: None,
        ip: None,
        hostname: rental.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: rental.stage.word(),
        from: "cloud",
        why: trouble.map(|trouble| trouble.why.clone()),
        size: rental.size,
        used: Megabytes(0),
        free: Megabytes(0),
        processors: 0,
        architecture: String::new(),
        tags: rental.tags.clone(),
        containers: Vec::new(),
        host_key: None,
    }
}

/// `3 containers (1536mb)`
pub fn described(wants: &Wants) -> String {
    let memory = Megabytes(wants.blocks.values().map(|block| block.size.0).sum());
    match wants.blocks.len() {
        1 => format!("1 container ({memory})"),
        count => format!("{count} containers ({memory})"),
    }
}

/// What a person who waits should know of the machines that come, one line each.
pub fn news(rentals: &BTreeMap<ServerName, Rental>, troubles: &BTreeMap<ServerName, Trouble>) -> Vec<String> {
    let line = |(server, rental): (&ServerName, &Rental)| {
        let state = match rental.stage {
            Stage::Ordered => "is ordered",
            Stage::Made => "is being created",
            Stage::Serving => "is up",
            Stage::Leaving | Stage::Ending | Stage::Ended => return None,
        };
        let trouble = troubles.get(server).filter(|_| rental.stage.is_coming());
        let why = trouble.map(|trouble| format!("; {}; trying again", trouble.why)).unwrap_or_default();
        Some(format!("{server} {state}{why}"))
    };
    rentals.iter().filter_map(line).collect()
}
