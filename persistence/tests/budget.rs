//! Everything on the disk keeps to the budget, whatever is stored and forgotten (PROTOCOL section 7, quota).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shelf;

use distsoc_engine::domain::{BlobHash, PostId, SignedPost, Slice, Verified};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{BatchId, DiskUsage, Durability, Input, StorageTrouble, Write};
use distsoc_persistence::Store;
use proptest::prelude::*;
use shelf::{
    PATIENCE, blob_bytes, bytes_below, open_with, own, persist, post, slices, usage_where,
    write_post, write_slices,
};
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;

#[derive(Clone, Debug)]
enum Step {
    /// Posts come, of so many letters each.
    Posts(u8, u16),
    /// A blob of so many bytes comes; of it, every slice or every other.
    Blob(u32, bool),
    /// Some posts are forgotten, from this one on.
    ForgetPosts(u16, u8),
    /// A blob is forgotten.
    ForgetBlob(u16),
    /// The process ends and starts again.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..40u8, 1..16_000u16).prop_map(|(count, letters)| Step::Posts(count, letters)),
        6 => (1..4_000_000u32, any::<bool>()).prop_map(|(bytes, whole)| Step::Blob(bytes, whole)),
        3 => (any::<u16>(), 1..60u8).prop_map(|(at, count)| Step::ForgetPosts(at, count)),
        3 => any::<u16>().prop_map(Step::ForgetBlob),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 40..90)
}

#[derive(Default)]
struct Model {
    posts: BTreeMap<PostId, SignedPost>,
    /// What was acknowledged of each blob.
    blobs: BTreeMap<BlobHash, Vec<Verified<Slice>>>,
}

impl Model {
    /// Ids to forget, in order from a place on.
    fn posts_from(&self, at: u16, count: u8) -> Vec<PostId> {
        let skipped = usize::from(at) % self.posts.len().max(1);
        let ids = self.posts.keys().skip(skipped).take(usize::from(count));
        ids.copied().collect()
    }

