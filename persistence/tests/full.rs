//! Deleting works where no byte of the disk is free (PROTOCOL section 7, quota): a small disk in memory is filled to its end.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a child tells its parent")]

mod shelf;

use distsoc_engine::domain::{DeletionBody, Event, EventKind, RecentPosts, Signed, SignedPost};
use distsoc_engine::io::{BatchId, Durability, StorageTrouble, Write};
use shelf::{
    blob_bytes, child_dir, open_with, own, persist, post, slices, start_child, usage_where,
    write_post, write_slices,
};
use std::ffi::CString;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BUDGET: u64 = 64_000_000;
/// The disk: far smaller than what the budget allows.
const DISK: &str = "size=24m";
/// A disk for what a lower budget does not allow.
const LARGER_DISK: &str = "size=56m";
const LOWER: u64 = 32_000_000;

/// A disk of its own for this process alone; false where the system grants none.
#[allow(unsafe_code, reason = "std offers no mounts")]
fn mount_disk(dir: &Path, size: &str) -> bool {
    let path = CString::new(dir.as_os_str().as_bytes()).unwrap();
    let root = c"/";
    // SAFETY: every pointer is to a string that lives through the calls.
    unsafe {
        let is_alone = libc::unshare(libc::CLONE_NEWNS) == 0
            || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) == 0;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null();
        is_alone
            && libc::mount(none, root.as_ptr(), none, private, none.cast()) == 0
            && libc::mount(
                c"none".as_ptr(),
                path.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                CString::new(size).unwrap().as_ptr().cast(),
            ) == 0
    }
}

/// Takes every byte that is free.
fn fill(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(path).unwrap();
    for block in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; block]).is_ok() {}
    }
}

/// What a person's deletion writes: the post goes, and the list says so.
fn own_deletion(post: &SignedPost, others: &[SignedPost], number: u64) -> Vec<Write> {
    let event = |post: &SignedPost, kind| Event {
        id: post.id(),
        created_at_s: 1,
        kind,
    };
    let of = |known: Option<&_>, event| RecentPosts::append(known, event, 1, number, &own());
    let first = of(None, event(post, EventKind::Public));
    let list = others.iter().fold(first, |list, other| {
        of(Some(&list), event(other, EventKind::Public))
    });
    let list = of(Some(&list), event(post, EventKind::Delete));
    let body = DeletionBody {
        author: own().node_id(),
        post: post.id(),
        seq: number,
    };
    vec![
        Write::Deletion(Signed::sign(body, &own())),
        Write::ForgetPost(post.id()),
        Write::RecentPosts {
            head: list.head().clone(),
            list: list.list().clone(),
        },
    ]
}

