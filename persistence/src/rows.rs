//! What the bytes of a row are. Rows of other people's records hold the exact bytes that were verified.

use distsoc_engine::crypto::Signature;
use distsoc_engine::domain::{
    Address, BlobHash, BlobRef, ConnectString, Deletion, EventList, Heart, HeartBody, NodeId,
    PostBytes, PostId, Profile, RecentPostsHead, Signed, SignedPost,
};
use distsoc_engine::io::{GoodPeer, MapRow, Relationship, StoredFileRow, StoredList};
use distsoc_engine::limits;
use distsoc_engine::wire::codec;

/// Bytes of a post's row before the blobs that it names.
const POST_HEAD_BYTES: usize = 8 + 32 + 8 + 64;
/// Bytes of a blob that is named.
const BLOB_REF_BYTES: usize = 32 + 8;

/// A post's row, taken apart without copying.
pub(crate) struct PostRow<'a> {
    pub(crate) created_at_ms: u64,
    pub(crate) author: NodeId,
    pub(crate) arrived_ms: u64,
    signature: [u8; 64],
    blobs: &'a [u8],
    body: &'a [u8],
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn id_of(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

pub(crate) fn node_of(bytes: &[u8]) -> Option<NodeId> {
    id_of(bytes).map(NodeId::from_bytes)
}

pub(crate) fn post_id_of(bytes: &[u8]) -> Option<PostId> {
    id_of(bytes).map(PostId::from_bytes)
}

pub(crate) fn number_of(bytes: &[u8]) -> Option<u64> {
    u64_of(bytes)
}

impl<'a> PostRow<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (mut row, rest) = Self::decode_head(bytes)?;
        let (count, rest) = rest.split_first()?;
        (row.blobs, row.body) = rest.split_at_checked(usize::from(*count) * BLOB_REF_BYTES)?;
        // A start reckons with these lengths before any body is decoded.
        let is_possible = |blob: BlobRef| (1..=limits::BLOB_BYTES_MAX).contains(&blob.length);
        let are_few = usize::from(*count) <= limits::POST_BLOBS_MAX;
        (are_few && row.blobs().all(is_possible)).then_some(row)
    }

    /// A row of schema 1, where the head named no blobs.
    pub(crate) fn decode_of_1(bytes: &'a [u8]) -> Option<Self> {
        let (mut row, body) = Self::decode_head(bytes)?;
        row.body = body;
        Some(row)
    }

    fn decode_head(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_at_checked(POST_HEAD_BYTES)?;
        let row = Self {
            created_at_ms: u64_of(&head[..8])?,
            author: node_of(&head[8..40])?,
            arrived_ms: u64_of(&head[40..48])?,
            signature: head[48..].try_into().ok()?,
            blobs: &[],
            body: &[],
        };
        Some((row, rest))
    }

    pub(crate) fn encode(post: &SignedPost, arrived_ms: u64) -> Vec<u8> {
        let (body, bytes) = (post.body(), post.bytes());
        let row = PostRow {
            created_at_ms: body.created_at_ms,
            author: body.author,
            arrived_ms,
            signature: *bytes.signature.as_bytes(),
            blobs: &[],
            body: &bytes.body,
        };
        row.encode_with(&body.blobs)
    }

    /// The row, naming these blobs.
    pub(crate) fn encode_with(&self, blobs: &[BlobRef]) -> Vec<u8> {
        let blobs_bytes = 1 + blobs.len() * BLOB_REF_BYTES;
        let mut row = Vec::with_capacity(POST_HEAD_BYTES + blobs_bytes + self.body.len());
        row.extend(self.created_at_ms.to_be_bytes());
        row.extend(self.author.as_bytes());
        row.extend(self.arrived_ms.to_be_bytes());
        row.extend(self.signature);
        row.push(u8::try_from(blobs.len()).expect("a post names 16 blobs at most"));
        for blob in blobs {
            row.extend(blob.hash.as_bytes());
            row.extend(blob.length.to_be_bytes());
        }
        row.extend(self.body);
        row
    }

    pub(crate) fn bytes(&self) -> PostBytes {
        PostBytes {
            body: self.body.into(),
            signature: Signature::from_bytes(self.signature),
        }
    }

    fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        self.blobs.chunks_exact(BLOB_REF_BYTES).filter_map(|blob| {
            let (hash, length) = blob.split_first_chunk::<32>()?;
            Some(BlobRef {
                hash: BlobHash::from_bytes(*hash),
                length: u64_of(length)?,
            })
        })
    }

    pub(crate) fn file(&self, id: PostId, is_pinned: bool) -> StoredFileRow {
        StoredFileRow {
            id,
            author: self.author,
            created_at_s: (self.created_at_ms / 1000) as u32,
            bytes: self.body.len() as u32,
            blobs: self.blobs().collect(),
            is_pinned,
        }
    }
}

