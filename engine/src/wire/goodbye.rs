//! 0x54 Goodbye: why a connection ends, with peers to try instead (PROTOCOL section 6).

use super::bootstrap_sample::Hint;
use super::codec::{Bounded, as_array};
use super::{Check, Example};
use crate::limits;
use crate::refusal::Refusal;

/// Why the sender ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoodbyeReason {
    /// No slot is free.
    Full,
    /// A better peer took the slot.
    Swapped,
    /// The receiver sent too much that had to be refused.
    Misconduct,
    /// The sender stops.
    Stopping,
    /// Another connection between the two stays.
    Duplicate,
    /// A visit that was idle.
    VisitOver,
    /// Nothing was heard for too long: the receiver is probably gone.
    Silent,
}

impl GoodbyeReason {
    const ALL: [Self; 7] = [
        Self::Full,
        Self::Swapped,
        Self::Misconduct,
        Self::Stopping,
        Self::Duplicate,
        Self::VisitOver,
        Self::Silent,
    ];

    /// The number on the wire, also the QUIC application error code of the close that follows.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The reason with this number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// The last packet on a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Goodbye {
    reason: u8,
    /// Peers that may have room: hints, not facts.
    pub try_instead: Bounded<Hint, { limits::GOODBYE_HINTS_MAX }>,
}

as_array!(Goodbye {
    reason: u8,
    try_instead: Bounded<Hint, { limits::GOODBYE_HINTS_MAX }>,
});

impl Goodbye {
    /// A Goodbye; hints past [`limits::GOODBYE_HINTS_MAX`] are left out.
    #[must_use]
    pub fn new(reason: GoodbyeReason, try_instead: Vec<Hint>) -> Self {
        Self {
            reason: reason.to_wire(),
            try_instead: Bounded::truncated(try_instead),
        }
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> GoodbyeReason {
        GoodbyeReason::from_wire(self.reason).expect("checked when admitted")
    }
}

impl Check for Goodbye {
    fn check(&self) -> Result<(), Refusal> {
        GoodbyeReason::from_wire(self.reason)
            .map(|_| ())
            .ok_or(Refusal::OutOfRange)
    }
}

impl Example for Goodbye {
    fn example() -> Self {
        Self::new(GoodbyeReason::Full, vec![Hint::example()])
    }
}
