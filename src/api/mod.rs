//! The HTTP api: what people do over SSH, for programs.
//!
//! Every endpoint is a command ([`endpoints`]): its words go through the same [`crate::hq::door::Door`], so that rights,
//! events and what comes of it are the same. [`http`] speaks HTTP, [`act`] joins the two, [`openapi`] describes it all.

pub mod act;
pub mod endpoints;
pub mod files;
pub mod http;
pub mod openapi;
pub mod pages;
pub mod query;
pub mod running;
mod schemas;
pub mod streams;
mod table;
pub mod trouble;
