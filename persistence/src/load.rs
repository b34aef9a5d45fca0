//! What a node needs from its disk before its first frame.

use crate::fault::Fault;
use crate::rows::{self, PostRow};
use crate::tables::{Lmdb, Raw, Tables};
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{MapRow, Restored};
use distsoc_engine::limits;
use std::collections::BTreeMap;
use std::path::Path;

/// Decodes every row of a table.
fn all<T>(
    txn: &heed::RoTxn<'_, heed::WithoutTls>,
    table: Raw,
    name: &'static str,
    dir: &Path,
    decode: impl Fn(&[u8], &[u8]) -> Option<T>,
) -> Result<Vec<T>, Fault> {
    let rows = table.iter(txn).map_err(|error| Fault::lmdb(dir, error))?;
    rows.map(|row| {
        let (key, value) = row.map_err(|error| Fault::lmdb(dir, error))?;
        decode(key, value).ok_or(Fault::Corrupt { table: name })
    })
    .collect()
}

/// The map's rows, unread: it can be learned again, so what is in them is no fault of the folder. Keys that are none are left out.
fn map_rows(
    txn: &heed::RoTxn<'_, heed::WithoutTls>,
    table: Raw,
    dir: &Path,
) -> Result<Vec<MapRow>, Fault> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    // The newest first, where there are more than are read.
    for row in table
        .rev_iter(txn)
        .map_err(|error| Fault::lmdb(dir, error))?
    {
        let (key, value) = row.map_err(|error| Fault::lmdb(dir, error))?;
        bytes += value.len();
        if bytes > limits::MAP_STORED_BYTES_MAX {
            break;
        }
        rows.extend(rows::decode_map_row(key, value));
    }
    rows.reverse();
    Ok(rows)
}

pub(crate) fn restore(
    env: &Lmdb,
    tables: &Tables,
    own: NodeId,
    dir: &Path,
) -> Result<Restored, Fault> {
    let fault = |error| Fault::lmdb(dir, error);
    let txn = env.read_txn().map_err(fault)?;
    let checked: BTreeMap<NodeId, u64> = all(&txn, tables.checked, "checked", dir, |key, row| {
        Some((rows::node_of(key)?, rows::number_of(row)?))
    })?
    .into_iter()
    .collect();
    let authors = all(
        &txn,
        tables.author_recent_posts,
        "author_recent_posts",
        dir,
        |_, row| {
            let head = rows::decode_list_head(row)?;
            let checked_at_ms = checked.get(&head.author).copied().unwrap_or_default();
            Some((head, checked_at_ms))
        },
    )?;
    let mut good_peers = all(&txn, tables.peers, "peers", dir, |key, row| {
        rows::decode_peer(rows::node_of(key)?, row)
    })?;
    good_peers.sort_by_key(|peer| std::cmp::Reverse(peer.last_up_ms));
    good_peers.truncate(limits::GOOD_PEERS_MAX);
    let own_profile = match tables.profiles.get(&txn, own.as_bytes()).map_err(fault)? {
        Some(row) => Some(rows::decode_profile(row).ok_or(Fault::Corrupt { table: "profiles" })?),
        None => None,
    };
    let profiles = all(&txn, tables.profiles, "profiles", dir, |_, row| {
        rows::decode_profile(row)
    })?;
    let profiles = profiles
        .into_iter()
        .filter(|profile| profile.author != own)
        .collect();
    let own_list = match tables
        .author_recent_posts
        .get(&txn, own.as_bytes())
        .map_err(fault)?
    {
        Some(row) => {
            let list = rows::decode_list(row, None);
            Some(list.ok_or(Fault::Corrupt {
                table: "author_recent_posts",
            })?)
        }
        None => None,
    };
    Ok(Restored {
        relationships: all(
            &txn,
            tables.relationships,
            "relationships",
            dir,
            |key, row| Some((rows::node_of(key)?, rows::decode_relationship(row)?)),
        )?,
        authors: authors
            .into_iter()
            .filter(|(head, _)| head.author != own)
            .collect(),
        files: all(&txn, tables.posts, "posts", dir, |key, row| {
            Some(PostRow::decode(row)?.file(rows::post_id_of(key)?))
        })?,
        good_peers,
        own_list,
        own_profile,
        profiles,
        map: map_rows(&txn, tables.discovery_map, dir)?,
        ..Restored::default()
    })
}
