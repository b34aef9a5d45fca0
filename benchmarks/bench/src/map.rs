//! The discovery map (FIGURES, "Map") beside what others would take for it: the same keys, the same queries, in turn.

use crate::measure::{Figure, interleaved_warm, live_bytes};
use bevy_ecs::prelude::World;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::world::map::{
    DiscoveryMap, MapEntry, ReportedHop, Row, entries_of, spawn_vacant,
};
use std::collections::HashMap;
use std::hint::black_box;

const ENTRIES: usize = 350_000;
const QUERIES: usize = 1 << 16;
/// The databases take so long that one in so many will do.
const DATABASE_SHARE: usize = 16;

type FoldMap = hashbrown::HashMap<[u8; 32], (u64, u8), foldhash::fast::RandomState>;

fn ids(count: usize, entropy: &mut Entropy) -> Vec<NodeId> {
    (0..count)
        .map(|_| NodeId::from_bytes(entropy.bytes32()))
        .collect()
}

fn drawn(from: &[NodeId], count: usize, entropy: &mut Entropy) -> Vec<NodeId> {
    let mut draw = || from[entropy.below(from.len() as u64) as usize];
    (0..count).map(|_| draw()).collect()
}

/// A map of one reporter's hop 3, as a snapshot is loaded.
fn filled(keys: &[NodeId], entropy: &mut Entropy) -> (World, DiscoveryMap) {
    let mut world = World::new();
    spawn_vacant(&mut world, keys.len() as Row);
    let mut map = DiscoveryMap::new(NodeId::from_bytes([0xff; 32]), usize::MAX, entropy);
    map.add_rows(0..keys.len() as Row);
    map.reserve(keys.len(), entries_of(&world));
    let mut query = world.query::<&mut MapEntry>();
    let mut tables = query.contiguous_iter_mut(&mut world).expect("a table");
    let mut entries = tables.next().expect("one table");
    let reporter = map
        .add_reporter(NodeId::from_bytes([0xfe; 32]))
        .expect("the first");
    for key in keys {
        map.report(
            reporter,
            ReportedHop::Two,
            *key,
            false,
            entries.bypass_change_detection(),
        )
        .expect("there is room");
    }
    map.sweep(entries.bypass_change_detection(), |_| false);
    (world, map)
}

/// LMDB in a folder of its own.
pub(crate) struct Lmdb {
    pub(crate) env: heed::Env,
    pub(crate) rows: heed::Database<'static, heed::types::Bytes, heed::types::Bytes>,
}

impl Lmdb {
    pub(crate) fn empty(dir: &std::path::Path) -> Self {
        // Nothing here outlives the process, so nothing has to outlive the machine.
        Self::with(dir, heed::EnvFlags::NO_SYNC)
    }

    /// Whose commits are on the disk when they are done.
    pub(crate) fn durable(dir: &std::path::Path) -> Self {
        Self::with(dir, heed::EnvFlags::empty())
    }

    #[allow(
        unsafe_code,
        reason = "heed opens a memory map; nobody else opens this file"
    )]
    fn with(dir: &std::path::Path, flags: heed::EnvFlags) -> Self {
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(1 << 30);
        // SAFETY: the folder is a temporary one of this process.
        let env = unsafe { options.flags(flags).open(dir) }.expect("an environment");
        let write = env.write_txn().expect("a transaction");
        let created = env.create_databases_and_commit(write, |opener, write| -> heed::Result<_> {
            Ok(heed::CommitOrAbort::<_, ()>::Commit(
                opener.create_database(write, None)?,
            ))
        });
        let rows = created.expect("a table").unwrap_commit();
        Self { env, rows }
    }

    pub(crate) fn filled(dir: &std::path::Path, keys: &[NodeId]) -> Self {
        let Self { env, rows } = Self::empty(dir);
        let mut write = env.write_txn().expect("a transaction");
        let mut sorted: Vec<&NodeId> = keys.iter().collect();
        sorted.sort_unstable();
        for key in sorted {
            rows.put_with_flags(
                &mut write,
                heed::PutFlags::APPEND,
                &key.as_bytes()[..],
                &[3u8; 9][..],
            )
            .expect("room");
        }
        write.commit().expect("room");
        Self { env, rows }
    }

    /// Stores some rows and deletes others, in one transaction.
    pub(crate) fn put(&self, rows: &[(&[u8], &[u8])], gone: &[&[u8]]) {
        let mut write = self.env.write_txn().expect("a transaction");
        for key in gone {
            self.rows.delete(&mut write, key).expect("room");
        }
        for (key, value) in rows {
            self.rows.put(&mut write, key, value).expect("room");
        }
        write.commit().expect("room");
    }
}

