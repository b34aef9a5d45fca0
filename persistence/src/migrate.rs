//! Schema versions: an older layout is brought up to date in one transaction, a newer one is refused.

use crate::environment::Environment;
use crate::fault::Fault;
use crate::rows::{self, PostRow};
use crate::tables::{Raw, SCHEMA_VERSION, Tables};
use distsoc_engine::domain::NodeId;
use std::path::Path;

/// Brings the layout from its version to the next.
type Migration = fn(&mut heed::RwTxn<'_>, &Tables, NodeId) -> heed::Result<()>;

/// `MIGRATIONS[n]` leads from version `n + 1` to `n + 2`.
const MIGRATIONS: &[Migration] = &[name_blobs_and_hosted];

const SCHEMA: &[u8] = b"schema";
const NODE: &[u8] = b"node";

/// Checks version and owner of a database, and brings it up to date; a new one is claimed.
pub(crate) fn check(tables: &Environment<Tables>, own: NodeId, dir: &Path) -> Result<(), Fault> {
    let checked = check_against(tables, own, dir, MIGRATIONS, SCHEMA_VERSION);
    if !matches!(checked, Err(Fault::Budget { .. })) {
        return checked;
    }
    // What is rewritten takes its room once more until it is committed; afterwards the file is brought into its share.
    let room = 2 * tables.map_bytes().max(tables.file_bytes());
    tables
        .resize(room)
        .map_err(|error| Fault::lmdb(dir, error))?;
    check_against(tables, own, dir, MIGRATIONS, SCHEMA_VERSION)
}

fn check_against(
    tables: &Environment<Tables>,
    own: NodeId,
    dir: &Path,
    migrations: &[Migration],
    known: u32,
) -> Result<(), Fault> {
    let fault = |error| Fault::lmdb(dir, error);
    let opened = tables.get().map_err(fault)?;
    let tables = opened.handles();
    let mut txn = opened.env().write_txn().map_err(fault)?;
    let version = tables
        .meta
        .get(&txn, SCHEMA)
        .map_err(fault)?
        .map(<[u8]>::to_vec);
    let Some(version) = version else {
        tables
            .meta
            .put(&mut txn, SCHEMA, &known.to_be_bytes())
            .map_err(fault)?;
        tables
            .meta
            .put(&mut txn, NODE, own.as_bytes())
            .map_err(fault)?;
        return txn.commit().map_err(fault);
    };
    let found = version
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| Fault::Corrupt { table: "meta" })?;
    if found > known {
        return Err(Fault::NewerSchema { found, known });
    }
    let owner = tables.meta.get(&txn, NODE).map_err(fault)?;
    let owner = owner
        .and_then(rows::node_of)
        .ok_or(Fault::Corrupt { table: "meta" })?;
    if owner != own {
        return Err(Fault::OtherIdentity {
            dir: dir.into(),
            found: owner.to_string(),
        });
    }
    if found == known {
        return Ok(());
    }
    for migration in migrations.iter().skip(found.saturating_sub(1) as usize) {
        migration(&mut txn, &tables, own).map_err(fault)?;
    }
    tables
        .meta
        .put(&mut txn, SCHEMA, &known.to_be_bytes())
        .map_err(fault)?;
    txn.commit().map_err(fault)
}

fn keys_of(txn: &heed::RwTxn<'_>, table: Raw) -> heed::Result<Vec<Vec<u8>>> {
    let rows = table.iter(txn)?;
    rows.map(|row| row.map(|(key, _)| key.to_vec())).collect()
}

fn damaged(table: &'static str) -> heed::Error {
    heed::Error::Decoding(format!("a row of the table '{table}'").into())
}

