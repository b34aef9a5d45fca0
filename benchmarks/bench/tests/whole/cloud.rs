//! Everybody else: authors with their lists, and what they posted, which every peer has and gives to whoever asks.

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    BlobHash, BlobRef, Content, Cut, Deletion, DeletionBody, Event, EventKind, Heart, HeartBody,
    MediaDescription, NodeId, PostBody, PostId, PostText, PublicContent, RecentPosts, Signed,
    SignedPost, Slice, Verified,
};
use distsoc_engine::limits;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    FileRequest, FileResponse, ListPart, Packet, PullSyncRequest, PullSyncResponse,
};
use std::collections::{BTreeMap, BTreeSet};

/// Peers; the first of them are authors.
pub(crate) const PEERS: usize = 13;
/// Authors among them.
pub(crate) const AUTHORS: usize = 6;

/// A blob that somebody made.
pub(crate) struct Blob {
    pub(crate) blob: BlobRef,
    pub(crate) slices: Vec<Verified<Slice>>,
    pub(crate) bytes: Vec<u8>,
    /// Posts that ever named it.
    pub(crate) posts: usize,
}

/// A post of somebody, and what became of it.
pub(crate) struct Published {
    pub(crate) post: SignedPost,
    pub(crate) author: NodeId,
    pub(crate) deleted: bool,
}

/// The network as it would be if everybody had everything.
pub(crate) struct Cloud {
    pub(crate) secrets: Vec<Secret>,
    lists: BTreeMap<NodeId, Verified<RecentPosts>>,
    /// Every post there ever was, in the order of publishing.
    pub(crate) posts: BTreeMap<PostId, Published>,
    pub(crate) by_author: BTreeMap<NodeId, Vec<PostId>>,
    pub(crate) blobs: BTreeMap<BlobHash, Blob>,
    hearts: BTreeMap<(PostId, NodeId), Heart>,
    deletions: BTreeMap<PostId, Deletion>,
    /// Peers that answer nothing now.
    pub(crate) silent: BTreeSet<usize>,
    made: u64,
}

pub(crate) fn secret(number: usize) -> Secret {
    Secret::from_seed(&[number as u8 + 10; 32])
}

fn public(text: &str, count: usize) -> Content {
    let described = (0..count).map(|_| MediaDescription::new("a picture").unwrap());
    Content::Public(PublicContent {
        text: PostText::new(text).unwrap(),
        parent: None,
        descriptions: Bounded::truncated(described.collect()),
    })
}

impl Cloud {
    pub(crate) fn new() -> Self {
        Self {
            secrets: (0..PEERS).map(secret).collect(),
            lists: BTreeMap::new(),
            posts: BTreeMap::new(),
            by_author: BTreeMap::new(),
            blobs: BTreeMap::new(),
            hearts: BTreeMap::new(),
            deletions: BTreeMap::new(),
            silent: BTreeSet::new(),
            made: 0,
        }
    }

    pub(crate) fn id(&self, peer: usize) -> NodeId {
        self.secrets[peer].node_id()
    }

    /// A text that nobody has written yet.
    pub(crate) fn text(&mut self, letters: u16) -> String {
        self.made += 1;
        format!("{} {}", self.made, "x".repeat(usize::from(letters)))
    }

    /// A blob that nobody has made yet.
    pub(crate) fn make_blob(&mut self, length: u32) -> BlobHash {
        self.made += 1;
        let mut bytes: Vec<u8> = (0..length).map(|place| (place / 7) as u8).collect();
        for (place, byte) in bytes.iter_mut().zip(self.made.to_le_bytes()) {
            *place = byte;
        }
        let cut = Cut::new(&bytes).unwrap();
        let (blob, slices) = (cut.blob(), cut.slices().collect());
        let made = Blob {
            blob,
            slices,
            bytes,
            posts: 0,
        };
        self.blobs.entry(blob.hash).or_insert(made);
        blob.hash
    }

    /// A blob that was made before.
    pub(crate) fn blob_at(&self, at: u16) -> Option<BlobHash> {
        let skipped = usize::from(at) % self.blobs.len().max(1);
        self.blobs.keys().nth(skipped).copied()
    }

    /// A post that there is, of those that an author has not taken back.
    pub(crate) fn post_at(&self, author: usize, at: u16) -> Option<PostId> {
        let ids = self.by_author.get(&self.id(author))?;
        let stays = |id: &&PostId| !self.posts[*id].deleted;
        let ids: Vec<&PostId> = ids.iter().filter(stays).collect();
        let skipped = usize::from(at) % ids.len().max(1);
        ids.get(skipped).map(|id| **id)
    }

    fn list_event(&mut self, author: usize, event: Event, now_ms: u64) {
        let (node, secret) = (self.id(author), &self.secrets[author]);
        let known = self.lists.get(&node);
        let list = RecentPosts::append(known, event, 1_600_000_000, now_ms, secret);
        self.lists.insert(node, list);
    }

