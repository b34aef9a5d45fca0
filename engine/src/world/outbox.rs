//! What goes out of this frame, in order, and when the next one is due.

use crate::domain::NodeId;
use crate::io::{
    BatchId, CallError, CallId, DialId, DialTarget, Durability, Effect, LinkId, Notice, Outputs,
    ReadId, ReadQuery, Reply, RequestId, StreamToken, Write,
};
use crate::limits;
use crate::wire::{GoodbyeReason, Packet, PacketBytes};
use bevy_ecs::prelude::Resource;

/// Effects of this frame and the ids that name them.
#[derive(Resource, Debug, Default)]
pub struct Outbox {
    effects: Vec<Effect>,
    learned: Vec<Write>,
    next_wake_ms: Option<u64>,
    last_id: u64,
}

impl Outbox {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Dials.
    pub fn dial(&mut self, node: NodeId, target: DialTarget) -> DialId {
        let dial = DialId(self.next_id());
        self.effects.push(Effect::Dial { dial, node, target });
        dial
    }

    /// Sends a notification.
    pub fn send(&mut self, link: LinkId, packet: &Packet) {
        self.send_bytes(link, packet.encode());
    }

    /// Sends a notification that is encoded already.
    pub fn send_bytes(&mut self, link: LinkId, bytes: PacketBytes) {
        self.effects.push(Effect::Send { link, bytes });
    }

    /// Sends a request, with the timeout of its kind.
    pub fn request(&mut self, link: LinkId, packet: &Packet) -> RequestId {
        let timeout_ms = match packet.spec().asks_for_much() {
            true => limits::LARGE_RESPONSE_TIMEOUT_MS,
            false => limits::REQUEST_TIMEOUT_MS,
        };
        self.request_within(link, packet.encode(), timeout_ms)
    }

    /// Sends a request that is encoded already, with a timeout of its own.
    pub fn request_within(
        &mut self,
        link: LinkId,
        bytes: PacketBytes,
        timeout_ms: u64,
    ) -> RequestId {
        let request = RequestId(self.next_id());
        self.effects.push(Effect::Request {
            link,
            request,
            bytes,
            timeout_ms,
        });
        request
    }

    /// Answers a peer's request, or drops it.
    pub fn respond(&mut self, stream: StreamToken, packet: Option<&Packet>) {
        self.effects.push(Effect::Respond {
            stream,
            bytes: packet.map(Packet::encode),
        });
    }

    /// Closes a connection.
    pub fn close(&mut self, link: LinkId, reason: GoodbyeReason) {
        self.effects.push(Effect::Close { link, reason });
    }

    /// Any effect that has no id of the node's.
    pub fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Tells whoever watches.
    pub fn notify(&mut self, notice: Notice) {
        self.effects.push(Effect::Notify(notice));
    }

    /// Answers a call.
    pub fn reply(&mut self, call: CallId, result: Result<Reply, CallError>) {
        self.effects.push(Effect::Reply { call, result });
    }

    /// Reads from the disk.
    pub fn read(&mut self, query: ReadQuery) -> ReadId {
        let read = ReadId(self.next_id());
        self.effects.push(Effect::Read { read, query });
        read
    }

    /// Stores a person's own act: a batch of its own, committed at once.
    pub fn store_durable(&mut self, writes: Vec<Write>) -> BatchId {
        let batch = BatchId(self.next_id());
        self.effects.push(Effect::Persist {
            batch,
            writes,
            durability: Durability::Durable,
        });
        batch
    }

    /// Stores what was learned from the network: one batch a frame, written behind.
    pub fn store(&mut self, write: Write) {
        self.learned.push(write);
    }

    /// Whether anything is to be written behind.
    #[must_use]
    pub fn has_learned(&self) -> bool {
        !self.learned.is_empty()
    }

    /// Takes what was to be written behind in this frame; the storage feature makes the batch.
    pub fn take_learned(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.learned)
    }

    /// Stores a batch of learned writes.
    pub fn store_behind(&mut self, writes: Vec<Write>) -> BatchId {
        let batch = BatchId(self.next_id());
        self.effects.push(Effect::Persist {
            batch,
            writes,
            durability: Durability::WriteBehind,
        });
        batch
    }

    /// The next frame is due at `mono_ms`, or earlier if somebody else says so.
    pub fn wake_at(&mut self, mono_ms: u64) {
        self.next_wake_ms = Some(
            self.next_wake_ms
                .map_or(mono_ms, |earlier| earlier.min(mono_ms)),
        );
    }

    /// Closes the frame.
    pub(crate) fn finish(&mut self) -> Outputs {
        Outputs {
            effects: std::mem::take(&mut self.effects),
            next_wake_ms: self.next_wake_ms.take(),
        }
    }
}
