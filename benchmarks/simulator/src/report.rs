//! A whole run with its figures: what the command line prints and what tests look at.

use crate::delivery::Deliveries;
use crate::scenario::Scenario;
use crate::simulation::{Simulation, Violation};
use distsoc_engine::domain::NodeId;
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::RefusalCounts;
use distsoc_engine::world::authors::{Author, AuthorIndex};
use distsoc_engine::world::files::FileIndex;
use distsoc_engine::world::peers::Peers;
use serde::Serialize;
use std::collections::BTreeMap;

/// The figures of a run. Times are virtual, and the same in every run of the same seed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Machines at the end.
    pub nodes: usize,
    /// Of them, how many run.
    pub running: usize,
    /// Virtual seconds simulated.
    pub virtual_s: u64,
    /// The hash of the run.
    pub hash: String,
    /// What went wrong, if something did.
    pub violation: Option<String>,
    /// Events taken from the queue.
    pub events: u64,
    /// Frames of all nodes.
    pub frames: u64,
    /// Connections that came to be.
    pub connections: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Batches that disks refused.
    pub batches_refused: u64,
    /// Calls that failed where the scenario allows it.
    pub calls_failed: u32,
    /// Peers that are up at the running nodes: fewest, median, most.
    pub peers: [usize; 3],
    /// From a start to the first peer, ms: median, 95 %, longest.
    pub first_peer_ms: [u64; 3],
    /// What has settled within three hops of each node, how much of it is missing on its map, what is too much there, and how many
    /// reports were taken in part for lack of room.
    pub maps: [u64; 4],
    /// Posts acknowledged.
    pub posts: u64,
    /// (Follower, post) pairs that arrived, of those where both machines run.
    pub delivered: [u64; 2],
    /// (Follower, post) pairs that arrived at some time, though they may have gone since for lack of room, likewise.
    pub came: [u64; 2],
    /// (Follower, picture) pairs that arrived whole, of those where both machines run.
    pub pictures: [u64; 2],
    /// From an author's disk to the disk of whoever followed them before, ms: median, 99 %, longest.
    pub arrival_ms: [u32; 3],
    /// Content stored for the first time, bytes.
    pub needed_bytes: u64,
    /// Content that arrived: all of it, what of that came where nobody keeps the author, and what was there already, bytes.
    pub arrived_bytes: [u64; 3],
    /// Times a byte of content arrived over the times it was needed.
    pub delivery_factor: f64,
    /// The same where the author is kept.
    pub delivery_factor_where_kept: f64,
    /// Packets with content that a popular author sends for each post, with those that are asked for.
    pub popular_sends_per_post: f64,
    /// What nodes refused, by code and what it was.
    pub refusals: BTreeMap<String, u64>,
    /// Bytes on the wire.
    pub traffic: Vec<TrafficRow>,
}

/// One cause of traffic in the whole swarm.
#[derive(Clone, Debug, Serialize)]
pub struct TrafficRow {
    /// Which budget.
    pub layer: &'static str,
    /// What.
    pub cause: &'static str,
    /// How many.
    pub count: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// What a run shows while it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Virtual time, µs.
    pub now_us: u64,
    /// Its end, µs.
    pub end_us: u64,
    /// Nodes that run.
    pub running: usize,
    /// Events so far.
    pub events: u64,
}

/// Virtual time between two calls of `progress`, µs.
const SLICE_US: u64 = 1_000_000;

/// Runs a scenario to its end, or to the first violation.
pub fn run(scenario: Scenario, seed: u64, mut progress: impl FnMut(Progress)) -> Report {
    let end_us = scenario.duration_s * 1_000_000;
    let mut simulation = Simulation::new(scenario, seed);
    let mut until_us = 0;
    while until_us < end_us {
        until_us = (until_us + SLICE_US).min(end_us);
        if !simulation.run_until(until_us) {
            break;
        }
        progress(Progress {
            now_us: simulation.now_us,
            end_us,
            running: simulation.hosts.iter().filter(|host| host.is_on()).count(),
            events: simulation.counts.events,
        });
    }
    if simulation.violation.is_none() {
        simulation.check_calm();
        simulation.check_expectations();
    }
    Report::of(simulation)
}

fn spread_of<T: Copy + Ord + Default>(mut values: Vec<T>, middle_percent: [usize; 3]) -> [T; 3] {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    middle_percent.map(|percent| {
        values
            .get(last * percent / 100)
            .copied()
            .unwrap_or_default()
    })
}

