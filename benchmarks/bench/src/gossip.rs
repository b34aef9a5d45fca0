//! A desktop node in the middle of a large network: 101 peers, 7,000 nodes at hop 2, 350,000 at hop 3, of whom some leave and come
//! all the time. The peers are played; the node is the real one, and every byte is a real packet's.

use crate::measure::{Figure, live_bytes};
use distsoc_engine::clock::Now;
use distsoc_engine::crypto::{Secret, hash};
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{Effect, Input, LinkId, Origin, RequestId, Restored};
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::wire::codec::ByteVec;
use distsoc_engine::wire::{
    CELLS, Expected, Hello, InitialMapSync, MapCell, MapCells, MapChanges, MapItem, MapReconcile,
    Named, Number, Packet, Purpose, RoutingDiff, admit,
};
use distsoc_engine::world::map::{DiscoveryMap, ReportedHop, SetHash};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

const PEERS: usize = 101;
const HOP_2: usize = 7_000;
const HOP_3: usize = 550_000;
const PER_PEER_HOP_1: usize = 101;
const PER_PEER_HOP_2: usize = 5_500;
const CYCLE_MS: u64 = 120_000;
const CYCLES_A_DAY: usize = 720;
/// Around a packet of one small stream: UDP and IP 28, QUIC header and tag 31, stream frame 5; the acknowledgement of every second
/// packet, 28 + 31 + 6.
const OVERHEAD_OUT: usize = 28 + 31 + 5;
const OVERHEAD_ACK: usize = (28 + 31 + 6) / 2;

/// A peer that is played: what it reports.
struct Played {
    link: LinkId,
    hops: [BTreeSet<u32>; 2],
    numbers: BTreeMap<u32, Number>,
    hash: SetHash,
    digest: u64,
    seq: u64,
}

struct Town {
    node: Node,
    now: Now,
    peers: Vec<Played>,
    entropy: Entropy,
    /// Ids beyond those at the start, so far.
    fresh: u32,
    bytes_in: usize,
    bytes_out: usize,
    diffs_out: usize,
    pending: Vec<(usize, RequestId, MapReconcile)>,
}

fn id(number: u32) -> NodeId {
    NodeId::from_bytes(hash(&number.to_be_bytes()))
}

impl Played {
    fn item(&mut self, number: u32) -> MapItem {
        let next = self.numbers.len();
        let named = match (self.numbers.get(&number), Number::new(next)) {
            (Some(known), _) => Named::Known(*known),
            (None, Some(new)) => {
                self.numbers.insert(number, new);
                Named::New(new, id(number))
            }
            (None, None) => Named::Bare(id(number)),
        };
        MapItem {
            named,
            is_anchor: false,
        }
    }

    fn change(&mut self, hop: ReportedHop, number: u32, is_in: bool) -> bool {
        let set = &mut self.hops[hop as usize];
        let changed = if is_in {
            set.insert(number)
        } else {
            set.remove(&number)
        };
        if changed {
            let hash = self.hash.of(hop, &id(number));
            self.digest = match is_in {
                true => self.digest.wrapping_add(hash),
                false => self.digest.wrapping_sub(hash),
            };
        }
        changed
    }

    fn answer(&mut self, request: &MapReconcile) -> InitialMapSync {
        self.hash = SetHash::new(request.salt);
        self.digest = 0;
        let mut cells: Vec<Vec<(ReportedHop, u32)>> = vec![Vec::new(); CELLS];
        let mut sums = vec![0u64; CELLS];
        for hop in [ReportedHop::One, ReportedHop::Two] {
            for number in &self.hops[hop as usize] {
                let node = id(*number);
                let (cell, hash) = (self.hash.cell(&node), self.hash.of(hop, &node));
                cells[cell].push((hop, *number));
                sums[cell] = sums[cell].wrapping_add(hash);
                self.digest = self.digest.wrapping_add(hash);
            }
        }
        let (mut told, mut items, mut next) = (Vec::new(), 0, CELLS);
        for cell in usize::from(request.first_cell)..CELLS {
            if request.agrees(cell, sums[cell]) {
                continue;
            }
            items += cells[cell].len();
            if items > 1_300 {
                next = cell;
                break;
            }
            let mut of = |hop: ReportedHop| -> Vec<MapItem> {
                let numbers: Vec<u32> = cells[cell]
                    .iter()
                    .filter(|(at, _)| *at == hop)
                    .map(|(_, number)| *number)
                    .collect();
                numbers
                    .into_iter()
                    .map(|number| self.item(number))
                    .collect()
            };
            told.push(MapCell {
                number: cell as u16,
                hop_1: of(ReportedHop::One),
                hop_2: of(ReportedHop::Two),
            });
        }
        InitialMapSync {
            seq: self.seq,
            digest: self.digest,
            next_cell: next as u16,
            cells: MapCells::new(told).expect("in order"),
        }
    }
}

