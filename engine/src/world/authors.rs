//! Authors this node keeps or has to do with (PROTOCOL section 7).

use crate::clock::Now;
use crate::domain::{
    ConnectString, EventList, NodeId, PostBytes, PostId, Profile, RecentPostsHead, Seq, SignedPost,
    check_time,
};
use crate::io::{BatchId, CallError, CallId, LinkId, Relationship, Write};
use crate::limits;
use crate::refusal::Refusal;
use crate::world::agenda::Agenda;
use crate::world::outbox::Outbox;
use bevy_ecs::prelude::{Component, Entity, Query, Res, ResMut, Resource};
use bevy_ecs::system::SystemParam;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An author.
#[derive(Component, Debug)]
pub struct Author {
    /// Who.
    pub node: NodeId,
    /// What one has to do with them.
    pub relationship: Relationship,
    /// The head of the newest verified list here.
    pub head: Option<RecentPostsHead>,
    /// When the list was last received or confirmed newest: ms since the epoch.
    pub checked_at_ms: u64,
    /// Posts of the list that are not here, newest first.
    pub missing: VecDeque<Missing>,
    /// They signed two lists with one number: two machines hold the key, or somebody else does.
    pub is_equivocal: bool,
}

/// A post that stands in a verified list and is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub id: PostId,
    /// When it was written, by the list: seconds since the epoch, not after the list came.
    pub created_at_s: u32,
}

impl Author {
    /// Somebody one has nothing to do with yet.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            relationship: Relationship::default(),
            head: None,
            checked_at_ms: 0,
            missing: VecDeque::new(),
            is_equivocal: false,
        }
    }

    /// A post came, or is wanted no more.
    pub fn no_longer_missing(&mut self, id: &PostId) {
        self.missing.retain(|missing| missing.id != *id);
    }

    /// Whether one follows them.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.relationship.followed_since_ms.is_some()
    }

    /// Whether their posts are kept: only then is something they push stored (PROTOCOL section 7).
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_followed() || self.is_hosted()
    }

    /// Whether their posts are kept for others.
    #[must_use]
    pub fn is_hosted(&self) -> bool {
        self.relationship.hosted_since_ms.is_some()
    }
}

/// The newest profiles of people one keeps, whoever brought them.
#[derive(Resource, Debug, Default)]
pub struct KeptProfiles(BTreeMap<NodeId, Profile>);

impl KeptProfiles {
    /// What a disk held.
    pub fn restore(&mut self, profile: Profile) {
        self.0.insert(profile.author, profile);
    }

    /// Of this person.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Profile> {
        self.0.get(node)
    }

    /// The anchors that a person lists: they have the newest record of them. Others choose what stands in a profile, so only
    /// addresses that anybody may be sent to: no names, and nothing in a network of one's own.
    pub fn anchors_of(&self, node: &NodeId) -> impl Iterator<Item = &ConnectString> {
        let anchors = self.0.get(node).into_iter();
        let anchors = anchors.flat_map(|profile| profile.anchors.iter());
        anchors.filter(|place| {
            let address = place.address();
            address.is_some_and(|address| !address.scope().is_local())
        })
    }

    /// Keeps a profile that is newer than any before, here and on the disk.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::Equivocation`] or [`Refusal::FutureTimestamp`].
    pub fn keep(&mut self, profile: Profile, now: Now, outbox: &mut Outbox) -> Result<(), Refusal> {
        check_time(profile.seq, now)?;
        if let Some(known) = self.0.get(&profile.author) {
            profile.supersedes(known)?;
        }
        self.0.insert(profile.author, profile.clone());
        outbox.store(Write::Profile(profile));
        Ok(())
    }

    /// The person is kept no more.
    pub fn forget(&mut self, node: &NodeId) {
        self.0.remove(node);
    }
}

/// Authors by id.
#[derive(Resource, Debug, Default)]
pub struct AuthorIndex(BTreeMap<NodeId, Entity>);

impl AuthorIndex {
    /// The entity of an author.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<Entity> {
        self.0.get(node).copied()
    }

    /// Adds an author.
    pub fn insert(&mut self, node: NodeId, entity: Entity) {
        self.0.insert(node, entity);
    }

    /// Authors in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Entity)> + '_ {
        self.0.iter().map(|(node, entity)| (*node, *entity))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Authors, by their ids.
