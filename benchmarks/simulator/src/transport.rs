//! The network below streams: connections, idle timeouts, keep-alive, who reaches whom.
//!
//! Keep-alive is reckoned and not played packet by packet: a connection costs one event in an idle timeout. What is
//! lacking: congestion control and path MTU.

use crate::cargo::Cargo;
use crate::host::{Power, public_address};
use crate::queue::{Event, HostNumber};
use crate::simulation::Simulation;
use crate::slots::Key;
use distsoc_engine::io::{DialId, DownCause, Input, LinkId, RequestFailure, RequestId};
use distsoc_engine::wire::gate::Gate;
use distsoc_engine::wire::{Code, GoodbyeReason};
use std::net::SocketAddr;

/// QUIC keep-alive (PROTOCOL section 3).
pub const KEEP_ALIVE_US: u64 = 20_000_000;

/// How far one end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndState {
    /// The handshake is under way.
    Coming,
    /// The node was told that it is up.
    Open,
    /// The node was told that it is down, or is gone.
    Closed,
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    /// Whose.
    pub host: HostNumber,
    /// How far.
    pub state: EndState,
    /// Whether this end asked for keep-alive.
    pub keep_alive: bool,
    /// When something last came from the other end, µs.
    pub heard_us: u64,
    /// Nothing this end sends arrives before this, µs: the handshake, then its first notification.
    pub floor_us: u64,
    /// When the last stream this end sent arrives, µs.
    pub last_arrival_us: u64,
    /// Whether its first notification is on its way.
    pub greeted: bool,
    /// What this end takes of the other.
    pub gate: Gate,
    /// Requests of this end without an answer.
    pub asking: Vec<Key>,
    /// What merely the dialling end has: its dial.
    pub dial: Option<DialId>,
}

/// A connection: the dialling end, then the accepting one.
#[derive(Debug)]
pub struct Connection {
    /// Its ends.
    pub ends: [End; 2],
    /// Closed when nothing was heard for this, µs.
    pub timeout_us: u64,
    /// Until when its keep-alive is accounted, µs.
    pub kept_until_us: u64,
    /// One of the machines has another address now: nothing passes any more.
    pub severed: bool,
    /// Streams that wait for the path to be whole again.
    pub stalled: Vec<(LinkId, Cargo)>,
    /// Where the acceptor was dialled.
    pub dialled_at: SocketAddr,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// The end that asked.
    pub asker: LinkId,
    /// The asker's name for it.
    pub request: RequestId,
    /// What was asked.
    pub code: Code,
    /// The code that answers.
    pub answer: Code,
    /// The asker waits no longer.
    pub is_over: bool,
    /// The answer, or that there is none, is on its way.
    pub is_answered: bool,
    /// The asker waits no longer than this, µs.
    pub until_us: u64,
}

/// The name of one end of a connection.
#[must_use]
pub fn link_of(connection: Key, side: usize) -> LinkId {
    LinkId(connection.to_u64() << 1 | side as u64)
}

/// The connection and the side that a name stands for.
#[must_use]
pub fn split(link: LinkId) -> (Key, usize) {
    (Key::from_u64(link.0 >> 1), (link.0 & 1) as usize)
}

impl Simulation {
    /// Where the internet sees a machine now.
    #[must_use]
    pub fn public_address_of(&self, number: HostNumber) -> SocketAddr {
        let host = &self.hosts[number as usize];
        public_address(number, host.moves, host.behind_nat)
    }

    /// Whether datagrams pass between two machines that run.
    #[must_use]
    pub fn passes(&self, a: HostNumber, b: HostNumber) -> bool {
        let (a, b) = (&self.hosts[a as usize], &self.hosts[b as usize]);
        !a.offline && !b.offline && a.partition == b.partition
    }

    /// Whether a connection carries anything now.
    #[must_use]
    pub fn carries(&self, connection: &Connection) -> bool {
        !connection.severed && self.passes(connection.ends[0].host, connection.ends[1].host)
    }

    /// The one-way latency of a pair, without jitter, µs.
    #[must_use]
    pub fn latency_us(&self, a: HostNumber, b: HostNumber) -> u64 {
        let [low, high] = self.scenario.network.latency_ms.map(|ms| ms * 1000);
        let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
        low + crate::chance::spread(self.seed ^ crate::chance::spread(pair)) % (high - low + 1)
    }

