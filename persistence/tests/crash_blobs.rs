//! Blobs of which the process is killed as they come and go: a file of its own, since a process that starts others at the same time
//! would lend them its lock for a moment.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shelf;

use distsoc_engine::domain::{BlobHash, BlobRef, SliceReader};
use distsoc_engine::io::{Input, ReadId, ReadQuery, ReadResult, StoredBlob, Write};
use distsoc_persistence::Store;
use shelf::{
    PATIENCE, blob_bytes, bytes_below, child_dir, open_with, own, persist, post_with, slices,
    start_child, write_post, write_slices,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{SystemTime, UNIX_EPOCH};

const ROUNDS: u64 = 15;
/// Lines after which the parent kills, at most.
const LINES_MAX: u64 = 150;
const BUDGET: u64 = 32_000_000;
const LOWER: u64 = 18_000_000;

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_nanos() as u64
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "SAID {line}").unwrap();
    out.flush().unwrap();
}

/// Stores blobs and forgets them for ever, with a budget that goes down and up; says what it begins and what is durable.
fn child_at_work(dir: &Path) {
    let (store, restored, receive) = open_with(dir, BUDGET).unwrap();
    let mut batch = 0;
    let mut persist_all = |writes: Vec<Write>| {
        batch += 1;
        persist(&store, &receive, batch, writes)
    };
    let mut there: Vec<BlobHash> = restored.blobs.iter().map(|blob| blob.hash).collect();
    let mut is_lower = restored.usage.budget_bytes == LOWER;
    for number in seed().. {
        let length = 1 + number.wrapping_mul(6_364_136_223_846_793_005) % 1_500_000;
        let bytes = blob_bytes(length as usize, number);
        let parts = slices(&bytes);
        let blob = parts[0].blob();
        say(&format!("storing {} {length}", blob.hash));
        let stored = persist_all(write_slices(&parts));
        there.push(blob.hash);
        if stored.is_ok() {
            let post = post_with(&own(), &format!("{number}"), &[blob]);
            persist_all(vec![write_post(&post)]).unwrap();
            say(&format!("stored {} {length}", blob.hash));
        }
        if number % 16 == 0 {
            is_lower = !is_lower;
            store.set_budget(if is_lower { LOWER } else { BUDGET });
        }
        // As many as fill the files, then as few as let them shrink.
        let most = if is_lower { 6 } else { 24 };
        while there.len() > most || stored.is_err() && there.len() > 2 {
            let gone = there.remove(0);
            say(&format!("forgetting {gone} 0"));
            persist_all(vec![Write::ForgetBlob(gone)]).unwrap();
            say(&format!("forgot {gone} 0"));
        }
    }
}

/// What a child said of each blob last, and how long it is.
#[derive(Default)]
struct Said(BTreeMap<BlobHash, (String, u64)>);

impl Said {
    fn hear(&mut self, line: &str) {
        let Some((_, said)) = line.split_once("SAID ") else {
            return;
        };
        let [what, hash, length] = said.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{said}");
        };
        let entry = self.0.entry(hash.parse().unwrap());
        let known = entry.or_insert_with(|| (String::new(), length.parse().unwrap()));
        known.0 = what.to_owned();
    }
}

fn slice_of(store: &Store, receive: &Receiver<Input>, blob: BlobHash, first: u32) -> Arc<[u8]> {
    let count = 1;
    let query = ReadQuery::Slices { blob, first, count };
    store.read(ReadId(1), query);
    loop {
        if let Input::Read { result, .. } = receive.recv_timeout(PATIENCE).unwrap() {
            let Ok(ReadResult::Slices(found)) = result else {
                panic!("not what was asked");
            };
            return found[0].clone();
        }
    }
}

fn check_blobs(store: &Store, receive: &Receiver<Input>, stored: &[StoredBlob], said: &Said) {
    let there: BTreeMap<BlobHash, &StoredBlob> =
        stored.iter().map(|blob| (blob.hash, blob)).collect();
    for (hash, (what, length)) in &said.0 {
        let whole = BlobRef {
            hash: *hash,
            length: *length,
        };
        let found = there.get(hash).map(|blob| &blob.slices[..]);
        // What was forgotten may be there still, and is forgotten again.
        if what == "stored" {
            let all = 0..whole.slices();
            assert_eq!(
                found,
                Some(std::slice::from_ref(&all)),
                "{hash} was acknowledged"
            );
            let bytes = store.view().blob_part(whole, 0..*length).unwrap();
            assert_eq!(bytes.map(|bytes| bytes.len() as u64), Some(*length));
        }
    }
    for blob in stored {
        let length = said.0[&blob.hash].1;
        let whole = BlobRef {
            hash: blob.hash,
            length,
        };
        for number in blob.slices.iter().cloned().flatten() {
            let bytes = slice_of(store, receive, blob.hash, number);
            let mut reader = SliceReader::new(whole, number).unwrap();
            assert_eq!(reader.lacking(), bytes.len(), "no half slice");
            reader.take(&bytes).unwrap();
            assert!(reader.finish().is_some());
        }
    }
}

#[test]
fn kill_9_leaves_no_half_slice_and_keeps_the_budget() {
    if let Some(dir) = child_dir() {
        return child_at_work(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let seed = seed();
    let (mut draw, mut said) = (seed, Said::default());
    for round in 0..ROUNDS {
        let mut child = start_child(
            "kill_9_leaves_no_half_slice_and_keeps_the_budget",
            dir.path(),
        );
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let kill_after = (draw >> 33) % LINES_MAX + 1;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..kill_after {
            let line = lines.next().expect("the child goes on").unwrap();
            said.hear(&line);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            said.hear(&line);
        }
        let (store, restored, receive) = open_with(dir.path(), BUDGET).unwrap();
        let bytes = bytes_below(dir.path());
        assert!(bytes <= BUDGET, "{bytes}, round {round}, seed {seed}");
        check_blobs(&store, &receive, &restored.blobs, &said);
        store.close();
    }
    let (store, restored, receive) = open_with(dir.path(), BUDGET).unwrap();
    let is_forgotten = |blob: &&StoredBlob| said.0[&blob.hash].0 == "forgot";
    let forgotten = restored.blobs.iter().filter(is_forgotten);
    let writes = forgotten.map(|blob| Write::ForgetBlob(blob.hash)).collect();
    persist(&store, &receive, 1, writes).unwrap();
    store.close();
    drop(store);
    let (_store, restored, _) = open_with(dir.path(), BUDGET).unwrap();
    assert!(!restored.blobs.iter().any(|blob| is_forgotten(&blob)));
    let outcomes: BTreeSet<&str> = said.0.values().map(|(what, _)| what.as_str()).collect();
    assert!(outcomes.contains("stored") && outcomes.contains("forgot"));
}
