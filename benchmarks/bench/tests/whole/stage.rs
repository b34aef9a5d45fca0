//! A whole node between its real disk and peers that are played here, in virtual time.

use crate::cloud::{Cloud, PEERS};
use crate::disk::Disk;
use crate::model::Model;
use distsoc_engine::clock::Now;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{BlobHash, Heart, NodeId, PostId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::*;
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::wire::{Expected, Hello, Packet, PacketBytes, Purpose, admit};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// An answer that has not come yet.
struct Answer {
    request: RequestId,
    link: LinkId,
    result: Result<Packet, RequestFailure>,
}

/// What waits for the disk.
enum Job {
    Persist(BatchId, Vec<Write>),
    Read(ReadId, ReadQuery),
    Budget(u64),
}

/// A request of the node's that has not ended.
struct Asked {
    peer: NodeId,
    blob: Option<BlobHash>,
}

pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    /// Of the profile: what counts until the person sets another.
    budget: u64,
    disk: Option<Disk>,
    node: Option<Node>,
    pub(crate) own: NodeId,
    pub(crate) now: Now,
    pub(crate) cloud: Cloud,
    pub(crate) model: Model,
    pub(crate) entropy: Entropy,
    inputs: VecDeque<Input>,
    jobs: VecDeque<Job>,
    answers: BTreeMap<(u64, u64), Answer>,
    calls: BTreeMap<CallId, Call>,
    replies: BTreeMap<CallId, Result<Reply, CallError>>,
    links: BTreeMap<LinkId, usize>,
    /// What peers that asked were told.
    pub(crate) told: BTreeMap<StreamToken, Option<PacketBytes>>,
    next_wake_ms: Option<u64>,
    last: u64,
    asked: BTreeMap<RequestId, Asked>,
    /// Batches of slices that have not ended.
    storing: BTreeMap<BatchId, BTreeSet<BlobHash>>,
    /// Own posts that were acknowledged and are not deleted.
    pub(crate) own_posts: BTreeSet<PostId>,
    /// Pictures that wait for a post, until when: mono ms.
    pub(crate) staged: BTreeMap<BlobHash, u64>,
    pub(crate) evicted: usize,
    /// A batch of rows failed once: what the node refused meanwhile is not followed.
    pub(crate) is_troubled: bool,
    /// And not long ago.
    pub(crate) failed_lately: bool,
}

fn own() -> Secret {
    Secret::from_seed(&[1; 32])
}

