//! The whole boundary of a node: two closed enums. What comes in is an [`Input`], what goes out an [`Effect`].
//!
//! A driver (the production loop or the simulator) carries out effects in order and answers with inputs. Ids that
//! tie the two together are made by whoever starts: [`LinkId`] and [`StreamToken`] by the driver, the others by the node.

mod slots;

pub use slots::{Slot, WideRole};

use crate::domain::{
    Address, Bio, ConnectString, EventList, Name, NodeId, PostBytes, PostId, PostText, Profile,
    RecentPostsHead, SignedPost,
};
use crate::profile::ProfileKind;
use crate::refusal::Refusal;
use crate::wire::{Admitted, Code, GoodbyeReason, Packet, PacketBytes};
use std::net::SocketAddr;
use std::sync::Arc;

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
    /// The stream ended or was reset without one.
    NoResponse,
    /// Nothing within the timeout.
    TimedOut,
    /// It came and had to be refused.
    Refused(Refusal),
    /// The connection went.
    LinkDown,
}

/// Why the disk did not do it. [`std::fmt::Display`] is the sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageTrouble {
    /// No space left.
    #[error("the disk is full: free some space, nothing that was acknowledged is lost")]
    Full,
    /// The folder cannot be written.
    #[error("the data folder cannot be written")]
    ReadOnly,
    /// What is stored does not make sense.
    #[error("the stored data is damaged")]
    Corrupt,
    /// Reading or writing failed.
    #[error("reading or writing the disk failed")]
    Failed,
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

/// What a person, or a program for them, can ask of a node (PROTOCOL section 9). Reading pages of posts is not
/// here: the driver does that on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The node at a glance.
    Status,
    /// Connected peers.
    Peers,
    /// The map in numbers, or what it says of one id.
    Map(Option<NodeId>),
    /// Where a node is.
    Find(NodeId),
    /// Counters for metrics.
    Counters,
    /// Dials and stays connected.
    Connect(ConnectString),
    /// Publishes a public post; replies when it is durable.
    Post {
        /// What it says.
        text: PostText,
        /// What it replies to.
        parent: Option<PostId>,
    },
    /// Follows somebody, with a place to find them where one is known.
    Follow {
        /// Whom.
        node: NodeId,
        /// Where.
        place: Option<ConnectString>,
    },
    /// Stops following.
    Unfollow(NodeId),
    /// Whom one follows.
    Follows,
    /// Changes the own profile; `None` leaves a field as it is.
    SetProfile {
        /// The display name.
        name: Option<Name>,
        /// Words about oneself.
        bio: Option<Bio>,
        /// Anchors that know one's address.
        anchors: Option<Vec<ConnectString>>,
    },
}

/// Why a call was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// What was named is not known here.
    #[error("{0}")]
    NotFound(&'static str),
    /// A rule forbids it.
    #[error("{0}")]
    Refused(&'static str),
    /// The disk did not take it; nothing was changed.
    #[error("{0}")]
    Storage(#[from] StorageTrouble),
    /// The dial failed.
    #[error("{0}")]
    Dial(#[from] DialFailure),
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done, and durable where it is an act.
    Done,
    /// The post is durable under this id.
    Posted(PostId),
    /// The node at a glance.
    Status(Status),
    /// Connected peers, best first.
    Peers(Vec<PeerView>),
    /// The map.
    Map(MapView),
    /// Where a node is.
    Found(Found),
    /// Whom one follows.
    Follows(Vec<NodeId>),
    /// Named counters in a fixed order.
    Counters(Vec<Counter>),
    /// A connection to this node stands.
    Connected(NodeId),
}

/// One number for metrics: name, labels as `key="value"` text, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Snake case, without unit prefix or `distsoc_`.
    pub name: &'static str,
    /// `(label, value)` pairs.
    pub labels: Vec<(&'static str, String)>,
    /// The count.
    pub value: u64,
}

/// How well the node is connected, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody yet, still trying.
    Connecting,
    /// Nobody, and no anchor answered for 10 s.
    Offline,
    /// Fewer than a quarter of the slots, and candidates left to try.
    Growing,
    /// As connected as the network known to it allows.
    Connected,
}

impl Standing {
    /// The word in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Offline => "offline",
            Self::Growing => "growing",
            Self::Connected => "connected",
        }
    }
}

