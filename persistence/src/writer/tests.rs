//! What nobody asks for is done though others ask without end.

use super::*;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{Cut, Slice, Verified};
use std::sync::Mutex;
use std::sync::mpsc::channel;

const BUDGET: u64 = 64_000_000;
const LOWER: u64 = 16_000_000;
/// As many as are asked after each other.
const READS: u64 = 20;

fn own() -> NodeId {
    Secret::from_seed(&[1; 32]).node_id()
}

fn blob(length: usize, seed: u8) -> Vec<Verified<Slice>> {
    Cut::new(&vec![seed; length]).unwrap().slices().collect()
}

fn read(number: u64) -> Job {
    Job::Read(ReadId(number), ReadQuery::RecentPosts(own()))
}

/// Runs a writer that waits for nothing while reads come, each as soon as the one before is answered; says after each whether
/// this was so.
fn while_reads_come(
    disk: &Arc<Disk>,
    prepare: impl FnOnce(&mut Writer),
    is_so: impl Fn(&Disk) -> bool + Send + 'static,
) -> Vec<bool> {
    let (send, jobs) = channel();
    send.send(read(0)).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (told, seen_disk) = (seen.clone(), disk.clone());
    let deliver = move |input| {
        let Input::Read {
            read: ReadId(number),
            ..
        } = input
        else {
            return;
        };
        told.lock().unwrap().push(is_so(&seen_disk));
        let next = match number {
            READS => Job::Close,
            _ => read(number + 1),
        };
        send.send(next).unwrap();
    };
    let usage = disk.usage().unwrap();
    let mut writer = Writer::new(disk.clone(), own(), usage, Box::new(deliver));
    prepare(&mut writer);
    writer.run(&jobs);
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn the_bytes_of_forgotten_blobs_go_though_reads_come_without_end() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("db")).unwrap();
    let disk = Arc::new(Disk::open(dir.path(), BUDGET, |_| Ok(())).unwrap());
    let slices = blob(200_000, 1);
    let stored = disk.blobs.store(&slices.iter().collect::<Vec<_>>());
    assert!(stored.iter().all(Result::is_ok));
    disk.blobs.forget(&[slices[0].blob().hash]).unwrap();
    assert!(disk.blobs.has_gone());
    let prepare = |writer: &mut Writer| writer.flush_after = Duration::ZERO;
    let seen = while_reads_come(&disk, prepare, |disk| !disk.blobs.has_gone());
    assert_eq!(seen, vec![true; READS as usize + 1]);
}

#[test]
fn a_lower_budget_is_tried_again_though_reads_come_without_end() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("db")).unwrap();
    let disk = Arc::new(Disk::open(dir.path(), BUDGET, |_| Ok(())).unwrap());
    for seed in 0..30 {
        let slices = blob(1_000_000, seed);
        let stored = disk.blobs.store(&slices.iter().collect::<Vec<_>>());
        assert!(stored.iter().all(Result::is_ok));
        if seed % 10 > 0 {
            disk.blobs.forget(&[slices[0].blob().hash]).unwrap();
        }
    }
    disk.set_budget(LOWER).unwrap();
    assert!(!disk.is_within());
    let prepare = |writer: &mut Writer| {
        // As after a step that the disk had no room for.
        (writer.may_shrink, writer.shrink_pause) = (false, COMMITS_PER_SHRINK);
        (writer.retry_after, writer.step_after) = (Duration::ZERO, Duration::ZERO);
    };
    let seen = while_reads_come(&disk, prepare, Disk::is_within);
    assert_eq!(seen.last(), Some(&true), "{seen:?}");
}
