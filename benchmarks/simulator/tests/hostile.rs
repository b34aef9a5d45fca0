//! Hostile peers who speak raw bytes to real nodes: refused, counted, bounded, and nobody else notices (PROTOCOL
//! section 13).

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    Address, AddressBody, Content, Event, EventKind, NodeId, PostBody, PostText, PublicContent,
    RecentPosts, Signed, SignedPost,
};
use distsoc_engine::io::{Call, LinkId};
use distsoc_engine::limits;
use distsoc_engine::profile::ProfileKind;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    BootstrapSampleRequest, BootstrapSampleResponse, Hello, Hint, Packet, PostNotification,
    PullSyncRequest, Purpose, Want,
};
use distsoc_engine::world::authors::AuthorIndex;
use distsoc_engine::world::files::{FileIndex, Wanted};
use distsoc_engine::world::map::{DiscoveryMap, entries_of};
use distsoc_engine::world::peers::Peers;
use distsoc_simulator::cargo::Cargo;
use distsoc_simulator::host::{EPOCH_MS, Heard, secret_of};
use distsoc_simulator::queue::HostNumber;
use distsoc_simulator::scenario::Scenario;
use distsoc_simulator::simulation::Simulation;

const SEED: u64 = 42;
/// Whom the attack is on: a plain node that follows node 2.
const VICTIM: HostNumber = 1;
/// Who goes on posting.
const FRIEND: HostNumber = 2;

const TOWN: &str = r#"
name = "town"
nodes = 5
anchors = 1
duration_s = 3600
start_within_s = 1
persons = { follows = 0, posts_per_hour = 0 }
"#;

fn attacker() -> Secret {
    Secret::from_seed(&[200; 32])
}

struct Siege {
    simulation: Simulation,
    puppet: HostNumber,
    link: LinkId,
}

impl Siege {
    /// A town that has settled, and an attacker who said an honest Hello to the victim.
    fn begin() -> Self {
        let mut simulation =
            Simulation::new(Scenario::parse(TOWN).expect("a sound scenario"), SEED);
        simulation.run_until(60_000_000);
        let friend = secret_of(SEED, FRIEND).node_id();
        simulation.ask(
            VICTIM,
            Call::Follow {
                node: friend,
                place: None,
            },
        );
        simulation.run_until(70_000_000);
        let puppet = simulation.add_puppet(&attacker());
        let link = simulation
            .puppet_joins(puppet, VICTIM)
            .expect("the victim has a free slot");
        Self {
            simulation,
            puppet,
            link,
        }
    }

    fn notify(&mut self, bytes: &[u8]) {
        self.simulation
            .puppet_notifies(self.puppet, self.link, bytes);
    }

    fn ask(&mut self, bytes: &[u8], answer: u8) {
        self.simulation
            .puppet_asks(self.puppet, self.link, bytes, answer);
    }

    fn pass(&mut self, ms: u64) {
        let until_us = self.simulation.now_us + ms * 1000;
        assert!(
            self.simulation.run_until(until_us),
            "seed {SEED}: {:?}",
            self.simulation.violation
        );
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        let node = self.simulation.hosts[VICTIM as usize]
            .node()
            .expect("the victim runs");
        node.world().resource::<RefusalCounts>().total(refusal)
    }

    /// How much the victim remembers: peers, map, posts, wanted posts, authors.
    fn memory(&self) -> [usize; 5] {
        let world = self.simulation.hosts[VICTIM as usize]
            .node()
            .expect("the victim runs")
            .world();
        [
            world.resource::<Peers>().link_count(),
            world.resource::<DiscoveryMap>().counts().total(),
            world.resource::<FileIndex>().len(),
            world.resource::<Wanted>().len(),
            world.resource::<AuthorIndex>().len(),
        ]
    }