    fn blob_at(&self, at: u16) -> Option<BlobHash> {
        let skipped = usize::from(at) % self.blobs.len().max(1);
        self.blobs.keys().nth(skipped).copied()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_never_pass_the_budget_and_what_is_stored_is_intact(
        budget in 16_000_000..32_000_000u64,
        steps in steps(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _, mut receive) = open_with(dir.path(), budget).unwrap();
        let mut model = Model::default();
        let mut batch = 0;
        for step in steps {
            batch += 1;
            match step {
                Step::Posts(count, letters) => {
                    let text = "x".repeat(usize::from(letters));
                    let new: Vec<SignedPost> = (0..u64::from(count))
                        .map(|number| post(&own(), &format!("{batch} {text}"), number))
                        .collect();
                    match persist(&store, &receive, batch, new.iter().map(write_post).collect()) {
                        Ok(()) => model.posts.extend(new.into_iter().map(|post| (post.id(), post))),
                        Err(trouble) => {
                            prop_assert_eq!(trouble, StorageTrouble::Budget);
                            let gone = model.posts_from(batch as u16, 60);
                            let writes = gone.iter().copied().map(Write::ForgetPost).collect();
                            batch += 1;
                            let forgot = persist(&store, &receive, batch, writes);
                            prop_assert_eq!(forgot, Ok(()), "deleting works where it is full");
                            model.posts.retain(|id, _| !gone.contains(id));
                        }
                    }
                }
                Step::Blob(bytes, whole) => {
                    let mut parts = slices(&blob_bytes(bytes as usize, batch));
                    parts.retain(|slice| whole || slice.number() % 2 == 0);
                    let hash = parts[0].blob().hash;
                    match persist(&store, &receive, batch, write_slices(&parts)) {
                        Ok(()) => drop(model.blobs.insert(hash, parts)),
                        Err(trouble) => {
                            prop_assert_eq!(trouble, StorageTrouble::Budget);
                            let mut gone = vec![hash];
                            gone.extend(model.blob_at(batch as u16));
                            let writes = gone.iter().copied().map(Write::ForgetBlob).collect();
                            batch += 1;
                            let forgot = persist(&store, &receive, batch, writes);
                            prop_assert_eq!(forgot, Ok(()), "deleting works where it is full");
                            model.blobs.retain(|hash, _| !gone.contains(hash));
                        }
                    }
                }
                Step::ForgetPosts(at, count) => {
                    let gone = model.posts_from(at, count);
                    let writes = gone.iter().copied().map(Write::ForgetPost).collect();
                    prop_assert_eq!(persist(&store, &receive, batch, writes), Ok(()));
                    model.posts.retain(|id, _| !gone.contains(id));
                }
                Step::ForgetBlob(at) => {
                    let gone = model.blob_at(at);
                    let writes = gone.into_iter().map(Write::ForgetBlob).collect();
                    prop_assert_eq!(persist(&store, &receive, batch, writes), Ok(()));
                    model.blobs.retain(|hash, _| Some(*hash) != gone);
                }
                Step::Restart => {
                    store.close();
                    drop(store);
                    (store, _, receive) = open_with(dir.path(), budget).unwrap();
                }
            }
            let bytes = bytes_below(dir.path());
            prop_assert!(bytes <= budget, "{} of {}", bytes, budget);
        }
        store.close();
        drop(store);
        let (store, restored, _) = open_with(dir.path(), budget).unwrap();
        let there: Vec<PostId> = restored.files.iter().map(|file| file.id).collect();
        prop_assert_eq!(there, model.posts.keys().copied().collect::<Vec<_>>());
        let view = store.view();
        for (id, post) in &model.posts {
            let there = view.post(*id).unwrap().map(|entry| entry.body);
            prop_assert_eq!(there.as_ref(), Some(post.body()));
        }
        let there: Vec<BlobHash> = restored.blobs.iter().map(|blob| blob.hash).collect();
        prop_assert_eq!(there, model.blobs.keys().copied().collect::<Vec<_>>());
        for slice in model.blobs.values().flatten() {
            let start = u64::from(slice.number()) * distsoc_engine::domain::SLICE_BYTES as u64;
            let part = view.blob_part(slice.blob(), start..start + slice.data().len() as u64);
            let part = part.unwrap();
            prop_assert_eq!(part.as_deref(), Some(slice.data()));
        }
    }
}

#[test]
fn a_lowered_budget_is_kept_to_once_enough_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open_with(dir.path(), 96_000_000).unwrap();
    let mut blobs = Vec::new();
    for number in 0..50 {
        let parts = slices(&blob_bytes(1_000_000, number));
        persist(&store, &receive, number, write_slices(&parts)).unwrap();
        blobs.push(parts);
    }
    let text = "x".repeat(12_000);
    let posts: Vec<SignedPost> = (0..800).map(|at| post(&own(), &text, at)).collect();
    for (number, posts) in (100..).zip(posts.chunks(100)) {
        persist(
            &store,
            &receive,
            number,
            posts.iter().map(write_post).collect(),
        )
        .unwrap();
    }
    let before = bytes_below(dir.path());
    assert!(before > 64_000_000, "{before}");

    const LOWER: u64 = 32_000_000;
    store.set_budget(LOWER);
    let usage = usage_where(&receive, |usage| usage.budget_bytes == LOWER);
    assert!(usage.is_shrinking, "{usage:?}");
    assert!(usage.blob_bytes > usage.blob_room_bytes && usage.row_bytes > usage.row_room_bytes);
    // Nothing has been forgotten: what comes is refused, and what is there stays.
    let late = slices(&blob_bytes(1_000_000, 1_000));
    let refused = persist(&store, &receive, 200, write_slices(&late));
    assert_eq!(refused, Err(StorageTrouble::Budget));

    let gone = blobs
        .drain(..36)
        .map(|parts| Write::ForgetBlob(parts[0].blob().hash));
    let mut writes: Vec<Write> = gone.collect();
    writes.extend(posts[..500].iter().map(|post| Write::ForgetPost(post.id())));
    persist(&store, &receive, 201, writes).unwrap();
    let usage = usage_where(&receive, |usage| !usage.is_shrinking);
    assert!(usage.file_bytes <= LOWER, "{usage:?}");
    let after = bytes_below(dir.path());
    assert!(after <= LOWER, "{after}");
    persist(&store, &receive, 202, write_slices(&late)).unwrap();
    blobs.push(late);
    store.close();
    drop(store);

