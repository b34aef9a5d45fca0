//! The only users of the crypto crates, a file per purpose.
//!
//! What is here is primitives behind types that cannot be misused: keys that were checked, signatures that are
//! verified strictly, secrets that are zeroised and never printed. The sealing constructions of PROTOCOL section 4 (posts,
//! envelopes, audience keys) are built from [`Aead`](seal::Aead), [`agree`] and [`derive_key`] when layer 3 comes.

pub mod agree;
mod hash;
pub mod seal;
mod sign;
pub mod tree;

pub use hash::{derive_key, hash, keyed_hash};
pub use sign::{PublicKey, Secret, Signature};