fn seed_bytes(seed: u64, first: u8) -> [u8; 32] {
    let mut bytes = [first; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

fn node(restored: Restored, seed: u64) -> Node {
    let profile = NodeProfile {
        hosted_min: 3,
        ..NodeProfile::of(ProfileKind::Desktop)
    };
    let config = NodeConfig {
        secret: own(),
        profile,
        seed: seed_bytes(seed, 7),
        anchors: Vec::new(),
        restored,
    };
    Node::new(config, distsoc_systems::install)
}

impl Stage {
    pub(crate) fn new(budget: u64, seed: u64) -> Self {
        // In memory where the system has a folder there: what counts here are sizes and content, and every commit waits for its disk.
        let memory = std::path::Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let dir = dir.unwrap();
        let own = own().node_id();
        let (disk, restored) = Disk::open(dir.path(), own, budget);
        let mut stage = Self {
            dir,
            budget,
            disk: Some(disk),
            node: Some(node(restored, seed)),
            own,
            now: Now {
                mono_ms: 1_000,
                wall_ms: 1_700_000_000_000,
            },
            cloud: Cloud::new(),
            model: Model::new(own),
            entropy: Entropy::from_seed(seed_bytes(seed, 3)),
            inputs: VecDeque::new(),
            jobs: VecDeque::new(),
            answers: BTreeMap::new(),
            calls: BTreeMap::new(),
            replies: BTreeMap::new(),
            links: BTreeMap::new(),
            told: BTreeMap::new(),
            next_wake_ms: None,
            last: 0,
            asked: BTreeMap::new(),
            storing: BTreeMap::new(),
            own_posts: BTreeSet::new(),
            staged: BTreeMap::new(),
            evicted: 0,
            is_troubled: false,
            failed_lately: false,
        };
        stage.connect_all();
        stage
    }

    pub(crate) fn disk(&mut self) -> &mut Disk {
        self.disk.as_mut().expect("it is closed only for a moment")
    }

    pub(crate) fn disk_ref(&self) -> &Disk {
        self.disk.as_ref().expect("it is closed only for a moment")
    }

    pub(crate) fn now_s(&self) -> u32 {
        (self.now.wall_ms / 1000) as u32
    }

    fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The process ends, with what waits for the disk, and starts again.
    pub(crate) fn restart(&mut self) {
        self.node = None;
        self.jobs.clear();
        self.inputs.clear();
        self.answers.clear();
        self.calls.clear();
        self.links.clear();
        self.asked.clear();
        self.storing.clear();
        self.next_wake_ms = None;
        let account = self.disk.take().map(Disk::close).expect("it was open");
        let (mut disk, restored) = Disk::open(self.dir.path(), self.own, self.budget);
        account.check_restored(&restored);
        disk.account = account;
        disk.account.untold.clear();
        self.model = Model::restored(&restored, self.own);
        self.disk = Some(disk);
        // What nobody names is cleared at a start.
        self.staged.clear();
        let seed = self.fresh();
        self.node = Some(node(restored, seed));
        // A clock of its own.
        self.now.mono_ms = 1_000;
        self.connect_all();
    }

    // The network.

    pub(crate) fn link_of(&self, peer: usize) -> Option<LinkId> {
        let link = self.links.iter().find(|(_, of)| **of == peer);
        link.map(|(link, _)| *link)
    }

    fn connect(&mut self, peer: usize) {
        if self.link_of(peer).is_some() {
            return;
        }
        let link = LinkId(self.fresh());
        self.links.insert(link, peer);
        self.inputs.push_back(Input::LinkUp {
            link,
            node: self.cloud.id(peer),
            remote: SocketAddr::from(([127, 0, 0, 1], 5000 + peer as u16)),
            origin: Origin::Accepted,
        });
        let (kind, purpose) = (ProfileKind::Desktop, Purpose::Social);
        let hello = Hello::new(kind, purpose, false, false, None, None);
        self.deliver(link, &hello.into());
    }

    pub(crate) fn connect_all(&mut self) {
        (0..PEERS).for_each(|peer| self.connect(peer));
        self.settle();
    }

    pub(crate) fn disconnect(&mut self, peer: usize) {
        self.settle();
        if let Some(link) = self.link_of(peer) {
            self.drop_link(link, DownCause::TimedOut);
        }
    }

    fn drop_link(&mut self, link: LinkId, cause: DownCause) {
        let Some(peer) = self.links.remove(&link) else {
            return;
        };
        let lost = self.answers.extract_if(.., |_, answer| answer.link == link);
        let lost: Vec<Answer> = lost.map(|(_, answer)| answer).collect();
        for Answer { request, .. } in lost {
            let result = Err(RequestFailure::LinkDown);
            self.inputs.push_back(Input::Response { request, result });
        }
        self.inputs.push_back(Input::LinkDown { link, cause });
        // Whose connection is gone may be known or not for a while: their hearts wait until it is certain.
        let gone = self.cloud.id(peer);
        for answer in self.answers.values_mut() {
            if let Ok(Packet::PullSyncResponse(pulled)) = &mut answer.result {
                let stay = pulled.hearts.iter().filter(|heart| heart.person != gone);
                let stay: Vec<Heart> = stay.cloned().collect();
                pulled.hearts = distsoc_engine::wire::codec::Bounded::truncated(stay);
            }
        }
    }

    pub(crate) fn deliver(&mut self, link: LinkId, packet: &Packet) {
        let packet = admit(&packet.encode(), Expected::Notification).unwrap();
        self.inputs.push_back(Input::Packet {
            link,
            stream: None,
            packet,
        });
    }

    /// A peer asks the node; gives where the answer will be.
    pub(crate) fn ask(&mut self, link: LinkId, packet: &Packet) -> StreamToken {
        let token = StreamToken(self.fresh());
        let packet = admit(&packet.encode(), Expected::Request).unwrap();
        self.inputs.push_back(Input::Packet {
            link,
            stream: Some(token),
            packet,
        });
        token
    }

    fn request(&mut self, link: LinkId, request: RequestId, bytes: &PacketBytes, timeout_ms: u64) {
        let Some(peer) = self.links.get(&link).copied() else {
            let result = Err(RequestFailure::LinkDown);
            self.inputs.push_back(Input::Response { request, result });
            return;
        };
        let packet = admit(bytes, Expected::Request).unwrap().into_inner();
        let blob = match &packet {
            Packet::FileRequest(asked) => Some(asked.blob.hash),
            _ => None,
        };
        let node = self.cloud.id(peer);
        self.asked.insert(request, Asked { peer: node, blob });
        let (result, delay_ms) = match self.cloud.silent.contains(&peer) {
            true => (Err(RequestFailure::TimedOut), timeout_ms),
            false => {
                let online: BTreeSet<NodeId> = self
                    .links
                    .values()
                    .map(|peer| self.cloud.id(*peer))
                    .collect();
                let answer = self.cloud.answer(packet, &online);
                let answer = answer.ok_or(RequestFailure::NoResponse);
                (answer, 1 + self.entropy.below(400))
            }
        };
        let at = (self.now.mono_ms + delay_ms, self.fresh());
        let answer = Answer {
            request,
            link,
            result,
        };
        self.answers.insert(at, answer);
    }

    fn bring_answers(&mut self) {
        while let Some(first) = self.answers.first_entry()
            && first.key().0 <= self.now.mono_ms
        {
            let Answer {
                request, result, ..
            } = first.remove();
            let result = result.and_then(|packet| {
                let code = packet.spec().code;
                admit(&packet.encode(), Expected::Response(code)).map_err(RequestFailure::Refused)
            });
            self.inputs.push_back(Input::Response { request, result });
        }
    }

    // Frames.

    /// Ticks and lets the disk work until nothing is under way but answers that take their time.
    pub(crate) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 20_000, "the node never stops talking");
            let now_ms = self.now.mono_ms;
            let is_due = self.next_wake_ms.is_some_and(|at_ms| at_ms <= now_ms)
                || self.answers.keys().next().is_some_and(|at| at.0 <= now_ms);
            if self.jobs.is_empty() && self.inputs.is_empty() && !is_due {
                return;
            }
            let some = self.entropy.below(self.jobs.len() as u64 + 2);
            self.work(some as usize);
            if !self.inputs.is_empty() || is_due {
                self.frame();
            }
        }
    }

    /// The disk does so many jobs.
    fn work(&mut self, jobs: usize) {
        for _ in 0..jobs {
            let Some(job) = self.jobs.pop_front() else {
                return;
            };
            let heard = match job {
                Job::Persist(batch, writes) => {
                    let is_rows = !writes.iter().any(|write| matches!(write, Write::Slice(_)));
                    let heard = self.disk().persist(batch, writes);
                    let failed = matches!(heard.first(), Some(Input::PersistFailed(..)));
                    self.failed_lately |= failed && is_rows;
                    self.is_troubled |= failed && is_rows;
                    heard
                }
                Job::Read(read, query) => vec![self.disk().read(read, query)],
                Job::Budget(bytes) => self.disk().set_budget(bytes),
            };
            self.inputs.extend(heard);
            let dir = self.dir.path().to_owned();
            self.disk().check_budget(&dir);
        }
    }

    /// One frame, and what it means for what the node has.
    pub(crate) fn frame(&mut self) {
        self.bring_answers();
        let inputs: Vec<Input> = self.inputs.drain(..).collect();
        let mut busy: BTreeSet<BlobHash> = self.in_transfer().collect();
        let (mut brought, mut hearts) = (BTreeMap::new(), Vec::new());
        for input in &inputs {
            self.hear(input, &mut brought, &mut hearts);
        }
        let node = self.node.as_mut().expect("it runs");
        let outputs = node.tick(self.now, inputs);
        self.next_wake_ms = outputs.next_wake_ms;
        let mut gone: BTreeSet<PostId> = BTreeSet::new();
        let mut parted: BTreeSet<NodeId> = BTreeSet::new();
        let now_s = self.now_s();
        for effect in &outputs.effects {
            match effect {
                Effect::Reply { call, result } => self.replied(*call, result),
                Effect::Persist { batch, writes, .. } => {
                    for write in writes {
                        match write {
                            Write::Slice(slice) => {
                                let blobs = self.storing.entry(*batch).or_default();
                                blobs.insert(slice.blob().hash);
                            }
                            Write::Post { post, .. } if post.body().author != self.own => {
                                let from = brought.get(&post.id()).copied();
                                if !self.model.files.contains_key(&post.id()) {
                                    self.model.add(post, from, now_s);
                                }
                            }
                            Write::Post { post, .. }
                                if !self.cloud.posts.contains_key(&post.id()) =>
                            {
                                self.cloud.record((**post).clone());
                            }
                            Write::ForgetPost(id) => drop(gone.insert(*id)),
                            Write::ForgetAuthor(author) => drop(parted.insert(*author)),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        for (heart, reporter) in &hearts {
            self.model.like(heart, *reporter);
        }
        self.model.turn(self.now.mono_ms, now_s);
        busy.extend(self.in_transfer());
        self.see_go(&gone, &parted, &busy);
        for effect in outputs.effects {
            self.perform(effect);
        }
    }

    /// Blobs of which something is on its way.
    fn in_transfer(&self) -> impl Iterator<Item = BlobHash> {
        let asked = self.asked.values().filter_map(|asked| asked.blob);
        asked.chain(self.storing.values().flatten().copied())
    }

    /// What an input says of files.
    fn hear(
        &mut self,
        input: &Input,
        brought: &mut BTreeMap<PostId, NodeId>,
        hearts: &mut Vec<(Heart, NodeId)>,
    ) {
        match input {
            Input::Packet { link, packet, .. } => {
                let Some(peer) = self.links.get(link) else {
                    return;
                };
                let from = self.cloud.id(*peer);
                match &**packet {
                    Packet::PostNotification(news) => {
                        let post = news.post.iter();
                        brought.extend(post.map(|post| (post.id(), from)));
                    }
                    // Of somebody whom nobody knows, nothing is kept.
                    Packet::HeartRecord(record) if self.cloud.knows(&record.heart.person) => {
                        hearts.push((record.heart.clone(), from));
                    }
                    _ => {}
                }
            }
            Input::Response { request, result } => {
                let Some(asked) = self.asked.remove(request) else {
                    return;
                };
                match result.as_deref() {
                    Ok(Packet::PullSyncResponse(pulled)) => {
                        for post in pulled.posts.iter() {
                            brought.entry(post.id()).or_insert(asked.peer);
                        }
                        let liked = pulled.hearts.iter().cloned();
                        hearts.extend(liked.map(|heart| (heart, asked.peer)));
                    }
                    Ok(Packet::FileResponse(response)) if !response.slices.is_empty() => {
                        self.saw(response.blob.hash, asked.peer);
                    }
                    _ => {}
                }
            }
            Input::Persisted(batch) | Input::PersistFailed(batch, _) => {
                self.storing.remove(batch);
            }
            _ => {}
        }
    }

    /// Verified bytes of a blob came from a peer.
    fn saw(&mut self, hash: BlobHash, peer: NodeId) {
        let now_s = self.now_s();
        let files = self.model.files.iter();
        let of = files.filter(|(_, file)| file.blobs.iter().any(|blob| blob.hash == hash));
        let of: Vec<PostId> = of.map(|(id, _)| *id).collect();
        of.iter().for_each(|id| self.model.saw(id, peer, now_s));
    }

    fn replied(&mut self, call: CallId, result: &Result<Reply, CallError>) {
        let asked = self.calls.remove(&call);
        match (asked, result) {
            (Some(Call::Follow { node, .. }), Ok(_)) => drop(self.model.followed.insert(node)),
            (Some(Call::Unfollow(node)), Ok(_)) => drop(self.model.followed.remove(&node)),
            (Some(Call::Pin { post, is_pinned }), Ok(_)) => {
                if let Some(file) = self.model.files.get_mut(&post) {
                    file.is_pinned = is_pinned;
                }
            }
            (Some(Call::Heart { post, given }), Ok(_))
                if self.model.is_given(&post, &self.own) != given =>
            {
                let (now_ms, secret) = (self.now.wall_ms, own());
                let heart = self.cloud.sign_heart(&secret, post, given, now_ms);
                self.model.like(&heart, self.own);
            }
            (Some(Call::Delete(post)), Ok(_)) => {
                self.model.forget(&post);
                self.own_posts.remove(&post);
            }
            // Of one that had no room, a part may be there for as long.
            (Some(Call::Stage(slices)), Ok(_) | Err(CallError::Storage(_))) => {
                let until_ms = self.now.mono_ms + distsoc_engine::limits::STAGED_MS;
                self.staged.insert(slices[0].blob().hash, until_ms);
            }
            (_, Ok(Reply::Posted(id))) => {
                self.own_posts.insert(*id);
                let now_s = self.now_s();
                self.model.add(&self.cloud.posts[id].post, None, now_s);
            }
            _ => {}
        }
        let earlier = self.replies.insert(call, result.clone());
        assert!(earlier.is_none(), "a call is answered once");
    }

    /// Files that the node forgets in a frame: what was not taken back goes for lack of room, and nothing that is worth more than
    /// what stays.
    fn see_go(
        &mut self,
        gone: &BTreeSet<PostId>,
        parted: &BTreeSet<NodeId>,
        busy: &BTreeSet<BlobHash>,
    ) {
        let now_s = self.now_s();
        for file in self.model.files.values_mut() {
            let shared = |hash| self.cloud.blobs[hash].posts > 1;
            file.is_shared = file.blobs.iter().any(|blob| shared(&blob.hash));
        }
        let is_evicted = |id: &&PostId| {
            let file = self.model.files.get(*id);
            let is_deleted = self.cloud.posts.get(*id).is_some_and(|post| post.deleted);
            file.is_some_and(|file| {
                let is_own = file.author == self.own;
                !is_own && !is_deleted && !parted.contains(&file.author)
            })
        };
        let evicted: Vec<PostId> = gone.iter().filter(is_evicted).copied().collect();
        let stays = |id: &PostId, author: &NodeId, blobs: &[distsoc_engine::domain::BlobRef]| {
            let in_transfer = blobs.iter().any(|blob| busy.contains(&blob.hash));
            *author != self.own && !gone.contains(id) && !in_transfer
        };
        if !evicted.is_empty() && !self.is_troubled {
            let worth = |id: &PostId| self.model.worth(id, now_s);
            let highest = evicted.iter().map(|id| (worth(id).least, *id)).max();
            let files = self.model.files.iter();
            let kept = files.filter(|(id, file)| stays(id, &file.author, &file.blobs));
            let lowest = kept.map(|(id, _)| (worth(id).most, *id)).min();
            if let (Some(highest), Some(lowest)) = (highest, lowest) {
                assert!(
                    highest < lowest,
                    "went: {} {:?}, stays: {} {:?}",
                    highest.1,
                    worth(&highest.1),
                    lowest.1,
                    worth(&lowest.1)
                );
            }
        }
        self.evicted += evicted.len();
        for id in gone {
            let file = self.model.files.get(id);
            if file.is_some_and(|file| file.author != self.own) {
                self.model.forget(id);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Dial { dial, .. } => {
                let failure = DialFailure::NoAnswer;
                self.inputs.push_back(Input::DialFailed { dial, failure });
            }
            Effect::Request {
                link,
                request,
                bytes,
                timeout_ms,
            } => self.request(link, request, &bytes, timeout_ms),
            Effect::Respond { stream, bytes } => drop(self.told.insert(stream, bytes)),
            Effect::Close { link, .. } => self.drop_link(link, DownCause::ClosedByUs),
            Effect::Persist { batch, writes, .. } => {
                self.jobs.push_back(Job::Persist(batch, writes));
            }
            Effect::Read { read, query } => self.jobs.push_back(Job::Read(read, query)),
            Effect::Budget { bytes } => self.jobs.push_back(Job::Budget(bytes)),
            _ => {}
        }
    }

    /// Lets time pass, waking the node when it wants.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        self.settle();
        while self.now.mono_ms < end {
            let wake = self.next_wake_ms.into_iter();
            let answer = self.answers.keys().next().map(|at| at.0);
            let next = wake.chain(answer).min().unwrap_or(end).min(end);
            let step = next.saturating_sub(self.now.mono_ms);
            self.now.mono_ms += step;
            self.now.wall_ms += step;
            self.settle();
        }
    }

    /// A machine that slept: every connection is gone.
    pub(crate) fn jump(&mut self, ms: u64) {
        self.settle();
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.drop_link(link, DownCause::TimedOut);
        }
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
        self.settle();
        self.connect_all();
    }

    /// Begins a call; its reply comes with the frames.
    pub(crate) fn begin(&mut self, what: Call) -> CallId {
        let call = CallId(self.fresh());
        self.calls.insert(call, what.clone());
        self.inputs.push_back(Input::Call { call, what });
        call
    }

    pub(crate) fn call(&mut self, what: Call) -> Result<Reply, CallError> {
        let call = self.begin(what);
        self.settle();
        let reply = self.replies.remove(&call);
        reply.expect("every call is answered once things settle")
    }

    pub(crate) fn set_disk_budget(&mut self, bytes: u64) {
        self.settle();
        self.jobs.push_back(Job::Budget(bytes));
        self.settle();
    }

    pub(crate) fn work_once(&mut self) {
        self.work(1);
    }

    pub(crate) fn hear_of_disk(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.settle();
    }
}