    let (store, restored, _) = open_with(dir.path(), 96_000_000).unwrap();
    assert_eq!(restored.usage.budget_bytes, LOWER);
    assert!(!restored.usage.is_shrinking);
    assert_eq!(
        (restored.files.len(), restored.blobs.len()),
        (300, blobs.len())
    );
    for post in &posts[500..] {
        assert!(store.view().post(post.id()).unwrap().is_some());
    }
    for parts in &blobs {
        let blob = parts[0].blob();
        let whole = store.view().blob_part(blob, 0..blob.length).unwrap();
        let data = parts.iter().flat_map(|slice| slice.data());
        assert!(whole.unwrap().iter().eq(data));
    }
}

/// A folder of a time without a budget, or with a larger one, opens and comes down to what it may have.
#[test]
fn a_folder_that_is_larger_than_its_budget_opens_and_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open_with(dir.path(), 96_000_000).unwrap();
    let text = "x".repeat(12_000);
    let posts: Vec<SignedPost> = (0..800).map(|at| post(&own(), &text, at)).collect();
    persist(&store, &receive, 1, posts.iter().map(write_post).collect()).unwrap();
    store.close();
    drop(store);

    let (store, restored, receive) = open_with(dir.path(), 16_000_000).unwrap();
    assert_eq!(restored.files.len(), 800);
    assert!(restored.usage.is_shrinking);
    let gone = posts[..700].iter().map(|post| Write::ForgetPost(post.id()));
    persist(&store, &receive, 2, gone.collect()).unwrap();
    usage_where(&receive, |usage| !usage.is_shrinking);
    let bytes = bytes_below(dir.path());
    assert!(bytes <= 16_000_000, "{bytes}");
    assert!(store.view().post(posts[750].id()).unwrap().is_some());
}

/// Not a page is left in the tables: what is kept back for deleting is there for it, and then what was freed is used.
#[test]
fn deleting_works_where_the_tables_are_full_to_the_last_page() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open_with(dir.path(), 16_000_000).unwrap();
    let mut there = Vec::new();
    let mut batch = 0;
    for letters in [12_000, 3_000, 500, 1] {
        let mut refused = 0;
        while refused < 3 {
            batch += 1;
            let text = format!("{batch} {}", "x".repeat(letters));
            let post = post(&own(), &text, batch);
            match persist(&store, &receive, batch, vec![write_post(&post)]) {
                Ok(()) => there.push(post),
                Err(trouble) => {
                    assert_eq!(trouble, StorageTrouble::Budget);
                    refused += 1;
                }
            }
        }
    }
    let bytes = bytes_below(dir.path());
    assert!(bytes <= 16_000_000, "{bytes}");
    // All of a sudden, and then one by one.
    let gone = there.split_off(there.len() / 2);
    let gone = gone.iter().map(|post| Write::ForgetPost(post.id()));
    persist(&store, &receive, 1_000_000, gone.collect()).unwrap();
    for (number, post) in (1_000_001..).zip(there.split_off(20)) {
        let gone = vec![Write::ForgetPost(post.id())];
        persist(&store, &receive, number, gone).unwrap();
    }
    let bytes = bytes_below(dir.path());
    assert!(bytes <= 16_000_000, "{bytes}");
    for number in 2_000_000..2_000_100 {
        let post = post(&own(), &"y".repeat(12_000), number);
        persist(&store, &receive, number, vec![write_post(&post)]).unwrap();
    }
    store.close();
    drop(store);
    let (_store, restored, _) = open_with(dir.path(), 16_000_000).unwrap();
    assert_eq!(restored.files.len(), 120);
    assert!(!restored.usage.is_shrinking, "{:?}", restored.usage);
}