pub(crate) fn sqlite(path: &std::path::Path, keys: &[NodeId]) -> rusqlite::Connection {
    let mut connection = rusqlite::Connection::open(path).expect("a file");
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA cache_size=-65536; PRAGMA mmap_size=1073741824;
             CREATE TABLE map(id BLOB PRIMARY KEY, row INTEGER, hop INTEGER) WITHOUT ROWID;",
        )
        .expect("SQL");
    let transaction = connection.transaction().expect("SQL");
    {
        let mut insert = transaction
            .prepare("INSERT INTO map VALUES(?, ?, 3)")
            .expect("SQL");
        let mut sorted: Vec<&NodeId> = keys.iter().collect();
        sorted.sort_unstable();
        for (row, key) in sorted.into_iter().enumerate() {
            insert
                .execute((&key.as_bytes()[..], row as i64))
                .expect("SQL");
        }
    }
    transaction.commit().expect("SQL");
    connection.execute_batch("BEGIN").expect("SQL");
    connection
}

/// Medians in ns, and how many times faster the first is than each of the others, by round.
fn compared(
    what: &str,
    names: &[&str],
    goals: &[Option<&'static str>],
    samples: &[Vec<f64>],
) -> Vec<Figure> {
    let mut figures = Vec::new();
    for ((name, goal), others) in names.iter().zip(goals).zip(samples) {
        figures.push(Figure::of(format!("{what}: {name}"), "ns", others.clone()));
        if let Some(goal) = goal {
            let ratios = others
                .iter()
                .zip(&samples[0])
                .map(|(other, ours)| other / ours);
            figures.push(
                Figure::of(
                    format!("{what}: times faster than {name}"),
                    "×",
                    ratios.collect(),
                )
                .goal(goal),
            );
        }
    }
    figures
}

fn sum(queries: &[NodeId], mut look_up: impl FnMut(&NodeId) -> u64) {
    let mut sum = 0u64;
    for key in queries {
        sum = sum.wrapping_add(look_up(key));
    }
    black_box(sum);
}

/// Lookups of random ids, hits and misses, one by one and in batches of 16, beside hash maps and databases.
pub(crate) fn lookups(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 7 } else { 31 };
    let mut entropy = Entropy::from_seed([5; 32]);
    let keys = ids(ENTRIES, &mut entropy);
    let (world, map) = filled(&keys, &mut entropy);
    let entries = entries_of(&world);
    let value = |row: usize| (row as u64, 3u8);
    let pairs = || {
        keys.iter()
            .enumerate()
            .map(|(row, key)| (*key.as_bytes(), value(row)))
    };
    let fold: FoldMap = pairs().collect();
    let std: HashMap<[u8; 32], (u64, u8)> = pairs().collect();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let lmdb = Lmdb::filled(dir.path(), &keys);
    let sqlite = sqlite(&dir.path().join("map.sqlite"), &keys);
    let read = lmdb.env.read_txn().expect("a transaction");
    let mut select = sqlite
        .prepare("SELECT row, hop FROM map WHERE id = ?")
        .expect("SQL");
    let hits = drawn(&keys, QUERIES, &mut entropy);
    let misses = ids(QUERIES, &mut entropy);
    let mut figures = Vec::new();
    let names = [
        "distsoc",
        "distsoc, 16 at once",
        "hashbrown + foldhash",
        "std HashMap",
        "LMDB",
        "SQLite",
    ];
    let hit_goals = [None, None, Some("≥ 1.5"), None, Some("≥ 12"), Some("≥ 20")];
    let miss_goals = [None, None, Some("≥ 2"), None, Some("≥ 32"), Some("≥ 55")];
    for (what, queries, goals) in [("hit", &hits, hit_goals), ("miss", &misses, miss_goals)] {
        let few = &queries[..QUERIES / DATABASE_SHARE];
        let samples = interleaved_warm(
            rounds,
            &mut [
                (QUERIES, &mut || {
                    sum(queries, |key| map.find(key, entries).map_or(0, u64::from))
                }),
                (QUERIES, &mut || {
                    let mut sum = 0u64;
                    for sixteen in queries.chunks(16) {
                        map.find_all(sixteen, entries, |_, row| {
                            sum = sum.wrapping_add(row.map_or(0, u64::from))
                        });
                    }
                    black_box(sum);
                }),
                (QUERIES, &mut || {
                    sum(queries, |key| {
                        fold.get(key.as_bytes()).map_or(0, |found| found.0)
                    })
                }),
                (QUERIES, &mut || {
                    sum(queries, |key| {
                        std.get(key.as_bytes()).map_or(0, |found| found.0)
                    })
                }),
                (few.len(), &mut || {
                    let get =
                        |key: &NodeId| lmdb.rows.get(&read, key.as_bytes()).expect("LMDB reads");
                    sum(few, |key| get(key).map_or(0, |bytes| u64::from(bytes[0])));
                }),
                (few.len(), &mut || {
                    sum(few, |key| {
                        let mut rows = select.query([&key.as_bytes()[..]]).expect("SQL");
                        let row = rows.next().expect("SQL");
                        row.map_or(0, |row| row.get::<_, i64>(0).expect("SQL") as u64)
                    });
                }),
            ],
        );
        figures.extend(compared(what, &names, &goals, &samples));
        if what == "hit" {
            let batched: Vec<Vec<f64>> =
                [1, 2, 4, 5].map(|case: usize| samples[case].clone()).into();
            let names = ["distsoc", "hashbrown + foldhash", "LMDB", "SQLite"];
            let goals = [None, Some("≥ 2.2"), Some("≥ 15"), Some("≥ 27")];
            figures.extend(
                compared("hit, 16 at once", &names, &goals, &batched)
                    .into_iter()
                    .filter(|figure| figure.goal.is_some()),
            );
        }
    }
    figures.extend(floor(rounds, &map, entries, &hits, &mut entropy));
    figures.extend(ground(rounds, &mut entropy));
    figures
}

