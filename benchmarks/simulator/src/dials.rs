//! Dials and handshakes.
//!
//! A handshake takes one round trip for the dialler and one and a half for the acceptor. A dial into nothing fails after
//! four seconds for each address, one that meets another key after one round trip. What is lacking: the accept limits by
//! address (no two machines share one here), and host names, none of which exists.

use crate::host::{Heard, Power, host_at};
use crate::queue::{Event, HostNumber};
use crate::simulation::Simulation;
use crate::slots::Key;
use crate::transport::{Connection, End, EndState, link_of};
use distsoc_engine::domain::{Address, NodeId};
use distsoc_engine::io::{DialFailure, DialId, DialTarget, Input, LinkId, Origin};
use distsoc_engine::limits;
use distsoc_engine::wire::gate::Gate;
use std::net::SocketAddr;

/// A dial into nothing ends after this.
pub const NO_ANSWER_US: u64 = 4_000_000;
/// The first probe timeout of a handshake, before a round trip was measured.
const HANDSHAKE_PROBE_US: u64 = 1_000_000;
/// Looking up a host name that does not exist.
const NO_SUCH_HOST_US: u64 = 100_000;

/// A dial under way.
#[derive(Debug)]
pub struct Dial {
    host: HostNumber,
    start: u32,
    id: DialId,
    node: NodeId,
    addresses: Vec<Address>,
    next: usize,
    try_began_us: u64,
}

impl Simulation {
    /// How long a datagram of a handshake takes, sent again until it arrives.
    fn handshake_leg_us(&mut self, a: HostNumber, b: HostNumber) -> u64 {
        let jitter_us = self
            .chance
            .between(0, self.scenario.network.jitter_ms * 1000);
        let mut leg_us = self.latency_us(a, b) + jitter_us;
        let mut probe_us = HANDSHAKE_PROBE_US;
        while self.chance.happens(self.loss_per_million) {
            leg_us += probe_us;
            probe_us *= 2;
            self.traffic.again(1);
        }
        leg_us
    }

    /// A node wants a connection.
    pub fn dial(&mut self, number: HostNumber, id: DialId, node: NodeId, target: DialTarget) {
        let (addresses, failure) = match target {
            DialTarget::Addresses(addresses) => (addresses, None),
            DialTarget::Host { .. } => (Vec::new(), Some(DialFailure::NoSuchHost)),
        };
        let host = &self.hosts[number as usize];
        let failure = match failure {
            _ if host.dials.len() >= limits::DIALS_IN_FLIGHT_MAX => Some(DialFailure::TooMany),
            _ if host.offline => Some(DialFailure::Unreachable),
            None if addresses.is_empty() => Some(DialFailure::NoAnswer),
            failure => failure,
        };
        let start = host.starts;
        let dial = Dial {
            host: number,
            start,
            id,
            node,
            addresses,
            next: 0,
            try_began_us: self.now_us,
        };
        let key = self.dials.insert(dial);
        self.hosts[number as usize].dials.insert(key);
        match failure {
            Some(DialFailure::NoSuchHost) => {
                self.queue.at(
                    self.now_us + NO_SUCH_HOST_US,
                    Event::TryFailed(key, DialFailure::NoSuchHost),
                );
            }
            Some(failure) => self.queue.at(self.now_us, Event::TryFailed(key, failure)),
            None => self.queue.at(self.now_us, Event::Try(key)),
        }
    }

    /// Whoever can be reached at an address by this machine, now.
    fn listener(&self, from: HostNumber, address: SocketAddr) -> Option<HostNumber> {
        let (number, moves, behind_nat) = host_at(address)?;
        let host = self.hosts.get(number as usize)?;
        let listens = !behind_nat
            && !host.behind_nat
            && host.moves == moves
            && !matches!(host.power, Power::Off);
        (listens && self.passes(from, number)).then_some(number)
    }

    /// The next address of a dial.
    pub fn try_address(&mut self, key: Key) {
        let now_us = self.now_us;
        let Some(dial) = self.dials.get_mut(key) else {
            return;
        };
        dial.try_began_us = now_us;
        let (from, address) = (dial.host, dial.addresses[dial.next].socket());
        dial.next += 1;
        match self.listener(from, address) {
            Some(to) => {
                let leg_us = self.handshake_leg_us(from, to);
                self.queue.at(now_us + leg_us, Event::Knock(key));
            }
            None => {
                self.traffic.handshake(false);
                self.queue.at(
                    now_us + NO_ANSWER_US,
                    Event::TryFailed(key, DialFailure::NoAnswer),
                );
            }
        }
    }