fn full_child(dir: &Path) {
    if !mount_disk(dir, DISK) {
        println!("TOLD no disk");
        return;
    }
    let data = dir.join("data");
    let (store, _, receive) = open_with(&data, BUDGET).unwrap();
    std::fs::write(dir.join("theirs"), vec![1; 4 << 20]).unwrap();
    let reserve = || std::fs::metadata(data.join("reserve")).map_or(0, |file| file.len());
    let whole = reserve();
    assert!(whole > 0);
    let text = "x".repeat(12_000);
    let posts: Vec<SignedPost> = (0..300).map(|at| post(&own(), &text, at)).collect();
    persist(&store, &receive, 1, posts.iter().map(write_post).collect()).unwrap();
    let mut blobs = Vec::new();
    for number in 2.. {
        let parts = slices(&blob_bytes(1_000_000, number));
        match persist(&store, &receive, number, write_slices(&parts)) {
            Ok(()) => blobs.push(parts),
            Err(trouble) => {
                assert_eq!(trouble, StorageTrouble::Full);
                break;
            }
        }
    }
    assert!(blobs.len() > 5, "{}", blobs.len());
    fill(&dir.join("the rest"));
    let late = post(&own(), &text, 1_000);
    let refused = persist(&store, &receive, 100, vec![write_post(&late)]);
    assert_eq!(refused, Err(StorageTrouble::Full));

    // An own post goes with the list that says so, first of all.
    assert_eq!(reserve(), whole);
    let (posts, deleted) = posts.split_at(posts.len() - 20);
    for (number, post) in (400..).zip(deleted) {
        let writes = own_deletion(post, deleted, number);
        persist(&store, &receive, number, writes).unwrap();
        fill(&dir.join("the rest"));
    }
    assert!(0 < reserve() && reserve() < whole);

    // And then much at once.
    let gone = blobs.split_off(3);
    let mut writes: Vec<Write> = posts[..200]
        .iter()
        .map(|post| Write::ForgetPost(post.id()))
        .collect();
    writes.extend(
        gone.iter()
            .map(|parts| Write::ForgetBlob(parts[0].blob().hash)),
    );
    store.persist(BatchId(101), writes, Durability::Durable);
    usage_where(&receive, |usage| usage.blob_bytes < 4_000_000);

    // What was deleted from has room again, and the reserve comes back once there is some for it.
    for (number, post) in (200..).zip(&posts[..30]) {
        persist(&store, &receive, number, vec![write_post(post)]).unwrap();
    }
    assert!(reserve() < whole);
    std::fs::remove_file(dir.join("theirs")).unwrap();
    for (number, post) in (300..).zip(&posts[30..50]) {
        persist(&store, &receive, number, vec![write_post(post)]).unwrap();
    }
    assert_eq!(reserve(), whole);
    store.close();
    drop(store);
    let (store, restored, _) = open_with(&data, BUDGET).unwrap();
    assert_eq!((restored.files.len(), restored.blobs.len()), (130, 3));
    assert_eq!(restored.deletions.len(), deleted.len());
    for parts in &blobs {
        let blob = parts[0].blob();
        let whole = store.view().blob_part(blob, 0..blob.length).unwrap();
        assert_eq!(whole.map(|whole| whole.len() as u64), Some(blob.length));
    }
    store.close();
    println!("TOLD done");
}

/// A lower budget on a disk without a free byte: there is no room to write a file anew, until one has given its slices to the
/// others.
fn shrink_child(dir: &Path) {
    if !mount_disk(dir, LARGER_DISK) {
        println!("TOLD no disk");
        return;
    }
    let data = dir.join("data");
    let (store, _, receive) = open_with(&data, BUDGET).unwrap();
    let text = "x".repeat(12_000);
    let posts: Vec<SignedPost> = (0..500).map(|at| post(&own(), &text, at)).collect();
    persist(&store, &receive, 1, posts.iter().map(write_post).collect()).unwrap();
    let mut blobs = Vec::new();
    for number in 2..42 {
        let parts = slices(&blob_bytes(1_000_000, number));
        persist(&store, &receive, number, write_slices(&parts)).unwrap();
        blobs.push(parts);
    }
    fill(&dir.join("the rest"));
    store.set_budget(LOWER);
    let usage = usage_where(&receive, |usage| usage.budget_bytes == LOWER);
    assert!(usage.is_shrinking, "{usage:?}");
    // Down to where eviction ends.
    let mut writes: Vec<Write> = posts[..200]
        .iter()
        .map(|post| Write::ForgetPost(post.id()))
        .collect();
    let gone = blobs.split_off(17);
    writes.extend(
        gone.iter()
            .map(|parts| Write::ForgetBlob(parts[0].blob().hash)),
    );
    persist(&store, &receive, 101, writes).unwrap();
    let usage = usage_where(&receive, |usage| !usage.is_shrinking);
    assert!(usage.file_bytes <= LOWER, "{usage:?}");
    assert!(data.join("reserve").exists());
    store.close();
    drop(store);
    let (store, restored, _) = open_with(&data, BUDGET).unwrap();
    assert_eq!((restored.files.len(), restored.blobs.len()), (300, 17));
    for parts in &blobs {
        let blob = parts[0].blob();
        let whole = store.view().blob_part(blob, 0..blob.length).unwrap();
        assert_eq!(whole.map(|whole| whole.len() as u64), Some(blob.length));
    }
    store.close();
    println!("TOLD done");
}

