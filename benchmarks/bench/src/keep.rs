//! Keep priority (FIGURES, "Files"): what scoring costs, and choosing what goes first, beside a query and a scan of the same files.

use crate::map::Lmdb;
use crate::measure::{Figure, interleaved, interleaved_warm};
use distsoc_engine::domain::{
    AgeWindow, AuthorStanding, KeepClass, KeepFacts, KeepPriority, PEER_COPIES_MAX, PostId,
};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::world::keep_order::{Candidate, KeepOrder, KeepRow};
use std::collections::{BTreeSet, BinaryHeap};
use std::hint::black_box;

/// Files of a desktop (PROTOCOL section 3).
const FILES: usize = 40_000;
/// One in a hundred goes.
const CHOSEN: usize = FILES / 100;
/// Bytes of each.
const FILE_BYTES: u64 = 256 * 1024;
pub(crate) const NOW_S: u32 = 1_800_000_000;
const YEAR_S: u64 = 365 * 24 * 60 * 60;

pub(crate) fn files(entropy: &mut Entropy) -> Vec<Candidate> {
    // Most are young.
    let mut ago = || {
        let share = (entropy.below(1 << 16) * entropy.below(1 << 16)) >> 16;
        ((share * 5 * YEAR_S) >> 16) as u32
    };
    let ages: Vec<(u32, u32)> = (0..FILES).map(|_| (ago(), ago())).collect();
    let file = |(written_ago, hearted_ago): (u32, u32)| Candidate {
        id: PostId::from_bytes(entropy.bytes32()),
        entity: bevy_ecs::entity::Entity::PLACEHOLDER,
        bytes: FILE_BYTES,
        standing: AuthorStanding::ALL[entropy.below(6) as usize],
        written_s: NOW_S - written_ago,
        hearted_s: (entropy.below(3) > 0).then_some(NOW_S - hearted_ago.min(written_ago)),
        copies: entropy.below(u64::from(PEER_COPIES_MAX) + 1) as u8,
        is_pinned: entropy.below(50) == 0,
    };
    ages.into_iter().map(file).collect()
}

fn millions_a_second(name: &str, goal: &'static str, samples: Vec<f64>) -> Figure {
    let rates = samples.into_iter().map(|ns| 1_000.0 / ns).collect();
    Figure::of(name, "M/s", rates).goal(goal)
}

/// All files scored once: by the whole rule from their times, and by the class they were put into.
pub(crate) fn scoring(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 30 } else { 300 };
    let files = files(&mut Entropy::from_seed([21; 32]));
    // What a pass over all files reads of each, side by side.
    let packed: Vec<(u32, u32, u8, u8)> = files
        .iter()
        .map(|file| {
            let hearted_s = file.hearted_s.unwrap_or(0);
            let copies = file.copies | u8::from(file.is_pinned) << 7;
            (file.written_s, hearted_s, file.standing as u8, copies)
        })
        .collect();
    let classes: Vec<KeepClass> = files.iter().map(|file| file.facts(NOW_S).class()).collect();
    let priorities: Vec<KeepPriority> = KeepClass::all()
        .map(|class| class.facts().priority())
        .collect();
    let mut scored = vec![KeepPriority::default(); FILES];
    let mut by_class = scored.clone();
    let mut by_rule = || {
        let rule = |(written_s, hearted_s, standing, copies): (u32, u32, u8, u8)| {
            KeepFacts {
                standing: AuthorStanding::ALL[usize::from(standing)],
                hearted: AgeWindow::of(NOW_S - hearted_s),
                written: AgeWindow::of(NOW_S - written_s),
                copies: copies & 0x7f,
                is_pinned: copies >> 7 != 0,
            }
            .priority()
        };
        for (score, file) in scored.iter_mut().zip(black_box(&packed)) {
            *score = rule(*file);
        }
        black_box(&scored);
    };
    let mut look_up = || {
        for (score, class) in by_class.iter_mut().zip(black_box(&classes)) {
            *score = priorities[class.index()];
        }
        black_box(&by_class);
    };
    let samples = interleaved(rounds, FILES, &mut [&mut by_rule, &mut look_up]);
    assert_eq!(scored, by_class, "both score alike");
    let [rule, class] = samples.try_into().expect("two cases");
    vec![
        millions_a_second("files scored, full rule", "≥ 150", rule),
        millions_a_second("files scored, by class", "≥ 1,000", class),
    ]
}

/// SQLite with the rule as the order, as a program without an order of its own would ask.
fn sqlite(path: &std::path::Path, files: &[Candidate]) -> rusqlite::Connection {
    let mut connection = rusqlite::Connection::open(path).expect("a file");
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA cache_size=-65536; PRAGMA mmap_size=1073741824;
             CREATE TABLE files(id BLOB PRIMARY KEY, standing INTEGER, written INTEGER, hearted INTEGER, copies INTEGER,
             pinned INTEGER, bytes INTEGER) WITHOUT ROWID;",
        )
        .expect("SQL");
    let transaction = connection.transaction().expect("SQL");
    {
        let mut insert = transaction
            .prepare("INSERT INTO files VALUES(?, ?, ?, ?, ?, ?, ?)")
            .expect("SQL");
        for file in files {
            insert
                .execute((
                    &file.id.as_bytes()[..],
                    file.standing.factor(),
                    file.written_s,
                    file.hearted_s.unwrap_or(0),
                    file.copies,
                    file.is_pinned,
                    file.bytes as i64,
                ))
                .expect("SQL");
        }
    }
    transaction.commit().expect("SQL");
    connection
}