/// The node at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub node_id: NodeId,
    /// Its profile.
    pub profile: ProfileKind,
    /// How well it is connected.
    pub standing: Standing,
    /// Social slots in use.
    pub peers_social: usize,
    /// Wide slots in use.
    pub peers_wide: usize,
    /// Visits.
    pub visits: usize,
    /// Map entries by hop.
    pub map: MapCounts,
    /// People followed.
    pub follows: usize,
    /// Posts stored.
    pub posts: usize,
    /// Posts that stand in a verified list and have not arrived yet.
    pub posts_wanted: usize,
    /// Addresses it believes to be reachable at.
    pub addresses: Vec<SocketAddr>,
    /// Why the disk does not take writes, if so.
    pub storage_trouble: Option<StorageTrouble>,
    /// Anchors known to it (anchors.json).
    pub anchors: usize,
}

/// Map entries by hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapCounts {
    /// Connected peers.
    pub hop1: usize,
    /// What peers report as their hop 1.
    pub hop2: usize,
    /// What peers report as their hop 2.
    pub hop3: usize,
    /// Memory of the map, bytes.
    pub bytes: usize,
}

/// Which step of the address resolution chain answered (PROTOCOL section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// A connection stands.
    Direct,
    /// A peer that is connected to it.
    Reporter,
    /// A peer of a peer that is.
    Closer,
    /// A worm.
    Worm,
    /// An anchor with whom it has left its record.
    Anchor,
}

impl FoundBy {
    /// The word used in the command line and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Reporter => "reporter",
            Self::Closer => "closer",
            Self::Worm => "worm",
            Self::Anchor => "anchor",
        }
    }
}

/// A node that was looked for and found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who.
    pub node_id: NodeId,
    /// By which step.
    pub found_by: FoundBy,
    /// Where.
    pub address: SocketAddr,
    /// As of when: by the record that they signed, or now where a connection stands; ms since the epoch.
    pub as_of_ms: u64,
    /// How many nodes were asked one after another.
    pub jumps: u32,
    /// How long it took.
    pub ms: u64,
    /// The steps of the chain that were taken, in their order, and how long each took before the next began or the answer came, ms.
    pub steps: Vec<(FoundBy, u64)>,
}

/// What the map says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapView {
    /// In all.
    Counts(MapCounts),
    /// Of one id.
    Entry {
        /// Which.
        node_id: NodeId,
        /// 1, 2 or 3.
        hop: u8,
        /// Who reports it; for hop 1 the node itself.
        reporters: Vec<NodeId>,
    },
}

/// A connected peer, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Who.
    pub node_id: NodeId,
    /// The display name, if a profile is known.
    pub name: Option<String>,
    /// Which slot.
    pub slot: Slot,
    /// What its wide slot is for.
    pub role: Option<WideRole>,
    /// Whether we dialled.
    pub dialled: bool,
    /// Where it is seen.
    pub address: SocketAddr,
    /// Whether it serves as an anchor.
    pub is_anchor: bool,
    /// Whether we follow it.
    pub followed: bool,
    /// How long it has been up, ms.
    pub up_ms: u64,
    /// How long ago something came from it, ms.
    pub heard_ms_ago: u64,
    /// The connection, for the driver's own figures (round trip).
    pub link: LinkId,
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
    /// Read; sees every write handed out before. Ends in [`Input::Read`].
    Read {
        /// Names it.
        read: ReadId,
        /// What.
        query: ReadQuery,
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

/// One change of what is stored; persistence turns it into rows without knowing what it means.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A verified post.
    Post {
        /// The post, whose id, author and time make its rows.
        post: Box<SignedPost>,
        /// When it came: ms since the epoch.
        arrived_ms: u64,
    },
    /// An author's verified list.
    RecentPosts {
        /// The head.
        head: RecentPostsHead,
        /// The list.
        list: EventList,
    },
    /// When an author's list was last received or confirmed newest.
    Checked {
        /// Whose.
        author: NodeId,
        /// ms since the epoch.
        checked_at_ms: u64,
    },
    /// A person's profile.
    Profile(Profile),
    /// What one has to do with somebody; `None` for nothing any more.
    Relationship {
        /// With whom.
        node: NodeId,
        /// What.
        relationship: Option<Relationship>,
    },
    /// A peer worth dialling at the next start.
    GoodPeer(GoodPeer),
    /// No longer worth it.
    ForgetPeer(NodeId),
    /// A piece of the map's snapshot or journal.
    MapRow(MapRow),
    /// Pieces of other generations are needed no more.
    MapOnly {
        /// The generation that stays.
        generation: u32,
    },
}