    fn is_connected(&self) -> bool {
        let world = self.simulation.hosts[VICTIM as usize]
            .node()
            .expect("the victim runs")
            .world();
        world
            .resource::<Peers>()
            .by_node(&attacker().node_id())
            .is_some()
    }

    /// Whatever happened, the friend's posts still reach the victim, and every invariant holds.
    fn ends_well(mut self) {
        let text = PostText::new("still here").expect("a short text");
        self.simulation.ask(
            FRIEND,
            Call::Post {
                text,
                parent: None,
                media: Vec::new(),
            },
        );
        self.pass(60_000);
        let (id, _) = self.simulation.hosts[FRIEND as usize]
            .acknowledged
            .last()
            .copied()
            .expect("the friend posted");
        assert!(
            self.simulation.hosts[VICTIM as usize].disk.holds(&id),
            "service to others goes on"
        );
        self.simulation.check_calm();
        assert_eq!(self.simulation.violation, None, "seed {SEED}");
    }
}

fn post_by(author: &Secret, text: &str, created_at_ms: u64) -> (SignedPost, RecentPosts) {
    let body = PostBody {
        author: author.node_id(),
        created_at_ms,
        content: Content::Public(PublicContent {
            text: PostText::new(text).expect("a short text"),
            parent: None,
            descriptions: Bounded::default(),
        }),
        blobs: Bounded::default(),
    };
    let post = SignedPost::sign(body, author).expect("a sound post");
    let seconds = (created_at_ms / 1000) as u32;
    let event = Event {
        id: post.id(),
        created_at_s: seconds,
        kind: EventKind::Public,
    };
    let list = RecentPosts::append(None, event, seconds, created_at_ms, author);
    (post, list.into_inner())
}

fn notification(author: &Secret, text: &str, created_at_ms: u64) -> Vec<u8> {
    let (post, list) = post_by(author, text, created_at_ms);
    let packet = PostNotification {
        head: list.head().clone(),
        newest: list.list().clone(),
        post: Some(post),
    };
    Packet::from(packet).encode().to_vec()
}

#[test]
fn garbage_ends_the_connection() {
    let mut siege = Siege::begin();
    let before = siege.memory();
    for number in 0..60u8 {
        siege.notify(&[0x35, 0xff, number]);
        siege.notify(&[]);
        siege.notify(&[0xee, 1, 2, 3]);
        siege.pass(20);
    }
    siege.pass(2_000);
    assert!(siege.refused(Refusal::Malformed) > 0 && siege.refused(Refusal::Empty) > 0);
    assert!(siege.refused(Refusal::UnknownCode) > 0);
    assert!(!siege.is_connected(), "whoever goes on is sent away");
    assert!(siege.memory() <= before);
    siege.ends_well();
}

#[test]
fn every_truncation_of_every_packet_is_refused() {
    let mut siege = Siege::begin();
    let before = siege.memory();
    let refused_before = siege.simulation.counts.refused;
    let mut sent = 0;
    for packet in Packet::examples() {
        let bytes = packet.encode();
        for cut in [1, bytes.len() / 3, bytes.len() - 1] {
            siege.notify(&bytes[..cut]);
            siege.ask(&bytes[..cut], bytes[0].wrapping_add(1));
            sent += 2;
            siege.pass(5);
        }
    }
    siege.pass(2_000);
    let refused = siege.simulation.counts.refused - refused_before;
    assert!(refused > 0 && refused <= sent, "{refused} of {sent}");
    assert!(siege.memory()[2..] <= before[2..]);
    siege.ends_well();
}

#[test]
fn oversized_packets_are_refused_unread() {
    let mut siege = Siege::begin();
    let before = siege.memory();
    let mut huge = notification(&attacker(), "x", EPOCH_MS);
    huge.resize(2 * 1024 * 1024, 0);
    for _ in 0..5 {
        siege.notify(&huge);
    }
    siege.pass(5_000);
    assert_eq!(siege.refused(Refusal::TooLarge), 5);
    assert_eq!(siege.memory(), before);
    siege.ends_well();
}

