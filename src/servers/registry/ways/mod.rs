//! The ways from servers' own loopbacks to HQ's registry: a gate each, and the port that leads to it; see [`act`].

pub(super) mod act;