impl Town {
    fn new() -> Self {
        let config = NodeConfig {
            secret: Secret::from_seed(&[200; 32]),
            profile: NodeProfile::of(ProfileKind::Desktop),
            seed: [1; 32],
            anchors: Vec::new(),
            restored: Restored::default(),
        };
        let mut entropy = Entropy::from_seed([9; 32]);
        let mut draw = |from: usize, among: usize, count: usize| -> BTreeSet<u32> {
            let mut drawn = BTreeSet::new();
            while drawn.len() < count {
                drawn.insert((from + entropy.below(among as u64) as usize) as u32);
            }
            drawn
        };
        let peers = (0..PEERS).map(|number| Played {
            link: LinkId(number as u64),
            hops: [
                draw(0, HOP_2, PER_PEER_HOP_1),
                draw(HOP_2, HOP_3, PER_PEER_HOP_2),
            ],
            numbers: BTreeMap::new(),
            hash: SetHash::default(),
            digest: 0,
            seq: 0,
        });
        let peers = peers.collect();
        Self {
            node: Node::new(config, distsoc_systems::install),
            now: Now {
                mono_ms: 1_000,
                wall_ms: 1_700_000_000_000,
            },
            peers,
            entropy,
            fresh: (HOP_2 + HOP_3) as u32,
            bytes_in: 0,
            bytes_out: 0,
            diffs_out: 0,
            pending: Vec::new(),
        }
    }

    /// A frame; what the node asks of its peers waits in `pending`. The time it took, and when the next is due.
    fn tick(&mut self, inputs: Vec<Input>) -> (f64, Option<u64>) {
        let start = Instant::now();
        let outputs = self.node.tick(self.now, inputs);
        let took_us = start.elapsed().as_nanos() as f64 / 1000.0;
        for effect in outputs.effects {
            match effect {
                Effect::Send { bytes, .. } if bytes.first() == Some(&RoutingDiff::SPEC.code) => {
                    self.bytes_out += bytes.len();
                    self.diffs_out += 1;
                }
                Effect::Request {
                    link,
                    request,
                    bytes,
                    ..
                } => {
                    let admitted = admit(&bytes, Expected::Request).expect("an own packet");
                    if let Packet::MapReconcile(asked) = admitted.into_inner() {
                        self.pending.push((link.0 as usize, request, asked));
                    }
                }
                _ => {}
            }
        }
        (took_us, outputs.next_wake_ms)
    }

    /// Answers and wakes until nothing is due for a second; the times of the frames.
    fn settle(&mut self) -> Vec<f64> {
        let mut frames = Vec::new();
        loop {
            let inputs: Vec<Input> = std::mem::take(&mut self.pending)
                .into_iter()
                .map(|(peer, request, asked)| {
                    let answer = Packet::from(self.peers[peer].answer(&asked)).encode();
                    let result = admit(&answer, Expected::Response(InitialMapSync::SPEC.code))
                        .expect("a sound answer");
                    Input::Response {
                        request,
                        result: Ok(result),
                    }
                })
                .collect();
            let (took_us, next_ms) = self.tick(inputs);
            frames.push(took_us);
            let soon = next_ms.is_some_and(|next_ms| next_ms <= self.now.mono_ms + 1_000);
            if let (true, Some(next_ms)) = (soon, next_ms) {
                self.now.mono_ms = self.now.mono_ms.max(next_ms);
            } else if self.pending.is_empty() {
                return frames;
            }
        }
    }

    fn connect(&mut self) {
        let hello = Hello::new(
            ProfileKind::Desktop,
            Purpose::Social,
            false,
            false,
            None,
            None,
        );
        let hello = Packet::from(hello).encode();
        let mut inputs = vec![Input::OwnAddresses(vec![([127, 0, 0, 1], 4000).into()])];
        for number in 0..PEERS {
            let link = LinkId(number as u64);
            inputs.push(Input::LinkUp {
                link,
                node: Secret::from_seed(&[number as u8; 32]).node_id(),
                remote: ([127, 0, 0, 1], 5000 + number as u16).into(),
                origin: Origin::Accepted,
            });
            inputs.push(Input::Packet {
                link,
                stream: None,
                packet: admit(&hello, Expected::Notification).expect("a Hello of this version"),
            });
        }
        self.tick(inputs);
    }

    /// The node's peers have asked for its reports: so it sends them diffs.
    fn listen(&mut self) {
        let request = MapReconcile {
            salt: 77,
            with_hop_2: true,
            afresh: false,
            first_cell: 0,
            sums: ByteVec(Vec::new()),
        };
        let bytes = Packet::from(request).encode();
        let ask = |number: usize| Input::Packet {
            link: LinkId(number as u64),
            stream: Some(distsoc_engine::io::StreamToken(1_000 + number as u64)),
            packet: admit(&bytes, Expected::Request).expect("a sound request"),
        };
        let inputs = (0..PEERS).map(ask).collect();
        self.tick(inputs);
    }

