//! 32-byte names: of nodes, posts and blobs.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Why a text is not a 32-byte id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 characters.
    #[error("an id is 64 hex digits, this has {0}")]
    Length(usize),
    /// A character that is no hex digit.
    #[error("an id is 64 hex digits, '{0}' is none")]
    NotHex(char),
}

pub(crate) fn parse_hex32(text: &str) -> Result<[u8; 32], IdError> {
    let length = text.chars().count();
    if length != 64 {
        return Err(IdError::Length(length));
    }
    let mut bytes = [0u8; 32];
    for (index, character) in text.chars().enumerate() {
        let digit = character.to_digit(16).ok_or(IdError::NotHex(character))?;
        bytes[index / 2] = bytes[index / 2] << 4 | digit as u8;
    }
    Ok(bytes)
}

pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A byte string of exactly `N` bytes on the wire.
pub(crate) struct FixedBytes<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Serialize for FixedBytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for FixedBytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize>;
        impl<const N: usize> de::Visitor<'_> for Visitor<N> {
            type Value = FixedBytes<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                let array = bytes.try_into().map_err(|_| E::custom("malformed"))?;
                Ok(FixedBytes(array))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these bytes; any 32 bytes are one.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first 8 hex digits, enough for a person to tell two apart on one screen.
            #[must_use]
            pub fn short(&self) -> String {
                self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), self.short())
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex32(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                FixedBytes::deserialize(deserializer).map(|bytes| Self(bytes.0))
            }
        }
    };
}

id! {
    /// A node's name: 32 bytes that are its ed25519 public key, permanent (PROTOCOL section 4).
    ///
    /// An id that merely stands on the map is opaque; before a key is *used* it becomes a
    /// [`crate::crypto::PublicKey`].
    NodeId
}
id! {
    /// blake3 of a post's body (PROTOCOL section 4).
    PostId
}
id! {
    /// blake3 of a blob's bytes.
    BlobHash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_errors_are_precise() {
        let id = NodeId::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<NodeId>(), Ok(id));
        assert_eq!("abc".parse::<NodeId>(), Err(IdError::Length(3)));
        assert_eq!("g".repeat(64).parse::<NodeId>(), Err(IdError::NotHex('g')));
        assert_eq!("é".repeat(64).parse::<NodeId>(), Err(IdError::NotHex('é')));
    }
}
