//! X25519: a shared secret between an ephemeral key and a NodeId.
//!
//! A recipient's X25519 key is the birational image of the NodeId (PROTOCOL section 4), so a NodeId is enough to
//! write to someone.

use super::{PublicKey, Secret};
use crate::domain::NodeId;
use crate::refusal::Refusal;
use zeroize::Zeroizing;

/// The X25519 image of a checked NodeId.
///
/// # Errors
/// [`Refusal::BadKey`] where the id is no usable key.
pub fn agreement_key(id: NodeId) -> Result<[u8; 32], Refusal> {
    PublicKey::check(id)?;
    let point = curve25519_dalek::edwards::CompressedEdwardsY(*id.as_bytes())
        .decompress()
        .ok_or(Refusal::BadKey)?;
    Ok(point.to_montgomery().to_bytes())
}

/// The X25519 scalar that belongs to an identity's seed.
#[must_use]
pub fn agreement_secret(secret: &Secret) -> Zeroizing<[u8; 32]> {
    let seed = secret.seed();
    let key = ed25519_dalek::SigningKey::from_bytes(&seed);
    Zeroizing::new(key.to_scalar_bytes())
}

/// X25519 (RFC 7748).
///
/// # Errors
/// [`Refusal::BadKey`] for an all-zero result, which only a key of small order gives.
pub fn agree(scalar: &[u8; 32], their_key: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, Refusal> {
    let shared = Zeroizing::new(x25519_dalek::x25519(*scalar, *their_key));
    if shared.iter().all(|byte| *byte == 0) {
        return Err(Refusal::BadKey);
    }
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).unwrap())
    }

    /// RFC 7748 section 5.2, both vectors.
    #[test]
    fn rfc_7748_vectors() {
        let cases = [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ];
        for (scalar, point, shared) in &cases {
            assert_eq!(
                *agree(&bytes(scalar), &bytes(point)).unwrap(),
                bytes(shared)
            );
        }
    }

    #[test]
    fn both_sides_agree_through_their_node_ids() {
        let (a, b) = (Secret::from_seed(&[1; 32]), Secret::from_seed(&[2; 32]));
        let ab = agree(&agreement_secret(&a), &agreement_key(b.node_id()).unwrap()).unwrap();
        let ba = agree(&agreement_secret(&b), &agreement_key(a.node_id()).unwrap()).unwrap();
        assert_eq!(*ab, *ba);
    }

    #[test]
    fn an_all_zero_result_is_refused() {
        assert_eq!(agree(&[7; 32], &[0; 32]).err(), Some(Refusal::BadKey));
    }
}