    /// One end goes down: its requests fail, its node is told.
    pub fn end_link(&mut self, link: LinkId, cause: DownCause) {
        let (key, side) = split(link);
        self.reckon_keep_alive(key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let end = &mut connection.ends[side];
        let was_open = end.state == EndState::Open;
        end.state = EndState::Closed;
        let (number, asking) = (end.host, std::mem::take(&mut end.asking));
        self.hosts[number as usize].links.remove(&link);
        for exchange in asking {
            let Some(exchange) = self.exchanges.remove(exchange) else {
                continue;
            };
            if !exchange.is_over {
                self.give(
                    number,
                    Input::Response {
                        request: exchange.request,
                        result: Err(RequestFailure::LinkDown),
                    },
                );
            }
        }
        if was_open {
            self.note(number, 7, &link.0.to_be_bytes());
            if let Power::Puppet(heard) = &mut self.hosts[number as usize].power {
                heard.push(crate::host::Heard::Down(link, cause));
            }
            self.give(number, Input::LinkDown { link, cause });
        }
        let connection = self.connections.get(key).expect("it was just seen");
        let states = [connection.ends[0].state, connection.ends[1].state];
        if states[0] == EndState::Closed && states[1] != EndState::Open {
            // An acceptor whose handshake is not done never hears of it.
            let other = connection.ends[1].host;
            self.hosts[other as usize].links.remove(&link_of(key, 1));
            self.connections.remove(key);
        }
    }

    /// A node closes a connection: what it sent before still arrives.
    pub fn close(&mut self, number: HostNumber, link: LinkId, reason: GoodbyeReason) {
        let (key, side) = split(link);
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let end = &connection.ends[side];
        if end.state != EndState::Open || end.host != number {
            return;
        }
        let (other, last_us) = (connection.ends[1 - side].host, end.last_arrival_us);
        if self.carries(connection) {
            let at_us = last_us.max(self.now_us + self.latency_us(number, other));
            self.queue
                .at(at_us, Event::Closed(link_of(key, 1 - side), reason));
        }
        self.end_link(link, DownCause::ClosedByUs);
    }

    /// A close arrives.
    pub fn closed_by_peer(&mut self, link: LinkId, reason: GoodbyeReason) {
        let (key, side) = split(link);
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if connection.ends[side].state == EndState::Open && self.carries(connection) {
            self.end_link(link, DownCause::ClosedByPeer(Some(reason)));
        }
    }

    /// Both ends have heard from each other just now.
    pub fn heard(&mut self, key: Key) {
        let now_us = self.now_us;
        if let Some(connection) = self.connections.get_mut(key) {
            for end in &mut connection.ends {
                end.heard_us = end.heard_us.max(now_us);
            }
        }
    }

    fn is_whole(&self, connection: &Connection) -> bool {
        connection
            .ends
            .iter()
            .all(|end| end.state == EndState::Open)
            && self.carries(connection)
    }

    /// A connection may have been idle for too long.
    pub fn check_idle(&mut self, key: Key) {
        self.reckon_keep_alive(key);
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let is_kept = connection.ends.iter().any(|end| end.keep_alive);
        if is_kept && self.is_whole(connection) {
            self.heard(key);
        }
        for side in 0..2 {
            let Some(connection) = self.connections.get(key) else {
                return;
            };
            let end = &connection.ends[side];
            if end.state == EndState::Open && self.now_us >= end.heard_us + connection.timeout_us {
                self.end_link(link_of(key, side), DownCause::TimedOut);
            }
        }
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let open = connection
            .ends
            .iter()
            .filter(|end| end.state == EndState::Open);
        if let Some(heard_us) = open.map(|end| end.heard_us).min() {
            self.queue.at(
                (heard_us + connection.timeout_us).max(self.now_us + 1),
                Event::Idle(key),
            );
        }
    }

    /// Accounts the keep-alive packets since the last reckoning.
    fn reckon_keep_alive(&mut self, key: Key) {
        let now_us = self.now_us;
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let kept = connection.ends.iter().any(|end| end.keep_alive) && self.is_whole(connection);
        let periods = now_us.saturating_sub(connection.kept_until_us) / KEEP_ALIVE_US;
        let connection = self.connections.get_mut(key).expect("it was just seen");
        if kept {
            connection.kept_until_us += periods * KEEP_ALIVE_US;
            self.traffic.pings(periods);
        } else {
            connection.kept_until_us = now_us;
        }
    }

    /// A node switches keep-alive.
    pub fn keep_alive(&mut self, number: HostNumber, link: LinkId, on: bool) {
        let (key, side) = split(link);
        self.reckon_keep_alive(key);
        if let Some(connection) = self.connections.get_mut(key)
            && connection.ends[side].host == number
        {
            connection.ends[side].keep_alive = on;
        }
    }

    /// A node pings.
    pub fn ping(&mut self, link: LinkId) {
        let (key, _) = split(link);
        if self
            .connections
            .get(key)
            .is_some_and(|connection| self.is_whole(connection))
        {
            self.traffic.pings(1);
            self.heard(key);
        }
    }

    /// Before a path breaks: its ends have heard each other's keep-alive until a moment ago.
    pub fn before_break(&mut self, key: Key) {
        let ago_us = self.chance.below(KEEP_ALIVE_US);
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if connection.ends.iter().any(|end| end.keep_alive) && self.is_whole(connection) {
            let heard_us = self.now_us.saturating_sub(ago_us);
            let connection = self.connections.get_mut(key).expect("it was just seen");
            for end in &mut connection.ends {
                end.heard_us = end.heard_us.max(heard_us);
            }
        }
    }

    /// A machine's connections and dials are gone, and nobody is told.
    pub fn drop_network(&mut self, number: HostNumber) {
        let links: Vec<LinkId> = self.hosts[number as usize].links.iter().copied().collect();
        for link in links {
            let (key, side) = split(link);
            self.before_break(key);
            if let Some(connection) = self.connections.get_mut(key) {
                // Whoever is asked by this end answers into nothing; whoever asks it waits.
                connection.ends[side].state = EndState::Closed;
                for exchange in std::mem::take(&mut connection.ends[side].asking) {
                    self.exchanges.remove(exchange);
                }
                let other = connection.ends[1 - side].state;
                if other == EndState::Closed || (side == 0 && other == EndState::Coming) {
                    let acceptor = connection.ends[1].host;
                    self.hosts[acceptor as usize].links.remove(&link_of(key, 1));
                    self.connections.remove(key);
                }
            }
        }
        let host = &mut self.hosts[number as usize];
        host.links.clear();
        for dial in std::mem::take(&mut host.dials) {
            self.dials.remove(dial);
        }
    }
}
