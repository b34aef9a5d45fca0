//! The map on the disk (FIGURES, "Wire, connections, node"): what two minutes of changes cost beside a row per change, and a
//! start with a full map and 40,000 posts beside reading as many rows.

use crate::derive::{REPORTERS, Reported, reported};
use crate::map::{Lmdb, sqlite};
use crate::measure::{Figure, interleaved_warm};
use bevy_ecs::world::World;
use distsoc_engine::clock::Now;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{Content, NodeId, PostBody, PostText, PublicContent, SignedPost};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{BatchId, Durability, Input, MapRow, Write};
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::world::map::snapshot::JOURNAL_BIT;
use distsoc_engine::world::map::{Chunk, MapEntry, ReportedHop};
use distsoc_persistence::{Store, StoreConfig};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Instant;

/// Changes of the map in two minutes, at 5 % an hour.
const CHANGES: usize = 3_500;
const POSTS: usize = 40_000;

fn own() -> Secret {
    Secret::from_seed(&[200; 32])
}

/// What is given for the only table of a map's entries.
fn with_entries<T>(world: &mut World, act: impl FnOnce(&mut [MapEntry]) -> T) -> T {
    let mut query = world.query::<&mut MapEntry>();
    let mut tables = query.contiguous_iter_mut(world).expect("a table");
    let mut table = tables.next().expect("one table");
    act(table.bypass_change_detection())
}

/// The whole map as it is written, one value after another.
fn snapshot(reported: &mut Reported) -> Vec<MapRow> {
    let own = own().node_id();
    let mut rows = Vec::new();
    reported.map.begin_snapshot();
    let reporters = reported.reporters.clone();
    let map = &mut reported.map;
    with_entries(&mut reported.world, |entries| {
        let mut chunk = Chunk::default();
        for reporter in reporters {
            map.write_reporter(reporter, usize::MAX, entries, &mut chunk);
            let full = std::mem::take(&mut chunk);
            rows.push(full.seal(&own, 0, rows.len() as u32, None));
        }
        map.write_rest(entries, &mut chunk);
        rows.push(chunk.seal(&own, 0, JOURNAL_BIT, Some(REPORTERS as u32)));
    });
    rows
}

/// Half as many ids go as change, and as many come: by a reporter or two each.
struct Change {
    gone: Vec<NodeId>,
    came: Vec<NodeId>,
}

fn change(reported: &mut Reported, entropy: &mut Entropy) -> Change {
    let reporters = reported.reporters.clone();
    let map = &mut reported.map;
    with_entries(&mut reported.world, |entries| {
        let mut change = Change {
            gone: Vec::new(),
            came: Vec::new(),
        };
        while change.gone.len() < CHANGES / 2 {
            let row = entropy.below(entries.len() as u64) as usize;
            let node = entries[row].node;
            if entries[row].hop() != Some(3) || !entries[row].is_taken() {
                continue;
            }
            for reporter in &reporters {
                map.withdraw(*reporter, ReportedHop::Two, &node, entries);
            }
            change.gone.push(node);
        }
        map.sweep(entries, |_| false);
        for number in 0..CHANGES - CHANGES / 2 {
            let node = NodeId::from_bytes(entropy.bytes32());
            for _ in 0..=number % 2 {
                let by = reporters[entropy.below(reporters.len() as u64) as usize];
                map.report(by, ReportedHop::Two, node, false, entries)
                    .expect("somebody went");
            }
            change.came.push(node);
        }
        change
    })
}

/// The journal's value for what changed.
fn journal(reported: &mut Reported, seq: u32) -> MapRow {
    let reporters = reported.reporters.clone();
    let map = &mut reported.map;
    with_entries(&mut reported.world, |entries| {
        let mut chunk = Chunk::default();
        for reporter in reporters {
            map.write_reporter(reporter, usize::MAX, entries, &mut chunk);
        }
        map.write_rest(entries, &mut chunk);
        let own = own().node_id();
        chunk.seal(&own, 0, JOURNAL_BIT | seq, Some(REPORTERS as u32))
    })
}

