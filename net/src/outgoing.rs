//! What waits to be sent on one connection: a bounded queue that a transient task drains, so that an idle connection
//! holds no task for it.

use crate::limits;
use crate::streams::lock;
use distsoc_engine::wire::{GoodbyeReason, PacketBytes};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Poll, Waker};

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
    closing: Option<GoodbyeReason>,
    /// Whoever drains and waits for acknowledgements meanwhile.
    waker: Option<Waker>,
}

impl State {
    fn take(&mut self) -> Option<Outgoing> {
        let next = self.waiting.pop_front();
        if let Some(Outgoing::Notify(bytes)) = &next {
            self.bytes -= bytes.len();
        }
        next
    }
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
            _ if state.closing.is_some() => return Put::Refused,
            Outgoing::Notify(bytes) => {
                if state.waiting.len() >= limits::PACKETS_WAITING_MAX
                    || state.bytes + bytes.len() > limits::BYTES_WAITING_MAX
                {
                    return Put::Refused;
                }
                state.bytes += bytes.len();
            }
            Outgoing::Close(reason) => state.closing = Some(*reason),
        }
        state.waiting.push_back(outgoing);
        if !std::mem::replace(&mut state.draining, true) {
            return Put::Start;
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Put::Waits
    }

    /// Why the connection is about to be closed, if it is.
    pub(crate) fn closing(&self) -> Option<GoodbyeReason> {
        lock(&self.0).closing
    }

    /// The next thing to do, or `None`, which ends the draining, once nothing waits and `flushed` is over.
    pub(crate) async fn next<F: Future>(&self, mut flushed: Pin<&mut F>) -> Option<Outgoing> {
        std::future::poll_fn(|context| {
            if let Some(outgoing) = self.take_or_wait(context.waker()) {
                return Poll::Ready(Some(outgoing));
            }
            match flushed.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(self.take_or_end()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn take_or_wait(&self, waker: &Waker) -> Option<Outgoing> {
        let mut state = lock(&self.0);
        let next = state.take();
        if next.is_none() {
            state.waker = Some(waker.clone());
        }
        next
    }

    fn take_or_end(&self) -> Option<Outgoing> {
        let mut state = lock(&self.0);
        let next = state.take();
        if next.is_none() {
            state.draining = false;
            state.waker = None;
            // An idle connection keeps no buffer.
            state.waiting = VecDeque::new();
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
