//! What a person publishes (PROTOCOL section 9).

pub(crate) mod composer;
pub(crate) mod profiles;
pub(crate) mod stager;
pub(crate) mod succession;
pub(crate) mod tombstones;
