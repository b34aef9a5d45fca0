//! What must hold whenever things have settled.

use crate::model::File;
use crate::stage::Stage;
use distsoc_engine::domain::{BlobHash, PostId};
use distsoc_engine::io::{Call, Reply, StorageView};
use distsoc_engine::world::files::ROW_BYTES;
use std::collections::{BTreeMap, BTreeSet};

fn disk_bytes(file: &File) -> u64 {
    let blobs: u64 = file.blobs.iter().map(|blob| blob.disk_bytes()).sum();
    file.body_bytes + ROW_BYTES + blobs
}

impl Stage {
    /// Bytes of a blob that the node knows to be on its disk.
    fn here(&self, hash: &BlobHash) -> u64 {
        let account = &self.disk_ref().account;
        let here = account.slices.get(hash).into_iter();
        let bytes = here.flat_map(|(blob, slices)| {
            let told = slices.iter();
            let told = told.filter(|slice| !account.untold.contains(&(*hash, **slice)));
            told.map(|slice| blob.slice_disk_bytes(*slice))
        });
        bytes.sum()
    }

    /// Bytes that a file takes beside the blobs that were counted.
    fn count(&self, file: &File, counted: &mut BTreeSet<BlobHash>) -> u64 {
        let hashes = file.blobs.iter().map(|blob| blob.hash);
        let new = hashes.filter(|hash| counted.insert(*hash));
        file.body_bytes + ROW_BYTES + new.map(|hash| self.here(&hash)).sum::<u64>()
    }

    fn count_own(&self, counted: &mut BTreeSet<BlobHash>) -> u64 {
        let own = self.model.files.values();
        let own = own.filter(|file| file.author == self.own);
        own.map(|file| self.count(file, counted)).sum()
    }

    /// Bytes that own content takes.
    pub(crate) fn own_bytes(&self) -> u64 {
        self.count_own(&mut BTreeSet::new())
    }

    fn storage(&mut self) -> StorageView {
        let preview = usize::MAX;
        match self.call(Call::Storage { preview }) {
            Ok(Reply::Storage(view)) => *view,
            other => panic!("no view: {other:?}"),
        }
    }

    pub(crate) fn check(&mut self) {
        self.settle();
        if self.failed_lately {
            self.recover();
        }
        if let Some(told) = self.disk().await_shrunk() {
            self.hear_of_disk(told);
        }
        let view = self.storage();
        self.check_files(&view);
        self.check_own();
    }

    /// What failed is tried again, and more goes where that has no room: in the end all of it is there.
    fn recover(&mut self) {
        self.disk().refusing.0 = 0;
        for _ in 0..24 {
            self.failed_lately = false;
            self.pass(11 * 60_000);
            if !self.failed_lately {
                return;
            }
        }
        panic!("rows are refused for ever: {:?}", self.disk().usage);
    }

    fn check_files(&mut self, view: &StorageView) {
        let files: BTreeSet<PostId> = self.model.files.keys().copied().collect();
        let on_disk: BTreeSet<PostId> = self.disk().account.posts.keys().copied().collect();
        let left: Vec<&PostId> = on_disk.difference(&files).collect();
        assert!(
            left.is_empty(),
            "on the disk, and the node has forgotten: {left:?}"
        );
        let lost: Vec<&PostId> = files.difference(&on_disk).collect();
        assert!(
            lost.is_empty(),
            "not on the disk, and the node has it: {lost:?}"
        );
        assert_eq!(view.files, files.len());
        let ever: Vec<PostId> = self.cloud.posts.keys().copied().collect();
        self.disk().check_content(ever.iter());
        let hearts: BTreeSet<PostId> = self
            .disk()
            .account
            .hearts
            .keys()
            .map(|(post, _)| *post)
            .collect();
        let left: Vec<&PostId> = hearts.difference(&files).collect();
        assert!(left.is_empty(), "hearts of forgotten posts: {left:?}");
        self.check_shares(view);
        self.check_blobs(view);
        if !self.is_troubled {
            self.check_order(view);
        }
    }