/// Two minutes of changes: one value beside a row per id. Nobody waits for the disk, so that it is work that is compared.
pub(crate) fn journals(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 10 } else { 50 };
    let mut entropy = Entropy::from_seed([8; 32]);
    let mut reported = reported(&mut entropy);
    let rows = snapshot(&mut reported);
    let stored_bytes: usize = rows.iter().map(|row| row.bytes.len()).sum();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).expect("a folder");
        path
    };
    let known = known(&mut reported);
    let ids = known.len();
    let values = Lmdb::filled(&folder("values"), &[]);
    let lmdb = Lmdb::filled(&folder("rows"), &known);
    let sqlite = sqlite(&dir.path().join("map.sqlite"), &known);
    sqlite
        .execute_batch("COMMIT; PRAGMA synchronous=OFF")
        .expect("SQL");
    let mut samples = vec![Vec::new(); 3];
    let mut bytes = Vec::new();
    for round in 0..rounds {
        let change = change(&mut reported, &mut entropy);
        let mut took = Vec::new();
        let start = Instant::now();
        let value = journal(&mut reported, round + 1);
        values.put(&[(&u64::from(round).to_be_bytes(), &value.bytes)], &[]);
        took.push(start.elapsed());
        bytes.push(value.bytes.len() as f64 / 1e3);
        let came: Vec<(&[u8], &[u8])> = change
            .came
            .iter()
            .map(|node| (&node.as_bytes()[..], &[3u8; 9][..]))
            .collect();
        let gone: Vec<&[u8]> = change
            .gone
            .iter()
            .map(|node| &node.as_bytes()[..])
            .collect();
        let start = Instant::now();
        lmdb.put(&came, &gone);
        took.push(start.elapsed());
        let start = Instant::now();
        let rows = sqlite.unchecked_transaction().expect("SQL");
        {
            let mut delete = rows
                .prepare_cached("DELETE FROM map WHERE id = ?")
                .expect("SQL");
            gone.iter()
                .for_each(|id| assert_eq!(delete.execute((id,)), Ok(1)));
            let mut insert = rows
                .prepare_cached("INSERT INTO map VALUES(?, ?, 3)")
                .expect("SQL");
            came.iter()
                .for_each(|(id, _)| assert_eq!(insert.execute((id, 1)), Ok(1)));
        }
        rows.commit().expect("SQL");
        took.push(start.elapsed());
        for (samples, took) in samples.iter_mut().zip(took) {
            samples.push(took.as_secs_f64() * 1000.0);
        }
    }
    let ratio = |other: usize| {
        let pairs = samples[other].iter().zip(&samples[0]);
        pairs.map(|(other, ours)| other / ours).collect()
    };
    vec![
        Figure::of("ids on the map", "", vec![ids as f64]),
        Figure::of("map on the disk", "MB", vec![stored_bytes as f64 / 1e6])
            .goal("11.3 stated for 350,000"),
        Figure::of("3,500 changes: the journal's value", "kB", bytes),
        Figure::of(
            "3,500 changes to the disk: journal",
            "ms",
            samples[0].clone(),
        ),
        Figure::of("the same, times less than LMDB rows", "×", ratio(1)).goal("≥ 37"),
        Figure::of("the same, times less than SQLite", "×", ratio(2)).goal("≥ 86"),
    ]
}

/// Every id that is on the map.
fn known(reported: &mut Reported) -> Vec<NodeId> {
    with_entries(&mut reported.world, |entries| {
        let known = entries.iter().filter(|entry| entry.hop().is_some());
        known.map(|entry| entry.node).collect()
    })
}

fn fill_store(dir: &Path, rows: Vec<MapRow>) {
    let (send, receive) = channel();
    let (store, _) = open(dir, send);
    let authors: Vec<Secret> = (0..200u8).map(|n| Secret::from_seed(&[n; 32])).collect();
    let post = |number: usize| {
        let author = &authors[number % authors.len()];
        let content = PublicContent {
            text: PostText::new(&format!("{number:0300}")).expect("a short text"),
            parent: None,
            descriptions: Bounded::default(),
        };
        let body = PostBody {
            author: author.node_id(),
            created_at_ms: 1_700_000_000_000 + number as u64,
            content: Content::Public(content),
            blobs: Bounded::default(),
        };
        Write::Post {
            post: Box::new(SignedPost::sign(body, author).expect("a sound post")),
            arrived_ms: 9,
        }
    };
    let mut writes: Vec<Write> = rows.into_iter().map(Write::MapRow).collect();
    writes.extend((0..POSTS).map(post));
    for (batch, writes) in writes.chunks(1_000).enumerate() {
        store.persist(
            BatchId(batch as u64),
            writes.to_vec(),
            Durability::WriteBehind,
        );
        while !matches!(receive.recv(), Ok(Input::Persisted(_))) {}
    }
    store.close();
}

