//! The tables of PROTOCOL section 12. Keys are big-endian, so that their order is the order of what they mean.

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, WithoutTls};

/// The layout that this program writes.
pub const SCHEMA_VERSION: u32 = 2;

/// A table of bytes; [`crate::rows`] says what they are.
pub(crate) type Raw = Database<'static, Bytes, Bytes>;
/// The environment: read transactions may move between threads.
pub(crate) type Lmdb = Env<WithoutTls>;

/// A table and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in LMDB.
    pub name: &'static str,
    /// Key → value.
    pub holds: &'static str,
    /// Whether this version writes it; the others keep their names free.
    pub used: bool,
}

macro_rules! tables {
    (used { $($field:ident: $holds:literal;)* } declared { $($later:ident: $later_holds:literal;)* }) => {
        /// The open tables of this version, one field each.
        #[derive(Clone, Copy)]
        pub(crate) struct Tables {
            $(#[doc = $holds] pub(crate) $field: Raw,)*
        }

        /// Every table of PROTOCOL section 12.
        pub const TABLES: &[Table] = &[
            $(Table { name: stringify!($field), holds: $holds, used: true },)*
            $(Table { name: stringify!($later), holds: $later_holds, used: false },)*
        ];

        impl Tables {
            /// Opens the tables, making those that are not there.
            pub(crate) fn open(env: &Lmdb) -> heed::Result<Self> {
                Ok(Self { $($field: open_one(env, stringify!($field))?,)* })
            }

            /// Each of them.
            pub(crate) fn all(&self) -> impl Iterator<Item = Raw> {
                [$(self.$field,)*].into_iter()
            }

            /// Bytes that they take, in whole pages.
            pub(crate) fn used_bytes(&self, env: &Lmdb, txn: &heed::RoTxn<'_>) -> heed::Result<u64> {
                let mut bytes = env.unnamed_database_stat().non_free_page_size();
                for table in self.all() {
                    bytes += table.stat(txn)?.non_free_page_size();
                }
                Ok(bytes as u64)
            }
        }
    };
}

tables! {
    used {
        meta: "name → value: `schema` (u32), `node` (32 bytes), `budget` (u64) where the person set one";
        posts: "PostId → head, which ends with the blobs that the post names ‖ body";
        feed: "created_at ms u64 ‖ PostId → author: every stored post in the order of time";
        author_recent_posts: "author → length of head u16 ‖ signed head ‖ packed list";
        checked: "author → checked_at ms u64";
        profiles: "person → signed profile";
        relationships: "person → [followed since ms, hosted since ms, place]";
        peers: "NodeId → [last up ms, is anchor, addresses]";
        discovery_map: "generation u32 ‖ chunk u32 → a piece of the map's snapshot, or of its journal where the first bit of the chunk is set";
        hearts: "PostId ‖ person → seq u64 ‖ given u8 ‖ signed heart";
        tombstones: "author ‖ PostId → signed deletion";
        equivocations: "author → length of head u16 ‖ one signed head ‖ another with the same number";
        stored_files: "PostId → 1 where the person pinned it";
    }
    declared {
        social_routes: "target → cached route";
        blobs: "blob hash ‖ slice u32 → proof ‖ bytes, in environments of their own";
        circles: "name → members";
        search: "n-gram → roaring bitmap of posts";
    }
}

pub(crate) fn open_one(env: &Lmdb, name: &str) -> heed::Result<Raw> {
    let txn = env.write_txn()?;
    let opened = env.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
        Ok(CommitOrAbort::<_, ()>::Commit(
            opener.create_database::<Bytes, Bytes>(txn, Some(name))?,
        ))
    })?;
    Ok(opened.unwrap_commit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_protocol_has_a_place() {
        let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let of_protocol = [
            "discovery_map",
            "stored_files",
            "author_recent_posts",
            "social_routes",
            "peers",
            "posts",
            "blobs",
            "profiles",
            "relationships",
            "hearts",
            "tombstones",
            "circles",
            "feed",
            "search",
            "meta",
        ];
        assert!(of_protocol.iter().all(|name| names.contains(name)));
    }
}
