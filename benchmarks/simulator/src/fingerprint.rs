//! The hash of a run: over every input a node got, with its time, and over the final state. The same scenario and seed give
//! the same hash on every machine and in every build profile; a difference means that something is not a function of the seed.

use distsoc_engine::crypto;

const BUFFER_BYTES: usize = 64 * 1024;

/// The hash so far.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint {
    chain: [u8; 32],
    buffer: Vec<u8>,
}

impl Fingerprint {
    /// Takes in one fact: when, to which node, of which kind, and its bytes.
    pub fn note(&mut self, at_us: u64, host: u32, kind: u8, bytes: &[u8]) {
        self.buffer.extend_from_slice(&at_us.to_be_bytes());
        self.buffer.extend_from_slice(&host.to_be_bytes());
        self.buffer.push(kind);
        self.buffer
            .extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.fold();
        }
    }

    fn fold(&mut self) {
        self.buffer.extend_from_slice(&self.chain);
        self.chain = crypto::hash(&self.buffer);
        self.buffer.clear();
    }

    /// The hash of everything noted.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.fold();
        self.chain
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_fact_counts() {
        let hash = |at_us, host, kind, bytes: &[u8]| {
            let mut fingerprint = Fingerprint::default();
            fingerprint.note(at_us, host, kind, bytes);
            fingerprint.finish()
        };
        let first = hash(1, 2, 3, b"four");
        assert_eq!(first, hash(1, 2, 3, b"four"));
        for other in [
            hash(0, 2, 3, b"four"),
            hash(1, 0, 3, b"four"),
            hash(1, 2, 0, b"four"),
            hash(1, 2, 3, b"five"),
        ] {
            assert_ne!(first, other);
        }
    }
}
