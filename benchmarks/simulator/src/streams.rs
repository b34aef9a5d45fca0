//! The network above connections: each stream arrives whole, after latency, jitter and whatever had to be sent again;
//! streams overtake each other, except that nothing overtakes a connection's first notification. What arrives passes
//! preview, size, rates and admission exactly as in the real transport.

use crate::cargo::Cargo;
use crate::delivery::Arrived;
use crate::frames::{Waiting, refused};
use crate::host::{Heard, Power};
use crate::queue::{Event, HostNumber};
use crate::simulation::Simulation;
use crate::slots::Key;
use crate::traffic::datagrams;
use crate::transport::{EndState, Exchange, link_of, split};
use distsoc_engine::io::{Input, LinkId, RequestFailure, RequestId, StreamToken};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{self, Direction, Expected, PacketBytes, preview};

/// Streams that wait on a broken path, at most; past it the sender's own limits would have stopped it.
const STALLED_MAX: usize = 4_096;

impl Simulation {
    /// A node notifies.
    pub fn send_notification(&mut self, number: HostNumber, link: LinkId, bytes: PacketBytes) {
        self.ship(number, link, Cargo::Notification(bytes));
    }

    /// A node asks.
    pub fn send_request(
        &mut self,
        number: HostNumber,
        link: LinkId,
        request: RequestId,
        bytes: PacketBytes,
        timeout_ms: u64,
    ) {
        let (key, side) = split(link);
        let is_open =
            |end: &crate::transport::End| end.state == EndState::Open && end.host == number;
        let open = self
            .connections
            .get(key)
            .is_some_and(|connection| is_open(&connection.ends[side]));
        if !open {
            self.give(
                number,
                Input::Response {
                    request,
                    result: Err(RequestFailure::LinkDown),
                },
            );
            return;
        }
        let code = bytes.first().copied().unwrap_or_default();
        let Some(Direction::Request(answer)) = wire::spec(code).map(|spec| spec.direction) else {
            self.violate(
                Some(number),
                format!("{} was sent as a request", wire::name_of(code)),
            );
            return;
        };
        let exchange = self.exchanges.insert(Exchange {
            asker: link,
            request,
            code,
            answer,
            is_over: false,
            is_answered: false,
            until_us: self.now_us + timeout_ms * 1000,
        });
        let connection = self.connections.get_mut(key).expect("it was just seen");
        connection.ends[side].asking.push(exchange);
        let silent_ms = timeout_ms.min(limits::REQUEST_TIMEOUT_MS);
        self.queue
            .at(self.now_us + silent_ms * 1000, Event::Overdue(exchange));
        self.ship(number, link, Cargo::Request(bytes, exchange));
    }

    /// A node answers, or drops a request.
    pub fn respond(&mut self, number: HostNumber, stream: StreamToken, bytes: Option<PacketBytes>) {
        let key = Key::from_u64(stream.0);
        let Some(exchange) = self.exchanges.get(key).copied() else {
            return;
        };
        let (connection, side) = split(exchange.asker);
        let own = link_of(connection, 1 - side);
        let Some(connection) = self.connections.get_mut(connection) else {
            return;
        };
        if connection.ends[1 - side].host != number {
            return;
        }
        connection.ends[1 - side].gate.finish(exchange.code);
        if exchange.is_over {
            self.exchanges.remove(key);
            self.forget_asking(exchange.asker, key);
        } else {
            self.exchanges
                .get_mut(key)
                .expect("it was just seen")
                .is_answered = true;
            self.ship(number, own, Cargo::Response(bytes, key));
        }
    }

