//! Files among people who mean harm or are gone (PROTOCOL sections 7 and 13): authors who never come back, holders that serve wrong bytes
//! or old lists, Sybils that like or claim to keep something, tombstones by strangers, full disks.

use distsoc_engine::crypto::{Secret, hash};
use distsoc_engine::domain::{
    BlobRef, Cut, Deletion, DeletionBody, Heart, HeartBody, NodeId, PostBytes, PostId, PostText,
};
use distsoc_engine::io::{Call, LinkId, ReadQuery, ReadResult};
use distsoc_engine::limits;
use distsoc_engine::node::Node;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    AuthorUpdatePush, CELLS, DeleteRecord, Expected, FileRequest, FileResponse, HeartRecord,
    InitialMapSync, ListDigest, ListPart, MapCell, MapCells, MapItem, MapReconcile, Named, Packet,
    PostNotification, PullSyncResponse, SwarmLink, SwarmWish, Want, admit,
};
use distsoc_engine::world::copies::Copies;
use distsoc_engine::world::files::{FileIndex, StoredFile};
use distsoc_engine::world::hearts::Hearts;
use distsoc_engine::world::keep_order::KeepOrder;
use distsoc_engine::world::keepers::Keepers;
use distsoc_engine::world::map::SetHash;
use distsoc_engine::world::peers::Peers;
use distsoc_simulator::cargo::Cargo;
use distsoc_simulator::delivery::Deliveries;
use distsoc_simulator::host::{EPOCH_MS, Heard, secret_of};
use distsoc_simulator::queue::{Event, HostNumber};
use distsoc_simulator::scenario::Scenario;
use distsoc_simulator::simulation::Simulation;
use std::collections::BTreeMap;

const SEED: u64 = 23;
const AUTHOR: HostNumber = 1;
/// Keeps the author from the beginning.
const HOLDER: HostNumber = 2;
/// Whom it is about.
const READER: HostNumber = 3;

const TOWN: &str = r#"
name = "town"
nodes = 6
anchors = 1
duration_s = 100000
start_within_s = 1
persons = { follows = 0, posts_per_hour = 0 }
"#;

struct Town(Simulation);

impl Town {
    fn new() -> Self {
        let scenario = Scenario::parse(TOWN).expect("a sound scenario");
        let mut town = Self(Simulation::new(scenario, SEED));
        town.pass(60_000);
        town
    }

    fn pass(&mut self, ms: u64) {
        let until_us = self.0.now_us + ms * 1000;
        let is_well = self.0.run_until(until_us);
        assert!(is_well, "seed {SEED}: {:?}", self.0.violation);
    }

    fn follow(&mut self, reader: HostNumber, author: HostNumber) {
        let node = self.0.hosts[author as usize].node_id();
        self.0.ask(reader, Call::Follow { node, place: None });
        self.pass(5_000);
    }

    fn post(&mut self, author: HostNumber, text: &str) -> PostId {
        let text = PostText::new(text).expect("a short text");
        let what = Call::Post {
            text,
            parent: None,
            media: Vec::new(),
        };
        self.0.ask(author, what);
        self.pass(5_000);
        self.newest(author)
    }

    fn post_picture(&mut self, author: HostNumber, bytes: usize) -> (PostId, BlobRef) {
        let text = PostText::new("look").expect("a short text");
        self.0.post_picture(author, text, bytes);
        self.pass(500);
        let pictures = &self.0.hosts[author as usize].pictures;
        *pictures.last().expect("it was posted")
    }

    fn newest(&self, author: HostNumber) -> PostId {
        let posts = &self.0.hosts[author as usize].acknowledged;
        posts.last().expect("it was posted").0
    }

    fn has(&self, number: HostNumber, post: &PostId) -> bool {
        self.0.hosts[number as usize].disk.holds(post)
    }

    fn has_picture(&self, number: HostNumber, picture: &BlobRef) -> bool {
        self.0.hosts[number as usize].disk.holds_blob(picture)
    }

    fn node(&self, number: HostNumber) -> &Node {
        self.0.hosts[number as usize].node().expect("it runs")
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        let world = self.node(READER).world();
        world.resource::<RefusalCounts>().total(refusal)
    }