/// The author in a post's row, whatever else is wrong with it.
pub(crate) fn author_of_post(row: &[u8]) -> Option<NodeId> {
    node_of(row.get(8..40)?)
}

/// The key of a post in the feed.
pub(crate) fn feed_key(created_at_ms: u64, id: &PostId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&created_at_ms.to_be_bytes());
    key[8..].copy_from_slice(id.as_bytes());
    key
}

/// Two heads of one author.
pub(crate) fn encode_heads([one, other]: &[RecentPostsHead; 2]) -> Vec<u8> {
    let one = one.to_bytes();
    let length = u16::try_from(one.len()).expect("a head is small");
    let mut row = length.to_be_bytes().to_vec();
    row.extend(one);
    row.extend(other.to_bytes());
    row
}

/// The post that a feed key names.
pub(crate) fn post_of_feed_key(key: &[u8]) -> Option<PostId> {
    post_id_of(key.get(8..)?)
}

pub(crate) fn encode_list(head: &RecentPostsHead, list: &EventList) -> Vec<u8> {
    let head = head.to_bytes();
    let mut row = Vec::with_capacity(2 + head.len() + list.as_bytes().len());
    row.extend((head.len() as u16).to_be_bytes());
    row.extend(head);
    row.extend(&**list.as_bytes());
    row
}

fn split_list(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = row.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The head of a list and its packed events, which are not looked at.
pub(crate) fn decode_list_head(row: &[u8]) -> Option<(RecentPostsHead, &[u8])> {
    let (head, events) = split_list(row)?;
    Some((Signed::from_own_disk(head).ok()?, events))
}

pub(crate) fn decode_list(row: &[u8]) -> Option<StoredList> {
    let (head, events) = decode_list_head(row)?;
    Some(StoredList {
        head,
        list: EventList::from_bytes(events).ok()?,
    })
}

pub(crate) fn decode_profile(row: &[u8]) -> Option<Profile> {
    Signed::from_own_disk(row).ok()
}

pub(crate) fn encode_relationship(relationship: &Relationship) -> Vec<u8> {
    codec::encode(&(
        relationship.followed_since_ms,
        relationship.hosted_since_ms,
        &relationship.place,
    ))
}

pub(crate) fn decode_relationship(row: &[u8]) -> Option<Relationship> {
    let (followed_since_ms, hosted_since_ms, place): (
        Option<u64>,
        Option<u64>,
        Option<ConnectString>,
    ) = codec::decode_canonical(row).ok()?;
    Some(Relationship {
        followed_since_ms,
        hosted_since_ms,
        place,
    })
}

/// A row of schema 1, where nobody was hosted.
pub(crate) fn decode_relationship_of_1(row: &[u8]) -> Option<Relationship> {
    let (followed_since_ms, place): (Option<u64>, Option<ConnectString>) =
        codec::decode_canonical(row).ok()?;
    Some(Relationship {
        followed_since_ms,
        hosted_since_ms: None,
        place,
    })
}

/// The key of what one id has to do with another.
pub(crate) fn pair_key(first: &[u8; 32], second: &[u8; 32]) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(first);
    key[32..].copy_from_slice(second);
    key
}