/// A piece of the map as it lies on the disk; [`crate::world::map::snapshot`] says what its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRow {
    /// Of which snapshot.
    pub generation: u32,
    /// Its place in it.
    pub chunk: u32,
    /// What it says.
    pub bytes: Arc<[u8]>,
}

/// What one has to do with somebody. Private: never on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relationship {
    /// Since when one follows them: ms since the epoch; `None` for not.
    pub followed_since_ms: Option<u64>,
    /// Where they were said to be.
    pub place: Option<ConnectString>,
}

/// A peer that was up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodPeer {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: Vec<Address>,
    /// Whether it serves as an anchor.
    pub is_anchor: bool,
    /// When it was last up: ms since the epoch.
    pub last_up_ms: u64,
}

/// What a node reads from its disk while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadQuery {
    /// An author's list.
    RecentPosts(NodeId),
    /// For a peer: lists and profiles of authors, then posts, until `bytes_max` is full.
    ForPeer {
        /// Whose lists and profiles.
        authors: Vec<NodeId>,
        /// Which posts, in order.
        posts: Vec<PostId>,
        /// Bytes of lists and posts at most.
        bytes_max: usize,
    },
}

/// What was there. Rows hold what was verified before it was stored.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one lives for one frame, a box would cost more than it saves"
)]
pub enum ReadResult {
    /// An author's list, if there is one.
    RecentPosts(Option<StoredList>),
    /// Lists with profiles, and posts, in the order asked for, absent ones left out.
    ForPeer {
        /// Lists that are there.
        lists: Vec<StoredList>,
        /// Posts that are there and fit.
        posts: Vec<PostBytes>,
    },
}

/// An author's list as it lies on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredList {
    /// The head.
    pub head: RecentPostsHead,
    /// The list.
    pub list: EventList,
    /// The author's profile, where it was asked for and is there.
    pub profile: Option<Profile>,
}

/// What a node needs from its disk before its first frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Everybody one has to do with.
    pub relationships: Vec<(NodeId, Relationship)>,
    /// The head and `checked_at_ms` of every author whose list is stored.
    pub authors: Vec<(RecentPostsHead, u64)>,
    /// Every stored post: id, author, seconds since the epoch, bytes of its body.
    pub files: Vec<StoredFileRow>,
    /// Peers worth dialling, best first.
    pub good_peers: Vec<GoodPeer>,
    /// The own list.
    pub own_list: Option<StoredList>,
    /// The own profile.
    pub own_profile: Option<Profile>,
    /// The profiles of others.
    pub profiles: Vec<Profile>,
    /// The map's snapshot and journal, unchecked, in any order.
    pub map: Vec<MapRow>,
}

/// One stored post, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFileRow {
    /// Which.
    pub id: PostId,
    /// By whom.
    pub author: NodeId,
    /// When written: seconds since the epoch.
    pub created_at_s: u32,
    /// Bytes of its body.
    pub bytes: u32,
}

/// Everything one frame gave out.
#[derive(Debug, Default)]
pub struct Outputs {
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// When to tick next if nothing comes in: mono ms. `None`: not before an input.
    pub next_wake_ms: Option<u64>,
}