#[test]
fn replayed_packets_change_nothing() {
    let mut siege = Siege::begin();
    // The friend's own words, as the attacker may have heard them.
    let said = notification(&secret_of(SEED, FRIEND), "once", EPOCH_MS + 60_000);
    siege.notify(&said);
    siege.pass(4_000);
    let after_first = siege.memory();
    for _ in 0..40 {
        siege.notify(&said);
        siege.pass(300);
    }
    let hello = Hello::new(
        ProfileKind::Desktop,
        Purpose::Social,
        false,
        false,
        None,
        None,
    );
    siege.notify(&Packet::from(hello).encode());
    siege.pass(2_000);
    assert!(
        siege.refused(Refusal::Stale) >= 40,
        "{}",
        siege.refused(Refusal::Stale)
    );
    assert_eq!(siege.refused(Refusal::SecondHello), 1);
    assert_eq!(siege.memory()[2..], after_first[2..]);
    siege.simulation.check_calm();
    assert_eq!(siege.simulation.violation, None, "seed {SEED}");
}

#[test]
fn forged_signatures_store_nothing() {
    let mut siege = Siege::begin();
    let before = siege.memory();
    let mut forged = notification(&secret_of(SEED, FRIEND), "not hers", EPOCH_MS + 70_000);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for _ in 0..10 {
        siege.notify(&forged);
        siege.pass(500);
    }
    siege.pass(2_000);
    assert!(siege.refused(Refusal::BadSignature) >= 5);
    assert!(!siege.is_connected(), "forgers are sent away");
    assert!(siege.memory() <= before);
    siege.ends_well();
}

#[test]
fn a_record_for_somebody_else_is_not_believed() {
    let mut simulation = Simulation::new(Scenario::parse(TOWN).expect("a sound scenario"), SEED);
    simulation.run_until(60_000_000);
    let puppet = simulation.add_puppet(&attacker());
    simulation.puppet_dials(puppet, VICTIM);
    simulation.run_until(62_000_000);
    let link = simulation
        .heard_by(puppet)
        .into_iter()
        .find_map(|heard| match heard {
            Heard::Up(link) => Some(link),
            _ => None,
        })
        .expect("the handshake is done");
    let other = Secret::from_seed(&[201; 32]);
    let record = Signed::sign(
        AddressBody {
            node_id: other.node_id(),
            addresses: Bounded::truncated(vec![
                Address::new("93.184.216.34:4433".parse().unwrap()).unwrap(),
            ]),
            is_anchor: 0,
            seq: EPOCH_MS,
            expiry_ms: EPOCH_MS + limits::ADDRESS_RECORD_TTL_MS,
        },
        &other,
    );
    let hello = Hello::new(
        ProfileKind::Desktop,
        Purpose::Social,
        false,
        false,
        Some(record),
        None,
    );
    simulation.puppet_notifies(puppet, link, &Packet::from(hello).encode());
    simulation.run_until(70_000_000);
    let world = simulation.hosts[VICTIM as usize]
        .node()
        .expect("the victim runs")
        .world();
    assert!(
        world
            .resource::<RefusalCounts>()
            .total(Refusal::WrongAuthor)
            > 0
    );
    let map = world.resource::<DiscoveryMap>();
    assert!(map.find(&other.node_id(), entries_of(world)).is_none());
    let siege = Siege {
        simulation,
        puppet,
        link,
    };
    let dialled = siege.simulation.counts.dials_failed;
    assert_eq!(dialled, 0, "and nobody is sent to the address it names");
}

#[test]
fn the_future_is_refused() {
    let mut siege = Siege::begin();
    let friend = secret_of(SEED, FRIEND);
    let ahead = EPOCH_MS + 70_000 + limits::FUTURE_MS_MAX + 60_000;
    siege.notify(&notification(&friend, "from tomorrow", ahead));
    siege.pass(5_000);
    assert!(siege.refused(Refusal::FutureTimestamp) > 0);
    assert_eq!(siege.memory()[2], 0, "nothing of it is stored");
    siege.ends_well();
}

