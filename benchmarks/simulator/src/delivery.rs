//! How often content arrives, and how often it is needed (FIGURES, files: times a byte of content arrives over the times it is
//! needed). Content is posts and slices of blobs, with their proofs; lists, profiles, hearts and the packets around are none.
//!
//! A byte is needed once at each node that stores it, when it is handed to the disk for the first time; what comes again after an
//! eviction, a crash or a timeout was not needed. What arrives is counted whether the node takes it or not, and whoever sent it is
//! charged.

use crate::host::Host;
use crate::queue::HostNumber;
use crate::simulation::Simulation;
use distsoc_engine::domain::{BlobHash, NodeId, PostId};
use distsoc_engine::io::{Durability, Input, Write};
use distsoc_engine::node::Node;
use distsoc_engine::wire::{Code, FileResponse, Packet, PostNotification, PullSyncResponse};
use distsoc_engine::world::authors::{Author, AuthorIndex};
use distsoc_engine::world::blobs::BlobBook;
use distsoc_engine::world::files::FileIndex;
use std::collections::BTreeSet;

/// Content that arrived in one packet, or all that ever did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// All of it, bytes.
    pub bytes: u64,
    /// Of that, by authors who are not kept where it arrived.
    pub not_kept_bytes: u64,
    /// Of that, what was here already.
    pub again_bytes: u64,
}

impl Arrived {
    fn add(&mut self, bytes: usize, is_kept: bool, is_here: bool) {
        let bytes = bytes as u64;
        self.bytes += bytes;
        self.not_kept_bytes += bytes * u64::from(!is_kept);
        self.again_bytes += bytes * u64::from(is_here);
    }

    fn add_all(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.not_kept_bytes += more.not_kept_bytes;
        self.again_bytes += more.again_bytes;
    }

    /// A packet that was dropped unread counts with all its bytes, if it is one of those that carry content.
    #[must_use]
    pub fn unread(bytes: &[u8]) -> Self {
        const CARRIERS: [Code; 3] = [
            FileResponse::SPEC.code,
            PostNotification::SPEC.code,
            PullSyncResponse::SPEC.code,
        ];
        let is_carrier = bytes.first().is_some_and(|code| CARRIERS.contains(code));
        Self {
            bytes: bytes.len() as u64 * u64::from(is_carrier),
            ..Self::default()
        }
    }

    /// What an input brings to a node that has not seen it yet.
    #[must_use]
    pub fn of(input: &Input, node: &Node) -> Self {
        let packet: &Packet = match input {
            Input::Packet { packet, .. } => packet,
            Input::Response {
                result: Ok(packet), ..
            } => packet,
            _ => return Self::default(),
        };
        let mut arrived = Self::default();
        let world = node.world();
        let files = world.resource::<FileIndex>();
        match packet {
            Packet::PostNotification(told) => {
                if let Some(post) = &told.post {
                    let author = world
                        .resource::<AuthorIndex>()
                        .get(&post.body().author)
                        .and_then(|entity| world.get::<Author>(entity));
                    let is_kept = author.is_some_and(Author::is_kept);
                    arrived.add(post.bytes().body.len(), is_kept, files.contains(&post.id()));
                }
            }
            Packet::PullSyncResponse(pulled) => {
                for post in pulled.posts.iter() {
                    arrived.add(post.body.len(), true, files.contains(&post.id()));
                }
            }
            Packet::FileResponse(fetched) => {
                let part = world.resource::<BlobBook>().get(&fetched.blob);
                for slice in &fetched.slices {
                    let is_here = part.is_some_and(|part| part.run_from(slice.number()) > 0);
                    arrived.add(slice.bytes().len(), part.is_some(), is_here);
                }
            }
            _ => {}
        }
        arrived
    }
}

