//! Every decoder of this crate behind one signature, for fuzzing: no bytes may make it panic, and what it takes must
//! come out as the same bytes again.
//!
//! `engine/fuzz` runs these under libFuzzer; `tests/corpus.rs` replays the corpus it left in the repository.

use super::{Expected, PACKETS, admit};
use crate::domain::{
    AddressBody, ConnectString, DeletionBody, EventList, HeartBody, PostBytes, ProfileBody,
    RecentPostsBody, RecordBody, Signed,
};
use crate::wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A decoder and its name, which is also the name of its corpus folder.
pub type Decoder = (&'static str, fn(&[u8]));

/// All of them.
pub const DECODERS: &[Decoder] = &[
    ("admit_notification", admit_notification),
    ("admit_request", admit_request),
    ("admit_response", admit_response),
    ("records", records),
    ("connect_string", connect_string),
    ("event_list", event_list),
];

fn admitted_comes_out_again(bytes: &[u8], expected: Expected) {
    if let Ok(packet) = admit(bytes, expected) {
        assert!(
            packet.encode()[..] == *bytes,
            "an admitted packet encodes to the bytes it came from"
        );
    }
}

/// A unidirectional stream.
pub fn admit_notification(bytes: &[u8]) {
    admitted_comes_out_again(bytes, Expected::Notification);
}

/// A peer's request.
pub fn admit_request(bytes: &[u8]) {
    admitted_comes_out_again(bytes, Expected::Request);
}

/// A response to a request of ours, of every kind.
pub fn admit_response(bytes: &[u8]) {
    for spec in PACKETS {
        admitted_comes_out_again(bytes, Expected::Response(spec.code));
    }
}

fn decoded_comes_out_again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(value) = codec::decode_canonical::<T>(bytes) {
        assert!(
            codec::encode(&value) == bytes,
            "a canonical value encodes to the bytes it came from"
        );
    }
}

fn record<T: RecordBody>(bytes: &[u8]) {
    decoded_comes_out_again::<T>(bytes);
    // The signature is never right for fuzzed bytes: what is tested is that verifying them is safe.
    let _ = Signed::<T>::from_bytes(bytes);
    let _ = Signed::<T>::verify(bytes, [0; 64]);
}

/// Bodies of signed records, and posts.
pub fn records(bytes: &[u8]) {
    record::<AddressBody>(bytes);
    record::<ProfileBody>(bytes);
    record::<RecentPostsBody>(bytes);
    record::<HeartBody>(bytes);
    record::<DeletionBody>(bytes);
    let post = PostBytes {
        body: bytes.into(),
        signature: crate::crypto::Signature::from_bytes([0; 64]),
    };
    if let Ok(body) = post.decode() {
        assert!(
            codec::encode(&body) == bytes,
            "a post body encodes to the bytes it came from"
        );
    }
    let _ = post.verify();
}

/// What a person pastes.
pub fn connect_string(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(parsed) = text.parse::<ConnectString>() {
        assert!(
            parsed.to_string().parse() == Ok(parsed),
            "a connect string prints as one that means the same"
        );
    }
}

/// A packed list.
pub fn event_list(bytes: &[u8]) {
    if let Ok(list) = EventList::from_bytes(bytes) {
        assert!(list.iter().count() == list.len());
        assert!(list.newest(3).len() == list.len().min(3));
    }
}