/// Rows that go all at once lie on more pages than there are free ones: they go in steps.
#[test]
fn many_rows_go_at_once_where_hardly_a_page_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open_with(dir.path(), 20_000_000).unwrap();
    let mut there = Vec::new();
    // As many as have room, first in large batches, which leave no free pages behind.
    for (batch, count) in (1..).zip([
        1_000, 1_000, 400, 400, 100, 100, 100, 20, 20, 20, 4, 4, 4, 1, 1,
    ]) {
        let posts: Vec<SignedPost> = (0..count)
            .map(|at| post(&own(), &format!("{batch} {}", "x".repeat(700)), at))
            .collect();
        if persist(
            &store,
            &receive,
            batch,
            posts.iter().map(write_post).collect(),
        )
        .is_ok()
        {
            there.extend(posts);
        }
    }
    store.set_budget(16_000_000);
    usage_where(&receive, |usage| usage.budget_bytes == 16_000_000);
    let gone: Vec<&SignedPost> = there.iter().step_by(3).collect();
    let writes = gone.iter().map(|post| Write::ForgetPost(post.id()));
    assert_eq!(persist(&store, &receive, 100, writes.collect()), Ok(()));
    for (place, post) in there.iter().enumerate() {
        let is_there = store.view().post(post.id()).unwrap().is_some();
        assert_eq!(is_there, place % 3 != 0);
    }
}

#[test]
fn whoever_deletes_is_told_how_full_the_disk_is_though_it_is_as_full_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open_with(dir.path(), 64_000_000).unwrap();
    let nothing = [
        Write::ForgetPost(PostId::from_bytes([1; 32])),
        Write::ForgetBlob(BlobHash::from_bytes([1; 32])),
    ];
    for (batch, write) in (1..).zip(nothing) {
        assert_eq!(persist(&store, &receive, batch, vec![write]), Ok(()));
        // After the batch has ended.
        usage_where(&receive, |_| true);
    }
}

/// Persists, and takes in what is said of the disk meanwhile.
fn persist_and_see(
    store: &Store,
    receive: &Receiver<Input>,
    batch: u64,
    writes: Vec<Write>,
    usage: &mut DiskUsage,
) {
    store.persist(BatchId(batch), writes, Durability::Durable);
    loop {
        match receive.recv_timeout(PATIENCE).unwrap() {
            Input::Disk(now) => *usage = now,
            Input::Persisted(id) if id == BatchId(batch) => return,
            Input::PersistFailed(_, trouble) => panic!("{trouble}, {usage:?}"),
            _ => {}
        }
    }
}

/// Whoever begins to evict at 95 % of the room that is named, and ends at 90 %, never meets a full disk: gaps between rows are no
/// room.
#[test]
fn rows_of_any_length_have_the_room_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (store, restored, receive) = open_with(dir.path(), 64_000_000).unwrap();
    let mut usage = restored.usage;
    let mut entropy = Entropy::from_seed([3; 32]);
    let mut there: Vec<PostId> = Vec::new();
    let mut evictions = 0;
    for batch in 0..900 {
        let share = |usage: &DiskUsage| usage.row_bytes * 100 / usage.row_room_bytes;
        let is_eviction = share(&usage) >= 95;
        let writes = if is_eviction {
            evictions += 1;
            let bytes_max = usage.row_bytes - usage.row_room_bytes * 90 / 100;
            // Posts of this test take 4 KB on average.
            let gone = (0..bytes_max / 4_000).map(|_| {
                let place = entropy.below(there.len() as u64) as usize;
                Write::ForgetPost(there.swap_remove(place))
            });
            gone.collect()
        } else {
            let posts: Vec<SignedPost> = (0..1 + entropy.below(40))
                .map(|number| {
                    let most = if number % 3 == 0 { 15_000 } else { 600 };
                    let text = "x".repeat(entropy.below(most) as usize);
                    post(&own(), &format!("{batch} {text}"), number)
                })
                .collect();
            there.extend(posts.iter().map(SignedPost::id));
            posts.iter().map(write_post).collect()
        };
        persist_and_see(&store, &receive, batch, writes, &mut usage);
    }
    assert!(evictions > 10, "{evictions}");
    let bytes = bytes_below(dir.path());
    assert!(bytes <= 64_000_000, "{bytes}");
}