    /// What the person is told of who takes how much.
    fn check_shares(&mut self, view: &StorageView) {
        let (mut pinned, mut followed, mut hosted) = (0, 0, 0);
        let mut counted = BTreeSet::new();
        let own = self.count_own(&mut counted);
        let others = self.model.files.iter();
        // The node counts in the order of the ids.
        let others: BTreeMap<_, _> = others.filter(|(_, file)| file.author != self.own).collect();
        for file in others.into_values() {
            let share = if file.is_pinned {
                &mut pinned
            } else if self.model.followed.contains(&file.author) {
                &mut followed
            } else {
                &mut hosted
            };
            *share += self.count(file, &mut counted);
        }
        let told = (
            view.own.all,
            view.pinned_bytes,
            view.followed_bytes,
            view.hosted_bytes,
        );
        assert_eq!(
            told,
            (own, pinned, followed, hosted),
            "own, pinned, followed, hosted"
        );
        let (told, is) = (view.usage, self.disk().usage);
        assert_eq!(
            (
                told.budget_bytes,
                told.row_bytes,
                told.blob_bytes,
                told.is_shrinking
            ),
            (
                is.budget_bytes,
                is.row_bytes,
                is.blob_bytes,
                is.is_shrinking
            )
        );
    }

    /// Every blob on the disk has a file or waits for one, and the node knows how much of each is missing.
    fn check_blobs(&mut self, view: &StorageView) {
        let files = self.model.files.values();
        let named: BTreeSet<BlobHash> = files
            .flat_map(|file| file.blobs.iter().map(|blob| blob.hash))
            .collect();
        let now_ms = self.now.mono_ms;
        self.staged.retain(|_, until_ms| *until_ms > now_ms);
        let staged = self.staged.clone();
        let is_loose = |hash: &&BlobHash| !named.contains(hash) && !staged.contains_key(hash);
        let slices = &self.disk().account.slices;
        let loose: Vec<BlobHash> = slices.keys().filter(is_loose).copied().collect();
        assert!(loose.is_empty(), "blobs of forgotten posts: {loose:?}");
        for told in &view.next_to_go {
            let file = &self.model.files[&told.post];
            let blobs = file.blobs.clone();
            assert_eq!(told.bytes, disk_bytes(file), "bytes of {}", told.post);
            let missing = blobs
                .iter()
                .map(|blob| blob.disk_bytes() - self.here(&blob.hash));
            let missing: u64 = missing.sum();
            assert_eq!(told.missing_bytes, missing, "missing of {}", told.post);
        }
    }

    /// What would go, in its order.
    fn check_order(&mut self, view: &StorageView) {
        let now_s = self.now_s();
        let order = self.model.order(&self.own, now_s);
        let told = view.next_to_go.iter().map(|told| told.post);
        let told: Vec<PostId> = told.filter(|id| !self.model.files[id].is_shared).collect();
        for (place, (known, told)) in order.iter().zip(&told).enumerate() {
            let worth = |id: &PostId| {
                let view = view.next_to_go.iter().find(|view| view.post == *id);
                let told = view.and_then(|view| view.worth);
                (self.model.worth(id, now_s), told)
            };
            assert_eq!(
                known.1,
                *told,
                "place {place}: {:?}, and the node says {:?}",
                worth(&known.1),
                worth(told)
            );
        }
        assert_eq!(order.len(), told.len());
        for view in &view.next_to_go {
            let (facts, priority) = view.worth.expect("it may go");
            let worth = self.model.worth(&view.post, now_s);
            let scaled = (priority.to_f64() * 232_792_560.0).round() as u64;
            // Floats have 53 bits.
            let is_it = scaled + 64 >= worth.least && scaled <= worth.most + 64;
            assert!(
                is_it,
                "{}: {worth:?}, and the node says {facts:?}",
                view.post
            );
        }
    }

    /// Own posts and every byte of their pictures.
    fn check_own(&mut self) {
        for id in self.own_posts.clone() {
            let post = self.disk().account.posts.get(&id).cloned();
            let post = post.unwrap_or_else(|| panic!("own post {id} is gone"));
            let Ok(Reply::Kept(kept)) = self.call(Call::ExplainPost(id)) else {
                panic!("the node does not know its own post {id}");
            };
            assert!(kept.worth.is_none() && kept.rank.is_none());
            assert_eq!(kept.missing_bytes, 0, "of own post {id}");
            for blob in post.body().blobs.iter() {
                let here = self.disk().blob(*blob);
                let bytes = &self.cloud.blobs[&blob.hash].bytes;
                assert!(
                    here.as_ref() == Some(bytes),
                    "blob {} of own post {id}",
                    blob.hash
                );
            }
        }
    }

    /// All slices, byte by byte, before and after a last start.
    pub(crate) fn check_at_the_end(&mut self) {
        for _ in 0..2 {
            let blobs = &self.cloud.blobs;
            let proved = |hash: &BlobHash, number: u32| {
                let slice = &blobs[hash].slices[number as usize];
                slice.bytes().to_vec()
            };
            self.disk_ref().check_slices(proved);
            self.restart();
            self.check();
        }
    }
}
