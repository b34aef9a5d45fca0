//! The places a peer can have.

/// Which slot a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// People one has to do with.
    Social,
    /// Peers as different from each other as possible.
    Wide,
    /// Beside the slots.
    Visit,
}

impl Slot {
    /// The word in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Social => "social",
            Self::Wide => "wide",
            Self::Visit => "visit",
        }
    }
}

/// What a wide slot is for (PROTOCOL section 6, "Wide peers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WideRole {
    /// Reports what no other peer does.
    Diverse,
    /// A neighbour in the order of ids.
    Ring,
    /// A node at a certain distance of ids.
    Finger,
}

impl WideRole {
    /// The word in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Diverse => "diverse",
            Self::Ring => "ring",
            Self::Finger => "finger",
        }
    }
}
