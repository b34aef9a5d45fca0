//! ed25519: identities, signatures, and what makes a key usable.

use crate::domain::NodeId;
use crate::refusal::Refusal;
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use std::cell::RefCell;
use zeroize::Zeroizing;

/// The node's own signing key. Zeroised when dropped, never printed.
pub struct Secret {
    key: SigningKey,
    node_id: NodeId,
}

impl Secret {
    /// The key of a 32-byte seed (RFC 8032).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let node_id = NodeId::from_bytes(key.verifying_key().to_bytes());
        Self { key, node_id }
    }

    /// The node's name: its public key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The seed, for the TLS handshake and the key file.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// Signs `context ‖ message`.
    #[must_use]
    pub fn sign(&self, context: &[u8], message: &[u8]) -> Signature {
        Signature(self.key.sign(&[context, message].concat()).to_bytes())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(of {})", self.node_id.short())
    }
}

/// 64 bytes that claim to be a signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Any 64 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// A NodeId that was checked as a key: canonical y, not of small order, torsion-free (PROTOCOL section 4).
#[derive(Clone, Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Checks the id as a key.
    ///
    /// # Errors
    /// [`Refusal::BadKey`].
    pub fn check(id: NodeId) -> Result<Self, Refusal> {
        if !checked_before(&id) {
            let compressed = CompressedEdwardsY(*id.as_bytes());
            let point = compressed.decompress().ok_or(Refusal::BadKey)?;
            let canonical = point.compress() == compressed;
            if !canonical || point.is_small_order() || !point.is_torsion_free() {
                return Err(Refusal::BadKey);
            }
            remember_checked(&id);
        }
        VerifyingKey::from_bytes(id.as_bytes())
            .map(Self)
            .map_err(|_| Refusal::BadKey)
    }

    /// Verifies a signature over `context ‖ message`, strictly.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`].
    pub fn verify(
        &self,
        context: &[u8],
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), Refusal> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0
            .verify_strict(&[context, message].concat(), &signature)
            .map_err(|_| Refusal::BadSignature)
    }
}

/// Keys that each thread remembers as checked: 16 kB.
const CHECKED_KEYS: usize = 512;

thread_local! {
    // PROTOCOL section 4: a key is checked once. Whether it passes depends on nothing but its bytes, so remembering that it did
    // changes no result. The place of a key is that of its first bytes: whoever invents ids makes others be checked again, no
    // more.
    static CHECKED: RefCell<Box<[[u8; 32]; CHECKED_KEYS]>> =
        RefCell::new(Box::new([[0; 32]; CHECKED_KEYS]));
}

fn place_of(id: &NodeId) -> usize {
    let [first, second, ..] = *id.as_bytes();
    usize::from(u16::from_le_bytes([first, second])) % CHECKED_KEYS
}

fn checked_before(id: &NodeId) -> bool {
    // 32 zeros are a point of small order, never stored, never taken for checked.
    let is_zero = id.as_bytes().iter().all(|byte| *byte == 0);
    !is_zero && CHECKED.with_borrow(|checked| checked[place_of(id)] == *id.as_bytes())
}

fn remember_checked(id: &NodeId) {
    CHECKED.with_borrow_mut(|checked| checked[place_of(id)] = *id.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).unwrap())
    }

    /// RFC 8032 section 7.1, tests 1, 2 and 3.
    #[test]
    fn rfc_8032_vectors() {
        let cases: [(&str, &str, &[u8], &str); 3] = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &[],
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &[0x72],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                &[0xaf, 0x82],
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (seed, public, message, signature) in cases {
            let secret = Secret::from_seed(&bytes(seed));
            assert_eq!(secret.node_id().to_string(), public);
            let made = secret.sign(&[], message);
            assert_eq!(made.as_bytes(), &bytes::<64>(signature));
            let key = PublicKey::check(secret.node_id()).unwrap();
            assert_eq!(key.verify(&[], message, &made), Ok(()));
            assert_eq!(key.verify(b"x", message, &made), Err(Refusal::BadSignature));
        }
    }

    #[test]
    fn unusable_keys_are_refused() {
        // The identity, a point of order 2, one of order 4 (y = 0), one of order 8, a y above the field, no point.
        let unusable = [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0200000000000000000000000000000000000000000000000000000000000000",
        ];
        for key in unusable {
            let refused = PublicKey::check(NodeId::from_bytes(bytes(key)));
            assert_eq!(refused.err(), Some(Refusal::BadKey), "{key}");
        }
        // A good key plus a point of order 8 has torsion.
        let good = CompressedEdwardsY(*Secret::from_seed(&[3; 32]).node_id().as_bytes());
        let torsion = CompressedEdwardsY(bytes(unusable[3])).decompress().unwrap();
        let mixed = (good.decompress().unwrap() + torsion).compress();
        let refused = PublicKey::check(NodeId::from_bytes(mixed.0));
        assert_eq!(refused.err(), Some(Refusal::BadKey));
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::from_seed(&[0x5a; 32]);
        let shown = format!("{secret:?}");
        assert!(!shown.contains("5a5a"), "{shown}");
    }

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "the memory is a thread's own: a new thread has none"
    )]
    fn remembering_checked_keys_changes_no_answer() {
        let ids: Vec<NodeId> = (0..2 * CHECKED_KEYS as u32)
            .map(|number| Secret::from_seed(&crate::crypto::hash(&number.to_be_bytes())).node_id())
            .collect();
        for _ in 0..2 {
            for id in &ids {
                assert!(PublicKey::check(*id).is_ok());
                if id.as_bytes()[0] >= 4 {
                    continue;
                }
                let mut other = *id.as_bytes();
                other[31] ^= 0x7f;
                let alone =
                    std::thread::spawn(move || PublicKey::check(NodeId::from_bytes(other)).is_ok());
                let remembered = PublicKey::check(NodeId::from_bytes(other)).is_ok();
                assert_eq!(remembered, alone.join().unwrap());
            }
        }
    }
}
