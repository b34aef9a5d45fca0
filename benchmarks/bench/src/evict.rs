//! Eviction (FIGURES, "Files"): one in a hundred of 40,000 files goes, a row and a small blob each, chosen by keep priority: rows of
//! the world despawned, rows and blobs of the disk deleted, durably; beside SQLite on the same rows.

use crate::folder;
use crate::keep::{files, window_sql};
use crate::measure::Figure;
use bevy_ecs::system::SystemState;
use bevy_ecs::world::World;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::Cut;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{BatchId, Durability, Input, StoredFileRow, Write};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::world::authors::AuthorIndex;
use distsoc_engine::world::blobs::BlobBook;
use distsoc_engine::world::copies::{Copies, Holder};
use distsoc_engine::world::files::{Archive, FileIndex};
use distsoc_engine::world::hearts::Hearts;
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::keep_order::KeepOrder;
use distsoc_persistence::{Store, StoreConfig};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

const BLOB_BYTES: usize = 1_024;
/// One in so many goes.
const SHARE: usize = 100;

/// The files: rows for the world, and what lies on the disk of each.
struct Files {
    rows: Vec<StoredFileRow>,
    copies: Vec<u8>,
    bodies: Vec<(Write, Write)>,
}

fn make() -> Files {
    let mut entropy = Entropy::from_seed([23; 32]);
    let now_s = (folder::wall_ms() / 1000) as u32;
    // A few authors whom nobody follows; a signature each post would be most of the time.
    let secrets: Vec<_> = (0..40).map(folder::secret).collect();
    let mut made = Files {
        rows: Vec::new(),
        copies: Vec::new(),
        bodies: Vec::new(),
    };
    for (number, file) in files(&mut entropy).into_iter().enumerate() {
        let bytes: Vec<u8> = (0..BLOB_BYTES / 32)
            .flat_map(|_| entropy.bytes32())
            .collect();
        let cut = Cut::new(&bytes).expect("a length within bounds");
        let secret = &secrets[number % secrets.len()];
        let written_s = now_s - (crate::keep::NOW_S - file.written_s);
        let text = format!("{number} {}", "x".repeat(300));
        let post = folder::post(secret, u64::from(written_s) * 1000, &text, &[cut.blob()]);
        let slice = cut.slices().next().expect("one slice");
        made.rows.push(StoredFileRow::of(&post));
        made.copies.push(file.copies);
        made.bodies
            .push((folder::store_post(&post), Write::Slice(slice)));
    }
    made
}

/// The world as far as files go.
fn world(made: &Files) -> World {
    let now = Now {
        mono_ms: 1,
        wall_ms: folder::wall_ms(),
    };
    let mut world = World::new();
    world.insert_resource(now);
    world.insert_resource(Identity::new(folder::secret(500)));
    world.insert_resource(FileIndex::default());
    world.insert_resource(KeepOrder::default());
    world.insert_resource(BlobBook::default());
    world.insert_resource(Hearts::default());
    world.insert_resource(AuthorIndex::default());
    let mut copies = Copies::default();
    for (row, count) in made.rows.iter().zip(&made.copies) {
        for holder in 0..*count {
            copies.saw(
                row.id,
                Holder::of(
                    folder::secret(holder.into()).node_id(),
                    [127, 0, 0, 1].into(),
                ),
                (now.wall_ms / 1000) as u32,
            );
        }
    }
    world.insert_resource(copies);
    let mut state = SystemState::<Archive>::new(&mut world);
    let mut archive = state.get_mut(&mut world).expect("every resource is there");
    made.rows.iter().for_each(|row| archive.add(row.clone()));
    state.apply(&mut world);
    world
}

/// The real store, with all rows and blobs.
fn store(dir: &Path, made: &Files) -> (Store, Receiver<Input>) {
    let own = folder::secret(500);
    let (told, tell) = channel();
    let config = StoreConfig {
        dir: dir.into(),
        own: own.node_id(),
        budget_bytes: NodeProfile::of(ProfileKind::Desktop).file_budget_bytes,
    };
    let deliver = move |input| drop(told.send(input));
    let (store, _) = Store::open(config, deliver).expect("a new folder");
    let mut batch = 0;
    let mut persist = |writes: Vec<Write>| {
        batch += 1;
        store.persist(BatchId(batch), writes, Durability::WriteBehind);
    };
    for some in made.bodies.chunks(512) {
        persist(some.iter().map(|(_, slice)| slice.clone()).collect());
        persist(some.iter().map(|(post, _)| post.clone()).collect());
    }
    wait_for(&tell, batch);
    (store, tell)
}

fn wait_for(tell: &Receiver<Input>, batch: u64) {
    loop {
        match tell.recv().expect("the store answers") {
            Input::Persisted(BatchId(done)) if done == batch => return,
            Input::PersistFailed(_, trouble) => panic!("a new disk has room: {trouble}"),
            _ => {}
        }
    }
}

