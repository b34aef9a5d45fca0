//! A table with a few nodes on it: every effect is carried out at once, by hand, in one order. What the simulator does
//! with time, loss and disks, this does without any of them, so that a test reads like a conversation.

#![allow(dead_code, unreachable_pub, missing_docs)]

mod disk;
pub mod files;

use distsoc_engine::clock::Now;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    BlobHash, ConnectString, Deletion, Heart, HeartBody, NodeId, PostBytes, PostId,
};
use distsoc_engine::io::*;
use distsoc_engine::limits;
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::wire::codec::{Bounded, ByteVec};
use distsoc_engine::wire::{
    Expected, FileRequest, ListPart, Packet, PacketBytes, Want, WideProbe, WideSample, WormNear,
    WormResponse, WormTarget, admit, prefixes_in,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

pub struct Seat {
    pub node: Node,
    pub id: NodeId,
    pub address: SocketAddr,
    pub inputs: VecDeque<Input>,
    pub replies: BTreeMap<CallId, Result<Reply, CallError>>,
    pub notices: Vec<Notice>,
    pub posts: BTreeMap<distsoc_engine::domain::PostId, PostBytes>,
    pub lists: BTreeMap<NodeId, StoredList>,
    pub profiles: BTreeMap<NodeId, distsoc_engine::domain::Profile>,
    /// By post and by who gave it.
    pub hearts: BTreeMap<(PostId, NodeId), Heart>,
    /// By post and author.
    pub deletions: BTreeMap<(PostId, NodeId), Deletion>,
    pub pins: BTreeSet<PostId>,
    pub files: BTreeMap<PostId, StoredFileRow>,
    pub relationships: BTreeMap<NodeId, Relationship>,
    pub equivocal: BTreeSet<NodeId>,
    pub slices: BTreeMap<(BlobHash, u32), Arc<[u8]>>,
    pub map: BTreeMap<(u32, u32), MapRow>,
    pub disk_trouble: Option<StorageTrouble>,
    /// Slices alone have no room.
    pub has_no_room_for_slices: bool,
    pub next_wake_ms: Option<u64>,
}

pub struct Table {
    pub seats: Vec<Seat>,
    pub now: Now,
    links: BTreeMap<LinkId, (usize, LinkId)>,
    owners: BTreeMap<LinkId, usize>,
    streams: BTreeMap<StreamToken, (usize, RequestId, u8)>,
    last: u64,
    pub unreachable: Vec<usize>,
    /// Only these pairs, the smaller first, reach each other.
    pub roads: Option<BTreeSet<(usize, usize)>>,
    /// They may dial anybody, whatever the roads.
    pub travellers: BTreeSet<usize>,
    /// Who takes worms and says nothing.
    pub silent: BTreeSet<usize>,
    /// Who names an id right beside every target that is asked for, and says nothing after.
    pub liars: BTreeSet<usize>,
    /// Whoever asks them what they report is told of ids that are nowhere.
    pub inventors: BTreeSet<usize>,
    /// Who takes requests for slices and lets them time out.
    pub stalling: BTreeSet<usize>,
    /// Who has no room for so many more answers to requests of a code, and drops them.
    pub crowded: BTreeMap<(u8, usize), usize>,
    /// After how long these reset the stream, ms.
    pub resets_after_ms: u64,
    /// Seats that were asked, in this order, while they stalled or were crowded.
    pub asked_in_vain: Vec<usize>,
    /// Requests that nobody answers: when they end (mono ms), who asked, and how they end.
    timeouts: BTreeMap<(u64, usize, RequestId), RequestFailure>,
    /// How many requests were sent, by code.
    pub requests: BTreeMap<u8, usize>,
    /// Bytes of the answers, by their codes.
    pub answered_bytes: BTreeMap<u8, usize>,
    /// How many notifications were sent, by code.
    pub notified: BTreeMap<u8, usize>,
    pub dials: BTreeMap<usize, usize>,
    /// Somebody whose inputs pile up.
    deaf: Option<usize>,
}

pub const START_MS: u64 = 1_700_000_000_000;

pub fn secret(number: usize) -> Secret {
    Secret::from_seed(&[number as u8 + 1; 32])
}

pub fn connect_string(number: usize) -> ConnectString {
    ConnectString::at(secret(number).node_id(), address(number))
}

pub fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4000 + number as u16))
}

