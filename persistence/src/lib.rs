//! The disk of a distsoc node (PROTOCOL section 12): one LMDB environment, typed tables, one writer thread.
//!
//! It holds no rule of the protocol: what a batch means was decided before it came here. What always holds: a batch is
//! stored whole or not at all, in the order it came; [`Input::Persisted`](distsoc_engine::io::Input::Persisted) is said only after the
//! commit is on the disk; a read sees every write handed out before it; kill −9 at any instant needs no repair.

mod blobs;
mod fault;
mod load;
mod migrate;
mod rows;
pub mod secret;
mod store;
mod tables;
mod view;
mod writer;

pub use blobs::{Blobs, SHELF_BYTES_MIN, SHELVES, StoredBlob};
pub use fault::Fault;
pub use store::{Store, StoreConfig, is_in_use};
pub use tables::{SCHEMA_VERSION, TABLES, Table};
pub use view::{FeedCursor, FeedEntry, FeedPage, View};
