//! A node: a world, the systems of a frame, and [`Node::tick`].

use crate::clock::Now;
use crate::crypto::Secret;
use crate::domain::ConnectString;
use crate::entropy::Entropy;
use crate::io::{Input, LinkId, Outputs, Restored};
use crate::profile::NodeProfile;
use crate::refusal::{Refusal, RefusalCounts};
use crate::schedule::{Frame, Occasions};
use crate::wire;
use crate::world::{
    addresses, authors, blobs, candidates, copies, deletions, files, hearts, identity, inbox,
    keep_order, keepers, left_records, map, outbox, peers, searches, slots, storage,
};
use bevy_ecs::prelude::World;
use std::collections::BTreeSet;

/// What a node is made from.
#[derive(Debug)]
pub struct NodeConfig {
    /// The own key.
    pub secret: Secret,
    /// What the machine can give.
    pub profile: NodeProfile,
    /// From the operating system, or the scenario.
    pub seed: [u8; 32],
    /// The anchors of anchors.json.
    pub anchors: Vec<ConnectString>,
    /// What the disk held.
    pub restored: Restored,
}

/// A node is a function of its inputs: no I/O, no clock, no thread and no async in here.
pub struct Node {
    world: World,
    frame: Frame,
}

impl Node {
    /// A node with the given rules. `install` adds resources and systems; it is `distsoc_systems::install` everywhere
    /// but in tests of this crate.
    #[must_use]
    pub fn new(config: NodeConfig, install: impl FnOnce(&mut World, &mut Frame, Restored)) -> Self {
        let mut world = World::new();
        let mut frame = Frame::default();
        world.insert_resource(Now::default());
        let mut entropy = Entropy::from_seed(config.seed);
        let (own, entries_max) = (config.secret.node_id(), config.profile.map_entries_max);
        world.insert_resource(map::DiscoveryMap::new(own, entries_max, &mut entropy));
        world.insert_resource(entropy);
        world.insert_resource(RefusalCounts::default());
        world.insert_resource(config.profile);
        world.insert_resource(identity::Identity::new(config.secret));
        world.insert_resource(identity::OwnProfile::default());
        world.insert_resource(identity::Anchors(config.anchors));
        world.insert_resource(inbox::Inbox::default());
        world.insert_resource(outbox::Outbox::default());
        world.insert_resource(addresses::OwnAddresses::default());
        world.insert_resource(peers::Peers::default());
        world.insert_resource(peers::PeerChanges::default());
        world.insert_resource(peers::Offences::default());
        world.insert_resource(peers::Partings::default());
        world.insert_resource(slots::SeatRequests::default());
        world.insert_resource(candidates::Candidates::default());
        world.insert_resource(candidates::DialLimits::default());
        world.insert_resource(candidates::Dialling::default());
        world.insert_resource(candidates::CoolOffs::default());
        world.insert_resource(candidates::CurrentStanding(crate::io::Standing::Connecting));
        world.insert_resource(files::FileIndex::default());
        world.insert_resource(files::Wanted::default());
        world.insert_resource(files::KeepFloor::default());
        world.insert_resource(blobs::BlobBook::default());
        world.insert_resource(authors::RelationshipChanges::default());
        world.insert_resource(copies::Copies::default());
        world.insert_resource(deletions::Deletions::default());
        world.insert_resource(deletions::DeletionOffers::default());
        let own = world.resource::<identity::Identity>().node_id();
        world.insert_resource(hearts::Hearts::new(own));
        world.insert_resource(keep_order::KeepOrder::default());
        world.insert_resource(keepers::Keepers::default());
        world.insert_resource(keepers::ListNews::default());
        world.insert_resource(keepers::SwarmCalls::default());
        world.insert_resource(authors::OwnHead::default());
        world.insert_resource(authors::Succession::default());
        world.insert_resource(authors::ListRechecks::default());
        world.insert_resource(keepers::Starving::default());
        world.insert_resource(hearts::HeartOffers::default());
        world.insert_resource(authors::AuthorIndex::default());
        world.insert_resource(authors::KeptProfiles::default());
        world.insert_resource(authors::ListUpdates::default());
        world.insert_resource(authors::PostOffers::default());
        world.insert_resource(authors::PulledPosts::default());
        world.insert_resource(authors::PullRequests::default());
        world.insert_resource(authors::PullsDue::default());
        world.insert_resource(authors::HostCandidates::default());
        world.insert_resource(storage::Storage::default());
        world.insert_resource(left_records::LeftRecords::new(own));
        world.insert_resource(searches::WormSearches::default());
        world.insert_resource(searches::DirectorySearches::default());
        world.insert_resource(searches::Tours::default());
        world.insert_resource(searches::Errands::default());
        wire::insert_queues(&mut world);
        install(&mut world, &mut frame, config.restored);
        Self { world, frame }
    }

