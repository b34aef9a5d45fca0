//! author_recent_posts: per author, one signed list of what they did last (PROTOCOL section 7).
//!
//! 37 bytes an event, newest first, the newest 7,000. The head is signed and names the hash of the list; a list is
//! [`Verified`] once it hashes to a head's root. An update travels as "since N": the events that the receiver lacks,
//! which it puts before its own list, truncates, hashes and compares.

use super::ids::FixedBytes;
use super::record::{RecordBody, Signed};
use super::{NodeId, PostId, Verified};
use crate::crypto;
use crate::limits::{EVENT_BYTES, EVENTS_MAX};
use crate::refusal::Refusal;
use crate::wire::codec::ByteVec;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A public post.
    Public,
    /// A sealed post.
    Sealed,
    /// A post was deleted.
    Delete,
    /// A sealed post's readers changed.
    Visibility,
    /// A new audience epoch.
    Epoch,
}

impl EventKind {
    const ALL: [Self; 5] = [
        Self::Public,
        Self::Sealed,
        Self::Delete,
        Self::Visibility,
        Self::Epoch,
    ];

    /// Its byte on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The kind with this byte.
    #[must_use]
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// Whether the event's id names a post that holders keep.
    #[must_use]
    pub fn is_post(self) -> bool {
        matches!(self, Self::Public | Self::Sealed)
    }
}

/// One line of an author's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The post (or epoch) it is about.
    pub id: PostId,
    /// When, in seconds since the epoch.
    pub created_at_s: u32,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    fn to_bytes(self) -> [u8; EVENT_BYTES] {
        let mut bytes = [0; EVENT_BYTES];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32..36].copy_from_slice(&self.created_at_s.to_be_bytes());
        bytes[36] = self.kind.to_wire();
        bytes
    }

    fn from_bytes(bytes: &[u8; EVENT_BYTES]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<32>()?;
        let (seconds, kind) = rest.split_first_chunk::<4>()?;
        Some(Self {
            id: PostId::from_bytes(*id),
            created_at_s: u32::from_be_bytes(*seconds),
            kind: EventKind::from_wire(kind[0])?,
        })
    }
}

/// Packed events, newest first, at most [`EVENTS_MAX`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct EventList(Arc<[u8]>);

impl EventList {
    /// Takes packed bytes.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for a broken length or kind, [`Refusal::OutOfRange`] for too many.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, Refusal> {
        let bytes = bytes.into();
        let (events, rest) = bytes.as_chunks::<EVENT_BYTES>();
        if !rest.is_empty()
            || !events
                .iter()
                .all(|event| Event::from_bytes(event).is_some())
        {
            return Err(Refusal::Malformed);
        }
        if events.len() > EVENTS_MAX {
            return Err(Refusal::OutOfRange);
        }
        Ok(Self(bytes))
    }

    /// The packed bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Arc<[u8]> {
        &self.0
    }

    /// How many events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() / EVENT_BYTES
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// blake3 of the packed bytes.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        crypto::hash(&self.0)
    }

    /// The events, newest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Event> + ExactSizeIterator + '_ {
        let (events, _) = self.0.as_chunks::<EVENT_BYTES>();
        events.iter().map(|event| {
            Event::from_bytes(event).expect("kinds were checked when the list was made")
        })
    }

    /// The events, newest first, but for posts that another of them deletes.
    pub fn without_deleted(&self) -> impl Iterator<Item = Event> + '_ {
        let deleted = self.iter().filter(|event| event.kind == EventKind::Delete);
        let deleted: BTreeSet<PostId> = deleted.map(|event| event.id).collect();
        self.iter()
            .filter(move |event| !event.kind.is_post() || !deleted.contains(&event.id))
    }

    /// The newest `count` events.
    #[must_use]
    pub fn newest(&self, count: usize) -> Self {
        Self(self.0[..count.min(self.len()) * EVENT_BYTES].into())
    }

    /// `newer` before `self`, the oldest dropped past [`EVENTS_MAX`].
    #[must_use]
    pub fn prepended(&self, newer: &EventList) -> Self {
        let mut bytes =
            Vec::with_capacity((newer.0.len() + self.0.len()).min(EVENTS_MAX * EVENT_BYTES));
        bytes.extend_from_slice(&newer.0);
        bytes.extend_from_slice(&self.0);
        bytes.truncate(EVENTS_MAX * EVENT_BYTES);
        Self(bytes.into())
    }

    /// A list of one.
    #[must_use]
    pub fn of(event: Event) -> Self {
        Self(event.to_bytes().as_slice().into())
    }
}

impl std::fmt::Debug for EventList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventList({})", self.len())
    }
}

impl Serialize for EventList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteVec::deserialize(deserializer)?;
        Self::from_bytes(bytes.0).map_err(|refusal| de::Error::custom(refusal.code()))
    }
}

/// Unix seconds at which an author's list was begun: at creation of the identity, or at a restore.
pub type Generation = u32;

/// `generation ‖ counter`: which version of an author's list. A higher generation outranks every counter of a lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(u64);