    /// What a machine would answer to whoever asks for this author and these posts.
    fn part_of(&self, number: HostNumber, posts: &[PostId]) -> (Vec<ListPart>, Vec<PostBytes>) {
        let query = ReadQuery::ForPeer {
            wants: vec![Want {
                author: author(),
                seq: 0,
            }],
            posts: posts.to_vec(),
            bytes_max: 100_000,
        };
        let disk = &self.0.hosts[number as usize].disk;
        let Ok(ReadResult::ForPeer { lists, posts, .. }) = disk.read(&query) else {
            panic!("the disk can be read");
        };
        (lists, posts)
    }

    fn digest(&self) -> ListDigest {
        let (lists, _) = self.part_of(AUTHOR, &[]);
        ListDigest::of(&lists[0].head)
    }

    /// How many copies of a post count at the reader, and what it is worth there.
    fn worth(&self, post: &PostId) -> (u8, f64) {
        let world = self.node(READER).world();
        let entity = world.resource::<FileIndex>().get(post).expect("it is here");
        let file = world.get::<StoredFile>(entity).expect("it is a file");
        let row = file.keep.expect("it is no own content");
        let order = world.resource::<KeepOrder>();
        let priority = order.priority(row).expect("it has a place");
        (world.resource::<Copies>().count(post), priority.to_f64())
    }

    fn is_connected(&self, other: &NodeId) -> bool {
        let world = self.node(READER).world();
        world.resource::<Peers>().by_node(other).is_some()
    }

    /// All invariants hold, those that are looked at when it is calm too.
    fn ends_well(mut self) {
        self.pass(30_000);
        self.0.check_calm();
        assert_eq!(self.0.violation, None, "seed {SEED}");
    }
}

fn author() -> NodeId {
    secret_of(SEED, AUTHOR).node_id()
}

/// Somebody with a script, connected to the reader.
struct Puppet {
    secret: Secret,
    host: HostNumber,
    link: LinkId,
}

impl Puppet {
    fn join(town: &mut Town, seed: u8) -> Self {
        let secret = Secret::from_seed(&[seed; 32]);
        let host = town.0.add_puppet(&secret);
        let link = town.0.puppet_joins(host, READER).expect("a free slot");
        Self { secret, host, link }
    }

    fn tell(&self, town: &mut Town, packet: impl Into<Packet>) {
        let bytes = packet.into().encode();
        town.0.puppet_notifies(self.host, self.link, &bytes);
    }

    /// Says that it keeps the author.
    fn claims(&self, town: &mut Town) {
        let offer = SwarmLink::new(town.digest(), SwarmWish::Offer);
        self.tell(town, offer);
    }

    /// Answers what it was asked since, where the closure says something.
    fn answers(&self, town: &mut Town, mut answer: impl FnMut(Packet) -> Option<Vec<u8>>) {
        for heard in town.0.heard_by(self.host) {
            let Heard::Stream(link, cargo) = heard else {
                continue;
            };
            let Cargo::Request(bytes, _) = &cargo else {
                continue;
            };
            let packet = admit(bytes, Expected::Request).expect("honest nodes ask soundly");
            if let Some(bytes) = answer(packet.into_inner()) {
                town.0.puppet_answers(self.host, link, &cargo, &bytes);
            }
        }
    }
}

#[test]
fn who_follows_an_author_that_is_gone_for_good_gets_everything_from_holders() {
    let mut town = Town::new();
    town.follow(HOLDER, AUTHOR);
    let text = town.post(AUTHOR, "the last words");
    let (post, picture) = town.post_picture(AUTHOR, 300_000);
    town.pass(20_000);
    assert!(town.has_picture(HOLDER, &picture));
    town.0.crash(AUTHOR);
    town.pass(240_000);
    let late = town.0.add_host();
    town.0.queue.at(town.0.now_us + 1, Event::Boot(late));
    town.pass(60_000);
    assert!(!town.has(late, &text));
    town.follow(late, AUTHOR);
    town.pass(120_000);
    assert!(
        town.has(late, &text) && town.has(late, &post),
        "seed {SEED}"
    );
    assert!(town.has_picture(late, &picture), "seed {SEED}");
    let delivery = Deliveries::of(&town.0.hosts[late as usize..]);
    assert!(delivery.needed_bytes > 300_000);
    assert_eq!(delivery.arrived.bytes, delivery.needed_bytes);
    town.ends_well();
}