#[test]
fn a_flood_of_notifications_meets_the_rate() {
    let mut siege = Siege::begin();
    let before = siege.memory();
    for number in 0..600u64 {
        siege.notify(&notification(
            &attacker(),
            &format!("buy {number}"),
            EPOCH_MS + number,
        ));
    }
    siege.pass(10_000);
    assert!(siege.refused(Refusal::RateExceeded) > 0);
    assert!(!siege.is_connected(), "whoever floods is sent away");
    assert!(siege.memory() <= before);
    siege.ends_well();
}

#[test]
fn a_flood_of_requests_is_bounded_in_flight() {
    let mut siege = Siege::begin();
    let friend = secret_of(SEED, FRIEND).node_id();
    let ask = PullSyncRequest {
        authors: Bounded::truncated(vec![Want {
            author: friend,
            seq: 0,
        }]),
        posts: Bounded::default(),
    };
    let bytes = Packet::from(ask).encode();
    for _ in 0..50 {
        siege.ask(&bytes, 0x41);
    }
    siege.pass(5_000);
    assert!(siege.refused(Refusal::TooManyInFlight) + siege.refused(Refusal::RateExceeded) > 0);
    siege.ends_well();
}

#[test]
fn invented_hints_cost_a_bounded_number_of_dials() {
    // The attacker is the town's only anchor: every newcomer asks it for a sample.
    let mut simulation = Simulation::new(
        Scenario::parse(&TOWN.replace("anchors = 1", "anchors = 0")).unwrap(),
        SEED,
    );
    simulation.run_until(5_000_000);
    let puppet = simulation.add_puppet(&attacker());
    let place = simulation.place_of(puppet);
    simulation.ask(VICTIM, Call::Connect(place));
    let hints: Vec<Hint> = (0..limits::SAMPLE_HINTS_MAX as u32)
        .map(|number| Hint {
            node_id: NodeId::from_bytes(
                *Secret::from_seed(&[number as u8; 32]).node_id().as_bytes(),
            ),
            // All within one /24: the machine that the attacker wants hit.
            address: Address::new(format!("93.184.216.{}:4433", number % 250).parse().unwrap())
                .unwrap(),
        })
        .collect();
    let sample = BootstrapSampleResponse {
        hints: Bounded::truncated(hints),
        peers: 1,
    };
    let sample = Packet::from(sample).encode();
    let hello = Hello::new(
        ProfileKind::Anchor,
        Purpose::Social,
        false,
        false,
        None,
        None,
    );
    let (hello, mut asked) = (Packet::from(hello).encode(), 0);
    for _ in 0..600 {
        simulation.run_until(simulation.now_us + 100_000);
        for heard in simulation.heard_by(puppet) {
            match heard {
                Heard::Stream(link, Cargo::Notification(bytes)) if bytes[0] == Hello::SPEC.code => {
                    simulation.puppet_notifies(puppet, link, &hello);
                }
                Heard::Stream(link, request @ Cargo::Request(..)) => {
                    asked += u32::from(request.bytes()[0] == BootstrapSampleRequest::SPEC.code);
                    simulation.puppet_answers(puppet, link, &request, &sample);
                }
                Heard::Up(_) | Heard::Down(..) | Heard::Stream(..) => {}
            }
        }
    }
    assert_eq!(simulation.violation, None, "seed {SEED}");
    assert!(asked > 0, "the sample was asked for");
    let minutes = simulation.now_us / 60_000_000 + 1;
    let dials = simulation.counts.dials_failed;
    let most = minutes * u64::from(limits::DIALS_PER_PREFIX_MINUTE_MAX);
    assert!(
        dials > 0 && dials <= most,
        "{dials} dials into one /24, {most} allowed"
    );
}