/// 1 → 2: the head of a post's row names its blobs, so that a start decodes no bodies; a relationship says who is hosted. Posts of
/// others that do not decode can be had again, so they go.
fn name_blobs_and_hosted(
    txn: &mut heed::RwTxn<'_>,
    tables: &Tables,
    own: NodeId,
) -> heed::Result<()> {
    for key in keys_of(txn, tables.posts)? {
        let row = tables.posts.get(txn, &key)?.unwrap_or_default().to_vec();
        let head = PostRow::decode_of_1(&row);
        let body = head.as_ref().and_then(|head| head.bytes().decode().ok());
        match (head, body) {
            (Some(head), Some(body)) => {
                let row = head.encode_with(&body.blobs);
                tables.posts.put(txn, &key, &row)?;
            }
            (head, _) => {
                if head.as_ref().is_none_or(|head| head.author == own) {
                    return Err(damaged("posts"));
                }
                tables.posts.delete(txn, &key)?;
                if let (Some(head), Some(id)) = (head, rows::post_id_of(&key)) {
                    let key = rows::feed_key(head.created_at_ms, &id);
                    tables.feed.delete(txn, &key)?;
                }
            }
        }
    }
    for key in keys_of(txn, tables.relationships)? {
        let row = tables.relationships.get(txn, &key)?.unwrap_or_default();
        // For a while, the new form was written without a new number.
        if rows::decode_relationship(row).is_some() {
            continue;
        }
        let relationship =
            rows::decode_relationship_of_1(row).ok_or_else(|| damaged("relationships"))?;
        let row = rows::encode_relationship(&relationship);
        tables.relationships.put(txn, &key, &row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::TABLES;
    use distsoc_engine::crypto::Secret;
    use distsoc_engine::domain::{
        BlobHash, BlobRef, Content, PostBody, PostText, PublicContent, SignedPost,
    };
    use distsoc_engine::wire::codec::{self, Bounded};

    fn open(dir: &Path) -> Environment<Tables> {
        Environment::open(dir, 1 << 24, TABLES.len() as u32, Tables::open).unwrap()
    }

    fn get(tables: &Environment<Tables>, table: Raw, key: &[u8]) -> Option<Vec<u8>> {
        let opened = tables.get().unwrap();
        let txn = opened.env().read_txn().unwrap();
        table.get(&txn, key).unwrap().map(<[u8]>::to_vec)
    }

    fn put(tables: &Environment<Tables>, rows: &[(Raw, Vec<u8>, Vec<u8>)]) {
        let opened = tables.get().unwrap();
        let mut txn = opened.env().write_txn().unwrap();
        for (table, key, value) in rows {
            table.put(&mut txn, key, value).unwrap();
        }
        txn.commit().unwrap();
    }

    #[test]
    fn older_is_migrated_newer_refused_and_anothers_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tables = open(dir.path());
        let meta = tables.get().unwrap().handles().meta;
        let own = NodeId::from_bytes([1; 32]);
        let check_with = |own, migrations: &[Migration], known| {
            check_against(&tables, own, dir.path(), migrations, known)
        };
        check_with(own, &[], 1).unwrap();
        check_with(own, &[], 1).unwrap();
        let add_row: Migration = |txn, tables, _| tables.meta.put(txn, b"migrated", b"yes");
        check_with(own, &[add_row], 2).unwrap();
        assert_eq!(get(&tables, meta, b"migrated"), Some(b"yes".to_vec()));

        let newer = check_with(own, &[], 1);
        assert!(
            matches!(newer, Err(Fault::NewerSchema { found: 2, known: 1 })),
            "{newer:?}"
        );
        let other = check_with(NodeId::from_bytes([2; 32]), &[add_row], 2);
        assert!(
            matches!(other, Err(Fault::OtherIdentity { .. })),
            "{other:?}"
        );
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tables = open(dir.path());
        let meta = tables.get().unwrap().handles().meta;
        let own = NodeId::from_bytes([1; 32]);
        check_against(&tables, own, dir.path(), &[], 1).unwrap();
        let fails: Migration = |txn, tables, _| {
            tables.meta.put(txn, b"half", b"done")?;
            Err(heed::Error::Mdb(heed::MdbError::MapFull))
        };
        assert!(check_against(&tables, own, dir.path(), &[fails], 2).is_err());
        assert_eq!(get(&tables, meta, b"half"), None);
        check_against(&tables, own, dir.path(), &[], 1).unwrap();
    }

    fn post_with_blobs(author: &Secret, blobs: &[BlobRef]) -> SignedPost {
        let content = PublicContent {
            text: PostText::new("a text").unwrap(),
            parent: None,
            descriptions: Bounded::default(),
        };
        let body = PostBody {
            author: author.node_id(),
            created_at_ms: 5_000,
            content: Content::Public(content),
            blobs: Bounded::new(blobs.to_vec()).unwrap(),
        };
        SignedPost::sign(body, author).unwrap()
    }

    /// The row of schema 1: the head without blobs.
    fn row_of_1(post: &SignedPost) -> Vec<u8> {
        let mut row = post.body().created_at_ms.to_be_bytes().to_vec();
        row.extend(post.body().author.as_bytes());
        row.extend(9u64.to_be_bytes());
        row.extend(post.bytes().signature.as_bytes());
        row.extend(&*post.bytes().body);
        row
    }

    #[test]
    fn from_1_to_2_posts_name_their_blobs_and_relationships_who_is_hosted() {
        let dir = tempfile::tempdir().unwrap();
        let tables = open(dir.path());
        let handles = tables.get().unwrap().handles();
        let (own, other) = (Secret::from_seed(&[1; 32]), Secret::from_seed(&[2; 32]));
        check_against(&tables, own.node_id(), dir.path(), &[], 1).unwrap();
        let blobs = [3, 4].map(|seed| BlobRef {
            hash: BlobHash::from_bytes([seed; 32]),
            length: u64::from(seed) * 1_000,
        });
        let posts = [
            post_with_blobs(&own, &blobs),
            post_with_blobs(&own, &[]),
            post_with_blobs(&other, &blobs[1..]),
        ];
        let mut written: Vec<(Raw, Vec<u8>, Vec<u8>)> = Vec::new();
        for post in &posts {
            let id = post.id().as_bytes().to_vec();
            written.push((handles.posts, id, row_of_1(post)));
        }
        let broken = post_with_blobs(&other, &blobs);
        let mut row = row_of_1(&broken);
        row.truncate(row.len() - 1);
        let feed_key = rows::feed_key(5_000, &broken.id()).to_vec();
        let author = other.node_id().as_bytes().to_vec();
        written.push((handles.posts, broken.id().as_bytes().to_vec(), row));
        written.push((handles.feed, feed_key.clone(), author.clone()));
        let followed = codec::encode(&(Some(77u64), None::<u64>));
        written.push((handles.relationships, author.clone(), followed));
        let newer = codec::encode(&(None::<u64>, Some(78u64), None::<u64>));
        written.push((handles.relationships, vec![9; 32], newer));
        put(&tables, &written);

        check(&tables, own.node_id(), dir.path()).unwrap();
        for post in &posts {
            let row = get(&tables, handles.posts, post.id().as_bytes()).unwrap();
            assert_eq!(row, PostRow::encode(post, 9));
            let file = PostRow::decode(&row).unwrap().file(post.id(), false);
            assert_eq!(file, distsoc_engine::io::StoredFileRow::of(post));
        }
        assert_eq!(get(&tables, handles.posts, broken.id().as_bytes()), None);
        assert_eq!(get(&tables, handles.feed, &feed_key), None);
        let relationship = |key: &[u8]| {
            let row = get(&tables, handles.relationships, key).unwrap();
            rows::decode_relationship(&row).unwrap()
        };
        assert_eq!(relationship(&author).followed_since_ms, Some(77));
        assert_eq!(relationship(&[9; 32]).hosted_since_ms, Some(78));
        let schema = get(&tables, handles.meta, SCHEMA).unwrap();
        assert_eq!(schema, SCHEMA_VERSION.to_be_bytes());
    }

    #[test]
    fn an_own_post_that_is_damaged_stops_the_migration() {
        let dir = tempfile::tempdir().unwrap();
        let tables = open(dir.path());
        let handles = tables.get().unwrap().handles();
        let own = Secret::from_seed(&[1; 32]);
        check_against(&tables, own.node_id(), dir.path(), &[], 1).unwrap();
        let post = post_with_blobs(&own, &[]);
        let mut row = row_of_1(&post);
        row.truncate(row.len() - 1);
        put(
            &tables,
            &[(handles.posts, post.id().as_bytes().to_vec(), row.clone())],
        );
        let checked = check(&tables, own.node_id(), dir.path());
        assert!(matches!(checked, Err(Fault::Foreign { .. })), "{checked:?}");
        assert_eq!(get(&tables, handles.posts, post.id().as_bytes()), Some(row));
    }
}