#[derive(SystemParam)]
pub struct AuthorsView<'w, 's> {
    index: Res<'w, AuthorIndex>,
    authors: Query<'w, 's, &'static Author>,
}

impl AuthorsView<'_, '_> {
    /// An author.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Author> {
        self.authors.get(self.index.get(node)?).ok()
    }
}

/// What the person wants to have to do with somebody from now on.
#[derive(Clone, Debug)]
pub struct RelationshipChange {
    /// Who asked for it.
    pub call: CallId,
    /// With whom.
    pub node: NodeId,
    /// What.
    pub relationship: Relationship,
}

/// Changes on their way to the disk. Nothing that was not the person's own act is written about these authors meanwhile.
#[derive(Resource, Debug, Default)]
pub struct RelationshipChanges(pub BTreeMap<BatchId, RelationshipChange>);

impl RelationshipChanges {
    /// Whether one about this author is.
    #[must_use]
    pub fn is_under_way(&self, node: &NodeId) -> bool {
        self.0.values().any(|change| change.node == *node)
    }
}

/// The head of the newest durable version of the own list.
#[derive(Resource, Debug, Default)]
pub struct OwnHead(pub Option<RecentPostsHead>);

impl OwnHead {
    /// Whether it is this node's.
    #[must_use]
    pub fn is_of(&self, node: &NodeId) -> bool {
        self.0.as_ref().is_some_and(|head| head.author == *node)
    }
}

/// What others know of the own list that is not known here (PROTOCOL section 7): another machine writes under the same key.
#[derive(Resource, Debug, Default)]
pub struct Succession {
    /// Nothing is written here any more.
    pub is_read_only: bool,
    /// The head of the newest list that outranks the own, where it was seen since the start.
    pub newer: Option<RecentPostsHead>,
    /// Who says to have one, to be asked.
    pub hints: BTreeSet<LinkId>,
}

impl Succession {
    /// For a person who wants to write.
    ///
    /// # Errors
    /// [`CallError::Refused`] where a newer list is known.
    pub fn check(&self) -> Result<(), CallError> {
        match self.is_read_only {
            false => Ok(()),
            true => Err(CallError::Refused(
                "this identity is used on another machine, whose posts are newer than those here: write there, and stop this node; or restore your backup here to go on with this one",
            )),
        }
    }
}

/// Kept authors whose stored list is to be gone through for what is not here: after a start, a follow, or when there is room again.
#[derive(Resource, Debug, Default)]
pub struct ListRechecks(pub BTreeSet<NodeId>);

/// Lists that this node keeps, the own among them.
#[derive(SystemParam)]
pub struct KeptLists<'w, 's> {
    authors: AuthorsView<'w, 's>,
    own: Res<'w, OwnHead>,
}

impl KeptLists<'_, '_> {
    /// What one has to do with an author.
    #[must_use]
    pub fn relationship(&self, node: &NodeId) -> Relationship {
        let author = self.authors.get(node);
        author.map_or_else(Relationship::default, |author| author.relationship.clone())
    }

    /// An author that is known here.
    #[must_use]
    pub fn author(&self, node: &NodeId) -> Option<&Author> {
        self.authors.get(node)
    }

    /// The head of the newest list of somebody who is kept.
    #[must_use]
    pub fn head(&self, node: &NodeId) -> Option<&RecentPostsHead> {
        let own = self.own.0.as_ref().filter(|head| head.author == *node);
        own.or_else(|| {
            let author = self.authors.get(node).filter(|author| author.is_kept())?;
            author.head.as_ref()
        })
    }

    /// Whether the posts of this node are kept for others or for oneself.
    #[must_use]
    pub fn keeps(&self, node: &NodeId) -> bool {
        self.own.is_of(node) || self.authors.get(node).is_some_and(Author::is_kept)
    }
}

/// A newer list of an author, as somebody brought it: nothing proved but the head's signature.
#[derive(Clone, Debug)]
pub struct ListUpdate {
    /// Who brought it.
    pub from: LinkId,
    /// The signed head.
    pub head: RecentPostsHead,
    /// The newest events, or all.
    pub newest: EventList,
    /// It was asked for, with what is here already.
    pub is_pulled: bool,
}

