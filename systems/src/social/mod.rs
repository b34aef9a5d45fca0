//! Layer 3, whom one follows (PROTOCOL section 8).

pub(crate) mod follow_puller;
pub(crate) mod follows;
