//! Posts: content-addressed, signed, public or sealed (PROTOCOL section 4).

use super::ids::FixedBytes;
use super::recent_posts::EventKind;
use super::record::context;
use super::{BlobHash, MediaDescription, NodeId, PostId, PostText, Verified};
use crate::crypto::{self, PublicKey, Secret, Signature};
use crate::limits;
use crate::refusal::Refusal;
use crate::wire::codec::{self, Bounded, ByteVec, as_array};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::sync::Arc;

const TAG: &str = "distsoc/2 post";

/// Who can read a post's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PostKind {
    /// Anybody.
    Public,
    /// Whoever has a key from a KeyEnvelope.
    Sealed,
}

/// A blob that a post names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobRef {
    /// blake3 of its bytes (for a sealed post, of the ciphertext's).
    pub hash: BlobHash,
    /// Its length in bytes.
    pub length: u64,
}

as_array!(BlobRef {
    hash: BlobHash,
    length: u64
});

/// What a public post says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicContent {
    /// The text; empty only where there is a blob.
    pub text: PostText,
    /// The post this replies to.
    pub parent: Option<PostId>,
    /// What each blob shows, in their order; may be shorter than the blobs.
    pub descriptions: Bounded<MediaDescription, { limits::POST_BLOBS_MAX }>,
}

as_array!(PublicContent {
    text: PostText,
    parent: Option<PostId>,
    descriptions: Bounded<MediaDescription, { limits::POST_BLOBS_MAX }>,
});

/// What a sealed post shows to those who cannot read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedContent {
    /// Commits to the content key.
    pub commit: [u8; 32],
    /// Text, parent and descriptions, padded and encrypted.
    pub ciphertext: ByteVec,
}

impl Serialize for SealedContent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (FixedBytes(self.commit), &self.ciphertext).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SealedContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (commit, ciphertext) = <(FixedBytes<32>, ByteVec)>::deserialize(deserializer)?;
        Ok(Self {
            commit: commit.0,
            ciphertext,
        })
    }
}

/// A post's content by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Readable by anybody.
    Public(PublicContent),
    /// Readable with a key.
    Sealed(SealedContent),
}

impl Content {
    /// Public or sealed.
    #[must_use]
    pub fn kind(&self) -> PostKind {
        match self {
            Self::Public(_) => PostKind::Public,
            Self::Sealed(_) => PostKind::Sealed,
        }
    }
}

/// The body of a post: `["distsoc/2 post", author, created_at ms, kind, content, blobs]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostBody {
    /// Who wrote it.
    pub author: NodeId,
    /// When, by the author's clock: ms since the epoch.
    pub created_at_ms: u64,
    /// What it says.
    pub content: Content,
    /// Its pictures and other blobs.
    pub blobs: Bounded<BlobRef, { limits::POST_BLOBS_MAX }>,
}

impl PostBody {
    fn check(&self) -> Result<(), Refusal> {
        let blob_fits = |blob: &BlobRef| (1..=limits::BLOB_BYTES_MAX).contains(&blob.length);
        let says_something = match &self.content {
            Content::Public(public) => {
                (!public.text.as_str().trim().is_empty() || !self.blobs.is_empty())
                    && public.descriptions.len() <= self.blobs.len()
            }
            Content::Sealed(sealed) => !sealed.ciphertext.0.is_empty(),
        };
        if !says_something || !self.blobs.iter().all(blob_fits) {
            return Err(Refusal::OutOfRange);
        }
        Ok(())
    }
}

