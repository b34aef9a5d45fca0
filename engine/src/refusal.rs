//! Why something that came from outside was not taken: a closed list with stable codes.

use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $weight:literal;)*) => {
        /// A peer or a person did something that the protocol does not take. Never a panic, always counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// Every refusal there is, in the order of declaration.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// The stable code, used in metrics, in the API and between layers.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Refusal::$name => $code,)* }
            }

            /// How much one occurrence costs the peer that sent it, in points (see
            /// [`crate::limits::MISCONDUCT_POINTS_MAX`]): 0 for what an honest peer may do by accident.
            #[must_use]
            pub const fn points(self) -> u32 {
                match self { $(Refusal::$name => $weight,)* }
            }

            /// The refusal with this stable code.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Refusal::$name),)* _ => None }
            }
        }
    };
}

refusals! {
    /// No bytes at all.
    Empty = "empty", 5;
    /// Past the size limit of its packet or field.
    TooLarge = "too-large", 5;
    /// A code this version does not know: skipped, never punished (PROTOCOL section 5).
    UnknownCode = "unknown-code", 0;
    /// A code that is reserved but not spoken by this version.
    ReservedCode = "reserved-code", 0;
    /// Not CBOR of the packet's shape, or cut short.
    Malformed = "malformed", 5;
    /// Decodes, but is not the deterministic encoding (PROTOCOL section 4).
    NotCanonical = "not-canonical", 5;
    /// A value outside its permitted range.
    OutOfRange = "out-of-range", 5;
    /// A notification as a request, a response nobody asked for, and the like.
    WrongDirection = "wrong-direction", 5;
    /// The signature does not verify.
    BadSignature = "bad-signature", 20;
    /// Not a usable ed25519 key: not canonical, of small order, or with torsion.
    BadKey = "bad-key", 20;
    /// The record speaks for somebody else than it must.
    WrongAuthor = "wrong-author", 20;
    /// More than 10 minutes ahead of our clock (PROTOCOL section 4).
    FutureTimestamp = "future-timestamp", 1;
    /// Not newer than what we have: replays end here.
    Stale = "stale", 0;
    /// The same seq with another body; the smaller hash wins.
    Equivocation = "equivocation", 0;
    /// Pushed by somebody whose posts are not kept here (PROTOCOL section 7).
    NotKept = "not-kept", 0;
    /// Its author took it back.
    Deleted = "deleted", 0;
    /// Nobody asked for it.
    NotWanted = "not-wanted", 1;
    /// The list does not hash to its signed root.
    ListMismatch = "list-mismatch", 0;
    /// Bytes of a blob that are not the blob's: whoever sends them keeps it wrongly or means harm.
    WrongHash = "wrong-hash", 20;
    /// Over the packet's token bucket.
    RateExceeded = "rate-exceeded", 1;
    /// Over the packet's limit of exchanges under way.
    TooManyInFlight = "too-many-in-flight", 1;
    /// Something before Hello.
    BeforeHello = "before-hello", 1;
    /// A second Hello on the same connection.
    SecondHello = "second-hello", 5;
    /// Another version of the protocol.
    WrongVersion = "wrong-version", 0;
    /// An address nobody may be sent to (PROTOCOL section 4).
    BadAddress = "bad-address", 1;
    /// A handshake or connection over the accept limits of PROTOCOL section 5.
    AcceptLimit = "accept-limit", 0;
    /// A named bound is reached; nothing more of this kind is remembered now.
    Full = "full", 0;
    /// Cooled off: dropped before and not yet welcome again.
    CoolingOff = "cooling-off", 0;
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for Refusal {}

/// How often each refusal happened since the node started, by refusal and packet name.
#[derive(Resource, Default, Debug)]
pub struct RefusalCounts(BTreeMap<(Refusal, &'static str), u64>);

impl RefusalCounts {
    /// Counts one refusal under the name of what was refused.
    pub fn count(&mut self, refusal: Refusal, what: &'static str) {
        self.count_many(refusal, what, 1);
    }

    /// Counts several of the same.
    pub fn count_many(&mut self, refusal: Refusal, what: &'static str, count: u64) {
        *self.0.entry((refusal, what)).or_default() += count;
    }

    /// Every pair seen, with its count, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, &'static str, u64)> + '_ {
        self.0
            .iter()
            .map(|((refusal, what), count)| (*refusal, *what, *count))
    }

    /// How often this refusal happened, whatever was refused.
    #[must_use]
    pub fn total(&self, refusal: Refusal) -> u64 {
        self.iter()
            .filter(|(kind, _, _)| *kind == refusal)
            .map(|(_, _, count)| count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_distinct() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(refusal.code()), Some(*refusal));
        }
        assert_eq!(Refusal::from_code("no-such"), None);
    }
}