impl Seq {
    /// The seq of the `counter`-th event of a generation.
    #[must_use]
    pub const fn new(generation: Generation, counter: u32) -> Self {
        Self((generation as u64) << 32 | counter as u64)
    }

    /// The seq with these 64 bits.
    #[must_use]
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits)
    }

    /// Its 64 bits.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The generation.
    #[must_use]
    pub const fn generation(self) -> Generation {
        (self.0 >> 32) as u32
    }

    /// Events since the generation began.
    #[must_use]
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// After one more event.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.generation(), self.counter().saturating_add(1))
    }

    /// How many of the newest events of this version somebody at `known` lacks, of `count` in the list.
    #[must_use]
    pub fn events_since(self, known: Option<Seq>, count: usize) -> usize {
        match known {
            Some(known) if known.generation() == self.generation() => {
                (self.counter().saturating_sub(known.counter()) as usize).min(count)
            }
            _ => count,
        }
    }
}

/// The body of a [`RecentPostsHead`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentPostsBody {
    /// Whose list.
    pub author: NodeId,
    /// Which version.
    pub seq: Seq,
    /// Events in it.
    pub count: u32,
    /// blake3 of the packed list.
    pub root: [u8; 32],
    /// When it was signed: ms since the epoch.
    pub updated_at_ms: u64,
}

impl Serialize for RecentPostsBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (
            &self.author,
            self.seq.0,
            self.count,
            FixedBytes(self.root),
            self.updated_at_ms,
        )
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RecentPostsBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (author, seq, count, root, updated_at_ms) =
            <(NodeId, u64, u32, FixedBytes<32>, u64)>::deserialize(deserializer)?;
        Ok(Self {
            author,
            seq: Seq(seq),
            count,
            root: root.0,
            updated_at_ms,
        })
    }
}

impl RecordBody for RecentPostsBody {
    const TYPE: &'static str = "recent-posts";
    const BYTES_MAX: usize = 128;

    fn author(&self) -> NodeId {
        self.author
    }

    fn seq(&self) -> u64 {
        self.seq.0
    }

    fn check(&self) -> Result<(), Refusal> {
        let expected = (self.seq.counter() as usize).min(EVENTS_MAX);
        if self.count as usize != expected {
            return Err(Refusal::OutOfRange);
        }
        Ok(())
    }
}

/// The signed head of an author's list.
pub type RecentPostsHead = Signed<RecentPostsBody>;

/// An author's list with its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentPosts {
    head: RecentPostsHead,
    list: EventList,
}

impl RecentPosts {
    /// The signed head.
    #[must_use]
    pub fn head(&self) -> &RecentPostsHead {
        &self.head
    }

    /// The events.
    #[must_use]
    pub fn list(&self) -> &EventList {
        &self.list
    }

    /// Verifies a whole list against its head.
    ///
    /// # Errors
    /// [`Refusal::ListMismatch`].
    pub fn verify(head: RecentPostsHead, list: EventList) -> Result<Verified<Self>, Refusal> {
        if list.len() != head.count as usize || list.root() != head.root {
            return Err(Refusal::ListMismatch);
        }
        Ok(Verified(Self { head, list }))
    }

    /// Verifies an update: `newest` before the list of `known`, or alone where nothing is known or it is the whole.
    ///
    /// # Errors
    /// [`Refusal::Stale`] where `known` is as new, [`Refusal::ListMismatch`] where the events do not lead to the root:
    /// then the whole list is wanted, from someone else.
    pub fn advance(
        known: Option<&Verified<Self>>,
        head: RecentPostsHead,
        newest: &EventList,
    ) -> Result<Verified<Self>, Refusal> {
        let Some(known) = known else {
            return Self::verify(head, newest.clone());
        };
        head.supersedes(&known.head)?;
        if newest.len() == head.count as usize
            && let Ok(whole) = Self::verify(head.clone(), newest.clone())
        {
            return Ok(whole);
        }
        if head.seq.generation() != known.head.seq.generation() {
            return Err(Refusal::ListMismatch);
        }
        let lacking = head.seq.counter().saturating_sub(known.head.seq.counter()) as usize;
        if newest.len() < lacking.min(head.count as usize) {
            return Err(Refusal::ListMismatch);
        }
        let list = known.list.prepended(&newest.newest(lacking));
        Self::verify(head, list)
    }

