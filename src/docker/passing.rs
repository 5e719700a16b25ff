//! Requests in docker's own words, for those who speak them and nothing else.

use std::fmt;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::Pipe;

/// What a request does with what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Looks at it.
    Get,
    /// Changes it, or does something with it.
    Post,
}

impl Method {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// A request of docker's HTTP API. Whoever makes it has decided that it may be made: the engine obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What it does.
    pub method: Method,
    /// Path and query, without a version.
    pub target: String,
    /// JSON, or nothing.
    pub body: Bytes,
    /// Whether the connection is to become a process's streams.
    pub streams: bool,
}

impl Asked {
    /// A look at something.
    pub fn get(target: impl Into<String>) -> Self {
        Self { method: Method::Get, target: target.into(), body: Bytes::new(), streams: false }
    }

    /// Something to be done.
    pub fn post(target: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::Post, target: target.into(), body: body.into(), streams: false }
    }
}

/// The engine's answer.
#[derive(Debug)]
pub struct Answered {
    /// Its status; 101 where the connection has become streams.
    pub status: u16,
    /// What kind of content it has.
    pub kind: String,
    /// That.
    pub content: Content,
}

/// What an engine answers.
pub enum Content {
    /// As it comes.
    Body(BoxStream<'static, std::io::Result<Bytes>>),
    /// A process's streams, framed as docker frames them.
    Streams(Box<dyn Pipe>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Content::Body(_) => "Body",
            Content::Streams(_) => "Streams",
        })
    }
}
