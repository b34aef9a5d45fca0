//! The whole boundary of a node: two closed enums. What comes in is an [`Input`], what goes out an [`Effect`].
//!
//! A driver (the production loop or the simulator) carries out effects in order and answers with inputs. Ids that
//! tie the two together are made by whoever starts: [`LinkId`] and [`StreamToken`] by the driver, the others by the node.

mod calls;
mod disk;
mod slots;

pub use calls::*;
pub use disk::*;
pub use slots::{Slot, WideRole};

use crate::domain::{Address, NodeId, PostId};
use crate::refusal::Refusal;
use crate::wire::{Admitted, Code, GoodbyeReason, Packet, PacketBytes};
use std::net::SocketAddr;

macro_rules! numbered {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
    )*};
}

numbered! {
    /// One QUIC connection, named by the driver, never used twice.
    LinkId;
    /// One attempt to dial, named by the node.
    DialId;
    /// A stream on which the driver waits for the response to a peer's request.
    StreamToken;
    /// A request of ours, named by the node.
    RequestId;
    /// A batch of writes, named by the node.
    BatchId;
    /// A read from the disk, named by the node.
    ReadId;
    /// A call by the person or their front end, named by the driver.
    CallId;
}

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We did, by this dial.
    Dialled(DialId),
    /// The peer did.
    Accepted,
}

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownCause {
    /// The peer closed it, with Goodbye's number where it is one.
    ClosedByPeer(Option<GoodbyeReason>),
    /// We closed it.
    ClosedByUs,
    /// Nothing was heard for the idle timeout.
    TimedOut,
    /// The transport failed.
    Failed,
}

/// Why a dial ended without a connection. [`std::fmt::Display`] is the sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialFailure {
    /// Somebody else's key.
    #[error("wrong id: another node answers there")]
    WrongId,
    /// No handshake in time: a dead port, a firewall, another protocol.
    #[error("no distsoc/2 node answers there")]
    NoAnswer,
    /// The DNS name gave no usable address.
    #[error("that host name has no usable address")]
    NoSuchHost,
    /// The peer closed the handshake or refused it.
    #[error("the node there refused the connection")]
    Refused,
    /// The own network is down or has no route.
    #[error("this machine has no way to that address")]
    Unreachable,
    /// More dials under way than [`crate::limits::DIALS_IN_FLIGHT_MAX`].
    #[error("too many connections are being opened at once")]
    TooMany,
}

/// Why a request of ours got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFailure {
    /// The stream ended or was reset without one: whoever was asked has no room for it now, or does not answer that.
    NoResponse,
    /// Nothing within the timeout.
    TimedOut,
    /// It came and had to be refused.
    Refused(Refusal),
    /// The connection went.
    LinkDown,
}

/// What comes into a node.
#[derive(Debug)]
pub enum Input {
    /// A QUIC connection whose handshake proved `node`. It counts as up once both sides have seen the other's Hello.
    LinkUp {
        /// Its name.
        link: LinkId,
        /// Whose key the handshake proved.
        node: NodeId,
        /// Where the peer is seen.
        remote: SocketAddr,
        /// Who began.
        origin: Origin,
    },
    /// A connection ended. No more input names the link.
    LinkDown {
        /// Which.
        link: LinkId,
        /// Why.
        cause: DownCause,
    },
    /// A dial ended without a connection.
    DialFailed {
        /// Which.
        dial: DialId,
        /// Why.
        failure: DialFailure,
    },
    /// A notification or a request. The first notification on a connection comes before everything else on it:
    /// streams may overtake each other in the network, and Hello must not be overtaken.
    Packet {
        /// From which connection.
        link: LinkId,
        /// For a request: where the response goes. Each token is answered or dropped with [`Effect::Respond`].
        stream: Option<StreamToken>,
        /// What was admitted.
        packet: Admitted<Packet>,
    },
    /// The end of a request of ours.
    Response {
        /// Which.
        request: RequestId,
        /// The response, or why there is none.
        result: Result<Admitted<Packet>, RequestFailure>,
    },
    /// Something a peer sent was dropped before the node, by size, rate, shape or signature.
    Refused {
        /// From which connection.
        link: LinkId,
        /// Its code byte.
        code: Code,
        /// Why.
        refusal: Refusal,
        /// How many of the same, where the driver merged them; at least 1.
        count: u32,
    },
    /// A handshake that was dropped by the accept limits before it was a connection.
    HandshakesDropped {
        /// How many since the last such input.
        count: u32,
    },
    /// The addresses this machine can be dialled at, as far as it can tell; again whenever they change.
    OwnAddresses(Vec<SocketAddr>),
    /// A batch is durable, and everything before it.
    Persisted(BatchId),
    /// A batch was not stored, none of it; the node may hand it out again.
    PersistFailed(BatchId, StorageTrouble),
    /// How full the disk is; after commits that changed it.
    Disk(DiskUsage),
    /// The end of a read.
    Read {
        /// Which.
        read: ReadId,
        /// What was there.
        result: Result<ReadResult, StorageTrouble>,
    },
    /// A person or their front end wants something.
    Call {
        /// Answered by [`Effect::Reply`] with the same id, exactly once.
        call: CallId,
        /// What.
        what: Call,
    },
    /// The driver is about to stop: say goodbye, hand out what is not yet on its way to the disk.
    Stop,
}