impl Serialize for PostBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let head = (TAG, &self.author, self.created_at_ms);
        match &self.content {
            Content::Public(content) => (
                head.0,
                head.1,
                head.2,
                EventKind::Public.to_wire(),
                content,
                &self.blobs,
            )
                .serialize(serializer),
            Content::Sealed(content) => (
                head.0,
                head.1,
                head.2,
                EventKind::Sealed.to_wire(),
                content,
                &self.blobs,
            )
                .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PostBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = PostBody;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a post body")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<PostBody, A::Error> {
                fn field<'de, A: de::SeqAccess<'de>, T: Deserialize<'de>>(
                    seq: &mut A,
                ) -> Result<T, A::Error> {
                    seq.next_element()?
                        .ok_or_else(|| de::Error::custom("malformed"))
                }
                if field::<A, String>(&mut seq)? != TAG {
                    return Err(de::Error::custom("malformed"));
                }
                let author = field(&mut seq)?;
                let created_at_ms = field(&mut seq)?;
                let content = match EventKind::from_wire(field(&mut seq)?) {
                    Some(EventKind::Public) => Content::Public(field(&mut seq)?),
                    Some(EventKind::Sealed) => Content::Sealed(field(&mut seq)?),
                    _ => return Err(de::Error::custom("out-of-range")),
                };
                let blobs = field(&mut seq)?;
                Ok(PostBody {
                    author,
                    created_at_ms,
                    content,
                    blobs,
                })
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

/// A post as it travels and lies on disk: body and signature, nothing proved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostBytes {
    /// The bytes whose hash is the PostId.
    pub body: Arc<[u8]>,
    /// The author's, over `"distsoc/2 post\0" ‖ PostId`.
    pub signature: Signature,
}

impl PostBytes {
    /// blake3 of the body.
    #[must_use]
    pub fn id(&self) -> PostId {
        PostId::from_bytes(crypto::hash(&self.body))
    }

    /// Decodes without proving who wrote it: for what was proved before it was stored.
    ///
    /// # Errors
    /// The refusal to count.
    pub fn decode(&self) -> Result<PostBody, Refusal> {
        if self.body.len() > limits::POST_BODY_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let body: PostBody = codec::decode_canonical(&self.body)?;
        body.check()?;
        Ok(body)
    }

    /// Proves the author by the post's own signature: for posts that arrive without a list.
    ///
    /// # Errors
    /// The refusal to count.
    pub fn verify(self) -> Result<SignedPost, Refusal> {
        let body = self.decode()?;
        let id = self.id();
        PublicKey::check(body.author)?.verify(&context("post"), id.as_bytes(), &self.signature)?;
        Ok(SignedPost {
            id,
            body,
            bytes: self,
        })
    }

    /// Proves the author by a verified list: `wanted` says whose list an id stands in. One signature vouches for
    /// 7,000 posts (PROTOCOL section 7).
    ///
    /// # Errors
    /// [`Refusal::NotWanted`] where no list names it, [`Refusal::WrongAuthor`] where another's does.
    pub fn authenticate(
        self,
        wanted: impl FnOnce(PostId) -> Option<NodeId>,
    ) -> Result<Verified<SignedPost>, Refusal> {
        let id = self.id();
        let author = wanted(id).ok_or(Refusal::NotWanted)?;
        let body = self.decode()?;
        if body.author != author {
            return Err(Refusal::WrongAuthor);
        }
        Ok(Verified(SignedPost {
            id,
            body,
            bytes: self,
        }))
    }
}

impl Serialize for PostBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (
            codec::BytesRef(&self.body),
            FixedBytes(*self.signature.as_bytes()),
        )
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PostBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (body, signature) = <(ByteVec, FixedBytes<64>)>::deserialize(deserializer)?;
        if body.0.len() > limits::POST_BODY_BYTES_MAX {
            return Err(de::Error::custom("too-large"));
        }
        Ok(Self {
            body: body.0.into(),
            signature: Signature::from_bytes(signature.0),
        })
    }
}

/// A post whose author is proved, by its signature or by a verified list that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPost {
    id: PostId,
    body: PostBody,
    bytes: PostBytes,
}

