//! What the bytes of a row are. Rows of other people's records hold the exact bytes that were verified.

use distsoc_engine::crypto::Signature;
use distsoc_engine::domain::{
    Address, ConnectString, EventList, NodeId, PostBytes, PostId, Profile, RecentPostsHead, Signed,
    SignedPost,
};
use distsoc_engine::io::{GoodPeer, MapRow, Relationship, StoredFileRow, StoredList};
use distsoc_engine::wire::codec;

/// Bytes before a post's body in its row.
const POST_HEAD_BYTES: usize = 8 + 32 + 8 + 64;

/// A post's row, taken apart without copying.
pub(crate) struct PostRow<'a> {
    pub(crate) created_at_ms: u64,
    pub(crate) author: NodeId,
    pub(crate) arrived_ms: u64,
    signature: [u8; 64],
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
        let (head, body) = bytes.split_at_checked(POST_HEAD_BYTES)?;
        Some(Self {
            created_at_ms: u64_of(&head[..8])?,
            author: node_of(&head[8..40])?,
            arrived_ms: u64_of(&head[40..48])?,
            signature: head[48..].try_into().ok()?,
            body,
        })
    }

    pub(crate) fn encode(post: &SignedPost, arrived_ms: u64) -> Vec<u8> {
        let bytes = post.bytes();
        let mut row = Vec::with_capacity(POST_HEAD_BYTES + bytes.body.len());
        row.extend(post.body().created_at_ms.to_be_bytes());
        row.extend(post.body().author.as_bytes());
        row.extend(arrived_ms.to_be_bytes());
        row.extend(bytes.signature.as_bytes());
        row.extend(&*bytes.body);
        row
    }

    pub(crate) fn bytes(&self) -> PostBytes {
        PostBytes {
            body: self.body.into(),
            signature: Signature::from_bytes(self.signature),
        }
    }

    pub(crate) fn file(&self, id: PostId) -> StoredFileRow {
        StoredFileRow {
            id,
            author: self.author,
            created_at_s: (self.created_at_ms / 1000) as u32,
            bytes: self.body.len() as u32,
            blobs: self
                .bytes()
                .decode()
                .ok()
                .map_or_else(Default::default, |body| {
                    body.blobs.iter().copied().collect()
                }),
            is_pinned: false,
        }
    }
}

/// The key of a post in the feed.
pub(crate) fn feed_key(created_at_ms: u64, id: &PostId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&created_at_ms.to_be_bytes());
    key[8..].copy_from_slice(id.as_bytes());
    key
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

pub(crate) fn decode_list_head(row: &[u8]) -> Option<RecentPostsHead> {
    Signed::from_bytes(split_list(row)?.0).ok()
}

pub(crate) fn decode_list(row: &[u8], profile: Option<Profile>) -> Option<StoredList> {
    let (head, list) = split_list(row)?;
    Some(StoredList {
        head: Signed::from_bytes(head).ok()?,
        list: EventList::from_bytes(list).ok()?,
        profile,
    })
}

pub(crate) fn decode_profile(row: &[u8]) -> Option<Profile> {
    Signed::from_bytes(row).ok()
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
