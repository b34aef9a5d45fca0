//! The swarm and its virtual time: takes the next event, gives the node concerned its input, carries out what comes back.
//! No clock, no hashing order: a run is a function of the scenario and the seed.
//!
//! The parts meet here: [`crate::frames`] runs the nodes, [`crate::transport`] is the network, [`crate::disk`] the disks, [`crate::faults`] what goes wrong,
//! [`crate::persons`] who uses it, [`crate::checks`] what must hold.

use crate::chance::{Chance, spread};
use crate::dials::Dial;
use crate::disk::Disk;
use crate::fingerprint::Fingerprint;
use crate::frames::Waiting;
use crate::host::{Host, NodeIdOrNone, Power, secret_of, seed_of};
use crate::queue::{Event, HostNumber, Queue};
use crate::scenario::Scenario;
use crate::slots::Slots;
use crate::traffic::Traffic;
use crate::transport::{Connection, Exchange};
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{ConnectString, NodeId, PostId};
use distsoc_engine::io::{Durability, Effect, Input, Notice};
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use std::collections::{BTreeMap, BTreeSet};

/// The network as a whole is looked at this often, µs.
const SURVEY_US: u64 = 30_000_000;

/// Why a run is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, virtual µs.
    pub at_us: u64,
    /// At which node, if at one.
    pub host: Option<HostNumber>,
    /// What.
    pub what: String,
}

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events taken from the queue.
    pub events: u64,
    /// Frames of all nodes.
    pub frames: u64,
    /// Inputs given to nodes.
    pub inputs: u64,
    /// Connections that came to be.
    pub connections: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Posts acknowledged to the people who wrote them.
    pub posts: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Batches that the disks refused.
    pub batches_refused: u64,
    /// Things dropped before the nodes by admission or rates.
    pub refused: u64,
}

/// A post that somebody made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// By whom.
    pub author: NodeId,
    /// When it was handed to the author's disk, µs.
    pub at_us: u64,
}

/// A run.
#[derive(Debug)]
pub struct Simulation {
    /// What is simulated.
    pub scenario: Scenario,
    /// The seed.
    pub seed: u64,
    /// Virtual time since the start, µs.
    pub now_us: u64,
    /// What happens next.
    pub queue: Queue,
    /// The dice of network, disks and faults.
    pub chance: Chance,
    /// The machines, by number.
    pub hosts: Vec<Host>,
    /// Which machine a node runs on.
    pub numbers: BTreeMap<NodeId, HostNumber>,
    /// Connections, open at one end at least.
    pub connections: Slots<Connection>,
    /// Requests under way.
    pub exchanges: Slots<Exchange>,
    /// Dials under way.
    pub dials: Slots<Dial>,
    /// Datagrams lost in a million, now.
    pub loss_per_million: u32,
    /// Bytes on the wire.
    pub traffic: Traffic,
    /// Counts.
    pub counts: Counts,
    /// Every post that an honest node made.
    pub truth: BTreeMap<PostId, Truth>,
    /// Posts of others that were found genuine.
    pub genuine: BTreeSet<PostId>,
    /// The hash so far.
    pub fingerprint: Fingerprint,
    /// What went wrong; the run stops at the first.
    pub violation: Option<Violation>,
    /// Virtual time until the first peer, of every start that found one, ms.
    pub first_peer_ms: Vec<u64>,
    /// From an author's disk to the disk of somebody who followed them before, of every post and follower, ms.
    pub arrival_ms: Vec<u32>,
    /// The last number given to a call.
    pub last_call: u64,
    /// When the newest fault began or ended, µs.
    pub last_fault_us: u64,
}