impl SignedPost {
    /// Signs an own post.
    ///
    /// # Errors
    /// The refusal, where the body says nothing or is too large.
    pub fn sign(body: PostBody, secret: &Secret) -> Result<Self, Refusal> {
        if body.author != secret.node_id() {
            return Err(Refusal::WrongAuthor);
        }
        body.check()?;
        let encoded = codec::encode(&body);
        if encoded.len() > limits::POST_BODY_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let id = PostId::from_bytes(crypto::hash(&encoded));
        let bytes = PostBytes {
            body: encoded.into(),
            signature: secret.sign(&context("post"), id.as_bytes()),
        };
        Ok(Self { id, body, bytes })
    }

    /// blake3 of the body.
    #[must_use]
    pub fn id(&self) -> PostId {
        self.id
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &PostBody {
        &self.body
    }

    /// The bytes as received.
    #[must_use]
    pub fn bytes(&self) -> &PostBytes {
        &self.bytes
    }
}

impl Serialize for SignedPost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SignedPost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = PostBytes::deserialize(deserializer)?;
        bytes
            .verify()
            .map_err(|refusal| de::Error::custom(refusal.code()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> PostBody {
        PostBody {
            author: Secret::from_seed(&[1; 32]).node_id(),
            created_at_ms: 1_700_000_000_000,
            content: Content::Public(PublicContent {
                text: PostText::new(text).unwrap(),
                parent: None,
                descriptions: Bounded::default(),
            }),
            blobs: Bounded::default(),
        }
    }

    #[test]
    fn a_post_is_named_by_its_body_and_proved_by_its_author() {
        let secret = Secret::from_seed(&[1; 32]);
        let post = SignedPost::sign(body("hello"), &secret).unwrap();
        assert_eq!(post.id().as_bytes(), &crypto::hash(&post.bytes().body));
        assert_eq!(post.bytes().clone().verify(), Ok(post.clone()));

        let mut forged = post.bytes().clone();
        let mut bytes = forged.body.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        forged.body = bytes.into();
        assert!(forged.verify().is_err());

        let mut other_signer = post.bytes().clone();
        other_signer.signature =
            Secret::from_seed(&[2; 32]).sign(&context("post"), post.id().as_bytes());
        assert_eq!(other_signer.verify(), Err(Refusal::BadSignature));
    }

    #[test]
    fn a_list_vouches_for_a_post_without_its_signature() {
        let secret = Secret::from_seed(&[1; 32]);
        let post = SignedPost::sign(body("hello"), &secret).unwrap();
        let bare = PostBytes {
            signature: Signature::from_bytes([0; 64]),
            ..post.bytes().clone()
        };
        let verified = bare
            .clone()
            .authenticate(|id| (id == post.id()).then_some(secret.node_id()));
        assert_eq!(verified.unwrap().id(), post.id());
        assert_eq!(bare.clone().authenticate(|_| None), Err(Refusal::NotWanted));
        let another = Secret::from_seed(&[3; 32]).node_id();
        assert_eq!(
            bare.authenticate(|_| Some(another)),
            Err(Refusal::WrongAuthor)
        );
    }

    #[test]
    fn a_post_says_something_and_keeps_its_size() {
        let secret = Secret::from_seed(&[1; 32]);
        assert_eq!(
            SignedPost::sign(body("  "), &secret),
            Err(Refusal::OutOfRange)
        );
        let sealed = PostBody {
            content: Content::Sealed(SealedContent {
                commit: [1; 32],
                ciphertext: ByteVec(vec![0; limits::POST_BODY_BYTES_MAX]),
            }),
            ..body("x")
        };
        assert_eq!(
            SignedPost::sign(sealed.clone(), &secret),
            Err(Refusal::TooLarge)
        );
        let fits = PostBody {
            content: Content::Sealed(SealedContent {
                commit: [1; 32],
                ciphertext: ByteVec(vec![0; 1000]),
            }),
            ..sealed
        };
        let post = SignedPost::sign(fits, &secret).unwrap();
        assert_eq!(post.bytes().clone().verify(), Ok(post));
        assert_eq!(
            SignedPost::sign(body("x"), &Secret::from_seed(&[2; 32])),
            Err(Refusal::WrongAuthor)
        );
    }
}
