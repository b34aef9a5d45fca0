//! What waits to be sent on one connection: a bounded queue that a transient task drains, so that an idle connection
//! holds no task for it.

use crate::limits;
use crate::streams::lock;
use distsoc_engine::wire::{GoodbyeReason, PacketBytes};
use std::collections::VecDeque;
use std::sync::Mutex;

/// Something to do on a connection, in order.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Send a notification.
    Notify(PacketBytes),
    /// Close once everything before is delivered.
    Close(GoodbyeReason),
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
    draining: bool,
    closing: bool,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<State>);

/// What became of something put into a [`Queue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Somebody has to start draining.
    Start,
    /// Somebody drains already.
    Waits,
    /// Too much waits, or the connection is closing: it was not taken.
    Refused,
}

impl Queue {
    /// Adds something, within the bounds. A close is always taken.
    pub(crate) fn put(&self, outgoing: Outgoing) -> Put {
        let mut state = lock(&self.0);
        match &outgoing {
            _ if state.closing => return Put::Refused,
            Outgoing::Notify(bytes) => {
                if state.waiting.len() >= limits::PACKETS_WAITING_MAX
                    || state.bytes + bytes.len() > limits::BYTES_WAITING_MAX
                {
                    return Put::Refused;
                }
                state.bytes += bytes.len();
            }
            Outgoing::Close(_) => state.closing = true,
        }
        state.waiting.push_back(outgoing);
        match std::mem::replace(&mut state.draining, true) {
            true => Put::Waits,
            false => Put::Start,
        }
    }

    /// The next thing to do; `None` ends the draining.
    pub(crate) fn next(&self) -> Option<Outgoing> {
        let mut state = lock(&self.0);
        let next = state.waiting.pop_front();
        match &next {
            Some(Outgoing::Notify(bytes)) => state.bytes -= bytes.len(),
            Some(Outgoing::Close(_)) => {}
            None => {
                state.draining = false;
                // An idle connection keeps no buffer.
                state.waiting = VecDeque::new();
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_does_not_read_fills_its_queue_and_no_more() {
        let queue = Queue::default();
        let packet: PacketBytes = vec![0; 1000].into();
        assert_eq!(queue.put(Outgoing::Notify(packet.clone())), Put::Start);
        let taken = (0..100_000)
            .filter(|_| queue.put(Outgoing::Notify(packet.clone())) == Put::Waits)
            .count();
        assert_eq!(taken, limits::PACKETS_WAITING_MAX - 1);
        let large: PacketBytes = vec![0; limits::BYTES_WAITING_MAX].into();
        let queue = Queue::default();
        assert_eq!(queue.put(Outgoing::Notify(large)), Put::Start);
        assert_eq!(queue.put(Outgoing::Notify(packet)), Put::Refused);
        assert_eq!(queue.put(Outgoing::Close(GoodbyeReason::Full)), Put::Waits);
        assert_eq!(
            queue.put(Outgoing::Close(GoodbyeReason::Full)),
            Put::Refused
        );
    }
}
