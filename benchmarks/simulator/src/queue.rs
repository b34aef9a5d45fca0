//! What happens next: events in the order of their virtual time, and of their being planned where the time is the same.

use crate::cargo::Cargo;
use crate::slots::Key;
use distsoc_engine::io::{DialFailure, LinkId, ReadId, ReadResult, StorageTrouble};
use distsoc_engine::wire::GoodbyeReason;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A node's number in the swarm.
pub type HostNumber = u32;

/// Something that will happen.
#[derive(Debug)]
pub enum Event {
    /// The node's next frame.
    Frame(HostNumber),
    /// The machine starts the program.
    Boot(HostNumber),
    /// The person does their next deed.
    Deed(HostNumber),
    /// A dial tries its next address.
    Try(Key),
    /// The first datagram of a dial reaches whoever listens there.
    Knock(Key),
    /// A dial's current address has failed.
    TryFailed(Key, DialFailure),
    /// The dialler's handshake is done.
    Dialled(Key),
    /// The acceptor's handshake is done.
    Accepted(Key),
    /// A whole stream has arrived.
    Arrive(LinkId, Cargo),
    /// The peer's close has arrived.
    Closed(LinkId, GoodbyeReason),
    /// A connection may have been idle for too long.
    Idle(Key),
    /// A request may have waited for too long.
    Overdue(Key),
    /// The disk has something to say to this start of the program.
    Commit(HostNumber, u32),
    /// A read is done.
    Read(
        HostNumber,
        u32,
        ReadId,
        Box<Result<ReadResult, StorageTrouble>>,
    ),
    /// This fault of the scenario begins.
    Fault(usize),
    /// One node is hit by this fault of the scenario.
    Hit(usize, HostNumber),
    /// This fault of the scenario ends for a node, or for all.
    Recover(usize, Option<HostNumber>),
    /// The network as a whole is looked at.
    Survey,
}

#[derive(Debug)]
struct Planned {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// The event queue.
#[derive(Debug, Default)]
pub struct Queue {
    planned: BinaryHeap<Reverse<Planned>>,
    last: u64,
}

impl Queue {
    /// Plans an event for this virtual time, µs.
    pub fn at(&mut self, at_us: u64, event: Event) {
        self.last += 1;
        self.planned.push(Reverse(Planned {
            at_us,
            number: self.last,
            event,
        }));
    }

    /// When the next event is due, µs.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        self.planned.peek().map(|Reverse(planned)| planned.at_us)
    }

    /// Takes the next event with its time, µs.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.planned
            .pop()
            .map(|Reverse(planned)| (planned.at_us, planned.event))
    }

    /// Takes the next event if it is a frame at this virtual time, µs.
    pub fn pop_frame(&mut self, at_us: u64) -> Option<HostNumber> {
        let Reverse(planned) = self.planned.peek()?;
        let Event::Frame(number) = planned.event else {
            return None;
        };
        (planned.at_us == at_us).then(|| {
            self.planned.pop();
            number
        })
    }

    /// How many are planned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.planned.len()
    }

    /// Whether nothing will happen any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_by_order() {
        let mut queue = Queue::default();
        for (at_us, host) in [(5, 1), (3, 2), (5, 3), (3, 4)] {
            queue.at(at_us, Event::Frame(host));
        }
        let mut order = Vec::new();
        while let Some((at_us, Event::Frame(host))) = queue.pop() {
            order.push((at_us, host));
        }
        assert_eq!(order, [(3, 2), (3, 4), (5, 1), (5, 3)]);
    }
}