/// Where a dial goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialTarget {
    /// These addresses, one after the other.
    Addresses(Vec<Address>),
    /// Wherever this DNS name leads.
    Host {
        /// The name.
        name: String,
        /// The UDP port.
        port: u16,
    },
}

/// Whether a batch is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A person's own act: committed at once.
    Durable,
    /// Learned from the network: within [`crate::limits::WRITE_BEHIND_MS_MAX`].
    WriteBehind,
}

/// What goes out of a node.
#[derive(Debug)]
pub enum Effect {
    /// Dial; ends in [`Input::LinkUp`] with this dial as origin or [`Input::DialFailed`].
    Dial {
        /// Names the attempt.
        dial: DialId,
        /// Whose key must answer.
        node: NodeId,
        /// Where.
        target: DialTarget,
    },
    /// Send a notification.
    Send {
        /// On which connection.
        link: LinkId,
        /// What.
        bytes: PacketBytes,
    },
    /// Send a request; ends in [`Input::Response`].
    Request {
        /// On which connection.
        link: LinkId,
        /// Names it.
        request: RequestId,
        /// What.
        bytes: PacketBytes,
        /// How long to wait.
        timeout_ms: u64,
    },
    /// Answer a peer's request, or drop it.
    Respond {
        /// Where.
        stream: StreamToken,
        /// What; `None` resets the stream.
        bytes: Option<PacketBytes>,
    },
    /// Close a connection; everything sent before still goes out. Ends in [`Input::LinkDown`].
    Close {
        /// Which.
        link: LinkId,
        /// The application error code.
        reason: GoodbyeReason,
    },
    /// Switch QUIC keep-alive packets of a connection on or off (PROTOCOL section 3).
    KeepAlive {
        /// Which.
        link: LinkId,
        /// Whether.
        on: bool,
    },
    /// Send one QUIC ping.
    Ping {
        /// On which connection.
        link: LinkId,
    },
    /// From now on offer this QUIC idle timeout to new connections (PROTOCOL section 3: by the own reachability).
    OfferIdleTimeout {
        /// The timeout.
        ms: u64,
    },
    /// Store; ends in [`Input::Persisted`] or [`Input::PersistFailed`].
    Persist {
        /// Names it.
        batch: BatchId,
        /// All or nothing, in order.
        writes: Vec<Write>,
        /// Whether somebody waits.
        durability: Durability,
    },
    /// Read; sees every write handed out before, of slices those that were acknowledged. Ends in [`Input::Read`].
    Read {
        /// Names it.
        read: ReadId,
        /// What.
        query: ReadQuery,
    },
    /// Keep to this budget from now on: what is above it must have been forgotten before, or is refused as it comes. Answered by
    /// [`Input::Disk`] when it counts, and again when the files have shrunk to it.
    Budget {
        /// Bytes that everything on the disk may take.
        bytes: u64,
    },
    /// Answer a call.
    Reply {
        /// Which.
        call: CallId,
        /// What.
        result: Result<Reply, CallError>,
    },
    /// Tell whoever watches.
    Notify(Notice),
}

/// Something a front end may show as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer is up.
    PeerUp {
        /// Who.
        node: NodeId,
        /// In which slot.
        slot: Slot,
    },
    /// A peer went.
    PeerDown {
        /// Who.
        node: NodeId,
    },
    /// A post by oneself or somebody followed is in the feed.
    Post {
        /// Which.
        id: PostId,
        /// By whom.
        author: NodeId,
    },
    /// A profile is known or newer.
    Profile {
        /// Whose.
        node: NodeId,
    },
    /// How well the node is connected has changed.
    Standing(Standing),
    /// The disk does not take writes, or does again.
    Storage(Option<StorageTrouble>),
}

/// Everything one frame gave out.
#[derive(Debug, Default)]
pub struct Outputs {
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// When to tick next if nothing comes in: mono ms. `None`: not before an input.
    pub next_wake_ms: Option<u64>,
}