    /// Puts a stream on its way from the given end.
    pub fn ship(&mut self, number: HostNumber, link: LinkId, cargo: Cargo) {
        let (key, side) = split(link);
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let end = &connection.ends[side];
        if end.state != EndState::Open || end.host != number {
            return;
        }
        let to = connection.ends[1 - side].host;
        let (floor_us, greeted) = (end.floor_us, end.greeted);
        let wire_bytes = self.traffic.stream(cargo.bytes());
        self.hosts[number as usize].sent_bytes += wire_bytes;
        let departs_us = self.uplink_us(number, wire_bytes);
        let sent_us = departs_us - self.now_us;
        let arrives_us = (self.now_us + sent_us + self.transit_us(number, to, cargo.bytes().len()))
            .max(floor_us);
        let end = &mut self
            .connections
            .get_mut(key)
            .expect("it was just seen")
            .ends[side];
        end.last_arrival_us = end.last_arrival_us.max(arrives_us);
        if !greeted && matches!(cargo, Cargo::Notification(_)) {
            end.greeted = true;
            end.floor_us = arrives_us;
        }
        self.queue
            .at(arrives_us, Event::Arrive(link_of(key, 1 - side), cargo));
    }

    /// When the uplink has sent these bytes after all before, µs.
    fn uplink_us(&mut self, number: HostNumber, bytes: u64) -> u64 {
        let kbit_s = self.scenario.network.uplink_kbit_s;
        if kbit_s == 0 {
            return self.now_us;
        }
        let host = &mut self.hosts[number as usize];
        host.uplink_free_us = host.uplink_free_us.max(self.now_us) + bytes * 8_000 / kbit_s;
        host.uplink_free_us
    }

    /// How long a whole stream takes: latency, jitter, and one and a half round trips for each round of losses.
    fn transit_us(&mut self, from: HostNumber, to: HostNumber, bytes: usize) -> u64 {
        let latency_us = self.latency_us(from, to);
        let jitter_us = self
            .chance
            .between(0, self.scenario.network.jitter_ms * 1000);
        let mut missing = match self.loss_per_million {
            0 => 0,
            _ => datagrams(bytes as u64),
        };
        let mut rounds = 0;
        loop {
            let lost = (0..missing)
                .filter(|_| self.chance.happens(self.loss_per_million))
                .count() as u64;
            if lost == 0 {
                return latency_us + jitter_us + rounds * 3 * latency_us;
            }
            self.traffic.again(lost);
            missing = lost;
            rounds += 1;
        }
    }

    /// A stream has arrived, if the path still stands.
    pub fn arrive(&mut self, link: LinkId, cargo: Cargo) {
        let (key, side) = split(link);
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if !self.carries(connection) {
            let connection = self.connections.get_mut(key).expect("it was just seen");
            if connection.stalled.len() < STALLED_MAX {
                connection.stalled.push((link, cargo));
            }
            return;
        }
        if connection.ends[side].state != EndState::Open {
            return;
        }
        let number = connection.ends[side].host;
        self.heard(key);
        let kind = match &cargo {
            Cargo::Notification(_) => 10,
            Cargo::Request(..) => 11,
            Cargo::Response(..) => 12,
        };
        self.note(number, kind, cargo.bytes());
        if let Power::Puppet(heard) = &mut self.hosts[number as usize].power {
            heard.push(Heard::Stream(link, cargo));
            return;
        }
        match cargo {
            Cargo::Notification(bytes) => self.notified(number, link, bytes),
            Cargo::Request(bytes, exchange) => self.requested(number, link, bytes, exchange),
            Cargo::Response(bytes, exchange) => self.responded(number, bytes, exchange),
        }
    }

    /// The other way a broken path's streams go on, once it is whole.
    pub fn resume(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if !self.carries(connection) || connection.stalled.is_empty() {
            return;
        }
        let (a, b) = (connection.ends[0].host, connection.ends[1].host);
        let round_trip_us = 2 * self.latency_us(a, b);
        let stalled = std::mem::take(
            &mut self
                .connections
                .get_mut(key)
                .expect("it was just seen")
                .stalled,
        );
        // The first stream in the order of sending keeps its place: later ones share or follow its time.
        let at_us = self.now_us
            + self
                .chance
                .between(round_trip_us / 2, round_trip_us * 8 + 1);
        for (link, cargo) in stalled {
            self.queue.at(at_us, Event::Arrive(link, cargo));
        }
    }