    fn times(&mut self, expected: f64) -> usize {
        let part = (expected.fract() * 1e6) as u64;
        expected as usize + usize::from(self.entropy.below(1_000_000) < part)
    }

    /// Two minutes in which a share of all nodes leaves and as many come: what the peers report then.
    fn churn(&mut self, share: f64) -> Vec<Input> {
        let mut changes: Vec<MapChanges> =
            self.peers.iter().map(|_| MapChanges::default()).collect();
        let rings = [
            (ReportedHop::One, 0, HOP_2),
            (ReportedHop::Two, HOP_2, HOP_3),
        ];
        for (hop, first, count) in rings {
            for _ in 0..self.times(count as f64 * share) {
                let leaver = (first + self.entropy.below(count as u64) as usize) as u32;
                let newcomer = self.fresh;
                self.fresh += 1;
                for (peer, changes) in self.peers.iter_mut().zip(&mut changes) {
                    if !peer.change(hop, leaver, false) {
                        continue;
                    }
                    peer.change(hop, newcomer, true);
                    let (gone, came) = (peer.item(leaver), peer.item(newcomer));
                    let (removed, added) = match hop {
                        ReportedHop::One => (&mut changes.hop_1_removed, &mut changes.hop_1_added),
                        ReportedHop::Two => (&mut changes.hop_2_removed, &mut changes.hop_2_added),
                    };
                    removed.push(gone);
                    added.push(came);
                }
            }
        }
        let mut inputs = Vec::new();
        for (peer, changes) in self.peers.iter_mut().zip(changes) {
            peer.seq += 1;
            let diff = RoutingDiff {
                seq: peer.seq,
                digest: peer.digest,
                changes,
            };
            let bytes = Packet::from(diff).encode();
            self.bytes_in += bytes.len();
            inputs.push(Input::Packet {
                link: peer.link,
                stream: None,
                packet: admit(&bytes, Expected::Notification).expect("a sound diff"),
            });
        }
        inputs
    }
}

/// A desktop's map filled by 101 peers, then hours of churn: frames, memory, bytes a day.
pub(crate) fn churn(quick: bool) -> Vec<Figure> {
    let before = live_bytes();
    let mut town = Town::new();
    let empty = live_bytes();
    town.connect();
    let start = Instant::now();
    let frames = town.settle();
    let all_ms = start.elapsed().as_secs_f64() * 1000.0;
    let counts = town.node.world().resource::<DiscoveryMap>().counts();
    let ids = counts.total() as f64;
    let node_bytes = live_bytes() as f64 - empty as f64;
    let mut figures = vec![
        Figure::of("ids on the map of 101 peers", "", vec![ids]),
        Figure::of(
            "map, sets, numbers and all, per id",
            "B",
            vec![node_bytes / ids],
        ),
        Figure::of(
            "the played town itself",
            "MB",
            vec![(empty - before) as f64 / 1e6],
        ),
        Figure::of("101 reports of 5,600 ids taken in", "ms", vec![all_ms]),
        Figure::of("frame while syncing", "µs", frames).goal("< 16,000"),
    ];
    town.listen();
    for (name, hourly, goal) in [
        ("1 %", 0.01, "≤ 50 with keep-alive"),
        ("5 %", 0.05, "≤ 110 with keep-alive"),
    ] {
        let cycles = if quick { 30 } else { 120 };
        (town.bytes_in, town.bytes_out, town.diffs_out) = (0, 0, 0);
        let mut frames = Vec::new();
        for _ in 0..cycles {
            town.now.mono_ms += CYCLE_MS;
            town.now.wall_ms += CYCLE_MS;
            let inputs = town.churn(hourly / 30.0);
            frames.push(town.tick(inputs).0);
            town.settle();
        }
        let day = CYCLES_A_DAY as f64 / cycles as f64 / 1e6;
        let diffs = (town.diffs_out + cycles * PEERS) as f64;
        let payload = (town.bytes_in + town.bytes_out) as f64;
        let bytes = payload + diffs * (OVERHEAD_OUT + OVERHEAD_ACK) as f64;
        figures.extend([
            Figure::of(
                format!("{name} an hour: a diff"),
                "B",
                vec![payload / diffs],
            ),
            Figure::of(
                format!("{name} an hour: diffs a day, both ways, packets and all"),
                "MB",
                vec![bytes * day],
            )
            .goal(goal),
            Figure::of(
                format!("{name} an hour: frame that takes 101 diffs in"),
                "µs",
                frames,
            ),
        ]);
    }
    figures
}