/// The ids of such a key.
pub(crate) fn pair_of(key: &[u8]) -> Option<([u8; 32], [u8; 32])> {
    let (first, second) = key.split_first_chunk::<32>()?;
    Some((*first, id_of(second)?))
}

/// What a heart's row says before the heart.
pub(crate) struct HeartRow<'a> {
    pub(crate) seq: u64,
    pub(crate) is_given: bool,
    heart: &'a [u8],
}

impl<'a> HeartRow<'a> {
    pub(crate) fn decode(row: &'a [u8]) -> Option<Self> {
        let (seq, rest) = row.split_first_chunk::<8>()?;
        let (given, heart) = rest.split_first()?;
        Some(Self {
            seq: u64::from_be_bytes(*seq),
            is_given: *given == 1,
            heart,
        })
    }

    pub(crate) fn encode(heart: &Heart) -> Vec<u8> {
        let bytes = heart.to_bytes();
        let mut row = Vec::with_capacity(9 + bytes.len());
        row.extend(heart.seq.to_be_bytes());
        row.push(heart.given);
        row.extend(bytes);
        row
    }

    pub(crate) fn heart(&self) -> Option<Heart> {
        Signed::from_own_disk(self.heart).ok()
    }

    /// What it says, as it was verified before it was stored.
    pub(crate) fn stored(&self) -> Option<(HeartBody, [u8; 32])> {
        Heart::stored(self.heart).ok()
    }
}

pub(crate) fn decode_deletion(row: &[u8]) -> Option<Deletion> {
    Signed::from_own_disk(row).ok()
}

pub(crate) fn encode_peer(peer: &GoodPeer) -> Vec<u8> {
    codec::encode(&(peer.last_up_ms, u8::from(peer.is_anchor), &peer.addresses))
}

pub(crate) fn decode_peer(node: NodeId, row: &[u8]) -> Option<GoodPeer> {
    let (last_up_ms, is_anchor, addresses): (u64, u8, Vec<Address>) =
        codec::decode_canonical(row).ok()?;
    Some(GoodPeer {
        node,
        addresses,
        is_anchor: is_anchor == 1,
        last_up_ms,
    })
}

pub(crate) fn map_key(generation: u32, chunk: u32) -> [u8; 8] {
    (u64::from(generation) << 32 | u64::from(chunk)).to_be_bytes()
}

pub(crate) fn decode_map_row(key: &[u8], row: &[u8]) -> Option<MapRow> {
    let key = u64_of(key)?;
    Some(MapRow {
        generation: (key >> 32) as u32,
        chunk: key as u32,
        bytes: row.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_names_what_no_post_may_name_is_damaged() {
        let named = |count: usize, length| {
            let blob = BlobRef {
                hash: BlobHash::from_bytes([3; 32]),
                length,
            };
            let row = PostRow {
                created_at_ms: 5,
                author: NodeId::from_bytes([2; 32]),
                arrived_ms: 6,
                signature: [4; 64],
                blobs: &[],
                body: &[0; 100],
            };
            let row = row.encode_with(&vec![blob; count]);
            let decoded = PostRow::decode(&row);
            decoded.map(|row| row.file(PostId::from_bytes([1; 32]), false).blobs.len())
        };
        let (most, longest) = (limits::POST_BLOBS_MAX, limits::BLOB_BYTES_MAX);
        for (count, length) in [(0, 0), (1, 1), (most, longest)] {
            assert_eq!(named(count, length), Some(count));
        }
        for length in [0, longest + 1, 1 << 63, u64::MAX] {
            assert_eq!(named(1, length), None, "a blob of {length} bytes");
        }
        assert_eq!(named(most + 1, 1), None);
    }
}