fn open(dir: &Path, send: std::sync::mpsc::Sender<Input>) -> (Store, distsoc_engine::io::Restored) {
    let config = StoreConfig {
        dir: dir.into(),
        own: own().node_id(),
        budget_bytes: 4 << 30,
    };
    Store::open(config, move |input| drop(send.send(input))).expect("a folder of its own")
}

/// From nothing to a node that serves: its folder opened, its map and posts in memory, its first frame over.
pub(crate) fn cold_start(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 5 } else { 21 };
    let mut entropy = Entropy::from_seed([8; 32]);
    let mut reported = reported(&mut entropy);
    let rows = snapshot(&mut reported);
    let known = known(&mut reported);
    let ids = known.len();
    drop(reported);
    let dir = tempfile::tempdir().expect("a temporary folder");
    fill_store(dir.path(), rows);
    let database = dir.path().join("rows.sqlite");
    let filled = sqlite(&database, &known);
    filled
        .execute_batch(
            "COMMIT; CREATE TABLE posts(id BLOB PRIMARY KEY, author BLOB, at INTEGER) WITHOUT ROWID",
        )
        .expect("SQL");
    let posts = filled.unchecked_transaction().expect("SQL");
    for number in 0..POSTS {
        let id = entropy.bytes32();
        posts
            .execute(
                "INSERT INTO posts VALUES(?, ?, ?)",
                (&id[..], &id[..], number as i64),
            )
            .expect("SQL");
    }
    posts.commit().expect("SQL");
    drop(filled);
    let mut on_map = 0;
    let samples = interleaved_warm(
        rounds,
        &mut [
            (1, &mut || {
                let (send, _receive) = channel();
                let (store, restored) = open(dir.path(), send);
                assert_eq!(restored.files.len(), POSTS);
                let mut node = Node::new(
                    NodeConfig {
                        secret: own(),
                        profile: NodeProfile::of(ProfileKind::Desktop),
                        seed: [1; 32],
                        anchors: Vec::new(),
                        restored,
                    },
                    distsoc_systems::install,
                );
                let now = Now {
                    mono_ms: 1,
                    wall_ms: 1_700_000_100_000,
                };
                node.tick(now, Vec::new());
                let map = node
                    .world()
                    .resource::<distsoc_engine::world::map::DiscoveryMap>();
                on_map = map.counts().total();
                store.close();
            }),
            (1, &mut || {
                let connection = rusqlite::Connection::open(&database).expect("a file");
                let mut sum = 0;
                for select in [
                    "SELECT id, row, hop FROM map",
                    "SELECT id, author, at FROM posts",
                ] {
                    let mut select = connection.prepare(select).expect("SQL");
                    let mut rows = select.query(()).expect("SQL");
                    while let Some(row) = rows.next().expect("SQL") {
                        let id = row.get_ref(0).expect("a column").as_blob().expect("an id");
                        sum += usize::from(id[0]) + row.get_ref(1).map_or(0, |_| 1);
                    }
                }
                std::hint::black_box(sum);
            }),
        ],
    );
    let ms = |samples: &[f64]| samples.iter().map(|ns| ns / 1e6).collect::<Vec<f64>>();
    let ratio = samples[0]
        .iter()
        .zip(&samples[1])
        .map(|(ours, theirs)| ours / theirs);
    vec![
        Figure::of("ids stored", "", vec![ids as f64]),
        Figure::of(
            "ids on the map after the first frame",
            "",
            vec![on_map as f64],
        ),
        Figure::of("cold start with 40,000 posts", "ms", ms(&samples[0])).goal("≤ 250"),
        Figure::of(
            "the same, of SQLite reading as many rows",
            "×",
            ratio.collect(),
        )
        .goal("≤ 1"),
        Figure::of("SQLite reading as many rows", "ms", ms(&samples[1])),
    ]
}