impl Simulation {
    fn check_expectations(&mut self) {
        let expect = self.scenario.expect;
        let running = self.hosts.iter().filter(|host| host.is_on()).count();
        let connected = self
            .peer_counts()
            .iter()
            .filter(|count| **count > 0)
            .count();
        if connected * 100 < running * expect.connected_percent as usize {
            let least = expect.connected_percent;
            self.violate(
                None,
                format!(
                    "{connected} of {running} nodes have a peer, fewer than {least} in a hundred"
                ),
            );
        }
        let pairs = (self.hosts.len() * self.hosts.len().saturating_sub(1) / 2) as u64;
        let (made, most) = (self.counts.connections, expect.handshakes_per_100_pairs_max);
        // Where not everybody fits beside everybody, who is full sends others away.
        let all_fit = self.hosts.len() <= NodeProfile::of(ProfileKind::Desktop).social_slots;
        if most > 0 && all_fit && made * 100 > pairs * most {
            self.violate(
                None,
                format!("{made} handshakes for {pairs} pairs, more than {most} for a hundred"),
            );
        }
        self.check_maps();
        let (whole, pictures) = self.pictures_delivered();
        if whole * 1000 < pictures * u64::from(expect.pictures_per_mille) {
            let least = expect.pictures_per_mille;
            let what = format!(
                "{whole} of {pictures} pictures came to followers, fewer than {least} in a thousand"
            );
            self.violate(None, what);
        }
        let delivery = Deliveries::of(&self.hosts);
        if let Some(most) = expect.delivery_per_mille_max
            && delivery.factor_where_kept() * 1000.0 > f64::from(most)
        {
            let what = format!(
                "content came more than {most} times for each 1000 it was needed where it is kept: {delivery:?}"
            );
            self.violate(None, what);
        }
        let (arrived, came, all) = self.delivered();
        if came * 1000 < all * u64::from(expect.came_per_mille) {
            let least = expect.came_per_mille;
            let what = format!(
                "{came} of {all} posts came to followers at some time, fewer than {least} in a thousand"
            );
            self.violate(None, what);
        }
        if arrived * 1000 < all * u64::from(expect.delivered_per_mille) {
            let least = expect.delivered_per_mille;
            self.violate(
                None,
                format!(
                    "{arrived} of {all} posts came to followers, fewer than {least} in a thousand"
                ),
            );
        }
    }

    fn peer_counts(&self) -> Vec<usize> {
        let nodes = self.hosts.iter().filter_map(|host| host.node());
        nodes
            .map(|node| node.world().resource::<Peers>().up_count())
            .collect()
    }

    /// The final state of every machine goes into the hash: peers, lists, posts, what is on the disk.
    fn seal(&mut self) {
        for number in 0..self.hosts.len() {
            let host = &self.hosts[number];
            let mut state: Vec<u8> = Vec::new();
            if let Some(node) = host.node() {
                let world = node.world();
                let peers = world.resource::<Peers>().up();
                peers.for_each(|(peer, _): (NodeId, _)| state.extend_from_slice(peer.as_bytes()));
                for (author, entity) in world.resource::<AuthorIndex>().iter() {
                    state.extend_from_slice(author.as_bytes());
                    let head = world
                        .get::<Author>(entity)
                        .and_then(|author| author.head.as_ref());
                    state
                        .extend_from_slice(&head.map_or(0, |head| head.seq.to_u64()).to_be_bytes());
                }
                state
                    .extend_from_slice(&(world.resource::<FileIndex>().len() as u64).to_be_bytes());
                for (refusal, what, count) in world.resource::<RefusalCounts>().iter() {
                    state.extend_from_slice(refusal.code().as_bytes());
                    state.extend_from_slice(what.as_bytes());
                    state.extend_from_slice(&count.to_be_bytes());
                }
            }
            for row in host.disk.posts() {
                state.extend_from_slice(row.file.id.as_bytes());
            }
            self.note(number as u32, 30, &state);
        }
    }
}