/// Lists that came in this frame, by whatever way.
#[derive(Resource, Debug, Default)]
pub struct ListUpdates(pub Vec<ListUpdate>);

/// A post proved by its own signature.
#[derive(Clone, Debug)]
pub struct PostOffer {
    /// Who brought it.
    pub from: LinkId,
    /// The post.
    pub post: SignedPost,
}

/// Posts that came in this frame with a proof of their own.
#[derive(Resource, Debug, Default)]
pub struct PostOffers(pub Vec<PostOffer>);

/// Posts that came in this frame and are proved only if a verified list names them.
#[derive(Resource, Debug, Default)]
pub struct PulledPosts(pub Vec<(LinkId, PostBytes)>);

/// What is wanted of an author beside the regular cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PullWish {
    /// What is newer than the list here: something was missed.
    Newer,
    /// The whole list, from somebody else than the one named: what came did not lead to its root.
    Whole {
        /// Whom not to ask first.
        not_from: Option<LinkId>,
    },
}

/// Authors that were heard of and are not kept, for whoever chooses whom to keep for others.
#[derive(Resource, Debug, Default)]
pub struct HostCandidates(BTreeSet<NodeId>);

impl HostCandidates {
    /// An author was heard of; past [`limits::HOST_CANDIDATES_MAX`] no more are remembered.
    pub fn heard(&mut self, author: NodeId) {
        if self.0.len() < limits::HOST_CANDIDATES_MAX {
            self.0.insert(author);
        }
    }

    /// In the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.iter().copied()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One was chosen.
    pub fn remove(&mut self, author: &NodeId) {
        self.0.remove(author);
    }

    /// None is looked for.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Wishes of this frame.
#[derive(Resource, Debug, Default)]
pub struct PullRequests {
    wishes: BTreeMap<NodeId, PullWish>,
    sources: Vec<(NodeId, NodeId)>,
}

impl PullRequests {
    /// Wants something of an author; the whole list outranks what is newer.
    pub fn wish(&mut self, author: NodeId, wish: PullWish) {
        let known = self.wishes.entry(author).or_insert(wish);
        *known = (*known).max(wish);
    }

    /// Wants something of an author that a peer says to have.
    pub fn wish_from(&mut self, author: NodeId, wish: PullWish, peer: NodeId) {
        self.wish(author, wish);
        self.sources.push((author, peer));
    }

    /// Takes who says to have something of whom.
    pub fn take_sources(&mut self) -> Vec<(NodeId, NodeId)> {
        std::mem::take(&mut self.sources)
    }

    /// Takes them all.
    pub fn take(&mut self) -> BTreeMap<NodeId, PullWish> {
        std::mem::take(&mut self.wishes)
    }
}

/// Hints at newer lists: proved by nothing, each allows one question to whoever gave it.
#[derive(SystemParam)]
pub struct ListHints<'w> {
    own: Res<'w, OwnHead>,
    pulls: ResMut<'w, PullRequests>,
    succession: ResMut<'w, Succession>,
}

impl ListHints<'_> {
    /// The version of the newest list here of an author, or of the own; 0 for none.
    #[must_use]
    pub fn version(&self, author: &NodeId, known: Option<&Author>) -> u64 {
        let own = self.own.0.as_ref().filter(|own| own.author == *author);
        let head = own.or_else(|| known.and_then(|known| known.head.as_ref()));
        head.map_or(0, |head| head.seq.to_u64())
    }

    /// A peer says to have a version of somebody's list; 0 is none. Gives back whether it is newer than what is here of somebody who is
    /// kept, and then it is asked for.
    pub fn hear(
        &mut self,
        author: NodeId,
        known: Option<&Author>,
        seq: u64,
        (link, node): (LinkId, NodeId),
    ) -> bool {
        let seq = Seq::from_u64(seq);
        if self.own.is_of(&author) {
            let is_newer = self.own.0.as_ref().is_some_and(|own| own.seq < seq);
            if is_newer {
                self.succession.hints.insert(link);
            }
            return is_newer;
        }
        let is_newer = known.is_some_and(|known| {
            let here = known
                .head
                .as_ref()
                .map_or(Seq::from_u64(0), |head| head.seq);
            known.is_kept() && here < seq
        });
        if is_newer {
            self.pulls.wish_from(author, PullWish::Newer, node);
        }
        is_newer
    }
}

