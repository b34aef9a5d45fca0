//! The tree under a blake3 hash: parts of a blob are checked against its hash without the rest.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// What stands for a part of a blob in the tree.
pub type ChainingValue = [u8; 32];

/// Bytes of a leaf that is checked as one: 16 of blake3's chunks, as many as are hashed side by side.
pub const GROUP_BYTES: usize = 16 * 1024;

/// The value of a leaf that is not the whole blob.
///
/// # Panics
/// On a bug: an offset that is no multiple of [`GROUP_BYTES`], or more bytes than that.
#[must_use]
pub fn group_value(bytes: &[u8], offset: u64) -> ChainingValue {
    assert!(
        offset.is_multiple_of(GROUP_BYTES as u64) && bytes.len() <= GROUP_BYTES,
        "a group begins at a multiple of its size"
    );
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    hasher.finalize_non_root()
}

/// The value of two neighbours that together are not the whole blob.
#[must_use]
pub fn parent_value(left: &ChainingValue, right: &ChainingValue) -> ChainingValue {
    merge_subtrees_non_root(left, right, Mode::Hash)
}

/// The hash of the blob that two neighbours make up.
#[must_use]
pub fn root_of(left: &ChainingValue, right: &ChainingValue) -> [u8; 32] {
    *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
}
