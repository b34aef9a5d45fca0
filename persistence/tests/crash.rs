//! Nothing acknowledged is ever lost, whenever the process is killed (PROTOCOL section 12).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shelf;

use distsoc_engine::domain::PostId;
use distsoc_engine::io::{BatchId, Durability, Input};
use shelf::{child_dir, open, own, post, start_child, write_post};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const ROUNDS: u64 = 25;
/// Lines after which the parent kills, at most.
const LINES_MAX: u64 = 40;

/// Stores posts for ever and prints the id of each once it is durable. Between them lie batches that are not.
fn child(dir: &Path) {
    let (store, restored, receive) = open(dir).unwrap();
    let begin = restored.files.len() as u64 * 1_000;
    for number in begin.. {
        let posts = [
            post(&own(), &format!("durable {number}"), number),
            post(&own(), &format!("behind {number}"), number),
        ];
        store.persist(
            BatchId(2 * number + 1),
            vec![write_post(&posts[1])],
            Durability::WriteBehind,
        );
        store.persist(
            BatchId(2 * number),
            vec![write_post(&posts[0])],
            Durability::Durable,
        );
        loop {
            match receive.recv().unwrap() {
                Input::Persisted(batch) if batch == BatchId(2 * number) => break,
                Input::PersistFailed(..) => panic!("the disk refused"),
                _ => {}
            }
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "stored {}", posts[0].id()).unwrap();
        out.flush().unwrap();
    }
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_nanos() as u64
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    if let Some(dir) = child_dir() {
        return child(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let seed = seed();
    let mut draw = seed;
    let mut acknowledged: BTreeSet<PostId> = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = start_child("kill_9_loses_nothing_acknowledged", dir.path());
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let kill_after = (draw >> 33) % LINES_MAX + 1;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..kill_after {
            let id = loop {
                let line = lines.next().expect("the child goes on").unwrap();
                // The test program prints lines of its own.
                if let Some((_, id)) = line.split_once("stored ") {
                    break id.to_owned();
                }
            };
            acknowledged.insert(id.parse().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it printed before it died was acknowledged too.
        for line in lines.map_while(Result::ok) {
            if let Some(Ok(id)) = line.split_once("stored ").map(|(_, id)| id.parse()) {
                acknowledged.insert(id);
            }
        }
        let (store, restored, _) = open(dir.path()).unwrap();
        let there: BTreeSet<PostId> = restored.files.iter().map(|file| file.id).collect();
        for id in &acknowledged {
            assert!(
                there.contains(id),
                "{id} is lost in round {round}, seed {seed}"
            );
        }
        for id in &there {
            assert!(
                store.view().post(*id).unwrap().is_some(),
                "{id}, round {round}, seed {seed}"
            );
        }
        store.close();
    }
    assert!(acknowledged.len() as u64 >= ROUNDS);
}
