//! One person follows five hundred authors who are all away (PROTOCOL sections 7 and 8): a handful of nodes that keep them give
//! everything, and nobody asks, offers or tells more than others take.

use distsoc_engine::crypto::{Secret, hash};
use distsoc_engine::domain::{
    Content, Event, EventKind, NodeId, PostBody, PostBytes, PostId, PostText, PublicContent,
    RecentPosts, SignedPost,
};
use distsoc_engine::io::Call;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{Expected, ListPart, Packet, PullSyncResponse, admit};
use distsoc_simulator::cargo::Cargo;
use distsoc_simulator::host::{EPOCH_MS, Heard};
use distsoc_simulator::queue::HostNumber;
use distsoc_simulator::scenario::Scenario;
use distsoc_simulator::simulation::Simulation;
use std::collections::BTreeMap;

const SEED: u64 = 29;
const AUTHORS: u32 = 500;
/// Follow all of them from the beginning: one took everything from the authors, the others from it.
const KEEPERS: [HostNumber; 3] = [1, 2, 3];
const READER: HostNumber = 4;

const TOWN: &str = r#"
name = "town"
nodes = 6
anchors = 1
duration_s = 100000
start_within_s = 1
persons = { follows = 0, posts_per_hour = 0 }
"#;

/// What somebody wrote.
struct Works {
    list: ListPart,
    posts: BTreeMap<PostId, PostBytes>,
}

fn works_of(number: u32) -> (NodeId, Works) {
    let secret = Secret::from_seed(&hash(&number.to_be_bytes()));
    let (mut posts, mut list) = (BTreeMap::new(), None);
    for of in 0..2_u32 {
        let created_at_ms = EPOCH_MS + u64::from(of);
        let content = PublicContent {
            text: PostText::new(&format!("{of} of {number}")).expect("a short text"),
            parent: None,
            descriptions: Bounded::default(),
        };
        let body = PostBody {
            author: secret.node_id(),
            created_at_ms,
            content: Content::Public(content),
            blobs: Bounded::default(),
        };
        let post = SignedPost::sign(body, &secret).expect("it says something");
        let event = Event {
            id: post.id(),
            created_at_s: (created_at_ms / 1000) as u32,
            kind: EventKind::Public,
        };
        let generation = (EPOCH_MS / 1000) as u32;
        list = Some(RecentPosts::append(
            list.as_ref(),
            event,
            generation,
            created_at_ms,
            &secret,
        ));
        posts.insert(post.id(), post.bytes().clone());
    }
    let list = list.expect("two posts");
    let list = ListPart {
        head: list.head().clone(),
        newest: list.list().clone(),
        profile: None,
    };
    (secret.node_id(), Works { list, posts })
}

fn answer(packet: &Packet, works: &BTreeMap<NodeId, Works>) -> Option<Packet> {
    let Packet::PullSyncRequest(request) = packet else {
        return None;
    };
    let lists = request.authors.iter().filter_map(|want| {
        let works = works.get(&want.author)?;
        Some(works.list.clone())
    });
    let posts = request.posts.iter().filter_map(|post| {
        let mut all = works.values();
        all.find_map(|works| works.posts.get(post)).cloned()
    });
    let answer = PullSyncResponse {
        lists: Bounded::truncated(lists.collect()),
        posts: Bounded::truncated(posts.collect()),
        hearts: Bounded::default(),
        deletions: Bounded::default(),
    };
    Some(answer.into())
}

struct Town(Simulation);

impl Town {
    fn pass(&mut self, ms: u64) {
        let until_us = self.0.now_us + ms * 1000;
        let is_well = self.0.run_until(until_us);
        assert!(is_well, "seed {SEED}: {:?}", self.0.violation);
    }

    fn follow(&mut self, reader: HostNumber, works: &BTreeMap<NodeId, Works>) {
        for node in works.keys() {
            let (node, place) = (*node, None);
            self.0.ask(reader, Call::Follow { node, place });
        }
    }

    /// How many of the posts are on a disk.
    fn here(&self, number: HostNumber, works: &BTreeMap<NodeId, Works>) -> usize {
        let disk = &self.0.hosts[number as usize].disk;
        let posts = works.values().flat_map(|works| works.posts.keys());
        posts.filter(|post| disk.holds(post)).count()
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        let nodes = self.0.hosts.iter().filter_map(|host| host.node());
        let counts = nodes.map(|node| node.world().resource::<RefusalCounts>().total(refusal));
        counts.sum()
    }
}

#[test]
fn five_hundred_authors_arrive_from_a_few_keepers_and_nobody_asks_too_much() {
    let works: BTreeMap<NodeId, Works> = (0..AUTHORS).map(works_of).collect();
    let all = 2 * works.len();
    let scenario = Scenario::parse(TOWN).expect("a sound scenario");
    let mut town = Town(Simulation::new(scenario, SEED));
    town.pass(60_000);
    let secret = Secret::from_seed(&[222; 32]);
    let library = town.0.add_puppet(&secret);
    let link = town.0.puppet_joins(library, KEEPERS[0]);
    assert!(link.is_some(), "a free slot");
    town.follow(KEEPERS[0], &works);
    town.pass(1_000);
    // It does not say to have them: whoever is asked for one of them and has it is asked for the others.
    // Within two minutes.
    for _ in 0..600 {
        for heard in town.0.heard_by(library) {
            let Heard::Stream(link, cargo) = heard else {
                continue;
            };
            let Cargo::Request(bytes, _) = &cargo else {
                continue;
            };
            let asked = admit(bytes, Expected::Request).expect("honest nodes ask soundly");
            if let Some(answer) = answer(&asked.into_inner(), &works) {
                let bytes = answer.encode();
                town.0.puppet_answers(library, link, &cargo, &bytes);
            }
        }
        if town.here(KEEPERS[0], &works) == all {
            break;
        }
        town.pass(200);
    }
    assert_eq!(town.here(KEEPERS[0], &works), all, "seed {SEED}");
    town.0.power_off(library);
    for keeper in &KEEPERS[1..] {
        town.follow(*keeper, &works);
    }
    town.pass(60 * 60_000);
    for keeper in KEEPERS {
        assert_eq!(town.here(keeper, &works), all, "seed {SEED}: {keeper}");
    }
    let before = town.refused(Refusal::RateExceeded);
    town.follow(READER, &works);
    // Links for all of them are looked for one after the other, and all are pulled once more.
    town.pass(90 * 60_000);
    assert_eq!(town.here(READER, &works), all, "seed {SEED}");
    assert_eq!((before, town.refused(Refusal::RateExceeded)), (0, 0));
    town.pass(30_000);
    town.0.check_calm();
    assert_eq!(town.0.violation, None, "seed {SEED}");
}
