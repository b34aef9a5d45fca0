//! Signed records: one form for all of them (PROTOCOL section 4).
//!
//! On the wire a record is `[body bytes, signature 64]`; the signature covers `"distsoc/2 <type>\0" ‖ body`. The
//! bytes received are what is hashed, kept and forwarded: nothing re-encodes a body it did not make. A [`Signed`]
//! value exists only where the signature verified, now or before it was stored on the own disk: nothing else can make one.

use super::NodeId;
use super::ids::FixedBytes;
use crate::clock::Now;
use crate::crypto::{PublicKey, Secret, Signature};
use crate::limits;
use crate::refusal::Refusal;
use crate::wire::codec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::sync::Arc;

/// The body of a signed record.
pub trait RecordBody: Serialize + DeserializeOwned {
    /// The `<type>` in the signature's context.
    const TYPE: &'static str;
    /// Bytes of the encoded body at most.
    const BYTES_MAX: usize;
    /// Whose signature it carries.
    fn author(&self) -> NodeId;
    /// Its place in the order of versions.
    fn seq(&self) -> u64;
    /// What decoding alone does not ensure.
    ///
    /// # Errors
    /// The refusal to count.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A record whose signature verified, with the exact bytes that were signed.
#[derive(Clone, Debug)]
pub struct Signed<T> {
    value: T,
    body: Arc<[u8]>,
    signature: Signature,
}

impl<T: RecordBody> Signed<T> {
    /// Signs an own record.
    ///
    /// # Panics
    /// If the body is not the signer's own or past its size: a bug of the caller.
    #[must_use]
    pub fn sign(value: T, secret: &Secret) -> Self {
        assert!(
            value.author() == secret.node_id(),
            "a node signs its own records only"
        );
        let body = codec::encode(&value);
        assert!(
            body.len() <= T::BYTES_MAX,
            "an own record keeps its size limit"
        );
        let signature = secret.sign(&context(T::TYPE), &body);
        Self {
            value,
            body: body.into(),
            signature,
        }
    }

    /// Verifies received bytes: size, canonical form, the body's own checks, then key and signature.
    ///
    /// # Errors
    /// The refusal to count.
    pub fn verify(body: &[u8], signature: [u8; 64]) -> Result<Self, Refusal> {
        if body.len() > T::BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let value: T = codec::decode_canonical(body)?;
        value.check()?;
        let signature = Signature::from_bytes(signature);
        PublicKey::check(value.author())?.verify(&context(T::TYPE), body, &signature)?;
        Ok(Self {
            value,
            body: body.into(),
            signature,
        })
    }

    /// The record as it lies on disk and on the wire: `[body, signature]`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads [`Signed::to_bytes`], verifying everything again.
    ///
    /// # Errors
    /// The refusal to count.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        codec::decode_canonical(bytes)
    }

    /// Reads [`Signed::to_bytes`] of a record that was verified before it was stored: no signature is checked again
    /// for every list that is handed on.
    ///
    /// # Errors
    /// The refusal of what is no record.
    pub fn from_own_disk(bytes: &[u8]) -> Result<Self, Refusal> {
        let (body, signature): (codec::ByteVec, FixedBytes<64>) = codec::decode_canonical(bytes)?;
        let value: T = codec::decode_canonical(&body.0)?;
        value.check()?;
        Ok(Self {
            value,
            body: body.0.into(),
            signature: Signature::from_bytes(signature.0),
        })
    }

    /// Which of two valid records everyone keeps: the higher seq, and of two with the same seq the one with the
    /// smaller hash (PROTOCOL section 4). `Ok` says that `self` replaces `known`.
    ///
    /// # Errors
    /// [`Refusal::Stale`] for an older or the same record, [`Refusal::Equivocation`] for the losing one of two bodies
    /// under one seq.
    pub fn supersedes(&self, known: &Self) -> Result<(), Refusal> {
        use std::cmp::Ordering;
        match self.value.seq().cmp(&known.value.seq()) {
            Ordering::Greater => Ok(()),
            Ordering::Less => Err(Refusal::Stale),
            Ordering::Equal if self.body == known.body => Err(Refusal::Stale),
            Ordering::Equal if self.hash() < known.hash() => Ok(()),
            Ordering::Equal => Err(Refusal::Equivocation),
        }
    }
}

impl<T: RecordBody> Signed<T> {
    /// What a record says that was verified before it was stored, with the hash of its body: no signature is checked again.
    ///
    /// # Errors
    /// The refusal of what is no record.
    pub fn stored(bytes: &[u8]) -> Result<(T, [u8; 32]), Refusal> {
        let record = Self::from_own_disk(bytes)?;
        let hash = record.hash();
        Ok((record.value, hash))
    }
}

impl<T> Signed<T> {
    /// blake3 of the signed bytes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        crate::crypto::hash(&self.body)
    }

    /// The signed bytes as received.
    #[must_use]
    pub fn body_bytes(&self) -> &Arc<[u8]> {
        &self.body
    }
}

impl<T> std::ops::Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body && self.signature == other.signature
    }
}

impl<T> Eq for Signed<T> {}

impl<T> Serialize for Signed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (
            codec::BytesRef(&self.body),
            FixedBytes(*self.signature.as_bytes()),
        )
            .serialize(serializer)
    }
}

impl<'de, T: RecordBody> Deserialize<'de> for Signed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (body, signature) = <(codec::ByteVec, FixedBytes<64>)>::deserialize(deserializer)?;
        Self::verify(&body.0, signature.0).map_err(|refusal| de::Error::custom(refusal.code()))
    }
}

/// `"distsoc/2 <type>\0"`.
pub(crate) fn context(record_type: &str) -> Vec<u8> {
    format!("distsoc/2 {record_type}\0").into_bytes()
}

/// The next seq of a register-like record: `max(previous + 1, now)` (PROTOCOL section 4).
#[must_use]
pub fn next_seq(previous: Option<u64>, now: Now) -> u64 {
    previous.map_or(now.wall_ms, |previous| {
        now.wall_ms.max(previous.saturating_add(1))
    })
}

/// Refuses what claims to be more than 10 minutes ahead of our clock (PROTOCOL section 4).
///
/// # Errors
/// [`Refusal::FutureTimestamp`].
pub fn check_time(claimed_ms: u64, now: Now) -> Result<(), Refusal> {
    if claimed_ms > now.wall_ms.saturating_add(limits::FUTURE_MS_MAX) {
        return Err(Refusal::FutureTimestamp);
    }
    Ok(())
}
