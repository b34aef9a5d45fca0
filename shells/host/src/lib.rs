//! The production loop: transport, disk and clock around one [`Node`](distsoc_engine::node::Node).
//!
//! It ticks when something came in or when the node asked to be woken, never by polling, carries out effects in order, and
//! answers pages of posts from the disk beside the node. No rule of the protocol is here.

mod blobs;
mod fault;
mod host;
mod loop_task;
pub mod media;
mod random;
mod traffic;

pub use blobs::PART_BYTES_MAX;
pub use fault::Fault;
pub use host::{Host, HostConfig, remembered_port};
pub use random::random;
pub use traffic::DayTraffic;
