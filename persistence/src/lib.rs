//! The disk of a distsoc node (PROTOCOL section 12): an LMDB environment of typed tables, twelve of blobs, one writer thread.
//!
//! It holds no rule of the protocol: what a batch means was decided before it came here. What always holds: a batch of rows is
//! stored whole or not at all, in the order it came, and of one of slices each is; [`Input::Persisted`](distsoc_engine::io::Input::Persisted)
//! is said only after the commits are on the disk; a read sees every row handed out before it, and every slice that was said to be
//! there; kill −9 at any instant needs no repair; no file passes its share of the budget, so all of them never pass it together.

mod answer;
mod apply;
mod blobs;
mod budget;
mod disk;
mod environment;
mod fault;
mod group;
mod load;
mod migrate;
mod prefix;
mod rows;
pub mod secret;
mod slice_reader;
mod store;
mod tables;
mod view;
mod writer;

pub use blobs::{Blobs, SHELVES};
pub use budget::BUDGET_BYTES_MIN;
pub use fault::Fault;
pub use prefix::IdPrefix;
pub use store::{Store, StoreConfig, is_in_use};
pub use tables::{SCHEMA_VERSION, TABLES, Table};
pub use view::{FeedCursor, FeedEntry, FeedPage, View};
