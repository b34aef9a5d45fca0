//! What a node knows while it runs: components and resources, a file per feature. Rules live in `distsoc-systems`.

pub mod addresses;
pub mod agenda;
pub mod authors;
pub mod blobs;
pub mod candidates;
pub mod copies;
pub mod deletions;
pub mod fetches;
pub mod files;
pub mod gossip;
pub mod hearts;
pub mod hints;
pub mod identity;
pub mod inbox;
pub mod keep_order;
pub mod keepers;
pub mod knowledge;
pub mod left_records;
pub mod map;
pub mod outbox;
pub mod pace;
pub mod peers;
pub mod searches;
pub mod slots;
pub mod storage;
pub mod wide;
