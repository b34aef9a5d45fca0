//! Values that cannot be invalid: every type here is checked where it is made, and only there.

mod address;
mod blob;
mod connect_string;
mod deletion;
mod distance;
mod diversity;
mod heart;
mod ids;
mod itinerary;
mod keep_priority;
mod person;
mod post;
mod recent_posts;
mod record;
mod text;

pub use address::{Address, AddressBody, AddressRecord, Network, Prefix, Scope};
pub use blob::{Cut, PAGE_BYTES, SLICE_BYTES, Slice, SliceReader, pages_of};
pub use connect_string::{ConnectString, ConnectStringError, Host};
pub use deletion::{Deletion, DeletionBody};
pub use distance::{Distance, estimated_count, finger_bits, worm_share};
pub use diversity::{
    IdPrefix, PREFIX_BYTES, SAMPLE_BITS_MAX, SCORE_CAP_PERCENT, SWAP_GAIN_PERCENT, is_sampled,
    is_worth_a_swap, sample_bits, score_of,
};
pub use heart::{Heart, HeartBody};
pub use ids::{BlobHash, IdError, NodeId, PostId};
pub use itinerary::{Itinerary, STOPS_MAX};
pub use keep_priority::{
    AgeWindow, AuthorStanding, KeepClass, KeepFacts, KeepPriority, PEER_COPIES_MAX, PIN_BONUS,
};
pub use person::{Avatar, Profile, ProfileBody};
pub use post::{
    BlobRef, Content, PostBody, PostBytes, PostKind, PublicContent, SealedContent, SignedPost,
};
pub use recent_posts::{
    Event, EventKind, EventList, Generation, RecentPosts, RecentPostsBody, RecentPostsHead, Seq,
};
pub use record::{RecordBody, Signed, check_time, next_seq};
pub use text::{Bio, MediaDescription, Name, PostText, Text, TextError};

/// A value whose proof needed the node's state, made by the named functions of this crate and nowhere else
/// (ARCHITECTURE, "A frame"). Only such values are stored or shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(pub(crate) T);

impl<T> Verified<T> {
    /// The value, still known to be verified by the place it came from.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