/// A lookup over the least it could be: one line of an index, then one entry, each known only from the one before.
fn floor(
    rounds: usize,
    map: &DiscoveryMap,
    entries: &[MapEntry],
    hits: &[NodeId],
    entropy: &mut Entropy,
) -> Vec<Figure> {
    // Written, since pages of zeros that nobody wrote are all the same page of memory, and in the nearest cache.
    let mut line = || std::array::from_fn::<u32, 16, _>(|_| entropy.next_u64() as u32);
    let lines: Vec<[u32; 16]> = (0..ENTRIES * 6 / 64).map(|_| line()).collect();
    let raw = |key: &NodeId| u64::from_le_bytes(*key.as_bytes().first_chunk().expect("32 bytes"));
    let at = |number: u64, count: usize| ((u128::from(number) * count as u128) >> 64) as usize;
    let samples = interleaved_warm(
        rounds,
        &mut [
            (QUERIES, &mut || {
                sum(hits, |key| {
                    let line = lines[at(raw(key), lines.len())][0];
                    let row = at(raw(key).wrapping_add(u64::from(line) << 32), entries.len());
                    raw(&entries[row].node)
                });
            }),
            (QUERIES, &mut || {
                sum(hits, |key| map.find(key, entries).map_or(0, u64::from))
            }),
        ],
    );
    let ratios = samples[1]
        .iter()
        .zip(&samples[0])
        .map(|(ours, floor)| ours / floor)
        .collect();
    vec![
        Figure::of(
            "floor: one index line, then one entry",
            "ns",
            samples[0].clone(),
        ),
        Figure::of("hit over that floor", "×", ratios).goal("≤ 2"),
    ]
}

