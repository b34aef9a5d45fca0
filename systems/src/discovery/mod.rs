//! Layer 1, where nodes are (PROTOCOL sections 4, 5, 6 and 11).

pub(crate) mod addresses;
pub(crate) mod bootstrap;
pub(crate) mod conduct;
pub(crate) mod dialler;
pub(crate) mod diff_applier;
pub(crate) mod diff_builder;
pub(crate) mod directory;
pub(crate) mod greeting;
pub(crate) mod hello;
pub(crate) mod left;
pub(crate) mod links;
pub(crate) mod liveness;
pub(crate) mod map;
pub(crate) mod map_keeper;
pub(crate) mod map_sync;
pub(crate) mod outer_map;
pub(crate) mod parting;
pub(crate) mod resolver;
pub(crate) mod slots;
pub(crate) mod visitor;
pub(crate) mod wide;
pub(crate) mod worm;
