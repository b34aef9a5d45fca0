//! Layer 2, where content is (PROTOCOL section 7).

pub(crate) mod intake;
pub(crate) mod recent_posts;
pub(crate) mod server;