pub(crate) fn window_sql(column: &str) -> String {
    let mut sql = String::from("(CASE");
    let mut factors = [100, 50, 25, 12, 6, 3].into_iter();
    for end_s in AgeWindow::ENDS_S {
        let factor = factors.next().unwrap_or(1);
        sql.push_str(&format!(" WHEN {NOW_S} - {column} < {end_s} THEN {factor}"));
    }
    sql.push_str(" ELSE 1 END)");
    sql
}

/// LMDB with a row for each file.
fn lmdb(dir: &std::path::Path, files: &[Candidate]) -> Lmdb {
    let row = |file: &Candidate| {
        let mut row = [0u8; 11];
        row[..4].copy_from_slice(&file.written_s.to_be_bytes());
        row[4..8].copy_from_slice(&file.hearted_s.unwrap_or(0).to_be_bytes());
        row[8..].copy_from_slice(&[file.standing as u8, file.copies, u8::from(file.is_pinned)]);
        row
    };
    let rows: Vec<[u8; 11]> = files.iter().map(row).collect();
    let keys = files.iter().map(|file| &file.id.as_bytes()[..]);
    let rows: Vec<(&[u8], &[u8])> = keys.zip(rows.iter().map(|row| &row[..])).collect();
    let lmdb = Lmdb::empty(dir);
    lmdb.put(&rows, &[]);
    lmdb
}

/// The files that go first, the best of a scan kept in a heap.
fn choose_by_scan(lmdb: &Lmdb, count: usize) -> Vec<(KeepPriority, PostId)> {
    let read = lmdb.env.read_txn().expect("a transaction");
    let mut lowest: BinaryHeap<(KeepPriority, PostId)> = BinaryHeap::new();
    for row in lmdb.rows.iter(&read).expect("rows") {
        let (id, row) = row.expect("a row");
        let at =
            |start: usize| u32::from_be_bytes(row[start..start + 4].try_into().expect("4 bytes"));
        let facts = KeepFacts {
            standing: AuthorStanding::ALL[usize::from(row[8])],
            hearted: AgeWindow::of(NOW_S - at(4)),
            written: AgeWindow::of(NOW_S - at(0)),
            copies: row[9],
            is_pinned: row[10] != 0,
        };
        let one = (
            facts.priority(),
            PostId::from_bytes(id.try_into().expect("an id")),
        );
        if lowest.len() < count {
            lowest.push(one);
        } else if lowest.peek().is_some_and(|most| one < *most) {
            lowest.pop();
            lowest.push(one);
        }
    }
    lowest.into_sorted_vec()
}

/// One in a hundred of all files chosen.
pub(crate) fn choosing(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 15 } else { 101 };
    let files = files(&mut Entropy::from_seed([22; 32]));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let connection = sqlite(&dir.path().join("files.sqlite"), &files);
    let lmdb = lmdb(dir.path(), &files);
    let mut order = KeepOrder::default();
    for file in &files {
        order.insert(*file, NOW_S);
    }
    let query = format!(
        "SELECT id, bytes FROM files ORDER BY pinned * 99999.0 + standing * {} * {} / (copies + 1.0), id LIMIT ?",
        window_sql("hearted"),
        window_sql("written")
    );
    let mut statement = connection.prepare(&query).expect("SQL");
    let ours = |order: &KeepOrder| order.choose(CHOSEN as u64 * FILE_BYTES, |_| true);
    let mut by_query = || -> Vec<PostId> {
        let rows = statement.query_map([CHOSEN as i64], |row| row.get::<_, Vec<u8>>(0));
        let rows = rows.expect("SQL").map(|id| id.expect("an id"));
        rows.map(|id| PostId::from_bytes(id.try_into().expect("32 bytes")))
            .collect()
    };
    let ids_of = |rows: Vec<KeepRow>| {
        let ids = rows.into_iter().filter_map(|row| Some(order.get(row)?.id));
        ids.collect::<BTreeSet<PostId>>()
    };
    let chosen = ids_of(ours(&order));
    let by_scan = choose_by_scan(&lmdb, CHOSEN).into_iter().map(|(_, id)| id);
    let is_same = by_scan.collect::<BTreeSet<_>>() == chosen;
    assert!(is_same, "the order and a scan choose alike");
    // Sums of floating point may part equal priorities; all but a few are the same.
    let same = by_query().iter().filter(|id| chosen.contains(id)).count();
    assert!(same * 100 >= CHOSEN * 99, "{same} of {CHOSEN}");
    let mut choose_ours = || drop(black_box(ours(&order)));
    let mut choose_lmdb = || drop(black_box(choose_by_scan(&lmdb, CHOSEN)));
    let mut choose_sqlite = || drop(black_box(by_query()));
    let samples = interleaved_warm(
        rounds,
        &mut [
            (1, &mut choose_ours),
            (1, &mut choose_lmdb),
            (1, &mut choose_sqlite),
        ],
    );
    let ratios = |others: &[f64]| -> Vec<f64> {
        let pairs = others.iter().zip(&samples[0]);
        pairs.map(|(other, ours)| other / ours).collect()
    };
    let micros = |samples: &[f64]| samples.iter().map(|ns| ns / 1000.0).collect();
    vec![
        Figure::of("choose 1 % of 40,000 files", "µs", micros(&samples[0])),
        Figure::of("the same by an LMDB scan", "µs", micros(&samples[1])),
        Figure::of("the same by SQLite ORDER BY", "µs", micros(&samples[2])),
        Figure::of("choosing: times faster than LMDB", "×", ratios(&samples[1])).goal("≥ 100"),
        Figure::of(
            "choosing: times faster than SQLite",
            "×",
            ratios(&samples[2]),
        )
        .goal("≥ 1,000"),
    ]
}