    /// An author posts something that was written at a time.
    pub(crate) fn publish(
        &mut self,
        author: usize,
        letters: u16,
        blobs: &[BlobHash],
        written_ms: u64,
        now_ms: u64,
    ) -> PostId {
        let text = self.text(letters);
        let refs = blobs.iter().map(|hash| self.blobs[hash].blob);
        let body = PostBody {
            author: self.id(author),
            created_at_ms: written_ms,
            content: public(&text, blobs.len()),
            blobs: Bounded::truncated(refs.collect()),
        };
        let post = SignedPost::sign(body, &self.secrets[author]).unwrap();
        let event = Event {
            id: post.id(),
            created_at_s: (written_ms / 1000) as u32,
            kind: EventKind::Public,
        };
        self.list_event(author, event, now_ms);
        self.record(post.clone());
        post.id()
    }

    /// A post that is there from now on, whoever made it.
    pub(crate) fn record(&mut self, post: SignedPost) {
        let (id, author) = (post.id(), post.body().author);
        for blob in post.body().blobs.iter() {
            self.blobs.get_mut(&blob.hash).unwrap().posts += 1;
        }
        self.by_author.entry(author).or_default().push(id);
        let published = Published {
            post,
            author,
            deleted: false,
        };
        self.posts.insert(id, published);
    }

    /// An author takes a post back.
    pub(crate) fn take_back(&mut self, author: usize, id: PostId, now_ms: u64) -> Deletion {
        let event = Event {
            id,
            created_at_s: (now_ms / 1000) as u32,
            kind: EventKind::Delete,
        };
        self.list_event(author, event, now_ms);
        self.posts.get_mut(&id).unwrap().deleted = true;
        let body = DeletionBody {
            author: self.id(author),
            post: id,
            seq: now_ms,
        };
        let deletion = Signed::sign(body, &self.secrets[author]);
        self.deletions.insert(id, deletion.clone());
        deletion
    }

    /// The newest of an author's list.
    pub(crate) fn list(&self, author: usize) -> Option<&Verified<RecentPosts>> {
        self.lists.get(&self.id(author))
    }

    /// Somebody's word on a post.
    pub(crate) fn sign_heart(
        &self,
        signer: &Secret,
        id: PostId,
        given: bool,
        now_ms: u64,
    ) -> Heart {
        let body = HeartBody {
            person: signer.node_id(),
            author: self.posts[&id].author,
            post: id,
            seq: now_ms,
            given: u8::from(given),
        };
        Signed::sign(body, signer)
    }

    /// A peer's word on a post turns to its contrary, and every peer knows.
    pub(crate) fn turn_heart(&mut self, person: usize, id: PostId, now_ms: u64) -> Heart {
        let key = (id, self.id(person));
        let known = self.hearts.get(&key);
        let given = !known.is_some_and(|heart| heart.is_given());
        let seq = known.map_or(now_ms, |heart| now_ms.max(heart.seq + 1));
        let heart = self.sign_heart(&self.secrets[person], id, given, seq);
        self.hearts.insert(key, heart.clone());
        heart
    }

    /// Whether a person is one of the peers.
    pub(crate) fn knows(&self, person: &NodeId) -> bool {
        self.secrets
            .iter()
            .any(|secret| secret.node_id() == *person)
    }

    /// What a peer answers; hearts are those of who is online.
    pub(crate) fn answer(&self, request: Packet, online: &BTreeSet<NodeId>) -> Option<Packet> {
        match request {
            Packet::PullSyncRequest(request) => Some(self.pulled(&request, online).into()),
            Packet::FileRequest(request) => Some(self.slices(&request).into()),
            _ => None,
        }
    }

    fn pulled(&self, request: &PullSyncRequest, online: &BTreeSet<NodeId>) -> PullSyncResponse {
        let lists = request.authors.iter().filter_map(|want| {
            let list = self.lists.get(&want.author)?;
            let count = list.list().len();
            let lacking = list.head().seq.events_since(want.known(), count);
            Some(ListPart {
                head: list.head().clone(),
                newest: list.list().newest(lacking),
                profile: None,
            })
        });
        let lists: Vec<ListPart> = lists.collect();
        let mut room = limits::PULL_RESPONSE_BYTES_MAX;
        for part in &lists {
            room = room.saturating_sub(part.newest.as_bytes().len());
        }
        let stays = |id: &&PostId| self.posts.get(*id).is_some_and(|post| !post.deleted);
        let posts = request.posts.iter().filter(stays);
        let posts = posts.map(|id| self.posts[id].post.bytes().clone());
        let posts = posts.take_while(|post| {
            let fits = room > post.body.len();
            room = room.saturating_sub(post.body.len());
            fits
        });
        let posts: Vec<_> = posts.collect();
        let given: BTreeSet<PostId> = posts.iter().map(|post| post.id()).collect();
        let hearts = self
            .hearts
            .iter()
            .filter(|((id, person), _)| given.contains(id) && online.contains(person));
        let gone = request.posts.iter().filter_map(|id| self.deletions.get(id));
        PullSyncResponse {
            lists: Bounded::truncated(lists),
            posts: Bounded::truncated(posts),
            hearts: Bounded::truncated(hearts.map(|(_, heart)| heart.clone()).collect()),
            deletions: Bounded::truncated(gone.cloned().collect()),
        }
    }

    fn slices(&self, request: &FileRequest) -> FileResponse {
        let known = self.blobs.get(&request.blob.hash);
        let slices = known.map_or(&[][..], |blob| &blob.slices);
        let slices = slices.iter().skip(request.first as usize);
        FileResponse {
            blob: request.blob,
            first: request.first,
            slices: slices.take(request.count as usize).cloned().collect(),
        }
    }
}
