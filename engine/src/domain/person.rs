//! A person's profile: name, words about themselves, avatar, and the anchors that know where they are.

use super::record::{RecordBody, Signed};
use super::{Bio, BlobHash, ConnectString, Name, NodeId};
use crate::limits;
use crate::refusal::Refusal;
use crate::wire::codec::{Bounded, as_array};

/// A reference to the picture of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avatar {
    /// blake3 of its bytes.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub length: u64,
}

as_array!(Avatar {
    hash: BlobHash,
    length: u64
});

/// The body of a [`Profile`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileBody {
    /// Whose profile.
    pub author: NodeId,
    /// Its place in the order of versions: ms.
    pub seq: u64,
    /// The display name.
    pub name: Name,
    /// What they say about themselves.
    pub bio: Bio,
    /// Their picture, if any.
    pub avatar: Option<Avatar>,
    /// Anchors that hold their AddressRecord.
    pub anchors: Bounded<ConnectString, { limits::PROFILE_ANCHORS_MAX }>,
}

as_array!(ProfileBody {
    author: NodeId,
    seq: u64,
    name: Name,
    bio: Bio,
    avatar: Option<Avatar>,
    anchors: Bounded<ConnectString, { limits::PROFILE_ANCHORS_MAX }>,
});

impl RecordBody for ProfileBody {
    const TYPE: &'static str = "profile";
    const BYTES_MAX: usize = 5 * 1024;

    fn author(&self) -> NodeId {
        self.author
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn check(&self) -> Result<(), Refusal> {
        let avatar_fits = self
            .avatar
            .is_none_or(|avatar| (1..=limits::BLOB_BYTES_MAX).contains(&avatar.length));
        avatar_fits.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

/// A person's signed profile.
pub type Profile = Signed<ProfileBody>;