    /// The author's own next version: one more event, signed.
    ///
    /// # Panics
    /// If `known` is not the signer's own: a bug of the caller.
    #[must_use]
    pub fn append(
        known: Option<&Verified<Self>>,
        event: Event,
        generation: Generation,
        now_ms: u64,
        secret: &crypto::Secret,
    ) -> Verified<Self> {
        let newest = EventList::of(event);
        let (seq, list) = match known {
            Some(known) => {
                assert!(
                    known.head.author == secret.node_id(),
                    "a node appends to its own list only"
                );
                (known.head.seq.next(), known.list.prepended(&newest))
            }
            None => (Seq::new(generation, 1), newest),
        };
        let body = RecentPostsBody {
            author: secret.node_id(),
            seq,
            count: list.len() as u32,
            root: list.root(),
            updated_at_ms: now_ms,
        };
        Verified(Self {
            head: Signed::sign(body, secret),
            list,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use proptest::prelude::*;

    fn event(number: u32) -> Event {
        Event {
            id: PostId::from_bytes(crypto::hash(&number.to_be_bytes())),
            created_at_s: number,
            kind: EventKind::Public,
        }
    }

    fn lists(count: u32) -> Vec<Verified<RecentPosts>> {
        let secret = Secret::from_seed(&[1; 32]);
        let mut versions: Vec<Verified<RecentPosts>> = Vec::new();
        for number in 0..count {
            let next = RecentPosts::append(versions.last(), event(number), 5, 1000, &secret);
            versions.push(next);
        }
        versions
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_version_leads_to_any_later_one(from in 0usize..20, to in 0usize..20) {
            let versions = lists(20);
            let (known, target) = (&versions[from], &versions[to]);
            let lacking = target.head().seq.events_since(Some(known.head().seq), target.list().len());
            let result = RecentPosts::advance(Some(known), target.head().clone(), &target.list().newest(lacking));
            if to > from {
                prop_assert_eq!(result.as_ref(), Ok(target));
            } else {
                prop_assert_eq!(result, Err(Refusal::Stale));
            }
        }
    }

    #[test]
    fn a_list_that_does_not_hash_to_its_root_is_refused() {
        let versions = lists(5);
        let head = versions[4].head().clone();
        let wrong = EventList::of(event(99));
        let refused = RecentPosts::advance(Some(&versions[3]), head.clone(), &wrong);
        assert_eq!(refused, Err(Refusal::ListMismatch));
        let too_few = RecentPosts::advance(
            Some(&versions[1]),
            head.clone(),
            &versions[4].list().newest(1),
        );
        assert_eq!(too_few, Err(Refusal::ListMismatch));
        let whole = RecentPosts::advance(Some(&versions[1]), head, versions[4].list());
        assert_eq!(whole.as_ref(), Ok(&versions[4]));
    }

    #[test]
    fn what_a_list_deletes_is_none_of_its_posts() {
        let secret = Secret::from_seed(&[1; 32]);
        let mut list = None;
        let kinds = [
            (1, EventKind::Public),
            (2, EventKind::Sealed),
            (1, EventKind::Delete),
            (3, EventKind::Public),
            (9, EventKind::Delete),
        ];
        for (number, kind) in kinds {
            let event = Event {
                kind,
                ..event(number)
            };
            list = Some(RecentPosts::append(list.as_ref(), event, 5, 1000, &secret));
        }
        let list = list.unwrap();
        let left = list.list().without_deleted();
        let left: Vec<_> = left.map(|event| (event.created_at_s, event.kind)).collect();
        let expected = [kinds[4], kinds[3], kinds[2], kinds[1]];
        assert_eq!(left, expected);
    }

    #[test]
    fn the_seven_thousand_and_first_event_drops_the_oldest() {
        let secret = Secret::from_seed(&[1; 32]);
        let packed: Vec<u8> = (0..EVENTS_MAX as u32)
            .rev()
            .flat_map(|n| event(n).to_bytes())
            .collect();
        let list = EventList::from_bytes(packed).unwrap();
        let body = RecentPostsBody {
            author: secret.node_id(),
            seq: Seq::new(5, EVENTS_MAX as u32),
            count: EVENTS_MAX as u32,
            root: list.root(),
            updated_at_ms: 1,
        };
        let full = RecentPosts::verify(Signed::sign(body, &secret), list).unwrap();
        let next = RecentPosts::append(Some(&full), event(77_777), 5, 2, &secret);
        assert_eq!(next.list().len(), EVENTS_MAX);
        assert_eq!(next.list().iter().next().unwrap(), event(77_777));
        assert_eq!(next.list().iter().next_back().unwrap(), event(1));
        assert!(next.list().as_bytes().len() <= 256 * 1024);
        let advanced =
            RecentPosts::advance(Some(&full), next.head().clone(), &next.list().newest(1));
        assert_eq!(advanced.as_ref(), Ok(&next));
    }

    #[test]
    fn a_new_generation_outranks_and_needs_the_whole_list() {
        let secret = Secret::from_seed(&[1; 32]);
        let old = lists(9).pop().unwrap();
        let restored = RecentPosts::append(None, event(100), 6, 2000, &secret);
        let advanced = RecentPosts::advance(Some(&old), restored.head().clone(), restored.list());
        assert_eq!(advanced.as_ref(), Ok(&restored));
        let back = RecentPosts::advance(Some(&restored), old.head().clone(), old.list());
        assert_eq!(back, Err(Refusal::Stale));
    }

    #[test]
    fn broken_lists_are_refused() {
        assert_eq!(EventList::from_bytes(vec![0; 36]), Err(Refusal::Malformed));
        let mut bad_kind = event(1).to_bytes();
        bad_kind[36] = 9;
        assert_eq!(
            EventList::from_bytes(bad_kind.to_vec()),
            Err(Refusal::Malformed)
        );
        let many = event(1).to_bytes().repeat(EVENTS_MAX + 1);
        assert_eq!(EventList::from_bytes(many), Err(Refusal::OutOfRange));
    }
}