    fn begin(&mut self, link: LinkId, bytes: &[u8], expected: Expected) -> Result<(), Refusal> {
        let (key, side) = split(link);
        let code = bytes.first().copied().ok_or(Refusal::Empty)?;
        let spec = preview(code, expected)?;
        if bytes.len() > spec.bytes_max {
            return Err(Refusal::TooLarge);
        }
        let now_ms = self.now_us / 1000;
        let connection = self.connections.get_mut(key).ok_or(Refusal::NotWanted)?;
        connection.ends[side].gate.begin(spec, now_ms)
    }

    /// What a stream took of the rate's share in flight is free again.
    pub fn finish(&mut self, link: LinkId, code: u8) {
        let (key, side) = split(link);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.ends[side].gate.finish(code);
        }
    }

    fn refuse(&mut self, number: HostNumber, link: LinkId, bytes: &[u8], refusal: Refusal) {
        self.counts.refused += 1;
        self.give(number, refused(link, bytes, refusal));
    }

    fn notified(&mut self, number: HostNumber, link: LinkId, bytes: PacketBytes) {
        match self.begin(link, &bytes, Expected::Notification) {
            Ok(()) => {
                self.finish(link, bytes[0]);
                let sender = self.behind(link).unwrap_or(number);
                self.hand(number, Waiting::Notification(link, bytes, sender));
            }
            Err(refusal) => {
                let sender = self.behind(link);
                self.note_content(sender, number, Arrived::unread(&bytes));
                self.refuse(number, link, &bytes, refusal);
            }
        }
    }

    fn requested(&mut self, number: HostNumber, link: LinkId, bytes: PacketBytes, exchange: Key) {
        if self.answers_falsely(number, link, &bytes, exchange) {
            return;
        }
        match self.begin(link, &bytes, Expected::Request) {
            Ok(()) => self.hand(number, Waiting::Request(link, bytes, exchange)),
            Err(refusal) => {
                self.refuse(number, link, &bytes, refusal);
                self.ship(number, link, Cargo::Response(None, exchange));
            }
        }
    }

    fn responded(&mut self, number: HostNumber, bytes: Option<PacketBytes>, key: Key) {
        let Some(exchange) = self.exchanges.remove(key) else {
            return;
        };
        self.forget_asking(exchange.asker, key);
        let sender = self.behind(exchange.asker);
        if exchange.is_over {
            let bytes = bytes.as_deref().unwrap_or_default();
            self.note_content(sender, number, Arrived::unread(bytes));
            return;
        }
        let request = exchange.request;
        let waiting = match bytes {
            Some(bytes) => Waiting::Response(request, bytes, exchange.answer, sender),
            None => {
                let result = Err(RequestFailure::NoResponse);
                return self.give(number, Input::Response { request, result });
            }
        };
        self.hand(number, waiting);
    }

    /// The machine at the other end of a connection.
    fn behind(&self, link: LinkId) -> Option<HostNumber> {
        let (key, side) = split(link);
        let connection = self.connections.get(key)?;
        Some(connection.ends[1 - side].host)
    }

    fn forget_asking(&mut self, link: LinkId, exchange: Key) {
        let (key, side) = split(link);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.ends[side]
                .asking
                .retain(|asking| *asking != exchange);
        }
    }

    /// A request may have waited for too long.
    pub fn overdue(&mut self, key: Key) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        if exchange.is_over {
            return;
        }
        // Some of it comes all the while.
        if exchange.is_answered && self.now_us < exchange.until_us {
            self.queue.at(exchange.until_us, Event::Overdue(key));
            return;
        }
        exchange.is_over = true;
        let exchange = *exchange;
        let (connection, side) = split(exchange.asker);
        let Some(connection) = self.connections.get(connection) else {
            self.exchanges.remove(key);
            return;
        };
        let number = connection.ends[side].host;
        // The place in flight at the other end is held until it answers or the connection goes.
        self.give(
            number,
            Input::Response {
                request: exchange.request,
                result: Err(RequestFailure::TimedOut),
            },
        );
    }
}