    /// One frame, or several where a connection ends after packets: takes what came in, returns what goes out. The same inputs at the same times give the same
    /// outputs, bit for bit.
    ///
    /// # Panics
    /// On a bug in the rules: a queue that no system emptied.
    pub fn tick(&mut self, now: Now, inputs: impl IntoIterator<Item = Input>) -> Outputs {
        *self.world.resource_mut::<Now>() = now;
        let mut heard: BTreeSet<LinkId> = BTreeSet::new();
        for input in inputs {
            match &input {
                Input::Packet { link, .. } => _ = heard.insert(*link),
                // A connection ends before a frame's packets are judged; those that came on it are judged first.
                Input::LinkDown { link, .. } if heard.contains(link) => {
                    self.run_frame();
                    heard.clear();
                }
                _ => {}
            }
            self.ingest(input);
        }
        self.run_frame();
        self.world.resource_mut::<outbox::Outbox>().finish()
    }

    fn run_frame(&mut self) {
        map::make_room(&mut self.world);
        let mut inbox = self.world.resource_mut::<inbox::Inbox>();
        let occasions = std::mem::take(&mut inbox.occasions);
        let now_ms = self.world.resource::<Now>().mono_ms;
        if let Some(due_ms) = self.frame.run(&mut self.world, occasions, now_ms) {
            let mut outbox = self.world.resource_mut::<outbox::Outbox>();
            outbox.wake_at(due_ms);
        }
        self.world.clear_trackers();
        self.world.resource_mut::<peers::PeerChanges>().0.clear();
        let mut forgotten = self.world.resource::<inbox::Inbox>().left_over();
        if occasions.meets(Occasions::PACKET) {
            forgotten += wire::undelivered(&self.world);
        }
        assert!(
            forgotten == 0,
            "{forgotten} inputs were handled by no system"
        );
    }

    /// The world, for checkers and tests: nothing else looks inside.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    fn ingest(&mut self, input: Input) {
        use inbox::LinkEvent;
        if let Input::Packet {
            link,
            stream,
            packet,
        } = input
        {
            let mut inbox = self.world.resource_mut::<inbox::Inbox>();
            inbox.occasions.add(Occasions::packet(packet.spec()));
            wire::distribute(&mut self.world, link, stream, packet);
            return;
        }
        if let Input::HandshakesDropped { count } = input {
            let mut counts = self.world.resource_mut::<RefusalCounts>();
            counts.count_many(Refusal::AcceptLimit, "handshake", u64::from(count));
            return;
        }
        let mut inbox = self.world.resource_mut::<inbox::Inbox>();
        let occasion = match &input {
            Input::LinkUp { .. } | Input::LinkDown { .. } => Occasions::LINK,
            Input::DialFailed { .. } | Input::Refused { .. } => Occasions::LINK,
            Input::Response { .. } => Occasions::RESPONSE,
            Input::Persisted(_) | Input::PersistFailed(..) | Input::Disk(_) => Occasions::BATCH,
            Input::Read { .. } => Occasions::READ,
            Input::Call { .. } => Occasions::CALL,
            Input::OwnAddresses(_) => Occasions::OWN_ADDRESSES,
            Input::Stop => Occasions::STOP,
            _ => Occasions::default(),
        };
        inbox.occasions.add(occasion);
        match input {
            Input::LinkUp {
                link,
                node,
                remote,
                origin,
            } => inbox.links.push(LinkEvent::Up {
                link,
                node,
                remote,
                origin,
            }),
            Input::LinkDown { link, cause } => inbox.links.push(LinkEvent::Down { link, cause }),
            Input::DialFailed { dial, failure } => {
                inbox.links.push(LinkEvent::DialFailed { dial, failure })
            }
            Input::Refused {
                link,
                code,
                refusal,
                count,
            } => inbox.links.push(LinkEvent::Refused {
                link,
                code,
                refusal,
                count,
            }),
            Input::Response { request, result } => {
                inbox
                    .responses
                    .push((request, result.map(wire::Admitted::into_inner)));
            }
            Input::OwnAddresses(addresses) => inbox.own_addresses = Some(addresses),
            Input::Persisted(batch) => inbox.end_batch(batch, Ok(())),
            Input::PersistFailed(batch, trouble) => inbox.end_batch(batch, Err(trouble)),
            Input::Disk(usage) => inbox.tell_usage(usage),
            Input::Read { read, result } => inbox.reads.push((read, result)),
            Input::Call { call, what } => inbox.calls.push((call, what)),
            Input::Stop => inbox.stopping = true,
            Input::Packet { .. } | Input::HandshakesDropped { .. } => {}
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = self.world.resource::<identity::Identity>().node_id();
        write!(f, "Node({})", own.short())
    }
}