/// When each kept author is asked for next.
#[derive(Resource, Debug, Default)]
pub struct PullsDue(pub Agenda);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::domain::{Bio, Name, ProfileBody, Signed};
    use crate::limits;
    use crate::wire::codec::Bounded;

    fn profile(name: &str, seq: u64) -> Profile {
        let secret = Secret::from_seed(&[1; 32]);
        let body = ProfileBody {
            author: secret.node_id(),
            name: Name::new(name).unwrap(),
            bio: Bio::new("").unwrap(),
            avatar: None,
            anchors: Bounded::truncated(Vec::new()),
            seq,
        };
        Signed::sign(body, &secret)
    }

    #[test]
    fn whoever_brings_an_old_profile_rolls_nothing_back() {
        let now = Now {
            mono_ms: 0,
            wall_ms: 1_700_000_000_000,
        };
        let (mut profiles, mut outbox) = (KeptProfiles::default(), Outbox::default());
        let mut keep = |name, seq| profiles.keep(profile(name, seq), now, &mut outbox);
        assert_eq!(keep("new", now.wall_ms), Ok(()));
        assert_eq!(keep("old", now.wall_ms - 1), Err(Refusal::Stale));
        let future = now.wall_ms + limits::FUTURE_MS_MAX + 1;
        assert_eq!(keep("future", future), Err(Refusal::FutureTimestamp));
        let author = profile("new", 0).author;
        assert_eq!(profiles.get(&author).unwrap().name.as_str(), "new");
        profiles.forget(&author);
        assert!(profiles.get(&author).is_none());
    }

    #[test]
    fn a_hint_leads_to_a_question_only_where_it_is_newer_and_its_author_is_kept() {
        use crate::domain::{Event, EventKind, RecentPosts};
        use bevy_ecs::system::SystemState;
        use bevy_ecs::world::World;
        let head_of = |seed: u8| {
            let event = Event {
                id: PostId::from_bytes([9; 32]),
                created_at_s: 1,
                kind: EventKind::Public,
            };
            let secret = Secret::from_seed(&[seed; 32]);
            let list = RecentPosts::append(None, event, 7, 1_000, &secret);
            list.head().clone()
        };
        let (own, head) = (head_of(1), head_of(2));
        let seq = head.seq.to_u64();
        let mut kept = Author::new(head.author);
        kept.relationship.hosted_since_ms = Some(1);
        kept.head = Some(head);
        let mut stranger = Author::new(NodeId::from_bytes([3; 32]));
        stranger.head = kept.head.clone();
        let mut new = Author::new(NodeId::from_bytes([4; 32]));
        new.relationship.followed_since_ms = Some(1);
        let mut world = World::new();
        world.insert_resource(PullRequests::default());
        world.insert_resource(Succession::default());
        world.insert_resource(OwnHead(Some(own.clone())));
        let mut state = SystemState::<ListHints>::new(&mut world);
        let peer = (LinkId(5), NodeId::from_bytes([6; 32]));
        let mut hears = |author: &Author, seq| {
            let mut hints = state.get_mut(&mut world).expect("its resources are there");
            let is_newer = hints.hear(author.node, Some(author), seq, peer);
            let asks = hints.pulls.take_sources() == [(author.node, peer.1)];
            (is_newer, asks, !hints.succession.hints.is_empty())
        };
        assert_eq!(hears(&kept, seq), (false, false, false));
        assert_eq!(hears(&kept, seq + 1), (true, true, false));
        assert_eq!(hears(&stranger, seq + 1), (false, false, false));
        assert_eq!(hears(&new, 0), (false, false, false), "0 is no version");
        assert_eq!(hears(&new, 1), (true, true, false));
        let me = Author::new(own.author);
        assert_eq!(hears(&me, own.seq.to_u64()), (false, false, false));
        assert_eq!(hears(&me, own.seq.to_u64() + 1), (true, false, true));
    }
}
