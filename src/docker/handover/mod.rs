//! A container's streams, handed to it past the engine.
//!
//! What goes through docker's own streams is copied by containerd's shim and once more by dockerd, which costs more
//! than all the rest of a pipe through HQ. A container of the runtime [`RUNTIME`] has pipes of whoever is attached
//! instead, and no byte passes the engine. That runtime is this program in the place of runc: where a container is made,
//! it asks at a socket that has the container's id for a name, gets the ends of three pipes, and becomes runc, which
//! gives the streams that it has to the container.
//!
//! `install` makes the runtime known to docker. An engine that does not know it, or runs its containers in a way of its
//! own, and one of another server pass the streams on themselves.

pub mod process;
pub mod socket;

/// What docker calls the runtime.
pub const RUNTIME: &str = "quarry";

/// The runtime that everything else is left to.
pub const RUNC: &str = "runc";

/// The name under which this program is that runtime.
pub const PROGRAM: &str = "quarry-runc";

/// Where the sockets are.
pub const FOLDER: &str = "/run/quarry/streams";
