//! What came in and was not handled yet: a queue per kind, filled before the schedule runs, empty after it.

use crate::domain::NodeId;
use crate::io::{
    BatchId, Call, CallId, DialFailure, DialId, DiskUsage, DownCause, LinkId, Origin, ReadId,
    ReadResult, RequestFailure, RequestId, StorageTrouble, StreamToken,
};
use crate::refusal::Refusal;
use crate::schedule::Occasions;
use crate::wire::{Code, Packet};
use bevy_ecs::prelude::Resource;
use std::net::SocketAddr;

/// An admitted packet with where it came from.
#[derive(Debug)]
pub struct Arrival<P> {
    /// The connection.
    pub link: LinkId,
    /// For a request: where the response goes.
    pub stream: Option<StreamToken>,
    /// The packet.
    pub packet: P,
}

/// Packets of one type, in the order they came.
#[derive(Resource, Debug)]
pub struct Arrivals<P: Send + Sync + 'static>(Vec<Arrival<P>>);

impl<P: Send + Sync + 'static> Default for Arrivals<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<P: Send + Sync + 'static> Arrivals<P> {
    pub(crate) fn push(&mut self, link: LinkId, stream: Option<StreamToken>, packet: P) {
        self.0.push(Arrival {
            link,
            stream,
            packet,
        });
    }

    /// Puts back what was taken and is to be handled still, before anything else came.
    pub fn put_back(&mut self, arrivals: Vec<Arrival<P>>) {
        self.0 = arrivals;
    }

    /// Takes them all.
    pub fn take(&mut self) -> Vec<Arrival<P>> {
        std::mem::take(&mut self.0)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps only those the closure wants, in order.
    pub fn retain(&mut self, keep: impl FnMut(&mut Arrival<P>) -> bool) {
        self.0.retain_mut(keep);
    }
}

/// Something that happened to a connection or a dial.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// See [`crate::io::Input::LinkUp`].
    Up {
        /// Its name.
        link: LinkId,
        /// Whose key was proved.
        node: NodeId,
        /// Where the peer is seen.
        remote: SocketAddr,
        /// Who began.
        origin: Origin,
    },
    /// See [`crate::io::Input::LinkDown`].
    Down {
        /// Which.
        link: LinkId,
        /// Why.
        cause: DownCause,
    },
    /// See [`crate::io::Input::DialFailed`].
    DialFailed {
        /// Which.
        dial: DialId,
        /// Why.
        failure: DialFailure,
    },
    /// See [`crate::io::Input::Refused`].
    Refused {
        /// From which connection.
        link: LinkId,
        /// Its code.
        code: Code,
        /// Why.
        refusal: Refusal,
        /// How many.
        count: u32,
    },
}

/// Events of this frame that are not packets, in the order they came.
#[derive(Resource, Debug, Default)]
pub struct Inbox {
    /// Connections and dials.
    pub links: Vec<LinkEvent>,
    /// What kinds of input there are; packets are in the queues of their types.
    pub occasions: Occasions,
    /// Ends of requests.
    pub responses: Vec<(RequestId, Result<Packet, RequestFailure>)>,
    /// Ends of reads.
    pub reads: Vec<(ReadId, Result<ReadResult, StorageTrouble>)>,
    /// Ends of batches.
    pub batches: Vec<(BatchId, Result<(), StorageTrouble>)>,
    /// How full the disk is, if told in this frame.
    pub disk: Option<DiskUsage>,
    /// That was told after the last batch of this frame ended.
    pub disk_is_newest: bool,
    /// What a person wants.
    pub calls: Vec<(CallId, Call)>,
    /// The own addresses, if told in this frame.
    pub own_addresses: Option<Vec<SocketAddr>>,
    /// The driver is about to stop.
    pub stopping: bool,
}

impl Inbox {
    /// A batch ended.
    pub fn end_batch(&mut self, batch: BatchId, result: Result<(), StorageTrouble>) {
        self.batches.push((batch, result));
        self.disk_is_newest = false;
    }

    /// The disk says how full it is.
    pub fn tell_usage(&mut self, usage: DiskUsage) {
        self.disk = Some(usage);
        self.disk_is_newest = true;
    }

    /// Takes the calls that the closure turns into something, leaving the others for their own systems.
    pub fn take_calls<T>(&mut self, mut pick: impl FnMut(&Call) -> Option<T>) -> Vec<(CallId, T)> {
        let mut taken = Vec::new();
        self.calls.retain(|(id, call)| match pick(call) {
            Some(wanted) => {
                taken.push((*id, wanted));
                false
            }
            None => true,
        });
        taken
    }

    /// Takes the responses to requests that the closure knows.
    pub fn take_responses<T>(
        &mut self,
        mut known: impl FnMut(RequestId) -> Option<T>,
    ) -> Vec<(T, Result<Packet, RequestFailure>)> {
        take_matching(&mut self.responses, &mut known)
    }

    /// Takes the results of reads that the closure knows.
    pub fn take_reads<T>(
        &mut self,
        mut known: impl FnMut(ReadId) -> Option<T>,
    ) -> Vec<(T, Result<ReadResult, StorageTrouble>)> {
        take_matching(&mut self.reads, &mut known)
    }

    /// Takes the ends of batches that the closure knows.
    pub fn take_batches<T>(
        &mut self,
        mut known: impl FnMut(BatchId) -> Option<T>,
    ) -> Vec<(T, Result<(), StorageTrouble>)> {
        take_matching(&mut self.batches, &mut known)
    }

    /// What no system took: 0 after a frame.
    #[must_use]
    pub fn left_over(&self) -> usize {
        self.links.len()
            + self.responses.len()
            + self.reads.len()
            + self.batches.len()
            + self.calls.len()
    }
}

fn take_matching<K: Copy, V, T>(
    queue: &mut Vec<(K, V)>,
    known: &mut impl FnMut(K) -> Option<T>,
) -> Vec<(T, V)> {
    if queue.is_empty() {
        return Vec::new();
    }
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for (key, value) in queue.drain(..) {
        match known(key) {
            Some(context) => taken.push((context, value)),
            None => left.push((key, value)),
        }
    }
    *queue = left;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_said_before_a_batch_ended_does_not_count_it() {
        let mut inbox = Inbox::default();
        inbox.tell_usage(DiskUsage::default());
        assert!(inbox.disk_is_newest);
        inbox.end_batch(BatchId(1), Ok(()));
        assert!(!inbox.disk_is_newest && inbox.disk.is_some());
        inbox.tell_usage(DiskUsage::default());
        assert!(inbox.disk_is_newest);
    }
}
