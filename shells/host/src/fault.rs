//! Why a node does not start.

/// A sentence for a person each.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The data folder.
    #[error(transparent)]
    Disk(#[from] distsoc_persistence::Fault),
    /// The network.
    #[error(transparent)]
    Network(#[from] distsoc_net::Fault),
    /// The system gives no randomness.
    #[error("the operating system gives no random numbers: {0}")]
    Random(String),
}
