//! 0x10, 0x11, 0x12, 0x13: worm lookups (PROTOCOL section 6). A query asks for what one node knows; a request hands the search on.

use super::codec::{Bounded, as_array};
use super::{Check, Example};
use crate::crypto::Secret;
use crate::domain::{Address, AddressRecord, NodeId, PostId, RecordBody, Signed};
use crate::limits;
use crate::refusal::Refusal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What a worm looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WormTarget {
    /// Where a node is.
    Node(NodeId),
    /// Who holds a post.
    Post(PostId),
    /// Who keeps an author, and so has their posts.
    Author(NodeId),
}

impl WormTarget {
    fn to_parts(self) -> (u8, NodeId) {
        match self {
            Self::Node(node) => (0, node),
            Self::Post(post) => (1, NodeId::from_bytes(*post.as_bytes())),
            Self::Author(node) => (2, node),
        }
    }
}

impl Serialize for WormTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_parts().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WormTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match <(u8, NodeId)>::deserialize(deserializer)? {
            (0, node) => Ok(Self::Node(node)),
            (1, post) => Ok(Self::Post(PostId::from_bytes(*post.as_bytes()))),
            (2, node) => Ok(Self::Author(node)),
            _ => Err(de::Error::custom(Refusal::OutOfRange.code())),
        }
    }
}

/// The targets of one worm.
pub type WormTargets = Bounded<WormTarget, { limits::WORM_TARGETS_MAX }>;

/// Asks a peer what it knows by itself; it asks nobody.
#[derive(Clone, Debug, PartialEq)]
pub struct WormQuery {
    /// What is looked for.
    pub targets: WormTargets,
    /// How many ids near each target that is not known are to be named, at most [`limits::WORM_NEAR_MAX`].
    pub near: u8,
}

as_array!(WormQuery {
    targets: WormTargets,
    near: u8,
});

impl Check for WormQuery {
    fn check(&self) -> Result<(), Refusal> {
        let fits = self.near <= limits::WORM_NEAR_MAX;
        fits.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for WormQuery {
    fn example() -> Self {
        Self {
            targets: Bounded::truncated(vec![
                WormTarget::Node(NodeId::from_bytes([4; 32])),
                WormTarget::Post(PostId::from_bytes([5; 32])),
            ]),
            near: 1,
        }
    }
}

/// Where whoever began a search is to be told directly, in its own signed words for this search alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WormOriginBody {
    /// Who began it.
    pub node_id: NodeId,
    /// Which search.
    pub search: u64,
    /// Where it listens.
    pub address: Address,
    /// Nobody is told after this: ms since the epoch.
    pub expiry_ms: u64,
}

as_array!(WormOriginBody {
    node_id: NodeId,
    search: u64,
    address: Address,
    expiry_ms: u64,
});

impl RecordBody for WormOriginBody {
    const TYPE: &'static str = "worm-origin";
    const BYTES_MAX: usize = 96;

    fn author(&self) -> NodeId {
        self.node_id
    }