fn sqlite(path: &Path, made: &Files) -> rusqlite::Connection {
    let mut connection = rusqlite::Connection::open(path).expect("a file");
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-262144; PRAGMA mmap_size=1073741824;
             CREATE TABLE files(id BLOB PRIMARY KEY, standing INTEGER, written INTEGER, hearted INTEGER, copies INTEGER,
             pinned INTEGER, bytes INTEGER, blob BLOB) WITHOUT ROWID;
             CREATE TABLE posts(id BLOB PRIMARY KEY, row BLOB) WITHOUT ROWID;
             CREATE TABLE feed(written INTEGER, id BLOB, author BLOB, PRIMARY KEY(written, id)) WITHOUT ROWID;
             CREATE TABLE blobs(hash BLOB PRIMARY KEY, bytes BLOB) WITHOUT ROWID;",
        )
        .expect("SQL");
    let transaction = connection.transaction().expect("SQL");
    {
        let prepare = |sql| transaction.prepare(sql).expect("SQL");
        let mut file = prepare("INSERT INTO files VALUES(?, 1, ?, 0, ?, 0, ?, ?)");
        let mut post = prepare("INSERT INTO posts VALUES(?, ?)");
        let mut feed = prepare("INSERT INTO feed VALUES(?, ?, ?)");
        let mut blob = prepare("INSERT INTO blobs VALUES(?, ?)");
        for ((row, copies), (body, slice)) in made.rows.iter().zip(&made.copies).zip(&made.bodies) {
            let (Write::Post { post: body, .. }, Write::Slice(slice)) = (body, slice) else {
                unreachable!("a post and a slice of each");
            };
            let (id, hash) = (&row.id.as_bytes()[..], &row.blobs[0].hash.as_bytes()[..]);
            let written = row.created_at_s;
            file.execute((id, written, copies, row.bytes, hash))
                .expect("SQL");
            post.execute((id, &body.bytes().body[..])).expect("SQL");
            feed.execute((written, id, &row.author.as_bytes()[..]))
                .expect("SQL");
            blob.execute((hash, &slice.bytes()[..])).expect("SQL");
        }
    }
    transaction.commit().expect("SQL");
    connection
}

/// One transaction: `DELETE … ORDER BY … LIMIT` in the form that a stock SQLite knows, and what hangs on the rows.
fn evict_by_sqlite(connection: &mut rusqlite::Connection, sql: &str, count: usize) -> usize {
    let transaction = connection.transaction().expect("SQL");
    let gone = {
        let mut delete = transaction.prepare_cached(sql).expect("SQL");
        let row = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(Vec<u8>, i64, Vec<u8>)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        };
        let rows = delete.query_map([count as i64], row).expect("SQL");
        let gone: Vec<_> = rows.map(|row| row.expect("a row")).collect();
        let prepare = |sql| transaction.prepare_cached(sql).expect("SQL");
        let mut post = prepare("DELETE FROM posts WHERE id = ?");
        let mut feed = prepare("DELETE FROM feed WHERE written = ? AND id = ?");
        let mut blob = prepare("DELETE FROM blobs WHERE hash = ?");
        for (id, written, hash) in &gone {
            post.execute([id]).expect("SQL");
            feed.execute((written, id)).expect("SQL");
            blob.execute([hash]).expect("SQL");
        }
        gone.len()
    };
    transaction.commit().expect("SQL");
    gone
}

/// One in a hundred evicted, again and again.
pub(crate) fn evicting(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 5 } else { 15 };
    let made = make();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut connection = sqlite(&dir.path().join("files.sqlite"), &made);
    let (store, tell) = store(&dir.path().join("store"), &made);
    let mut world = world(&made);
    let mut state = SystemState::<Archive>::new(&mut world);
    let now_s = (folder::wall_ms() / 1000) as u32;
    let window = window_sql("written").replace(&crate::keep::NOW_S.to_string(), &now_s.to_string());
    let sql = format!(
        "DELETE FROM files WHERE id IN (SELECT id FROM files ORDER BY pinned * 99999.0 + standing * 1 * {window} / (copies + 1.0), id
         LIMIT ?) RETURNING id, written, blob"
    );
    let (mut ours, mut chosen, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let count = made.rows.len() / SHARE;
        let begun = Instant::now();
        let mut archive = state.get_mut(&mut world).expect("every resource is there");
        let mut rows = Vec::with_capacity(count);
        archive.order.least_worth(|_, candidate| {
            rows.push(candidate.id);
            rows.len() < count
        });
        let writes: Vec<Write> = rows.iter().flat_map(|id| archive.forget(id)).collect();
        state.apply(&mut world);
        let chosen_s = begun.elapsed().as_secs_f64();
        assert_eq!(writes.len(), 2 * count, "a post and a blob of each");
        let batch = 1_000_000 + round as u64;
        store.persist(BatchId(batch), writes, Durability::Durable);
        wait_for(&tell, batch);
        let ours_s = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        assert_eq!(evict_by_sqlite(&mut connection, &sql, count), count);
        let theirs_s = begun.elapsed().as_secs_f64();
        // The first round warms up.
        if round > 0 {
            chosen.push(chosen_s * 1000.0);
            ours.push(ours_s * 1000.0);
            theirs.push(theirs_s * 1000.0);
        }
    }
    let left: i64 = connection
        .query_row("SELECT COUNT(*) FROM files", [], |row| row.get(0))
        .expect("SQL");
    let here = world.resource::<FileIndex>().len() as i64;
    assert_eq!(left, here, "as many went on both sides");
    store.close();
    let ratio = |ours: &[f64]| {
        ours.iter()
            .zip(&theirs)
            .map(|(ours, theirs)| theirs / ours)
            .collect()
    };
    let (times, times_world) = (ratio(&ours), ratio(&chosen));
    vec![
        Figure::of(
            "evict 1 % of 40,000 files, rows and blobs, durably",
            "ms",
            ours,
        ),
        Figure::of("of that: chosen, taken out of the world", "ms", chosen),
        Figure::of("the same by SQLite DELETE … ORDER BY … LIMIT", "ms", theirs),
        Figure::of("evicting: times faster than SQLite", "×", times).goal("≥ 5"),
        Figure::of(
            "the world's part of it: times faster than SQLite",
            "×",
            times_world,
        ),
    ]
}