/// What a holder that means harm answers to whoever asks it for slices.
fn wrong_slices(kind: usize, request: &FileRequest) -> Option<Vec<u8>> {
    let bytes: Vec<u8> = (0..request.blob.length).map(|place| place as u8).collect();
    let cut = Cut::new(&bytes).expect("the same length");
    let run = cut.slices().skip(request.first as usize);
    let run: Vec<_> = run.take(request.count as usize).collect();
    let encoded = |blob, count: usize| {
        let slices = run.iter().take(count).map(|slice| &**slice.bytes());
        FileResponse::encode_stored(blob, request.first, slices).to_vec()
    };
    match kind {
        // Other bytes under the right name.
        0 => Some(encoded(request.blob, run.len())),
        // Another picture, sound in itself.
        1 => Some(encoded(cut.blob(), run.len())),
        // Not the bytes of whole slices.
        2 => {
            let mut bytes = encoded(request.blob, run.len());
            bytes.truncate(bytes.len() - 7);
            Some(bytes)
        }
        // Nothing at all, ever.
        _ => None,
    }
}

#[test]
fn holders_that_serve_wrong_bytes_or_none_are_gone_round_and_sent_away() {
    let mut town = Town::new();
    town.follow(READER, AUTHOR);
    town.post(AUTHOR, "hello");
    let puppets: Vec<Puppet> = (0..4)
        .map(|kind| Puppet::join(&mut town, 210 + kind))
        .collect();
    let (mut asked, mut pictures) = ([0; 4], Vec::new());
    for _ in 0..8 {
        for puppet in &puppets {
            puppet.claims(&mut town);
        }
        town.pass(300);
        // Any of those who say to have them is asked: enough that each is, more than once.
        for _ in 0..5 {
            pictures.push(town.post_picture(AUTHOR, 200_000).1);
        }
        for _ in 0..60 {
            for (kind, puppet) in puppets.iter().enumerate() {
                puppet.answers(&mut town, |packet| match packet {
                    Packet::FileRequest(request) => {
                        asked[kind] += 1;
                        wrong_slices(kind, &request)
                    }
                    _ => None,
                });
            }
            town.pass(200);
        }
    }
    assert!(asked.iter().all(|count| *count > 0), "{asked:?}");
    for picture in &pictures {
        assert!(town.has_picture(READER, picture), "seed {SEED}: {asked:?}");
        // Slice by slice as the author has them.
        let slices = |number: HostNumber| {
            let query = ReadQuery::Slices {
                blob: picture.hash,
                first: 0,
                count: picture.slices(),
            };
            town.0.hosts[number as usize].disk.read(&query)
        };
        assert_eq!(slices(READER), slices(AUTHOR));
    }
    assert!(town.refused(Refusal::WrongHash) >= 5);
    let is_there = |kind: usize| town.is_connected(&puppets[kind].secret.node_id());
    assert!(
        !is_there(0),
        "who serves wrong bytes is sent away: {asked:?}"
    );
    assert!(is_there(3), "who is slow is not");
    assert!(
        town.0.puppet_joins(puppets[0].host, READER).is_none(),
        "and cools off"
    );
    town.ends_well();
}

fn heart_of(person: &Secret, post: PostId) -> HeartRecord {
    let body = HeartBody {
        person: person.node_id(),
        author: author(),
        post,
        seq: EPOCH_MS + 200_000,
        given: 1,
    };
    let heart = Heart::sign(body, person);
    HeartRecord { heart, list_seq: 0 }
}

fn key(number: u32) -> Secret {
    Secret::from_seed(&hash(&number.to_be_bytes()))
}

/// A map report that names these as its peers.
fn report(request: &MapReconcile, nodes: &[NodeId]) -> Vec<u8> {
    let hash = SetHash::new(request.salt);
    let mut by_cell: BTreeMap<usize, Vec<MapItem>> = BTreeMap::new();
    for node in nodes {
        let cell = hash.cell(node);
        if cell >= usize::from(request.first_cell) {
            let named = Named::Bare(*node);
            let item = MapItem {
                named,
                is_anchor: false,
            };
            by_cell.entry(cell).or_default().push(item);
        }
    }
    let cells = by_cell.into_iter().map(|(number, hop_1)| MapCell {
        number: number as u16,
        hop_1,
        hop_2: Vec::new(),
    });
    let answer = InitialMapSync {
        seq: 1,
        digest: 2,
        next_cell: CELLS as u16,
        cells: MapCells::new(cells.collect()).expect("in order"),
    };
    Packet::from(answer).encode().to_vec()
}

