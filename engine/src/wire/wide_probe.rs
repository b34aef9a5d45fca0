//! 0x06, 0x07: what a candidate for a wide slot reports, by sample (PROTOCOL section 6, "Wide peers").

use super::codec::{Bounded, ByteVec, as_array};
use super::{Check, Example};
use crate::domain::{IdPrefix, NodeId, PREFIX_BYTES, SAMPLE_BITS_MAX};
use crate::limits;
use crate::refusal::Refusal;

/// Asks for the ids of the hop 2 that the asked one reports and that fall into the sample of this salt, or who some of them are.
#[derive(Clone, Debug, PartialEq)]
pub struct WideProbe {
    /// Drawn by the asker anew for each candidate, so that nobody can find ids beforehand that fall into the sample.
    pub salt: u64,
    /// One id in 2^this is in the sample.
    pub bits: u8,
    /// The prefixes of the ids that are asked for in full, of 8 bytes each; with none, the sample is.
    pub whose: ByteVec,
}

as_array!(WideProbe {
    salt: u64,
    bits: u8,
    whose: ByteVec
});

impl Check for WideProbe {
    fn check(&self) -> Result<(), Refusal> {
        let is_whole = self.whose.0.len().is_multiple_of(PREFIX_BYTES);
        let fits = self.whose.0.len() <= limits::WIDE_MEMBERS_MAX * PREFIX_BYTES;
        (is_whole && fits && self.bits <= SAMPLE_BITS_MAX)
            .then_some(())
            .ok_or(Refusal::OutOfRange)
    }
}

impl Example for WideProbe {
    fn example() -> Self {
        Self {
            salt: 7,
            bits: 4,
            whose: ByteVec(vec![3; 2 * PREFIX_BYTES]),
        }
    }
}

/// The sample, or the ids asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WideSample {
    /// The first 8 bytes of each id, ascending, each once.
    pub prefixes: ByteVec,
    /// The ids asked for in full, as far as they are reported.
    pub members: Bounded<NodeId, { limits::WIDE_MEMBERS_MAX }>,
}

as_array!(WideSample {
    prefixes: ByteVec,
    members: Bounded<NodeId, { limits::WIDE_MEMBERS_MAX }>,
});

/// Prefixes one after another.
#[must_use]
pub fn prefixes_in(bytes: &ByteVec) -> Vec<IdPrefix> {
    bytes.0.as_chunks::<PREFIX_BYTES>().0.to_vec()
}

impl Check for WideSample {
    fn check(&self) -> Result<(), Refusal> {
        let bytes = &self.prefixes.0;
        let is_whole = bytes.len().is_multiple_of(PREFIX_BYTES);
        if !is_whole || bytes.len() > limits::WIDE_SAMPLE_MAX * PREFIX_BYTES {
            return Err(Refusal::OutOfRange);
        }
        let in_order = prefixes_in(&self.prefixes).is_sorted_by(|a, b| a < b);
        in_order.then_some(()).ok_or(Refusal::Malformed)
    }
}

impl Example for WideSample {
    fn example() -> Self {
        let prefixes = [[1; PREFIX_BYTES], [2; PREFIX_BYTES]].concat();
        Self {
            prefixes: ByteVec(prefixes),
            members: Bounded::truncated(vec![NodeId::from_bytes([4; 32])]),
        }
    }
}