impl Simulation {
    /// A swarm that is about to start.
    #[must_use]
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        let mut simulation = Self {
            seed,
            now_us: 0,
            queue: Queue::default(),
            chance: Chance::new(spread(seed)),
            hosts: Vec::new(),
            numbers: BTreeMap::new(),
            connections: Slots::default(),
            exchanges: Slots::default(),
            dials: Slots::default(),
            loss_per_million: scenario.network.loss_per_million,
            traffic: Traffic::default(),
            counts: Counts::default(),
            truth: BTreeMap::new(),
            genuine: BTreeSet::new(),
            fingerprint: Fingerprint::default(),
            violation: None,
            first_peer_ms: Vec::new(),
            arrival_ms: Vec::new(),
            last_call: 0,
            last_fault_us: 0,
            scenario,
        };
        let (nodes, within_us) = (
            simulation.scenario.nodes,
            simulation.scenario.start_within_s * 1_000_000,
        );
        for _ in 0..nodes {
            let number = simulation.add_host();
            // Anchors are there before those who come for them.
            let at_us = match simulation.is_anchor(number) {
                true => 0,
                false => simulation.chance.between(0, within_us),
            };
            simulation.queue.at(at_us, Event::Boot(number));
        }
        for number in 0..nodes as HostNumber {
            simulation.plan_first_deed(number);
        }
        for (fault, planned) in simulation.scenario.faults.iter().enumerate() {
            simulation
                .queue
                .at(planned.at_s * 1_000_000, Event::Fault(fault));
        }
        simulation.queue.at(SURVEY_US, Event::Survey);
        simulation
    }

    /// Whether this machine is one of the anchors.
    #[must_use]
    pub fn is_anchor(&self, number: HostNumber) -> bool {
        (number as usize) < self.scenario.anchors
    }

    /// Whether this machine is a popular author's.
    #[must_use]
    pub fn is_popular(&self, number: HostNumber) -> bool {
        let first = self.scenario.anchors;
        let popular = first..first + self.scenario.popular.authors;
        popular.contains(&(number as usize))
    }

    /// A new machine, off.
    pub fn add_host(&mut self) -> HostNumber {
        let number = self.hosts.len() as HostNumber;
        let is_anchor = self.is_anchor(number);
        let shares = self.scenario.profiles;
        let all = u64::from(shares.desktop) + u64::from(shares.mobile);
        let is_popular = self.is_popular(number);
        let kind = match self.chance.below(all) {
            _ if is_anchor => ProfileKind::Anchor,
            _ if is_popular => match self.scenario.popular.on_phones {
                true => ProfileKind::Mobile,
                false => ProfileKind::Desktop,
            },
            drawn if drawn < u64::from(shares.desktop) => ProfileKind::Desktop,
            _ => ProfileKind::Mobile,
        };
        let skew_ms = self.scenario.clock.skew_ms;
        let id = secret_of(self.seed, number).node_id();
        let behind_nat = self
            .chance
            .happens(self.scenario.network.nat_percent * 10_000)
            && !is_anchor;
        let host = Host {
            id: NodeIdOrNone(id),
            kind,
            behind_nat,
            disk: Disk::new(self.scenario.disk.budget_of(kind)),
            skew_ms: self.chance.between(0, 2 * skew_ms) as i64 - skew_ms as i64,
            ..Host::default()
        };
        self.numbers.insert(id, number);
        self.hosts.push(host);
        number
    }

    /// Where the anchors are.
    #[must_use]
    pub fn anchor_places(&self) -> Vec<ConnectString> {
        (0..self.scenario.anchors as HostNumber)
            .map(|number| self.place_of(number))
            .collect()
    }

    /// Where a machine's node is found.
    #[must_use]
    pub fn place_of(&self, number: HostNumber) -> ConnectString {
        let host = &self.hosts[number as usize];
        ConnectString::at(host.node_id(), self.public_address_of(number))
    }

    /// Starts the program of a machine that is off.
    pub fn boot(&mut self, number: HostNumber) {
        if !matches!(self.hosts[number as usize].power, Power::Off) {
            return;
        }
        self.check_survivors(number);
        let anchors = self.anchor_places();
        let own = self.hosts[number as usize].node_id();
        let mono_at_start_ms = self.chance.between(1_000, 1_000_000) as i64;
        let host = &mut self.hosts[number as usize];
        host.starts += 1;
        host.booted_us = self.now_us;
        host.mono_zero_ms = (self.now_us / 1000) as i64 - mono_at_start_ms;
        host.idle_timeout_ms = NodeProfile::of(host.kind).open_idle_timeout_ms;
        host.first_peer_us = None;
        let config = NodeConfig {
            secret: match &host.key_seed {
                Some(seed) => Secret::from_seed(seed),
                None => secret_of(self.seed, number),
            },
            profile: NodeProfile::of(host.kind),
            seed: seed_of(self.seed, "entropy", number, host.starts),
            anchors: anchors
                .into_iter()
                .filter(|anchor| anchor.node_id() != own)
                .collect(),
            restored: host.disk.restore(own),
        };
        host.power = Power::On(Box::new(Node::new(config, distsoc_systems::install)));
        let addresses = host.own_addresses(number);
        self.note(number, 1, &[]);
        self.give(number, Input::OwnAddresses(addresses));
    }

    /// The program is gone from one instant to the next: nothing is said to anybody.
    pub fn power_off(&mut self, number: HostNumber) {
        self.drop_network(number);
        let host = &mut self.hosts[number as usize];
        host.power = Power::Off;
        host.inbox.clear();
        host.frame_at_us = None;
        host.asked.clear();
        host.drafts.clear();
        self.note_listed(number);
        self.note(number, 2, &[]);
    }

    /// Notes a fact for the hash of the run.
    pub fn note(&mut self, number: HostNumber, kind: u8, bytes: &[u8]) {
        self.fingerprint.note(self.now_us, number, kind, bytes);
    }

    /// Puts an input into a node's next frame.
    pub fn give(&mut self, number: HostNumber, input: Input) {
        self.hand(number, Waiting::Ready(Box::new(input)));
    }

    /// Hands over something for a node's next frame.
    pub fn hand(&mut self, number: HostNumber, waiting: Waiting) {
        let host = &mut self.hosts[number as usize];
        if !host.is_on() {
            return;
        }
        host.inbox.push(waiting);
        self.counts.inputs += 1;
        let frame_us = self.scenario.frame_us();
        let after_last_us = host.last_frame_us.map_or(0, |at_us| at_us + frame_us);
        let at_us = self.now_us.next_multiple_of(frame_us).max(after_last_us);
        self.plan_frame(number, at_us);
    }

    /// Plans a node's next frame, if none is planned before.
    pub fn plan_frame(&mut self, number: HostNumber, at_us: u64) {
        let host = &mut self.hosts[number as usize];
        if host.frame_at_us.is_none_or(|planned| at_us < planned) {
            host.frame_at_us = Some(at_us);
            self.queue.at(at_us, Event::Frame(number));
        }
    }

    /// Takes events until this virtual time, µs, or until something is wrong. Returns whether all is well.
    pub fn run_until(&mut self, end_us: u64) -> bool {
        while self.violation.is_none() && self.queue.next_us().is_some_and(|at_us| at_us <= end_us)
        {
            self.step();
        }
        if self.violation.is_none() {
            self.now_us = self.now_us.max(end_us);
        }
        self.violation.is_none()
    }

    /// Takes one event. Returns whether there was one.
    pub fn step(&mut self) -> bool {
        let Some((at_us, event)) = self.queue.pop() else {
            return false;
        };
        debug_assert!(at_us >= self.now_us, "time runs forwards");
        self.now_us = at_us;
        self.counts.events += 1;
        match event {
            Event::Frame(number) => self.frames(number),
            Event::Boot(number) => self.boot(number),
            Event::Deed(number) => self.do_deed(number),
            Event::Try(dial) => self.try_address(dial),
            Event::Knock(dial) => self.knock(dial),
            Event::TryFailed(dial, failure) => self.try_failed(dial, failure),
            Event::Dialled(connection) => self.dialled(connection),
            Event::Accepted(connection) => self.accepted(connection),
            Event::Arrive(link, cargo) => self.arrive(link, cargo),
            Event::Closed(link, reason) => self.closed_by_peer(link, reason),
            Event::Idle(connection) => self.check_idle(connection),
            Event::Overdue(exchange) => self.overdue(exchange),
            Event::Commit(number, start) => self.commit(number, start),
            Event::Read(number, start, read, result) => {
                if self.hosts[number as usize].starts == start {
                    self.note(number, 3, &read.0.to_be_bytes());
                    self.give(
                        number,
                        Input::Read {
                            read,
                            result: *result,
                        },
                    );
                }
            }
            Event::Fault(fault) => self.begin_fault(fault),
            Event::Hit(fault, number) => self.hit(fault, number),
            Event::Recover(fault, number) => self.recover(fault, number),
            Event::Survey => {
                self.survey();
                self.queue.at(self.now_us + SURVEY_US, Event::Survey);
            }
        }
        true
    }

    /// Carries out what a node asks for.
    pub fn perform(&mut self, number: HostNumber, effect: Effect) {
        match effect {
            Effect::Dial { dial, node, target } => self.dial(number, dial, node, target),
            Effect::Send { link, bytes } => self.send_notification(number, link, bytes),
            Effect::Request {
                link,
                request,
                bytes,
                timeout_ms,
            } => {
                self.send_request(number, link, request, bytes, timeout_ms);
            }
            Effect::Respond { stream, bytes } => self.respond(number, stream, bytes),
            Effect::Close { link, reason } => self.close(number, link, reason),
            Effect::KeepAlive { link, on } => self.keep_alive(number, link, on),
            Effect::Ping { link } => self.ping(link),
            Effect::OfferIdleTimeout { ms } => self.hosts[number as usize].idle_timeout_ms = ms,
            Effect::Budget { bytes } => self.set_budget(number, bytes),
            Effect::Persist {
                batch,
                writes,
                durability,
            } => {
                self.check_writes(number, &writes, durability);
                self.note_stored(number, &writes, durability);
                let disk = self.scenario.disk;
                let slowness = self.hosts[number as usize].disk.slowness.max(1);
                let [low, high] = match durability {
                    Durability::Durable => disk.commit_ms,
                    Durability::WriteBehind => disk.write_behind_ms,
                };
                let wait_us = self.chance.between(low * 1000, high * 1000) * slowness;
                let host = &mut self.hosts[number as usize];
                let at_us = host.disk.hand_in(batch, writes, self.now_us + wait_us);
                self.queue.at(at_us, Event::Commit(number, host.starts));
            }
            Effect::Read { read, query } => {
                let [low, high] = self.scenario.disk.read_ms;
                let host = &self.hosts[number as usize];
                let slowness = host.disk.slowness.max(1);
                let result = Box::new(host.disk.read(&query));
                let wait_us = self.chance.between(low * 1000, high * 1000) * slowness;
                self.queue.at(
                    self.now_us + wait_us,
                    Event::Read(number, host.starts, read, result),
                );
            }
            Effect::Reply { call, result } => self.answered(number, call, result),
            Effect::Notify(notice) => self.noticed(number, &notice),
        }
    }

    fn noticed(&mut self, number: HostNumber, notice: &Notice) {
        let host = &mut self.hosts[number as usize];
        if matches!(notice, Notice::PeerUp { .. }) && host.first_peer_us.is_none() {
            host.first_peer_us = Some(self.now_us);
            self.first_peer_ms
                .push((self.now_us - host.booted_us) / 1000);
        }
    }

    fn commit(&mut self, number: HostNumber, start: u32) {
        let now_us = self.now_us;
        let host = &mut self.hosts[number as usize];
        if host.starts != start {
            return;
        }
        for (batch, result) in host.disk.commit(now_us) {
            self.note(number, 4, &batch.0.to_be_bytes());
            let input = match result {
                Ok(()) => Input::Persisted(batch),
                Err(trouble) => {
                    self.counts.batches_refused += 1;
                    Input::PersistFailed(batch, trouble)
                }
            };
            self.give(number, input);
        }
        if let Some(usage) = self.hosts[number as usize].disk.news() {
            self.give(number, Input::Disk(usage));
            self.check_disk(number);
        }
    }

    /// Something is not as it should be: the run ends here.
    pub fn violate(&mut self, host: Option<HostNumber>, what: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation {
                at_us: self.now_us,
                host,
                what,
            });
        }
    }
}
