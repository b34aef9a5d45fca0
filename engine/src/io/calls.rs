//! What a person, or a program for them, asks of a node, and what they are told.

use super::{DialFailure, DiskUsage, LinkId, OwnBytes, Slot, StorageTrouble, WideRole};
use crate::domain::{
    Bio, BlobRef, ConnectString, KeepFacts, KeepPriority, MediaDescription, Name, NodeId, PostId,
    PostText, Slice, Verified,
};
use crate::profile::ProfileKind;
use std::net::SocketAddr;

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
        /// Blobs that were staged before, with what each shows.
        media: Vec<(BlobRef, MediaDescription)>,
    },
    /// Stores a blob for a post to come; replies when it is durable. One that no post names within an hour is forgotten.
    Stage(Vec<Verified<Slice>>),
    /// Gives a heart to a post that is stored here, or takes it back.
    Heart {
        /// Which post.
        post: PostId,
        /// Whether it is given.
        given: bool,
    },
    /// Keeps a post by all means, or no more.
    Pin {
        /// Which.
        post: PostId,
        /// Whether.
        is_pinned: bool,
    },
    /// Takes an own post back, for good and everywhere.
    Delete(PostId),
    /// What is kept for whom, and what would go next: so many of them.
    Storage {
        /// Files of the preview at most.
        preview: usize,
    },
    /// Why a post is kept.
    ExplainPost(PostId),
    /// Bytes that everything on the disk may take from now on.
    SetBudget(u64),
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
#[derive(Clone, Debug, PartialEq)]
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
    /// What is kept.
    Storage(Box<StorageView>),
    /// Why a post is kept.
    Kept(KeptView),
    /// Named counters in a fixed order.
    Counters(Vec<Counter>),
    /// A connection to this node stands.
    Connected(NodeId),
}

/// What is kept for whom (PROTOCOL section 7), bytes with their blobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageView {
    /// How full the disk is.
    pub usage: DiskUsage,
    /// Own posts.
    pub own: OwnBytes,
    /// What own posts may take.
    pub own_max: OwnBytes,
    /// Pinned posts of others.
    pub pinned_bytes: u64,
    /// Posts of people one follows, pinned ones left out.
    pub followed_bytes: u64,
    /// The rest: posts of authors kept for others.
    pub hosted_bytes: u64,
    /// Files in all.
    pub files: usize,
    /// Authors kept, followed or not.
    pub authors: usize,
    /// What would go next, first the first.
    pub next_to_go: Vec<KeptView>,
}

/// A stored post, and what it is worth (PROTOCOL section 7, keep priority).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeptView {
    /// Which.
    pub post: PostId,
    /// By whom.
    pub author: NodeId,
    /// Bytes on the disk, blobs included.
    pub bytes: u64,
    /// What its priority follows from, and the priority; `None` for own content, which never goes.
    pub worth: Option<(KeepFacts, KeepPriority)>,
    /// Its place among what would go; 0 goes first. `None` for own content.
    pub rank: Option<usize>,
    /// Bytes of its blobs that are not here yet.
    pub missing_bytes: u64,
    /// Its author signed two lists with one number: two machines hold the key, or somebody else does.
    pub author_is_equivocal: bool,
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
    /// Another machine writes under the same key: nothing is written here (PROTOCOL section 7).
    pub is_superseded: bool,
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
