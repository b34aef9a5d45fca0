//! 0x50 ProfileUpdate: a person's signed profile.

use super::codec::as_array;
use super::{Check, Example};
use crate::domain::Profile;

/// A profile, the sender's own or one it keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileUpdate {
    /// The profile.
    pub profile: Profile,
}

as_array!(ProfileUpdate { profile: Profile });

impl Check for ProfileUpdate {}

impl Example for ProfileUpdate {
    fn example() -> Self {
        use crate::domain::{Avatar, Bio, BlobHash, Name, ProfileBody, Signed};
        let secret = crate::crypto::Secret::from_seed(&[1; 32]);
        let anchor = format!("{}@anchor.example.org:4000", secret.node_id());
        let body = ProfileBody {
            author: secret.node_id(),
            seq: 1_700_000_000_000,
            name: Name::new("Ada").expect("a name"),
            bio: Bio::new("Counts things.").expect("a bio"),
            avatar: Some(Avatar {
                hash: BlobHash::from_bytes([7; 32]),
                length: 1234,
            }),
            anchors: crate::wire::codec::Bounded::truncated(vec![
                anchor.parse().expect("a connect string"),
            ]),
        };
        Self {
            profile: Signed::sign(body, &secret),
        }
    }
}