#[test]
fn a_thousand_keys_that_like_a_post_count_once_for_each_peer_that_brings_them() {
    const KEYS: u32 = 100;
    let mut town = Town::new();
    // Kept for others: nobody whom the reader follows.
    town.follow(READER, AUTHOR);
    let post = town.post(AUTHOR, "like me");
    let node = author();
    town.0.ask(READER, Call::Unfollow(node));
    town.pass(200_000);
    let (_, before) = town.worth(&post);
    let puppets: Vec<Puppet> = (0..3)
        .map(|seed| Puppet::join(&mut town, 220 + seed))
        .collect();
    // Keys that nobody knows count for nothing.
    for number in 0..KEYS {
        puppets[0].tell(&mut town, heart_of(&key(10_000 + number), post));
    }
    town.pass(60_000);
    let given = |town: &Town| town.node(READER).world().resource::<Hearts>().given(&post);
    assert_eq!((given(&town), town.worth(&post).1), (0, before));
    assert!(town.refused(Refusal::NotKept) >= u64::from(KEYS));
    // Keys that the attackers put on the map count once for each attacker that has a slot.
    let keys = |puppet: usize| (0..KEYS).map(move |number| key(puppet as u32 * KEYS + number));
    for _ in 0..600 {
        for (number, puppet) in puppets.iter().enumerate() {
            let nodes: Vec<NodeId> = keys(number).map(|key| key.node_id()).collect();
            puppet.answers(&mut town, |packet| match packet {
                Packet::MapReconcile(request) => Some(report(&request, &nodes)),
                _ => None,
            });
        }
        town.pass(100);
    }
    for (number, puppet) in puppets.iter().enumerate() {
        for key in keys(number) {
            puppet.tell(&mut town, heart_of(&key, post));
            town.pass(300);
        }
    }
    town.pass(60_000);
    assert!(given(&town) > 100, "they are kept: {}", given(&town));
    let counted = town
        .node(READER)
        .world()
        .resource::<Hearts>()
        .of_author(&author());
    assert!((1..=3).contains(&counted), "{counted} count");
    // Recent as they are, three peers make an author noticed and no more.
    let (_, after) = town.worth(&post);
    assert!(
        after <= 2.0 * 100.0 * 100.0,
        "{before} before, {after} after"
    );
    town.ends_well();
}

#[test]
fn who_claims_to_keep_a_file_makes_nobody_drop_it() {
    let mut town = Town::new();
    town.follow(READER, AUTHOR);
    let post = town.post(AUTHOR, "keep me");
    let before = town.worth(&post);
    let digest = town.digest();
    for seed in 0..12 {
        let puppet = Puppet::join(&mut town, 230 + seed);
        puppet.claims(&mut town);
        let digests = Bounded::truncated(vec![digest]);
        puppet.tell(&mut town, AuthorUpdatePush { digests });
    }
    town.pass(30_000);
    let (copies, worth) = town.worth(&post);
    assert!(
        copies <= before.0 + 1,
        "{copies} copies, {} before",
        before.0
    );
    assert!(worth >= before.1 / 2.0, "{worth} now, {} before", before.1);
    let linked = town.node(READER).world().resource::<Keepers>();
    let linked = linked.links(&author()).count();
    assert!(linked <= limits::SWARM_LINKS_MAX, "{linked} links");
    // Promises of something newer cost one question each, and nothing that is here.
    let post_2 = town.post(AUTHOR, "and me");
    assert!(town.has(READER, &post) && town.has(READER, &post_2));
    town.ends_well();
}

fn deletion_by(secret: &Secret, post: PostId) -> DeleteRecord {
    let body = DeletionBody {
        author: secret.node_id(),
        post,
        seq: EPOCH_MS + 100_000,
    };
    let deletion = Deletion::sign(body, secret);
    DeleteRecord {
        deletion,
        list_seq: 0,
    }
}

#[test]
fn tombstones_by_strangers_bury_nothing() {
    let mut town = Town::new();
    town.follow(READER, AUTHOR);
    let (post, picture) = town.post_picture(AUTHOR, 100_000);
    town.pass(10_000);
    let puppet = Puppet::join(&mut town, 250);
    // In the stranger's own name, first as nobody, then as somebody whom the reader follows.
    puppet.tell(&mut town, deletion_by(&puppet.secret, post));
    town.pass(2_000);
    assert!(town.refused(Refusal::NotKept) > 0);
    let node = puppet.secret.node_id();
    town.0.ask(READER, Call::Follow { node, place: None });
    town.pass(5_000);
    puppet.tell(&mut town, deletion_by(&puppet.secret, post));
    // In the author's name, with the stranger's signature.
    let mut forged = Packet::from(deletion_by(&puppet.secret, post))
        .encode()
        .to_vec();
    let own = *node.as_bytes();
    let at = forged
        .windows(32)
        .position(|bytes| bytes == own)
        .expect("its own id");
    forged[at..at + 32].copy_from_slice(author().as_bytes());
    town.0.puppet_notifies(puppet.host, puppet.link, &forged);
    town.pass(5_000);
    assert!(town.refused(Refusal::BadSignature) > 0);
    assert!(town.has(READER, &post) && town.has_picture(READER, &picture));
    // The author's own word does.
    town.0.ask(AUTHOR, Call::Delete(post));
    town.pass(10_000);
    assert!(!town.has(READER, &post) && !town.has_picture(READER, &picture));
    town.ends_well();
}

