//! What travels on a stream.

use crate::slots::Key;
use distsoc_engine::wire::PacketBytes;

/// The bytes of one stream with what the receiving driver knows about it.
#[derive(Clone, Debug)]
pub enum Cargo {
    /// On a stream of its own, one way.
    Notification(PacketBytes),
    /// Opens an exchange.
    Request(PacketBytes, Key),
    /// Ends an exchange; `None` for a reset.
    Response(Option<PacketBytes>, Key),
}

impl Cargo {
    /// The bytes, code first; none for a reset.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Notification(bytes)
            | Self::Request(bytes, _)
            | Self::Response(Some(bytes), _) => bytes,
            Self::Response(None, _) => &[],
        }
    }
}