/// Ids that an attacker ground so that they agree in their first 24 bytes, beside random ones.
fn ground(rounds: usize, entropy: &mut Entropy) -> Vec<Figure> {
    const GROUND: usize = 10_000;
    let random = ids(GROUND, entropy);
    let alike: Vec<NodeId> = (0..GROUND as u64)
        .map(|number| {
            let mut bytes = [0x5a; 32];
            bytes[24..].copy_from_slice(&number.to_le_bytes());
            NodeId::from_bytes(bytes)
        })
        .collect();
    let ((random_world, random_map), (alike_world, alike_map)) =
        (filled(&random, entropy), filled(&alike, entropy));
    let (random_entries, alike_entries) = (entries_of(&random_world), entries_of(&alike_world));
    let samples = interleaved_warm(
        rounds,
        &mut [
            (GROUND, &mut || {
                sum(&random, |key| {
                    random_map.find(key, random_entries).map_or(0, u64::from)
                })
            }),
            (GROUND, &mut || {
                sum(&alike, |key| {
                    alike_map.find(key, alike_entries).map_or(0, u64::from)
                })
            }),
        ],
    );
    let ratios = samples[1]
        .iter()
        .zip(&samples[0])
        .map(|(alike, random)| alike / random)
        .collect();
    vec![Figure::of("hit of 10,000 ground ids over random ones", "×", ratios).goal("≤ 1.5")]
}

/// Bytes of an entry, by the allocator: a loaded map, and one after half of it was replaced.
pub(crate) fn memory(_quick: bool) -> Vec<Figure> {
    let mut entropy = Entropy::from_seed([6; 32]);
    let keys = ids(ENTRIES, &mut entropy);
    let before = live_bytes();
    let (mut world, mut map) = filled(&keys, &mut entropy);
    let sets = map.reporters().memory_bytes() as f64;
    let nearest = (ENTRIES * size_of::<Row>()) as f64;
    let per_entry = |bytes: f64| vec![bytes / ENTRIES as f64];
    let all = (live_bytes() - before) as f64;
    let mut figures = vec![
        Figure::of(
            "map entry: entity and keyed index",
            "B",
            per_entry(all - sets - nearest),
        )
        .goal("≤ 100"),
        Figure::of("map entry: order by id", "B", per_entry(nearest)),
        Figure::of("map entry: a reporter's set", "B", per_entry(sets)),
    ];
    let mut query = world.query::<&mut MapEntry>();
    let mut tables = query.contiguous_iter_mut(&mut world).expect("a table");
    let mut table = tables.next().expect("one table");
    let entries = table.bypass_change_detection();
    let (reporter, _) = map.reporters().iter().next().expect("one reporter");
    for chunk in keys[..ENTRIES / 2].chunks(1_000) {
        for key in chunk {
            map.withdraw(reporter, ReportedHop::Two, key, entries);
        }
        map.sweep(entries, |_| false);
        for key in ids(chunk.len(), &mut entropy) {
            map.report(reporter, ReportedHop::Two, key, false, entries)
                .expect("as many as went");
        }
        map.settle(entries);
    }
    let all = (live_bytes() - before) as f64;
    figures.push(Figure::of(
        "map entry: all of it, after half of them were replaced",
        "B",
        per_entry(all),
    ));
    figures
}