/// Answers what was asked with what once was so; how often that was.
fn answer_with_old(
    puppet: &Puppet,
    town: &mut Town,
    lists: &[ListPart],
    posts: &[PostBytes],
) -> usize {
    let mut asked = 0;
    puppet.answers(town, |packet| match packet {
        Packet::PullSyncRequest(_) => {
            asked += 1;
            let answer = PullSyncResponse {
                lists: Bounded::truncated(lists.to_vec()),
                posts: Bounded::truncated(posts.to_vec()),
                hearts: Bounded::default(),
                deletions: Bounded::default(),
            };
            Some(Packet::from(answer).encode().to_vec())
        }
        _ => None,
    });
    asked
}

#[test]
fn holders_with_an_old_list_roll_nothing_back_and_resurrect_nothing() {
    let mut town = Town::new();
    town.follow(READER, AUTHOR);
    let first = town.post(AUTHOR, "the first");
    let (old_lists, old_posts) = town.part_of(AUTHOR, &[first]);
    let old_head = old_lists[0].head.clone();
    town.0.ask(AUTHOR, Call::Delete(first));
    town.pass(10_000);
    let second = town.post(AUTHOR, "the second");
    assert!(!town.has(READER, &first) && town.has(READER, &second));
    let newest = town.digest();
    let puppet = Puppet::join(&mut town, 251);
    // As a notification, whole and signed as it once was.
    let post = old_posts[0].clone().verify().expect("it was signed");
    let old_news = PostNotification {
        head: old_head.clone(),
        newest: old_lists[0].newest.clone(),
        post: Some(post),
    };
    puppet.tell(&mut town, old_news);
    town.pass(3_000);
    assert!(town.refused(Refusal::Stale) > 0 && town.refused(Refusal::Deleted) > 0);
    // As the answer to a question for what it said to have.
    let promise = ListDigest {
        seq: newest.seq + 5,
        ..newest
    };
    let digests = Bounded::truncated(vec![promise]);
    let promises = AuthorUpdatePush { digests };
    puppet.tell(&mut town, promises.clone());
    // Whoever it is: all questions for lists and posts, in the ten minutes after the promise and in ten more of the same.
    let questions = |town: &Town| {
        let table = town.0.traffic.table();
        let of = table.iter().find(|(_, name, _)| *name == "PullSyncRequest");
        of.map_or(0, |(.., cost)| cost.count)
    };
    let (mut asked, mut asked_in_all) = (0, Vec::new());
    for round in 0..2 {
        let before = questions(&town);
        if round == 1 {
            // It goes on promising.
            for _ in 0..20 {
                puppet.tell(&mut town, promises.clone());
                town.pass(30_000);
                asked += answer_with_old(&puppet, &mut town, &old_lists, &old_posts);
            }
        } else {
            for _ in 0..600 {
                town.pass(1_000);
                asked += answer_with_old(&puppet, &mut town, &old_lists, &old_posts);
            }
        }
        asked_in_all.push(questions(&town) - before);
    }
    assert!(asked > 0, "the promise was followed up");
    // A promise costs one question, and what the town asks by itself besides.
    assert!(asked <= 1 + 20, "seed {SEED}: {asked} times");
    assert!(asked_in_all[0] <= 12, "seed {SEED}: {asked_in_all:?}");
    assert!(asked_in_all[1] <= 12 + 20, "seed {SEED}: {asked_in_all:?}");
    assert!(!town.has(READER, &first), "what was taken back stays gone");
    let (lists, _) = town.part_of(READER, &[]);
    assert_eq!(lists[0].head.seq.to_u64(), newest.seq);
    assert!(old_head.seq.to_u64() < newest.seq);
    // After a start from the disk too.
    town.0.crash(READER);
    town.0.boot(READER);
    town.pass(60_000);
    assert!(!town.has(READER, &first) && town.has(READER, &second));
    town.ends_well();
}
