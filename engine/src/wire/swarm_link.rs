//! 0x36 SwarmLink: two who keep an author tell each other what is new of them (PROTOCOL section 7).

use super::codec::{Bounded, as_array};
use super::{Check, Example, ListDigest};
use crate::domain::AddressRecord;
use crate::limits;
use crate::refusal::Refusal;

/// What the sender wants of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwarmWish {
    /// To have one.
    Offer,
    /// It has one now.
    Accept,
    /// It has one no more, or has no place for it.
    End,
}

impl SwarmWish {
    const ALL: [Self; 3] = [Self::Offer, Self::Accept, Self::End];
}

/// A wish about a link for one author, and how new the sender's list is.
#[derive(Clone, Debug, PartialEq)]
pub struct SwarmLink {
    /// The author, and the sender's version.
    pub digest: ListDigest,
    /// The wish's number.
    wish: u8,
    /// Where others are who keep the author, by their own records; the first is who brought the sender's list: the next hop back
    /// towards the author.
    pub others: Bounded<AddressRecord, { limits::SWARM_REFERRALS_MAX }>,
}

as_array!(SwarmLink {
    digest: ListDigest,
    wish: u8,
    others: Bounded<AddressRecord, { limits::SWARM_REFERRALS_MAX }>,
});

impl SwarmLink {
    /// A wish, with nobody else to turn to.
    #[must_use]
    pub fn new(digest: ListDigest, wish: SwarmWish) -> Self {
        Self {
            digest,
            wish: wish as u8,
            others: Bounded::default(),
        }
    }

    /// The same, naming others who keep the author.
    #[must_use]
    pub fn naming(self, others: Vec<AddressRecord>) -> Self {
        let others = Bounded::truncated(others);
        Self { others, ..self }
    }

    /// What the sender wants.
    #[must_use]
    pub fn wish(&self) -> SwarmWish {
        let wish = SwarmWish::ALL.get(usize::from(self.wish));
        *wish.expect("its number was checked")
    }
}

impl Check for SwarmLink {
    fn check(&self) -> Result<(), Refusal> {
        let is_one = usize::from(self.wish) < SwarmWish::ALL.len();
        is_one.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for SwarmLink {
    fn example() -> Self {
        let (list, _) = super::pull_sync::example_list();
        let record = super::hello::example_record().expect("the example has one");
        let digest = ListDigest::of(list.head());
        Self::new(digest, SwarmWish::Accept).naming(vec![record])
    }
}
