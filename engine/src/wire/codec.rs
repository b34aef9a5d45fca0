//! Deterministic CBOR (RFC 8949 §4.2) over ciborium: arrays, integers, byte and text strings, null; no maps, floats, tags.
//!
//! ciborium alone accepts far more than the deterministic form (over-long integers, indefinite lengths, trailing
//! bytes), so [`decode_canonical`] decodes, encodes again and requires the same bytes.

use crate::refusal::Refusal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Nesting of CBOR items at most; the deepest packet has 6.
const DEPTH_MAX: usize = 16;

/// The deterministic encoding.
///
/// # Panics
/// Never for the types of this crate: none has a serializer that fails, and a vector takes every byte.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    encode_into(value, &mut bytes);
    bytes
}

/// Appends the deterministic encoding.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    ciborium::ser::into_writer(value, bytes)
        .expect("wire types serialize without errors into a vector");
}

/// Decodes and requires that encoding gives the same bytes again.
///
/// # Errors
/// [`Refusal::Malformed`], [`Refusal::NotCanonical`], or the refusal that a domain type's own check gave.
pub fn decode_canonical<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let value: T =
        ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH_MAX).map_err(|error| {
            match error {
                ciborium::de::Error::Semantic(_, reason) => {
                    Refusal::from_code(&reason).unwrap_or(Refusal::Malformed)
                }
                _ => Refusal::Malformed,
            }
        })?;
    let mut again = Vec::with_capacity(bytes.len());
    encode_into(&value, &mut again);
    if again != bytes {
        return Err(Refusal::NotCanonical);
    }
    Ok(value)
}

/// A byte string of any length on the wire, owned.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ByteVec(pub Vec<u8>);

impl fmt::Debug for ByteVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for ByteVec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for ByteVec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteVec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<ByteVec, E> {
                Ok(ByteVec(bytes.to_vec()))
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<ByteVec, E> {
                Ok(ByteVec(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// A borrowed byte string for encoding.
pub(crate) struct BytesRef<'a>(pub(crate) &'a [u8]);

impl Serialize for BytesRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A list with at most `MAX` items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Bounded<T, MAX> {
    /// Takes the list.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`] past `MAX` items.
    pub fn new(items: Vec<T>) -> Result<Self, Refusal> {
        if items.len() > MAX {
            return Err(Refusal::OutOfRange);
        }
        Ok(Self(items))
    }

    /// Takes the first `MAX` items.
    #[must_use]
    pub fn truncated(mut items: Vec<T>) -> Self {
        items.truncate(MAX);
        Self(items)
    }

    /// The items.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> std::ops::Deref for Bounded<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize, const MAX: usize> Serialize for Bounded<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for Visitor<T, MAX> {
            type Value = Bounded<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {MAX} items")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(de::Error::custom("out-of-range"));
                    }
                    items.push(item);
                }
                Ok(Bounded(items))
            }
        }
        deserializer.deserialize_seq(Visitor(std::marker::PhantomData))
    }
}

/// Gives a struct the wire form of an array of its fields, in order.
macro_rules! as_array {
    ($name:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                ($(&self.$field,)+).serialize(serializer)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let ($($field,)+) = <($($type,)+)>::deserialize(deserializer)?;
                Ok(Self { $($field),+ })
            }
        }
    };
}
pub(crate) use as_array;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_deterministic_form_is_taken() {
        type Pair = (u64, ByteVec);
        let good = encode(&(5u64, ByteVec(vec![1, 2])));
        assert_eq!(good, [0x82, 0x05, 0x42, 1, 2]);
        assert!(decode_canonical::<Pair>(&good).is_ok());
        let refused: [(&[u8], &str); 7] = [
            (&[0x82, 0x18, 0x05, 0x42, 1, 2], "over-long integer"),
            (&[0x9f, 0x05, 0x42, 1, 2, 0xff], "indefinite array"),
            (&[0x82, 0x05, 0x5f, 0x42, 1, 2, 0xff], "indefinite bytes"),
            (&[0x82, 0x05, 0x42, 1, 2, 0x00], "trailing byte"),
            (&[0x82, 0xf9, 0x45, 0x00, 0x42, 1, 2], "float"),
            (&[0x82, 0xc0, 0x05, 0x42, 1, 2], "tag"),
            (&[0x82, 0x05, 0x42, 1], "cut short"),
        ];
        for (bytes, what) in refused {
            assert!(decode_canonical::<Pair>(bytes).is_err(), "{what}");
        }
    }

    #[test]
    fn lists_are_bounded_while_they_are_read() {
        let nine = encode(&vec![1u8; 9]);
        assert_eq!(
            decode_canonical::<Bounded<u8, 8>>(&nine),
            Err(Refusal::OutOfRange)
        );
        assert!(decode_canonical::<Bounded<u8, 9>>(&nine).is_ok());
    }

    #[test]
    fn a_claimed_length_costs_no_memory() {
        // An array of 2^60 items and a byte string of 2^60 bytes, with nothing behind them.
        for head in [0x9b, 0x5b] {
            let bytes = [head, 0x10, 0, 0, 0, 0, 0, 0, 0];
            assert!(decode_canonical::<Vec<u64>>(&bytes).is_err());
            assert!(decode_canonical::<ByteVec>(&bytes).is_err());
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = vec![0x81; 100_000];
        assert!(decode_canonical::<Vec<u64>>(&deep).is_err());
    }
}
