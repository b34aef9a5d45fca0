//! Layer 2, where content is (PROTOCOL section 7).

pub(crate) mod accounts;
pub(crate) mod calls;
pub(crate) mod chain;
pub(crate) mod eviction;
pub(crate) mod fetcher;
pub(crate) mod gaps;
pub(crate) mod hearts;
pub(crate) mod holders;
pub(crate) mod hosting;
pub(crate) mod intake;
pub(crate) mod proofs;
pub(crate) mod recent_posts;
pub(crate) mod server;
pub(crate) mod slice_server;
pub(crate) mod swarm;