/// The content of one machine, for as long as it is there.
#[derive(Debug, Default)]
pub struct Delivery {
    /// What came.
    pub arrived: Arrived,
    /// What was stored for the first time, bytes.
    pub needed_bytes: u64,
    /// Packets with content that came from here.
    pub sends: u64,
    /// Content that came from here, bytes.
    pub sent_bytes: u64,
    /// Posts that went to make room, or were taken back.
    pub let_go: BTreeSet<PostId>,
    posts: BTreeSet<PostId>,
    slices: BTreeSet<(BlobHash, u32)>,
}

impl Delivery {
    /// Whether a post of somebody else ever came.
    #[must_use]
    pub fn had(&self, post: &PostId) -> bool {
        self.posts.contains(post)
    }

    /// What is handed to the disk: content of others counts, once. Returns posts that are new here, with their authors.
    pub fn store(
        &mut self,
        own: NodeId,
        writes: &[Write],
        durability: Durability,
    ) -> Vec<(PostId, NodeId)> {
        let mut new = Vec::new();
        for write in writes {
            match write {
                Write::Post { post, .. } => {
                    let (id, author) = (post.id(), post.body().author);
                    let is_new = author != own && self.posts.insert(id);
                    if is_new {
                        self.needed_bytes += post.bytes().body.len() as u64;
                        new.push((id, author));
                    }
                }
                // A person's own picture is an act of theirs.
                Write::Slice(slice) => {
                    let key = (slice.blob().hash, slice.number());
                    let is_new = durability == Durability::WriteBehind && self.slices.insert(key);
                    self.needed_bytes += slice.bytes().len() as u64 * u64::from(is_new);
                }
                Write::ForgetPost(id) => drop(self.let_go.insert(*id)),
                _ => {}
            }
        }
        new
    }
}

/// The same of a whole network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// What came.
    pub arrived: Arrived,
    /// What was stored for the first time, bytes.
    pub needed_bytes: u64,
}

impl Deliveries {
    /// Of some machines.
    pub fn of<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Self {
        let mut all = Self::default();
        for host in hosts {
            all.arrived.add_all(host.delivery.arrived);
            all.needed_bytes += host.delivery.needed_bytes;
        }
        all
    }

    /// Times a byte arrived over the times it was needed; 0 where nothing was needed.
    #[must_use]
    pub fn factor(&self) -> f64 {
        Self::ratio(self.arrived.bytes, self.needed_bytes)
    }

    /// The same, at nodes that keep the author.
    #[must_use]
    pub fn factor_where_kept(&self) -> f64 {
        let kept = self.arrived.bytes - self.arrived.not_kept_bytes;
        Self::ratio(kept, self.needed_bytes)
    }

    fn ratio(arrived: u64, needed: u64) -> f64 {
        match needed {
            0 => 0.0,
            needed => arrived as f64 / needed as f64,
        }
    }
}

impl Simulation {
    /// Content arrived from one machine at another.
    pub fn note_content(&mut self, from: Option<HostNumber>, to: HostNumber, arrived: Arrived) {
        if arrived.bytes == 0 {
            return;
        }
        self.hosts[to as usize].delivery.arrived.add_all(arrived);
        if let Some(from) = from {
            let sender = &mut self.hosts[from as usize].delivery;
            sender.sends += 1;
            sender.sent_bytes += arrived.bytes;
        }
    }

    /// Content that a node hands to its disk; how long posts took to whoever followed their author before they were made.
    pub fn note_stored(&mut self, number: HostNumber, writes: &[Write], durability: Durability) {
        let host = &mut self.hosts[number as usize];
        let own = host.node_id();
        for (id, author) in host.delivery.store(own, writes, durability) {
            let (Some(truth), Some(author)) = (self.truth.get(&id), self.numbers.get(&author))
            else {
                continue;
            };
            let followed_us = self.hosts[number as usize].followed_us.get(author);
            if followed_us.is_some_and(|since_us| *since_us <= truth.at_us) {
                let took_ms = (self.now_us - truth.at_us) / 1000;
                self.arrival_ms
                    .push(u32::try_from(took_ms).unwrap_or(u32::MAX));
            }
        }
    }
}
