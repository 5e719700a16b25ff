//! Where docker's own client lands: `docker -H ssh://quarry@HQ ps`, and the whole grid looks like one engine.
//!
//! The client runs `docker system dial-stdio` over SSH and speaks docker's HTTP API (version 1.41) over what that opens.
//! What only looks at a container, or streams to and from it, is passed on in docker's own words to the engine of its
//! server ([`streams`]), for whoever may; what changes something is a job ([`jobs`]), with the same rights and events as
//! the commands have. [`routes`] says which is which, [`create`] makes a job of a container's description and
//! [`refusals`] tells what a job cannot be. [`http`] speaks HTTP, [`act`] does.
//!
//! By [`tcp`] it comes in with a certificate, which is a token like those of the HTTP api: HQ knows its digest and whose it
//! is, and whoever removes the token revokes it. [`files`] has the authority, [`bundle`] what a person needs.
//!
//! Nothing is kept here between two requests: each comes on a connection of its own. A container's id is the one that its
//! engine gave it.

pub mod act;
pub mod bundle;
pub mod create;
pub mod files;
pub mod find;
pub mod http;
pub mod jobs;
pub mod query;
pub mod refusals;
pub mod routes;
pub mod shown;
pub mod streams;
pub mod tcp;
pub mod trouble;
