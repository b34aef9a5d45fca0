//! What a node needs from its disk before its first frame. A row of others that is damaged is left out, since it can be learned
//! again; an own one stops the start.

use crate::disk::Disk;
use crate::fault::Fault;
use crate::rows::{self, HeartRow, PostRow};
use crate::tables::{Raw, Tables};
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::io::{MapRow, Restored, StoredFileRow};
use distsoc_engine::limits;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Reading<'a> = heed::RoTxn<'a, heed::WithoutTls>;

/// A transaction over the tables of one folder.
struct Loader<'a> {
    txn: &'a Reading<'a>,
    tables: Tables,
    own: NodeId,
    dir: &'a Path,
}

impl Loader<'_> {
    fn fault(&self, error: heed::Error) -> Fault {
        Fault::lmdb(self.dir, error)
    }

    /// Decodes every row of a table; of those that are damaged, any that `is_own` says is one's own is a fault.
    fn all<T>(
        &self,
        table: Raw,
        name: &'static str,
        decode: impl Fn(&[u8], &[u8]) -> Option<T>,
        is_own: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<Vec<T>, Fault> {
        let rows = table.iter(self.txn).map_err(|error| self.fault(error))?;
        let mut all = Vec::new();
        for row in rows {
            let (key, value) = row.map_err(|error| self.fault(error))?;
            match decode(key, value) {
                Some(one) => all.push(one),
                None if is_own(key, value) => return Err(Fault::Corrupt { table: name }),
                None => {}
            }
        }
        Ok(all)
    }

    /// Whether a key is the own id.
    fn names_self(&self, key: &[u8]) -> bool {
        key == self.own.as_bytes()
    }

    fn files(&self) -> Result<Vec<StoredFileRow>, Fault> {
        let table = self.tables.stored_files;
        let pins = self.all(
            table,
            "stored_files",
            |key, _| rows::post_id_of(key),
            |_, _| true,
        )?;
        let pins: BTreeSet<PostId> = pins.into_iter().collect();
        self.all(
            self.tables.posts,
            "posts",
            |key, row| {
                let id = rows::post_id_of(key)?;
                Some(PostRow::decode(row)?.file(id, pins.contains(&id)))
            },
            |_, row| rows::author_of_post(row).is_none_or(|author| author == self.own),
        )
    }

    /// The map's rows, unread: it can be learned again, so what is in them is no fault of the folder. Keys that are none are left
    /// out.
    fn map_rows(&self) -> Result<Vec<MapRow>, Fault> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        // The newest first, where there are more than are read.
        let newest_first = self.tables.discovery_map.rev_iter(self.txn);
        for row in newest_first.map_err(|error| self.fault(error))? {
            let (key, value) = row.map_err(|error| self.fault(error))?;
            bytes += value.len();
            if bytes > limits::MAP_STORED_BYTES_MAX {
                break;
            }
            rows.extend(rows::decode_map_row(key, value));
        }
        rows.reverse();
        Ok(rows)
    }

    fn own_row(&self, table: Raw) -> Result<Option<&[u8]>, Fault> {
        let row = table.get(self.txn, self.own.as_bytes());
        row.map_err(|error| self.fault(error))
    }

    /// Everything that lies in tables.
    fn restored(&self) -> Result<Restored, Fault> {
        let tables = &self.tables;
        let number = |key: &[u8], row: &[u8]| Some((rows::node_of(key)?, rows::number_of(row)?));
        let checked = self.all(tables.checked, "checked", number, |_, _| false)?;
        let checked: BTreeMap<NodeId, u64> = checked.into_iter().collect();
        let authors = self.all(
            tables.author_recent_posts,
            "author_recent_posts",
            |_, row| {
                let (head, _) = rows::decode_list_head(row)?;
                let checked_at_ms = checked.get(&head.author).copied().unwrap_or_default();
                Some((head, checked_at_ms))
            },
            |key, _| self.names_self(key),
        )?;
        let mut good_peers = self.all(
            tables.peers,
            "peers",
            |key, row| rows::decode_peer(rows::node_of(key)?, row),
            |_, _| false,
        )?;
        good_peers.sort_by_key(|peer| std::cmp::Reverse(peer.last_up_ms));
        good_peers.truncate(limits::GOOD_PEERS_MAX);
        let profiles = self.all(
            tables.profiles,
            "profiles",
            |_, row| rows::decode_profile(row),
            |key, _| self.names_self(key),
        )?;
        let (own_profile, profiles): (Vec<_>, Vec<_>) = profiles
            .into_iter()
            .partition(|profile| profile.author == self.own);
        let own_list = match self.own_row(tables.author_recent_posts)? {
            Some(row) => Some(rows::decode_list(row).ok_or(Fault::Corrupt {
                table: "author_recent_posts",
            })?),
            None => None,
        };
        let own_second = |key: &[u8], _: &[u8]| {
            rows::pair_of(key).is_some_and(|(_, second)| second == *self.own.as_bytes())
        };
        let own_first = |key: &[u8], _: &[u8]| key.starts_with(self.own.as_bytes());
        Ok(Restored {
            relationships: self.all(
                tables.relationships,
                "relationships",
                |key, row| Some((rows::node_of(key)?, rows::decode_relationship(row)?)),
                |_, _| true,
            )?,
            equivocal: self.all(
                tables.equivocations,
                "equivocations",
                |key, _| rows::node_of(key),
                |_, _| false,
            )?,
            authors: authors
                .into_iter()
                .filter(|(head, _)| head.author != self.own)
                .collect(),
            files: self.files()?,
            hearts: self.all(
                tables.hearts,
                "hearts",
                |key, row| {
                    let (heart, hash) = HeartRow::decode(row)?.stored()?;
                    let ids = (*heart.post.as_bytes(), *heart.person.as_bytes());
                    (rows::pair_of(key)? == ids).then_some((heart, hash))
                },
                own_second,
            )?,
            deletions: self.all(
                tables.tombstones,
                "tombstones",
                |key, _| {
                    let (author, post) = rows::pair_of(key)?;
                    Some((NodeId::from_bytes(author), PostId::from_bytes(post)))
                },
                own_first,
            )?,
            good_peers,
            own_list,
            own_profile: own_profile.into_iter().next(),
            profiles,
            map: self.map_rows()?,
            ..Restored::default()
        })
    }
}

pub(crate) fn restore(disk: &Disk, own: NodeId, dir: &Path) -> Result<Restored, Fault> {
    let fault = |error| Fault::lmdb(dir, error);
    let opened = disk.tables.get().map_err(fault)?;
    let txn = opened.env().read_txn().map_err(fault)?;
    let loader = Loader {
        txn: &txn,
        tables: opened.handles(),
        own,
        dir,
    };
    let restored = loader.restored()?;
    drop(txn);
    drop(opened);
    Ok(Restored {
        blobs: disk.blobs.stored(),
        usage: disk.usage().map_err(fault)?,
        ..restored
    })
}
