//! What a write is in rows. Slices and blobs lie elsewhere: nothing is done for them here.

use crate::rows::{self, HeartRow, PostRow};
use crate::tables::{Raw, Tables};
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::io::{Relationship, Write};
use std::ops::Bound;

/// Whether a batch makes room: it may use what is kept back for that, and is tried again where the disk is full. A deletion may go
/// along with what it deletes, and so may one's own list that says so, of which an older version goes.
pub(crate) fn makes_room(writes: &[Write], own: &NodeId) -> bool {
    let forgets = |write: &Write| match write {
        Write::ForgetPost(_)
        | Write::ForgetBlob(_)
        | Write::ForgetAuthor(_)
        | Write::ForgetPeer(_)
        | Write::MapOnly { .. } => true,
        Write::Relationship { relationship, .. } => relationship.is_none(),
        Write::Pin { is_pinned, .. } => !is_pinned,
        _ => false,
    };
    let says_so = |write: &Write| match write {
        Write::Deletion(_) => true,
        Write::RecentPosts { head, .. } => head.author == *own,
        _ => false,
    };
    let belongs = |write: &Write| forgets(write) || says_so(write);
    writes.iter().any(forgets) && writes.iter().all(belongs)
}

/// Deletes every row whose key begins with this.
fn delete_below(txn: &mut heed::RwTxn<'_>, table: Raw, first: &[u8; 32]) -> heed::Result<()> {
    let from = rows::pair_key(first, &[0; 32]);
    let to = rows::pair_key(first, &[0xff; 32]);
    let all = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    table.delete_range(txn, &all).map(|_| ())
}

fn forget_post(txn: &mut heed::RwTxn<'_>, tables: &Tables, id: &PostId) -> heed::Result<()> {
    let row = tables.posts.get(txn, id.as_bytes())?;
    if let Some(row) = row.and_then(PostRow::decode) {
        let key = rows::feed_key(row.created_at_ms, id);
        tables.feed.delete(txn, &key)?;
    }
    tables.posts.delete(txn, id.as_bytes())?;
    tables.stored_files.delete(txn, id.as_bytes())?;
    delete_below(txn, tables.hearts, id.as_bytes())
}

fn set_relationship(
    txn: &mut heed::RwTxn<'_>,
    tables: &Tables,
    node: &NodeId,
    relationship: Option<&Relationship>,
) -> heed::Result<()> {
    let table = tables.relationships;
    match relationship {
        Some(relationship) => {
            let row = rows::encode_relationship(relationship);
            table.put(txn, node.as_bytes(), &row)
        }
        None => table.delete(txn, node.as_bytes()).map(|_| ()),
    }
}

/// Carries out one write.
pub(crate) fn apply(txn: &mut heed::RwTxn<'_>, tables: &Tables, write: &Write) -> heed::Result<()> {
    match write {
        Write::Post { post, arrived_ms } => {
            let (id, body) = (post.id(), post.body());
            let row = PostRow::encode(post, *arrived_ms);
            tables.posts.put(txn, id.as_bytes(), &row)?;
            let key = rows::feed_key(body.created_at_ms, &id);
            tables.feed.put(txn, &key, body.author.as_bytes())
        }
        Write::RecentPosts { head, list } => {
            let row = rows::encode_list(head, list);
            let table = tables.author_recent_posts;
            table.put(txn, head.author.as_bytes(), &row)
        }
        Write::Checked {
            author,
            checked_at_ms,
        } => {
            let row = checked_at_ms.to_be_bytes();
            tables.checked.put(txn, author.as_bytes(), &row)
        }
        Write::Profile(profile) => {
            let row = profile.to_bytes();
            tables.profiles.put(txn, profile.author.as_bytes(), &row)
        }
        Write::Relationship { node, relationship } => {
            set_relationship(txn, tables, node, relationship.as_ref())
        }
        Write::GoodPeer(peer) => {
            let row = rows::encode_peer(peer);
            tables.peers.put(txn, peer.node.as_bytes(), &row)
        }
        Write::ForgetPeer(node) => tables.peers.delete(txn, node.as_bytes()).map(|_| ()),
        Write::ForgetPost(id) => forget_post(txn, tables, id),
        Write::Heart(heart) => {
            let key = rows::pair_key(heart.post.as_bytes(), heart.person.as_bytes());
            tables.hearts.put(txn, &key, &HeartRow::encode(heart))
        }
        Write::Deletion(deletion) => {
            let key = rows::pair_key(deletion.author.as_bytes(), deletion.post.as_bytes());
            tables.tombstones.put(txn, &key, &deletion.to_bytes())
        }
        Write::Pin { post, is_pinned } => match is_pinned {
            true => tables.stored_files.put(txn, post.as_bytes(), &[1]),
            false => tables.stored_files.delete(txn, post.as_bytes()).map(|_| ()),
        },
        Write::Equivocation(heads) => {
            let author = heads[0].author;
            let row = rows::encode_heads(heads);
            tables.equivocations.put(txn, author.as_bytes(), &row)
        }
        Write::ForgetAuthor(author) => {
            let of_author = [
                tables.author_recent_posts,
                tables.checked,
                tables.profiles,
                tables.equivocations,
            ];
            for table in of_author {
                table.delete(txn, author.as_bytes())?;
            }
            delete_below(txn, tables.tombstones, author.as_bytes())
        }
        Write::MapRow(row) => {
            let key = rows::map_key(row.generation, row.chunk);
            tables.discovery_map.put(txn, &key, &row.bytes)
        }
        Write::MapOnly { generation } => {
            let first = rows::map_key(*generation, 0);
            let last = rows::map_key(*generation, u32::MAX);
            let before = (Bound::Unbounded, Bound::Excluded(&first[..]));
            let after = (Bound::Excluded(&last[..]), Bound::Unbounded);
            tables.discovery_map.delete_range(txn, &before)?;
            tables.discovery_map.delete_range(txn, &after).map(|_| ())
        }
        Write::Slice(_) | Write::ForgetBlob(_) => Ok(()),
    }
}
