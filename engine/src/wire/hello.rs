//! 0x00 Hello: the first packet on a connection, both ways (PROTOCOL section 5).

use super::codec::as_array;
use super::{Check, Example, VERSION};
use crate::domain::{Address, AddressRecord};
use crate::profile::ProfileKind;
use crate::refusal::Refusal;

/// What the sender wants the connection for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// One of the sender's social slots.
    Social,
    /// One of the sender's wide slots.
    Wide,
    /// Beside the slots: no map entry, no diffs, closed after 30 s idle.
    Visit,
    /// One of the sender's wide slots, for a neighbour in the order of ids.
    Ring,
    /// One of the sender's wide slots, for a node at a certain distance of ids.
    Finger,
}

impl Purpose {
    const ALL: [Self; 5] = [
        Self::Social,
        Self::Wide,
        Self::Visit,
        Self::Ring,
        Self::Finger,
    ];
}

/// A connection is up when both sides have seen the other's Hello.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    version: u32,
    profile: u8,
    purpose: u8,
    behind_nat: u8,
    unlisted: u8,
    /// The sender's own record, where it gives one out.
    pub record: Option<AddressRecord>,
    /// The address the sender sees the receiver at.
    pub observed: Option<Address>,
}

as_array!(Hello {
    version: u32,
    profile: u8,
    purpose: u8,
    behind_nat: u8,
    unlisted: u8,
    record: Option<AddressRecord>,
    observed: Option<Address>,
});

impl Hello {
    /// A Hello of this version.
    #[must_use]
    pub fn new(
        profile: ProfileKind,
        purpose: Purpose,
        behind_nat: bool,
        unlisted: bool,
        record: Option<AddressRecord>,
        observed: Option<Address>,
    ) -> Self {
        Self {
            version: VERSION,
            profile: profile.to_wire(),
            purpose: purpose as u8,
            behind_nat: behind_nat.into(),
            unlisted: unlisted.into(),
            record,
            observed,
        }
    }

    /// The sender's profile.
    #[must_use]
    pub fn profile(&self) -> ProfileKind {
        ProfileKind::from_wire(self.profile).expect("checked when admitted")
    }

    /// What the sender wants the connection for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        Purpose::ALL[usize::from(self.purpose)]
    }

    /// Whether the sender cannot be dialled at the address it is seen at, as far as it knows.
    #[must_use]
    pub fn behind_nat(&self) -> bool {
        self.behind_nat == 1
    }

    /// Whether the sender asks to keep this link out of routing diffs (PROTOCOL section 6).
    #[must_use]
    pub fn unlisted(&self) -> bool {
        self.unlisted == 1
    }
}

impl Check for Hello {
    fn check(&self) -> Result<(), Refusal> {
        if self.version != VERSION {
            return Err(Refusal::WrongVersion);
        }
        let known = ProfileKind::from_wire(self.profile).is_some()
            && usize::from(self.purpose) < Purpose::ALL.len();
        if !known || self.behind_nat > 1 || self.unlisted > 1 {
            return Err(Refusal::OutOfRange);
        }
        Ok(())
    }
}

/// A record by the example identity.
pub(super) fn example_record() -> Option<AddressRecord> {
    use crate::domain::{AddressBody, Signed};
    use crate::wire::codec::Bounded;
    let secret = crate::crypto::Secret::from_seed(&[1; 32]);
    let record = AddressBody {
        node_id: secret.node_id(),
        addresses: Bounded::truncated(vec![example_address()]),
        is_anchor: 1,
        seq: 1_700_000_000_000,
        expiry_ms: 1_700_080_000_000,
    };
    Some(Signed::sign(record, &secret))
}

fn example_address() -> Address {
    Address::new("203.0.114.7:4000".parse().expect("a literal")).expect("a usable address")
}

impl Example for Hello {
    fn example() -> Self {
        Self::new(
            ProfileKind::Anchor,
            Purpose::Wide,
            false,
            true,
            example_record(),
            Some(example_address()),
        )
    }
}