    fn seq(&self) -> u64 {
        self.expiry_ms
    }
}

/// See [`WormOriginBody`].
pub type WormOrigin = Signed<WormOriginBody>;

/// Hands a search on. The answer comes back on the same stream, and so along the path.
#[derive(Clone, Debug, PartialEq)]
pub struct WormRequest {
    /// The search, drawn by whoever began it: nobody takes the same one twice on the same path.
    pub search: u64,
    /// Which of the disjoint paths of the search, below [`limits::WORM_PATHS`].
    pub path: u8,
    /// How many more nodes may choose a new bearing, or ask all of their peers.
    pub ttl: u8,
    /// Requests that this one may cause in all, wherever.
    pub budget: u16,
    /// How long the asker waits for the answer, ms.
    pub patience_ms: u16,
    /// What is looked for.
    pub targets: WormTargets,
    /// Who may be told directly; never in a search on behalf of a follow.
    pub origin: Option<WormOrigin>,
}

as_array!(WormRequest {
    search: u64,
    path: u8,
    ttl: u8,
    budget: u16,
    patience_ms: u16,
    targets: WormTargets,
    origin: Option<WormOrigin>,
});

impl Check for WormRequest {
    fn check(&self) -> Result<(), Refusal> {
        let fits = self.path < limits::WORM_PATHS
            && self.ttl <= limits::WORM_TTL_MAX
            && self.budget <= limits::WORM_BUDGET
            && self.patience_ms <= limits::WORM_PATIENCE_MS
            && self
                .origin
                .as_ref()
                .is_none_or(|origin| origin.search == self.search);
        fits.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for WormRequest {
    fn example() -> Self {
        Self {
            search: 0x0102_0304_0506_0708,
            path: 2,
            ttl: 5,
            budget: 200,
            patience_ms: 4000,
            targets: WormQuery::example().targets,
            origin: Some(example_origin()),
        }
    }
}

fn example_origin() -> WormOrigin {
    let secret = Secret::from_seed(&[9; 32]);
    let address = "8.8.4.4:4433".parse().ok();
    let body = WormOriginBody {
        node_id: secret.node_id(),
        search: 0x0102_0304_0506_0708,
        address: address
            .and_then(|address| Address::new(address).ok())
            .expect("a usable address"),
        expiry_ms: 1_800_000_000_000,
    };
    Signed::sign(body, &secret)
}

/// Tells whoever began a search directly what was found, where the way back would be long.
#[derive(Clone, Debug, PartialEq)]
pub struct WormAnswer {
    /// Which search.
    pub search: u64,
    /// What was looked for.
    pub target: WormTarget,
    /// The target's own record; for content, that of a holder.
    pub record: AddressRecord,
}

as_array!(WormAnswer {
    search: u64,
    target: WormTarget,
    record: AddressRecord,
});

impl Check for WormAnswer {}

impl Example for WormAnswer {
    fn example() -> Self {
        let record = super::hello::example_record().expect("the example has one");
        Self {
            search: 0x0102_0304_0506_0708,
            target: WormTarget::Node(record.node_id),
            record,
        }
    }
}

/// A target that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct WormFinding {
    /// Which, by its place in the request.
    pub target: u8,
    /// How many connections the search went over to get there.
    pub links: u8,
    /// The target's own record; for content, that of a holder.
    pub record: AddressRecord,
}

as_array!(WormFinding {
    target: u8,
    links: u8,
    record: AddressRecord
});

/// The id closest to a target that was not found, as far as the sender knows.
#[derive(Clone, Debug, PartialEq)]
pub struct WormNear {
    /// Which target, by its place in the request.
    pub target: u8,
    /// Who.
    pub node: NodeId,
    /// Its own record, where the sender has it.
    pub record: Option<AddressRecord>,
}

as_array!(WormNear {
    target: u8,
    node: NodeId,
    record: Option<AddressRecord>
});

/// What came of a query or a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WormResponse {
    /// What was found.
    pub found: Bounded<WormFinding, { limits::WORM_TARGETS_MAX }>,
    /// Who is close to what was not.
    pub near: Bounded<WormNear, { limits::WORM_TARGETS_MAX }>,
}

as_array!(WormResponse {
    found: Bounded<WormFinding, { limits::WORM_TARGETS_MAX }>,
    near: Bounded<WormNear, { limits::WORM_TARGETS_MAX }>,
});

impl Check for WormResponse {
    fn check(&self) -> Result<(), Refusal> {
        let in_range = |target: u8| usize::from(target) < limits::WORM_TARGETS_MAX;
        let names_itself = |near: &WormNear| {
            let record = near.record.as_ref();
            record.is_none_or(|record| record.node_id == near.node)
        };
        let fits = self.found.iter().all(|finding| in_range(finding.target))
            && self.near.iter().all(|near| in_range(near.target))
            && self.near.iter().all(names_itself);
        fits.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for WormResponse {
    fn example() -> Self {
        let record = super::hello::example_record().expect("the example has one");
        let near = WormNear {
            target: 1,
            node: record.node_id,
            record: Some(record.clone()),
        };
        let finding = WormFinding {
            target: 0,
            links: 3,
            record,
        };
        Self {
            found: Bounded::truncated(vec![finding]),
            near: Bounded::truncated(vec![near]),
        }
    }
}
