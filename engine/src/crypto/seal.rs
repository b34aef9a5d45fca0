//! ChaCha20-Poly1305 (RFC 8439): the one AEAD.

use crate::refusal::Refusal;
use chacha20poly1305::aead::{Aead as _, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};

/// An AEAD under one key. The callers of PROTOCOL section 4 derive a fresh key for each use, so that a nonce of zero
/// or a counter never repeats under a key.
pub struct Aead(ChaCha20Poly1305);

impl Aead {
    /// The AEAD under this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(&Key::from(*key)))
    }

    /// Seals: ciphertext ‖ 16-byte tag.
    #[must_use]
    pub fn seal(&self, nonce: &[u8; 12], associated: &[u8], plain: &[u8]) -> Vec<u8> {
        let payload = Payload {
            msg: plain,
            aad: associated,
        };
        self.0
            .encrypt(&Nonce::from(*nonce), payload)
            .expect("RFC 8439 bounds a plaintext at 256 GiB, ours are bounded far below")
    }

    /// Opens what [`Aead::seal`] made.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`] where key, nonce, associated data or ciphertext is another.
    pub fn open(
        &self,
        nonce: &[u8; 12],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let payload = Payload {
            msg: sealed,
            aad: associated,
        };
        self.0
            .decrypt(&Nonce::from(*nonce), payload)
            .map_err(|_| Refusal::BadSignature)
    }
}

impl std::fmt::Debug for Aead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aead(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 8439 section 2.8.2.
    #[test]
    fn rfc_8439_vector() {
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let associated = [
            0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
        ];
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you \
            only one tip for the future, sunscreen would be it.";
        let aead = Aead::new(&key);
        let sealed = aead.seal(&nonce, &associated, plain);
        assert_eq!(hex(&sealed[..16]), "d31a8d34648e60db7b86afbc53ef7ec2");
        assert_eq!(
            hex(&sealed[sealed.len() - 16..]),
            "1ae10b594f09e26a7e902ecbd0600691"
        );
        assert_eq!(aead.open(&nonce, &associated, &sealed).unwrap(), plain);
        let mut forged = sealed.clone();
        forged[3] ^= 1;
        assert_eq!(
            aead.open(&nonce, &associated, &forged),
            Err(Refusal::BadSignature)
        );
        assert_eq!(
            aead.open(&nonce, b"other", &sealed),
            Err(Refusal::BadSignature)
        );
    }
}