/// A lower budget that neither tables nor blobs come down to: the tables lack the disk's room, and of the blobs there are too many. Half
/// of the reserve goes for it, and it is not tried again with every commit.
fn crowded_child(dir: &Path) {
    if !mount_disk(dir, LARGER_DISK) {
        println!("TOLD no disk");
        return;
    }
    let data = dir.join("data");
    let (store, _, receive) = open_with(&data, BUDGET).unwrap();
    let text = "x".repeat(12_000);
    let posts: Vec<SignedPost> = (0..700).map(|at| post(&own(), &text, at)).collect();
    persist(&store, &receive, 1, posts.iter().map(write_post).collect()).unwrap();
    let mut blobs = Vec::new();
    for number in 2..32 {
        let parts = slices(&blob_bytes(1_000_000, number));
        persist(&store, &receive, number, write_slices(&parts)).unwrap();
        blobs.push(Write::ForgetBlob(parts[0].blob().hash));
    }
    let forget = |posts: &[SignedPost]| {
        let gone = posts.iter().map(|post| Write::ForgetPost(post.id()));
        gone.collect::<Vec<_>>()
    };
    persist(&store, &receive, 100, forget(&posts[..300])).unwrap();
    fill(&dir.join("the rest"));
    store.set_budget(LOWER);
    let whole = LOWER / 64;
    let reserve = || std::fs::metadata(data.join("reserve")).map_or(0, |file| file.len());
    while reserve() != whole / 2 {
        let usage = usage_where(&receive, |usage| usage.budget_bytes == LOWER);
        assert!(usage.is_shrinking, "{usage:?}");
    }
    // Once there is room, it is tried again after some commits.
    blobs.truncate(20);
    persist(&store, &receive, 101, blobs).unwrap();
    for (number, post) in (102..).zip(&posts[300..400]) {
        let gone = forget(std::slice::from_ref(post));
        persist(&store, &receive, number, gone).unwrap();
    }
    let usage = usage_where(&receive, |usage| !usage.is_shrinking);
    assert!(usage.file_bytes <= LOWER, "{usage:?}");
    store.close();
    drop(store);
    let (store, restored, _) = open_with(&data, BUDGET).unwrap();
    assert_eq!((restored.files.len(), restored.blobs.len()), (300, 10));
    store.close();
    println!("TOLD done");
}

#[test]
fn what_lacks_room_is_not_hidden_by_what_is_too_much() {
    if let Some(dir) = child_dir() {
        return crowded_child(&dir);
    }
    on_a_disk("what_lacks_room_is_not_hidden_by_what_is_too_much");
}

#[test]
fn deleting_works_on_a_disk_without_a_free_byte() {
    if let Some(dir) = child_dir() {
        return full_child(&dir);
    }
    on_a_disk("deleting_works_on_a_disk_without_a_free_byte");
}

#[test]
fn a_lower_budget_is_reached_on_a_disk_without_a_free_byte() {
    if let Some(dir) = child_dir() {
        return shrink_child(&dir);
    }
    on_a_disk("a_lower_budget_is_reached_on_a_disk_without_a_free_byte");
}

/// Runs a test as the child that mounts one.
fn on_a_disk(test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start_child(test, dir.path());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told: Vec<String> = lines
        .map(Result::unwrap)
        .filter_map(|line| line.split_once("TOLD ").map(|(_, told)| told.to_owned()))
        .collect();
    assert!(child.wait().unwrap().success());
    // Some systems let nobody mount anything; everywhere else it must have come to its end.
    match told[0].as_str() {
        "no disk" => println!("nothing was tested: this system lets nobody mount a disk"),
        told => assert_eq!(told, "done"),
    }
}
