//! 0x36 SwarmLink: two who keep an author tell each other what is new of them (PROTOCOL section 7).

use super::codec::as_array;
use super::{Check, Example, ListDigest};
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
}

as_array!(SwarmLink {
    digest: ListDigest,
    wish: u8,
});

impl SwarmLink {
    /// A wish.
    #[must_use]
    pub fn new(digest: ListDigest, wish: SwarmWish) -> Self {
        let wish = wish as u8;
        Self { digest, wish }
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
        Self::new(ListDigest::of(list.head()), SwarmWish::Offer)
    }
}