fn node(number: usize, profile: NodeProfile, anchors: &[usize], restored: Restored) -> Node {
    let connect = |anchor: &usize| connect_string(*anchor);
    let config = NodeConfig {
        secret: secret(number),
        profile,
        seed: [number as u8; 32],
        anchors: anchors.iter().map(connect).collect(),
        restored,
    };
    Node::new(config, distsoc_systems::install)
}

impl Table {
    /// Nodes that keep nobody's posts but of those they follow, unless they follow somebody.
    pub fn new(kinds: &[ProfileKind], anchors: &[usize]) -> Self {
        let profile = |kind: &ProfileKind| NodeProfile {
            hosted_min: 0,
            ..NodeProfile::of(*kind)
        };
        let profiles: Vec<NodeProfile> = kinds.iter().map(profile).collect();
        Self::with_profiles(&profiles, anchors)
    }

    pub fn with_profiles(profiles: &[NodeProfile], anchors: &[usize]) -> Self {
        let mut table = Self {
            seats: Vec::new(),
            now: Now {
                mono_ms: 1000,
                wall_ms: START_MS,
            },
            links: BTreeMap::new(),
            owners: BTreeMap::new(),
            streams: BTreeMap::new(),
            last: 0,
            deaf: None,
            unreachable: Vec::new(),
            roads: None,
            travellers: BTreeSet::new(),
            silent: BTreeSet::new(),
            liars: BTreeSet::new(),
            inventors: BTreeSet::new(),
            stalling: BTreeSet::new(),
            crowded: BTreeMap::new(),
            asked_in_vain: Vec::new(),
            resets_after_ms: 0,
            timeouts: BTreeMap::new(),
            requests: BTreeMap::new(),
            answered_bytes: BTreeMap::new(),
            notified: BTreeMap::new(),
            dials: BTreeMap::new(),
        };
        for (number, profile) in profiles.iter().enumerate() {
            table.seats.push(Seat {
                node: node(number, profile.clone(), anchors, Restored::default()),
                id: secret(number).node_id(),
                address: address(number),
                inputs: VecDeque::from([Input::OwnAddresses(vec![address(number)])]),
                replies: BTreeMap::new(),
                notices: Vec::new(),
                posts: BTreeMap::new(),
                lists: BTreeMap::new(),
                profiles: BTreeMap::new(),
                hearts: BTreeMap::new(),
                deletions: BTreeMap::new(),
                pins: BTreeSet::new(),
                files: BTreeMap::new(),
                relationships: BTreeMap::new(),
                equivocal: BTreeSet::new(),
                slices: BTreeMap::new(),
                map: BTreeMap::new(),
                disk_trouble: None,
                has_no_room_for_slices: false,
                next_wake_ms: None,
            });
        }
        table
    }

    fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Ticks everybody until nothing is said any more.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the nodes never stop talking");
            let mut quiet = true;
            for seat in 0..self.seats.len() {
                let due = self.seats[seat]
                    .next_wake_ms
                    .is_some_and(|at| at <= self.now.mono_ms);
                if self.deaf == Some(seat) || self.seats[seat].inputs.is_empty() && !due {
                    continue;
                }
                quiet = false;
                let inputs: Vec<Input> = self.seats[seat].inputs.drain(..).collect();
                let outputs = self.seats[seat].node.tick(self.now, inputs);
                self.seats[seat].next_wake_ms = outputs.next_wake_ms;
                for effect in outputs.effects {
                    self.perform(seat, effect);
                }
            }
            if quiet && round > 0 {
                return;
            }
        }
    }

    /// Lets time pass, waking whoever asked for it.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        self.settle();
        loop {
            let next = self
                .seats
                .iter()
                .filter_map(|seat| seat.next_wake_ms)
                .chain(self.timeouts.keys().next().map(|(at_ms, ..)| *at_ms))
                .min()
                .unwrap_or(end)
                .min(end);
            let step = next.saturating_sub(self.now.mono_ms);
            self.now.mono_ms += step;
            self.now.wall_ms += step;
            self.time_out();
            self.settle();
            if self.now.mono_ms >= end {
                return;
            }
            let stuck = self.seats.iter().filter_map(|seat| seat.next_wake_ms).min()
                <= Some(self.now.mono_ms);
            assert!(!stuck, "a node asks to be woken for ever");
        }
    }

    fn time_out(&mut self) {
        while let Some(end) = self.timeouts.first_entry() {
            let (at_ms, seat, request) = *end.key();
            if at_ms > self.now.mono_ms {
                return;
            }
            let result = Err(end.remove());
            self.seats[seat]
                .inputs
                .push_back(Input::Response { request, result });
        }
    }

    /// Whether a request ends here, since who was asked stalls, if it is for slices, or has no room.
    fn asks_in_vain(&mut self, seat: usize, asked: (RequestId, u8, u64), other: usize) -> bool {
        let (request, code, ms) = asked;
        if code == FileRequest::SPEC.code && self.stalling.contains(&other) {
            // As the transport does when nothing comes.
            let end = (
                self.now.mono_ms + ms.min(limits::REQUEST_TIMEOUT_MS),
                seat,
                request,
            );
            self.timeouts.insert(end, RequestFailure::TimedOut);
        } else if let Some(left @ 1..) = self.crowded.get_mut(&(code, other)) {
            *left -= 1;
            let end = (self.now.mono_ms + self.resets_after_ms, seat, request);
            self.timeouts.insert(end, RequestFailure::NoResponse);
        } else {
            return false;
        }
        self.asked_in_vain.push(other);
        true
    }

    pub fn call(&mut self, seat: usize, what: Call) -> Result<Reply, CallError> {
        let call = CallId(self.fresh());
        self.seats[seat]
            .inputs
            .push_back(Input::Call { call, what });
        self.settle();
        self.seats[seat]
            .replies
            .remove(&call)
            .expect("every call is answered once things settle")
    }

    /// A call that may take its time, in virtual ms.
    pub fn try_call(&mut self, seat: usize, what: Call, ms: u64) -> Result<Reply, CallError> {
        let call = CallId(self.fresh());
        self.seats[seat]
            .inputs
            .push_back(Input::Call { call, what });
        self.settle();
        for _ in 0..ms / 50 {
            if let Some(reply) = self.seats[seat].replies.remove(&call) {
                return reply;
            }
            self.pass(50);
        }
        panic!("no answer within {ms} ms")
    }

    pub fn post(&mut self, seat: usize, text: &str) -> distsoc_engine::domain::PostId {
        let text = distsoc_engine::domain::PostText::new(text).expect("a short text");
        match self.call(
            seat,
            Call::Post {
                text,
                parent: None,
                media: Vec::new(),
            },
        ) {
            Ok(Reply::Posted(id)) => id,
            other => panic!("not posted: {other:?}"),
        }
    }

    /// Posts, and cuts the connection to a peer while what it sent lies unread there.
    pub fn post_and_cut(
        &mut self,
        seat: usize,
        text: &str,
        peer: usize,
    ) -> distsoc_engine::domain::PostId {
        self.deaf = Some(peer);
        let id = self.post(seat, text);
        self.cut(seat, peer);
        self.deaf = None;
        self.settle();
        id
    }

    pub fn follow(&mut self, seat: usize, whom: usize) {
        let node = secret(whom).node_id();
        assert_eq!(
            self.call(seat, Call::Follow { node, place: None }),
            Ok(Reply::Done)
        );
    }

    pub fn status(&mut self, seat: usize) -> Status {
        match self.call(seat, Call::Status) {
            Ok(Reply::Status(status)) => status,
            other => panic!("no status: {other:?}"),
        }
    }

    pub fn peers(&mut self, seat: usize) -> Vec<PeerView> {
        match self.call(seat, Call::Peers) {
            Ok(Reply::Peers(peers)) => peers,
            other => panic!("no peers: {other:?}"),
        }
    }

    pub fn refused(&self, seat: usize, refusal: Refusal) -> u64 {
        self.seats[seat]
            .node
            .world()
            .resource::<RefusalCounts>()
            .total(refusal)
    }

    /// A connection from somebody who is no node: raw packets under any key.
    pub fn stranger(&mut self, seat: usize, node: NodeId, remote: SocketAddr) -> LinkId {
        let link = LinkId(self.fresh());
        self.owners.insert(link, seat);
        self.seats[seat].inputs.push_back(Input::LinkUp {
            link,
            node,
            remote,
            origin: Origin::Accepted,
        });
        link
    }

    /// The end at one seat of a connection with another.
    pub fn link_from(&self, seat: usize, to: usize) -> LinkId {
        let mut links = self.links.iter();
        let link = links.find(|(link, (other, _))| *other == to && self.owners[link] == seat);
        *link.expect("they are connected").0
    }

    pub fn deliver(&mut self, seat: usize, link: LinkId, bytes: &[u8], expected: Expected) {
        let stream = (expected == Expected::Request).then(|| StreamToken(self.fresh()));
        let input = match admit(bytes, expected) {
            Ok(packet) => Input::Packet {
                link,
                stream,
                packet,
            },
            Err(refusal) => Input::Refused {
                link,
                code: bytes.first().copied().unwrap_or_default(),
                refusal,
                count: 1,
            },
        };
        self.seats[seat].inputs.push_back(input);
    }

    /// The machine of a node gets another address: whoever it was connected to hears nothing of that.
    pub fn move_to(&mut self, seat: usize, address: SocketAddr) {
        self.seats[seat].address = address;
        let own: Vec<LinkId> = self
            .owners
            .iter()
            .filter(|(_, owner)| **owner == seat)
            .map(|(link, _)| *link)
            .collect();
        for link in own {
            if let Some((_, theirs)) = self.links.remove(&link) {
                self.links.remove(&theirs);
            }
        }
        let told = Input::OwnAddresses(vec![address]);
        self.seats[seat].inputs.push_back(told);
    }

    /// Cuts the connection between two nodes, as a dead network does.
    pub fn cut(&mut self, a: usize, b: usize) {
        let between: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(own, (other, _))| self.owners[own] == a && *other == b)
            .map(|(own, _)| *own)
            .collect();
        for link in between {
            self.close(link, DownCause::TimedOut);
        }
    }

    /// Kills a node and starts it again, with nothing but the map as it lies on its disk.
    pub fn restart_with_map(&mut self, seat: usize, kind: ProfileKind) {
        let restored = Restored {
            map: self.seats[seat].map.values().cloned().collect(),
            ..Restored::default()
        };
        self.restart_with(seat, kind, restored);
    }

    /// A node ends without a word, and another starts in its place from this.
    pub fn restart_with(&mut self, seat: usize, kind: ProfileKind, restored: Restored) {
        self.restart(seat, NodeProfile::of(kind), &[], restored);
    }

    /// Kills a node and starts it again, with what of layer 2 lies on its disk.
    pub fn restart_with_files(&mut self, seat: usize, profile: NodeProfile, anchors: &[usize]) {
        let restored = self.seats[seat].restored();
        self.restart(seat, profile, anchors, restored);
    }

    /// The same on a disk that is so full.
    pub fn restart_on(&mut self, seat: usize, profile: NodeProfile, usage: DiskUsage) {
        let restored = Restored {
            usage,
            ..self.seats[seat].restored()
        };
        self.restart(seat, profile, &[0], restored);
    }

    fn restart(
        &mut self,
        seat: usize,
        profile: NodeProfile,
        anchors: &[usize],
        restored: Restored,
    ) {
        for other in 0..self.seats.len() {
            self.cut(seat, other);
        }
        let there = &mut self.seats[seat];
        there.node = node(seat, profile, anchors, restored);
        there.inputs = VecDeque::from([Input::OwnAddresses(vec![there.address])]);
        there.next_wake_ms = None;
        self.settle();
    }

    fn close(&mut self, link: LinkId, cause: DownCause) {
        let Some(owner) = self.owners.remove(&link) else {
            return;
        };
        self.seats[owner].inputs.push_back(Input::LinkDown {
            link,
            cause: DownCause::ClosedByUs,
        });
        if let Some((other, theirs)) = self.links.remove(&link) {
            self.links.remove(&theirs);
            self.owners.remove(&theirs);
            self.seats[other].inputs.push_back(Input::LinkDown {
                link: theirs,
                cause,
            });
        }
    }

    fn pass_on(&mut self, link: LinkId, bytes: &PacketBytes) {
        if let Some((other, theirs)) = self.links.get(&link).copied() {
            self.deliver(other, theirs, bytes, Expected::Notification);
        }
    }

    pub fn dials_of(&self, seat: usize) -> usize {
        self.dials.get(&seat).copied().unwrap_or_default()
    }

    fn dial(&mut self, seat: usize, dial: DialId, node: NodeId, target: DialTarget) {
        *self.dials.entry(seat).or_default() += 1;
        let DialTarget::Addresses(addresses) = target else {
            self.fail(seat, dial, DialFailure::NoSuchHost);
            return;
        };
        let there = |other: &Seat| {
            addresses
                .iter()
                .any(|address| address.socket() == other.address)
        };
        let other = self.seats.iter().position(there);
        let is_cut_off = |other: usize| {
            let road = (seat.min(other), seat.max(other));
            let no_road = self
                .roads
                .as_ref()
                .is_some_and(|roads| !roads.contains(&road) && !self.travellers.contains(&seat));
            self.unreachable.contains(&other) || no_road
        };
        match other {
            Some(other) if is_cut_off(other) => self.fail(seat, dial, DialFailure::NoAnswer),
            None => self.fail(seat, dial, DialFailure::NoAnswer),
            Some(other) if self.seats[other].id != node => {
                self.fail(seat, dial, DialFailure::WrongId)
            }
            Some(other) => {
                let (ours, theirs) = (LinkId(self.fresh()), LinkId(self.fresh()));
                self.links.insert(ours, (other, theirs));
                self.links.insert(theirs, (seat, ours));
                self.owners.insert(ours, seat);
                self.owners.insert(theirs, other);
                let (remote, own, id) = (
                    self.seats[other].address,
                    self.seats[seat].address,
                    self.seats[seat].id,
                );
                self.seats[seat].inputs.push_back(Input::LinkUp {
                    link: ours,
                    node,
                    remote,
                    origin: Origin::Dialled(dial),
                });
                self.seats[other].inputs.push_back(Input::LinkUp {
                    link: theirs,
                    node: id,
                    remote: own,
                    origin: Origin::Accepted,
                });
            }
        }
    }

    fn fail(&mut self, seat: usize, dial: DialId, failure: DialFailure) {
        self.seats[seat]
            .inputs
            .push_back(Input::DialFailed { dial, failure });
    }

    /// Whoever is asked what it knows of a target names an id that is closer than any.
    fn lie(&mut self, seat: usize, request: RequestId, bytes: &PacketBytes) {
        let asked = admit(bytes, Expected::Request).expect("nodes send what nodes admit");
        let Packet::WormQuery(query) = asked.into_inner() else {
            return;
        };
        let beside = |(place, target): (u8, &WormTarget)| match target {
            WormTarget::Node(node) => Some(WormNear {
                target: place,
                node: node.sibling(255, &[0; 32]),
                record: None,
            }),
            _ => None,
        };
        let near = (0u8..).zip(query.targets.iter()).filter_map(beside);
        let answer = Packet::from(WormResponse {
            near: Bounded::truncated(near.collect()),
            ..WormResponse::default()
        });
        let expected = Expected::Response(WormResponse::SPEC.code);
        let result = admit(&answer.encode(), expected).map_err(RequestFailure::Refused);
        self.seats[seat]
            .inputs
            .push_back(Input::Response { request, result });
    }

    /// A sample of ids that are nowhere, as many as would win any comparison.
    fn invent(&mut self, seat: usize, request: RequestId, bytes: &PacketBytes) {
        let asked = admit(bytes, Expected::Request).expect("nodes send what nodes admit");
        let Packet::WideProbe(probe) = asked.into_inner() else {
            return;
        };
        let invented = (0u64..500).map(|number| {
            let material = [probe.salt, number].map(u64::to_be_bytes).concat();
            NodeId::from_bytes(distsoc_engine::crypto::hash(&material))
        });
        let whose = prefixes_in(&probe.whose);
        let mut prefixes = Vec::new();
        let mut members = Vec::new();
        match whose.is_empty() {
            true => prefixes.extend(invented.map(|node| node.prefix())),
            false => members.extend(invented.filter(|node| whose.contains(&node.prefix()))),
        }
        prefixes.sort_unstable();
        let sample = WideSample {
            prefixes: ByteVec(prefixes.concat()),
            members: Bounded::truncated(members),
        };
        let answer = Packet::from(sample).encode();
        let expected = Expected::Response(WideSample::SPEC.code);
        let result = admit(&answer, expected).map_err(RequestFailure::Refused);
        self.seats[seat]
            .inputs
            .push_back(Input::Response { request, result });
    }

    fn perform(&mut self, seat: usize, effect: Effect) {
        match effect {
            Effect::Dial { dial, node, target } => self.dial(seat, dial, node, target),
            Effect::Send { link, bytes } => {
                *self.notified.entry(bytes[0]).or_default() += 1;
                self.pass_on(link, &bytes);
            }
            Effect::Request {
                link,
                request,
                bytes,
                timeout_ms,
            } => match self.links.get(&link).copied() {
                Some((other, theirs)) => {
                    *self.requests.entry(bytes[0]).or_default() += 1;
                    let is_worm = (0x10..=0x11).contains(&bytes[0]);
                    let is_search = is_worm || bytes[0] == 0x20;
                    if is_worm && self.liars.contains(&other) {
                        self.lie(seat, request, &bytes);
                        return;
                    }
                    if bytes[0] == WideProbe::SPEC.code && self.inventors.contains(&other) {
                        self.invent(seat, request, &bytes);
                        return;
                    }
                    if is_search && self.silent.contains(&other) {
                        return;
                    }
                    if self.asks_in_vain(seat, (request, bytes[0], timeout_ms), other) {
                        return;
                    }
                    let token = StreamToken(self.fresh());
                    let answer = distsoc_engine::wire::spec(bytes[0]).map(|spec| spec.direction);
                    let Some(distsoc_engine::wire::Direction::Request(answer)) = answer else {
                        panic!("not a request");
                    };
                    self.streams.insert(token, (seat, request, answer));
                    let packet =
                        admit(&bytes, Expected::Request).expect("nodes send what nodes admit");
                    self.seats[other].inputs.push_back(Input::Packet {
                        link: theirs,
                        stream: Some(token),
                        packet,
                    });
                }
                None => self.seats[seat].inputs.push_back(Input::Response {
                    request,
                    result: Err(RequestFailure::LinkDown),
                }),
            },
            Effect::Respond { stream, bytes } => {
                if let Some((asker, request, answer)) = self.streams.remove(&stream) {
                    let size = bytes.as_ref().map_or(0, |bytes| bytes.len());
                    *self.answered_bytes.entry(answer).or_default() += size;
                    let result = bytes.ok_or(RequestFailure::NoResponse).and_then(|bytes| {
                        admit(&bytes, Expected::Response(answer)).map_err(RequestFailure::Refused)
                    });
                    self.seats[asker]
                        .inputs
                        .push_back(Input::Response { request, result });
                }
            }
            Effect::Close { link, reason } => {
                self.close(link, DownCause::ClosedByPeer(Some(reason)))
            }
            Effect::Persist { batch, writes, .. } => {
                let is_full = self.seats[seat].has_no_room_for_slices
                    && writes.iter().any(|write| matches!(write, Write::Slice(_)));
                let full = is_full.then_some(StorageTrouble::Full);
                let input = match self.seats[seat].disk_trouble.or(full) {
                    Some(trouble) => Input::PersistFailed(batch, trouble),
                    None => {
                        for write in writes {
                            self.seats[seat].write(write);
                        }
                        Input::Persisted(batch)
                    }
                };
                self.seats[seat].inputs.push_back(input);
            }
            Effect::Read { read, query } => {
                let result = Ok(self.seats[seat].read(query));
                self.seats[seat]
                    .inputs
                    .push_back(Input::Read { read, result });
            }
            Effect::Reply { call, result } => {
                let earlier = self.seats[seat].replies.insert(call, result);
                assert!(earlier.is_none(), "a call is answered once");
            }
            Effect::Notify(notice) => self.seats[seat].notices.push(notice),
            Effect::KeepAlive { .. }
            | Effect::Ping { .. }
            | Effect::OfferIdleTimeout { .. }
            | Effect::Budget { .. } => {}
        }
    }
}
