//! The pure core of a distsoc node.
//!
//! A node is a function of its inputs: [`node::Node::tick`] takes the time and what came in, and returns what
//! is to be sent, stored, dialled or shown. Nothing in this crate reads a clock, draws randomness from the
//! system, opens a socket or a file, or starts a thread; `clippy.toml` refuses the calls that would.
//!
//! The rules of the protocol are not here but in `distsoc-systems`; this crate holds what they work on: validated
//! [`domain`] values, [`crypto`], the [`wire`] format and the [`world`].

pub mod clock;
pub mod crypto;
pub mod domain;
pub mod entropy;
pub mod io;
pub mod limits;
pub mod node;
pub mod profile;
pub mod refusal;
pub mod schedule;
pub mod wire;
pub mod world;