impl Report {
    /// The figures of a simulation that ended.
    #[must_use]
    pub fn of(mut simulation: Simulation) -> Self {
        simulation.seal();
        let mut refusals: BTreeMap<String, u64> = BTreeMap::new();
        for node in simulation.hosts.iter().filter_map(|host| host.node()) {
            for (refusal, what, count) in node.world().resource::<RefusalCounts>().iter() {
                *refusals.entry(format!("{refusal} {what}")).or_default() += count;
            }
        }
        let (arrived, came, all) = simulation.delivered();
        let (whole, pictures) = simulation.pictures_delivered();
        let delivery = Deliveries::of(&simulation.hosts);
        let popular = (0..).zip(&simulation.hosts);
        let popular = popular.filter(|(number, _)| simulation.is_popular(*number));
        let (sends, popular_posts) = popular.fold((0, 0), |(sends, posts), (_, host)| {
            (
                sends + host.delivery.sends,
                posts + host.acknowledged.len() as u64,
            )
        });
        let truth = simulation.map_truth();
        let rows = simulation.traffic.table();
        let counts = simulation.counts;
        Self {
            scenario: simulation.scenario.name.clone(),
            seed: simulation.seed,
            nodes: simulation.hosts.len(),
            running: simulation.hosts.iter().filter(|host| host.is_on()).count(),
            virtual_s: simulation.now_us / 1_000_000,
            violation: simulation.violation.as_ref().map(Violation::sentence),
            events: counts.events,
            frames: counts.frames,
            connections: counts.connections,
            dials_failed: counts.dials_failed,
            crashes: counts.crashes,
            batches_refused: counts.batches_refused,
            calls_failed: simulation.hosts.iter().map(|host| host.calls_failed).sum(),
            peers: spread_of(simulation.peer_counts(), [0, 50, 100]),
            first_peer_ms: spread_of(simulation.first_peer_ms.clone(), [50, 95, 100]),
            maps: [truth.settled, truth.missing, truth.surplus, truth.capped],
            posts: counts.posts,
            delivered: [arrived, all],
            came: [came, all],
            pictures: [whole, pictures],
            arrival_ms: spread_of(simulation.arrival_ms.clone(), [50, 99, 100]),
            needed_bytes: delivery.needed_bytes,
            arrived_bytes: [
                delivery.arrived.bytes,
                delivery.arrived.not_kept_bytes,
                delivery.arrived.again_bytes,
            ],
            delivery_factor: delivery.factor(),
            delivery_factor_where_kept: delivery.factor_where_kept(),
            popular_sends_per_post: sends as f64 / popular_posts.max(1) as f64,
            refusals,
            traffic: rows
                .into_iter()
                .map(|(layer, cause, cost)| TrafficRow {
                    layer: layer.name(),
                    cause,
                    count: cost.count,
                    bytes: cost.bytes,
                })
                .collect(),
            hash: simulation.fingerprint.finish(),
        }
    }
}

impl Violation {
    /// What went wrong, where and when.
    #[must_use]
    pub fn sentence(&self) -> String {
        let at_s = self.at_us as f64 / 1e6;
        match self.host {
            Some(host) => format!("after {at_s:.3} s, node {host}: {}", self.what),
            None => format!("after {at_s:.3} s: {}", self.what),
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [fewest, median, most] = self.peers;
        let [first, first_95, first_last] = self.first_peer_ms;
        writeln!(f, "scenario      {}", self.scenario)?;
        writeln!(f, "seed          {}", self.seed)?;
        writeln!(f, "virtual time  {} s", self.virtual_s)?;
        writeln!(
            f,
            "nodes         {} running of {}",
            self.running, self.nodes
        )?;
        writeln!(f, "events        {} in {} frames", self.events, self.frames)?;
        writeln!(f, "peers         {median} median, {fewest} to {most}")?;
        writeln!(
            f,
            "first peer    {first} ms median, {first_95} ms for 95 %, {first_last} ms at most"
        )?;
        writeln!(
            f,
            "connections   {}, {} dials failed",
            self.connections, self.dials_failed
        )?;
        let [settled, missing, surplus, capped] = self.maps;
        writeln!(
            f,
            "maps          {settled} settled ids within three hops, {missing} missing, {surplus} too much, {capped} reports capped"
        )?;
        writeln!(
            f,
            "posts         {}, {} of {} are at followers, {} came at some time",
            self.posts, self.delivered[0], self.delivered[1], self.came[0]
        )?;
        let [arrival, arrival_99, arrival_last] = self.arrival_ms;
        writeln!(
            f,
            "pictures      {} of {} arrived at followers",
            self.pictures[0], self.pictures[1]
        )?;
        writeln!(
            f,
            "arrival       {arrival} ms median, {arrival_99} ms for 99 %, {arrival_last} ms at most; {:.1} sends a post by the popular",
            self.popular_sends_per_post
        )?;
        let [arrived, not_kept, again] = self.arrived_bytes;
        writeln!(
            f,
            "delivery      factor {:.3}, {:.3} where kept: {} B needed, {arrived} B came, {not_kept} B not kept, {again} B again",
            self.delivery_factor, self.delivery_factor_where_kept, self.needed_bytes
        )?;
        writeln!(
            f,
            "trouble       {} crashes, {} batches refused, {} calls failed",
            self.crashes, self.batches_refused, self.calls_failed
        )?;
        for (what, count) in &self.refusals {
            writeln!(f, "refused       {count} {what}")?;
        }
        for row in &self.traffic {
            writeln!(
                f,
                "traffic       {:<10} {:<28} {:>10} {:>14} B",
                row.layer, row.cause, row.count, row.bytes
            )?;
        }
        write!(f, "hash          {}", self.hash)
    }
}