    /// A dial's first datagram arrives.
    pub fn knock(&mut self, key: Key) {
        let Some(dial) = self.dials.get(key) else {
            return;
        };
        let (from, node, id) = (dial.host, dial.node, dial.id);
        let (address, began_us) = (dial.addresses[dial.next - 1].socket(), dial.try_began_us);
        let Some(to) = self.listener(from, address) else {
            let at_us = self.now_us.max(began_us + NO_ANSWER_US);
            self.queue
                .at(at_us, Event::TryFailed(key, DialFailure::NoAnswer));
            return;
        };
        let back_us = self.handshake_leg_us(to, from);
        if self.hosts[to as usize].node_id() != node {
            self.queue.at(
                self.now_us + back_us,
                Event::TryFailed(key, DialFailure::WrongId),
            );
            return;
        }
        let there_us = self.handshake_leg_us(from, to);
        let (dialled_us, accepted_us) = (self.now_us + back_us, self.now_us + back_us + there_us);
        let offers = [from, to].map(|number| self.hosts[number as usize].idle_timeout_ms);
        let end = |host, dial| End {
            host,
            state: EndState::Coming,
            keep_alive: false,
            heard_us: dialled_us,
            floor_us: accepted_us,
            last_arrival_us: accepted_us,
            greeted: false,
            gate: Gate::default(),
            asking: Vec::new(),
            dial,
        };
        let connection = self.connections.insert(Connection {
            ends: [end(from, Some(id)), end(to, None)],
            timeout_us: offers[0].min(offers[1]).max(1_000) * 1000,
            kept_until_us: dialled_us,
            severed: false,
            stalled: Vec::new(),
            dialled_at: address,
        });
        self.dials.remove(key);
        self.hosts[from as usize].dials.remove(&key);
        self.hosts[from as usize]
            .links
            .insert(link_of(connection, 0));
        self.hosts[to as usize].links.insert(link_of(connection, 1));
        self.traffic.handshake(true);
        self.queue.at(dialled_us, Event::Dialled(connection));
        self.queue.at(accepted_us, Event::Accepted(connection));
    }

    /// An address of a dial has failed: the next one, or the end.
    pub fn try_failed(&mut self, key: Key, failure: DialFailure) {
        let Some(dial) = self.dials.get(key) else {
            return;
        };
        if dial.next > 0 && dial.next < dial.addresses.len() {
            self.try_address(key);
            return;
        }
        let dial = self.dials.remove(key).expect("it was just seen");
        self.hosts[dial.host as usize].dials.remove(&key);
        if self.hosts[dial.host as usize].starts == dial.start {
            self.counts.dials_failed += 1;
            self.note(dial.host, 5, &dial.id.0.to_be_bytes());
            self.give(
                dial.host,
                Input::DialFailed {
                    dial: dial.id,
                    failure,
                },
            );
        }
    }

    /// The dialler's handshake is done.
    pub fn dialled(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.ends[0].state != EndState::Coming {
            return;
        }
        connection.ends[0].state = EndState::Open;
        let (from, to, remote) = (
            connection.ends[0].host,
            connection.ends[1].host,
            connection.dialled_at,
        );
        let dial = connection.ends[0]
            .dial
            .expect("the dialling end has its dial");
        let check_us = self.now_us + connection.timeout_us;
        self.counts.connections += 1;
        self.queue.at(check_us, Event::Idle(key));
        let node = self.hosts[to as usize].node_id();
        self.link_up(from, link_of(key, 0), node, remote, Origin::Dialled(dial));
    }

    /// The acceptor's handshake is done.
    pub fn accepted(&mut self, key: Key) {
        let now_us = self.now_us;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.ends[1].state != EndState::Coming {
            return;
        }
        connection.ends[1].state = EndState::Open;
        connection.ends[1].heard_us = now_us;
        let (from, to) = (connection.ends[0].host, connection.ends[1].host);
        let (node, remote) = (
            self.hosts[from as usize].node_id(),
            self.public_address_of(from),
        );
        self.link_up(to, link_of(key, 1), node, remote, Origin::Accepted);
    }

    fn link_up(
        &mut self,
        number: HostNumber,
        link: LinkId,
        node: NodeId,
        remote: SocketAddr,
        origin: Origin,
    ) {
        self.note(number, 6, &link.0.to_be_bytes());
        if let Power::Puppet(heard) = &mut self.hosts[number as usize].power {
            heard.push(Heard::Up(link));
        }
        self.give(
            number,
            Input::LinkUp {
                link,
                node,
                remote,
                origin,
            },
        );
    }
}
