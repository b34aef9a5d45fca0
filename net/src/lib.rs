//! QUIC transport of a distsoc node (PROTOCOL section 5): carries out the network half of
//! [`distsoc_engine::io::Effect`] and answers with [`distsoc_engine::io::Input`].
//!
//! It decides no policy: whom to dial, who stays connected and what a peer's misconduct costs is for the rules to say. What
//! it enforces is in the packet table: sizes, rates, exchanges in flight; and in [`limits`] here: how many handshakes, how
//! many bytes wait.

mod accept;
mod addresses;
mod endpoint;
mod event_loop;
pub mod limits;
mod link;
mod meter;
mod one_port;
mod outgoing;
mod responses;
pub mod runtime;
mod streams;
mod tls;

pub use endpoint::{Endpoint, EndpointConfig, Fault, LinkStats};
pub use meter::TrafficRow;
