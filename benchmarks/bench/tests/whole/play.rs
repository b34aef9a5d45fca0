//! Acts on the stage.

use crate::acts::Act;
use crate::cloud::PEERS;
use crate::stage::Stage;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{BlobHash, MediaDescription, PostId, PostText};
use distsoc_engine::io::{Call, CallError, OwnBytes, Reply};
use distsoc_engine::limits;
use distsoc_engine::wire::{
    DeleteRecord, Expected, FileRequest, FileResponse, HeartRecord, Packet,
};
use distsoc_engine::wire::{PostNotification, admit};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Stage {
    pub(crate) fn play(&mut self, act: Act) {
        match act {
            Act::Publish {
                author,
                posts,
                letters,
                blob,
                shared,
                days,
            } => self.publish(author, posts, letters, blob, shared, days),
            Act::Burst {
                author,
                posts,
                letters,
                days,
            } => {
                for _ in 0..posts {
                    self.post_by(author, letters, &[], days);
                }
                self.notify(author);
                self.pass(3_000);
            }
            Act::Own {
                letters,
                blob,
                shared,
            } => self.post(letters, blob, shared),
            Act::Stage(length) => {
                let hash = self.cloud.make_blob(length);
                self.upload(hash);
            }
            Act::DeleteOwn(at) => {
                let count = self.own_posts.len().max(1);
                let own = self.own_posts.iter().nth(usize::from(at) % count);
                if let Some(id) = own.copied() {
                    self.delete(id);
                }
            }
            Act::Delete { author, at } => self.take_back(author, at),
            Act::Follow(author) => {
                let node = self.cloud.id(author);
                self.act(Call::Follow { node, place: None });
                self.pass(2_000);
            }
            Act::Unfollow(author) => {
                let node = self.cloud.id(author);
                if self.model.followed.contains(&node) {
                    self.act(Call::Unfollow(node));
                }
            }
            Act::Heart {
                person,
                reporter,
                author,
                at,
            } => {
                if let Some(id) = self.kept_post(author, at) {
                    self.like(person, reporter, id);
                }
            }
            Act::Applause { author, at } => {
                if let Some(id) = self.kept_post(author, at) {
                    (0..PEERS).for_each(|person| self.like(person, person, id));
                }
            }
            Act::StrangersHeart {
                reporter,
                author,
                at,
            } => self.like_as_nobody(reporter, author, at),
            Act::OwnHeart { author, at } => {
                if let Some(post) = self.kept_post(author, at) {
                    let given = !self.model.is_given(&post, &self.own);
                    self.act(Call::Heart { post, given });
                }
            }
            Act::Pin { author, at } => {
                if let Some(post) = self.kept_post(author, at) {
                    let is_pinned = !self.model.files[&post].is_pinned;
                    self.act(Call::Pin { post, is_pinned });
                }
            }
            Act::Pass { ms } => self.pass(u64::from(ms)),
            Act::Jump { hours } => self.jump(u64::from(hours) * 60 * 60 * 1000),
            Act::Budget(bytes) => {
                // As the node has it: not below what own content takes.
                if self.own_bytes() <= OwnBytes::max_of(bytes).all {
                    self.set_disk_budget(bytes);
                    self.pass(2_000);
                }
            }
            Act::Restart => {
                self.settle();
                self.restart();
            }
            Act::Crash => self.crash(),
            Act::Disconnect(peer) => match self.link_of(peer) {
                Some(_) => self.disconnect(peer),
                None => self.connect_all(),
            },
            Act::Silence(peer) => {
                if !self.cloud.silent.remove(&peer) {
                    self.cloud.silent.insert(peer);
                }
            }
            Act::Ask { peer, at } => self.serve(peer, at),
            Act::Refuse { batches, trouble } => self.disk().refusing = (batches, trouble),
        }
    }

    /// Something that the person wants, which only the disk may refuse.
    fn act(&mut self, what: Call) {
        let reply = self.call(what.clone());
        let is_done = matches!(reply, Ok(Reply::Done) | Err(CallError::Storage(_)));
        assert!(is_done, "{what:?}: {reply:?}");
    }

    /// A post of an author that the node has, if there is any.
    fn kept_post(&self, author: usize, at: u16) -> Option<PostId> {
        let author = self.cloud.id(author);
        let kept = self.model.files.iter();
        let kept = kept.filter(|(_, file)| file.author == author);
        let kept: Vec<PostId> = kept.map(|(id, _)| *id).collect();
        let place = usize::from(at) % kept.len().max(1);
        kept.get(place).copied()
    }

    fn post_by(&mut self, author: usize, letters: u16, blobs: &[BlobHash], days: u16) -> PostId {
        let now_ms = self.now.wall_ms;
        let written_ms = now_ms - u64::from(days) * DAY_MS;
        self.cloud
            .publish(author, letters, blobs, written_ms, now_ms)
    }

    /// An author tells of the newest post, which is small enough or is pulled.
    fn notify(&mut self, author: usize) {
        let Some(list) = self.cloud.list(author) else {
            return;
        };
        let newest = list.list().newest(1);
        let id = newest.iter().next().map(|event| event.id);
        let post = id.map(|id| &self.cloud.posts[&id]);
        let post = post.filter(|post| !post.deleted).map(|post| &post.post);
        let small = post.filter(|post| {
            let body = &post.bytes().body;
            body.len() <= limits::POST_INLINE_BYTES_MAX
        });
        let news = PostNotification {
            head: list.head().clone(),
            newest,
            post: small.cloned(),
        };
        if let Some(link) = self.link_of(author) {
            self.deliver(link, &news.into());
        }
    }

    fn publish(
        &mut self,
        author: usize,
        posts: u8,
        letters: u16,
        blob: Option<u32>,
        shared: Option<u16>,
        days: u16,
    ) {
        let shared = shared.and_then(|at| self.cloud.blob_at(at));
        for _ in 0..posts {
            let mut blobs: Vec<BlobHash> = shared.into_iter().collect();
            blobs.extend(blob.map(|length| self.cloud.make_blob(length)));
            self.post_by(author, letters, &blobs, days);
            self.notify(author);
            // Often several at once.
            if self.entropy.below(2) == 0 {
                let ms = self.entropy.below(300);
                self.pass(ms);
            }
        }
        self.pass(1_500);
    }

    fn upload(&mut self, hash: BlobHash) -> bool {
        let slices = self.cloud.blobs[&hash].slices.clone();
        matches!(self.call(Call::Stage(slices)), Ok(Reply::Done))
    }

    fn post(&mut self, letters: u16, blob: Option<u32>, shared: Option<u16>) {
        let mut blobs: Vec<BlobHash> = blob
            .map(|length| self.cloud.make_blob(length))
            .into_iter()
            .collect();
        blobs.extend(shared.and_then(|at| self.cloud.blob_at(at)));
        let uploaded: Vec<BlobHash> = blobs
            .into_iter()
            .filter(|hash| self.upload(*hash))
            .collect();
        let described = |hash: &BlobHash| {
            let blob = self.cloud.blobs[hash].blob;
            (blob, MediaDescription::new("mine").unwrap())
        };
        let media = uploaded.iter().map(described).collect();
        let text = self.cloud.text(letters);
        let call = Call::Post {
            text: PostText::new(&text).unwrap(),
            parent: None,
            media,
        };
        match self.call(call) {
            Ok(Reply::Posted(id)) => {
                assert!(self.model.files.contains_key(&id), "it is there");
                for hash in &uploaded {
                    self.staged.remove(hash);
                }
            }
            Err(CallError::Refused(_) | CallError::Storage(_) | CallError::NotFound(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, id: PostId) {
        self.cloud.posts.get_mut(&id).unwrap().deleted = true;
        match self.call(Call::Delete(id)) {
            Ok(Reply::Done) => {}
            Err(CallError::Storage(_)) => self.cloud.posts.get_mut(&id).unwrap().deleted = false,
            other => panic!("{other:?}"),
        }
    }

    fn take_back(&mut self, author: usize, at: u16) {
        let Some(id) = self.cloud.post_at(author, at) else {
            return;
        };
        let now_ms = self.now.wall_ms;
        let deletion = self.cloud.take_back(author, id, now_ms);
        self.notify(author);
        if let Some(link) = self.link_of(author) {
            self.deliver(
                link,
                &DeleteRecord {
                    deletion,
                    list_seq: 0,
                }
                .into(),
            );
        }
        self.pass(500);
    }

    fn like(&mut self, person: usize, reporter: usize, id: PostId) {
        let Some(link) = self
            .link_of(reporter)
            .filter(|_| self.link_of(person).is_some())
        else {
            return;
        };
        let now_ms = self.now.wall_ms;
        let heart = self.cloud.turn_heart(person, id, now_ms);
        self.deliver(link, &HeartRecord { heart, list_seq: 0 }.into());
        self.pass(1);
    }

    fn like_as_nobody(&mut self, reporter: usize, author: usize, at: u16) {
        let (id, link) = (self.kept_post(author, at), self.link_of(reporter));
        if let (Some(id), Some(link)) = (id, link) {
            let nobody = Secret::from_seed(&self.entropy.bytes32());
            let heart = self.cloud.sign_heart(&nobody, id, true, self.now.wall_ms);
            self.deliver(link, &HeartRecord { heart, list_seq: 0 }.into());
            self.settle();
        }
    }

    /// The process ends while things come and go.
    fn crash(&mut self) {
        let author = self.entropy.below(crate::cloud::AUTHORS as u64) as usize;
        let blob = self.cloud.make_blob(300_000);
        self.post_by(author, 3_000, &[blob], 0);
        self.notify(author);
        for _ in 0..self.entropy.below(12) {
            self.now.mono_ms += 100;
            self.now.wall_ms += 100;
            self.frame();
            self.work_once();
        }
        self.restart();
    }

    /// Whoever asks the node gets what was proved, and as much as the node says it has.
    fn serve(&mut self, peer: usize, at: u16) {
        let (blob, link) = (self.cloud.blob_at(at), self.link_of(peer));
        let (Some(hash), Some(link)) = (blob, link) else {
            return;
        };
        let blob = self.cloud.blobs[&hash].blob;
        let request = FileRequest {
            blob,
            first: 0,
            count: blob.slices().min(limits::FILE_SLICES_MAX),
        };
        let here = self.disk().account.slices.get(&hash).cloned();
        let token = self.ask(link, &request.into());
        self.settle();
        let Some(Some(bytes)) = self.told.remove(&token) else {
            panic!("the node answers");
        };
        let code = FileResponse::SPEC.code;
        let answer = admit(&bytes, Expected::Response(code))
            .unwrap()
            .into_inner();
        let Packet::FileResponse(response) = answer else {
            panic!("not what was asked for");
        };
        let is_named = |file: &crate::model::File| file.blobs.contains(&blob);
        let named = self.model.files.values().any(is_named);
        let untold = self.disk().account.untold.clone();
        let run = (0..blob.slices()).take_while(|slice| {
            let here = here.as_ref().filter(|_| !untold.contains(&(hash, *slice)));
            here.is_some_and(|(_, slices)| slices.contains(slice))
        });
        let expected = run.count().min(limits::FILE_SLICES_MAX as usize);
        // Something may have come or gone while it was asked.
        if named && self.disk().account.slices.get(&hash) == here.as_ref() {
            assert_eq!(response.slices.len(), expected, "slices of {hash}");
        }
    }
}
