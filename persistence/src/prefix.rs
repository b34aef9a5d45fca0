//! Ids by how they begin, as a person types what a screen showed of them.

use crate::fault::Fault;
use crate::tables::Raw;
use crate::view::View;
use distsoc_engine::domain::{NodeId, PostId};
use std::collections::BTreeSet;
use std::ops::Bound;

/// The first digits of a 32-byte id: so many that a person means one, and not all ids that begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdPrefix(String);

impl IdPrefix {
    /// Hex digits at least.
    pub const DIGITS_MIN: usize = 6;
    /// Hex digits of a whole id.
    pub const DIGITS_MAX: usize = 64;

    /// Whether it is a whole id.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.0.len() == Self::DIGITS_MAX
    }

    fn digit(&self, index: usize) -> Option<u8> {
        let digit = *self.0.as_bytes().get(index)?;
        char::from(digit).to_digit(16).map(|digit| digit as u8)
    }

    /// The smallest id that begins so.
    fn first(&self) -> [u8; 32] {
        std::array::from_fn(|index| {
            let digit = |place| self.digit(place).unwrap_or(0);
            digit(index * 2) << 4 | digit(index * 2 + 1)
        })
    }

    /// Whether an id begins so.
    #[must_use]
    pub fn is_of(&self, id: &[u8; 32]) -> bool {
        let digit_of = |place: usize| match place % 2 {
            0 => id[place / 2] >> 4,
            _ => id[place / 2] & 0xf,
        };
        (0..self.0.len()).all(|place| self.digit(place) == Some(digit_of(place)))
    }
}

impl std::fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for IdPrefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        match is_hex && (Self::DIGITS_MIN..=Self::DIGITS_MAX).contains(&text.len()) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err("an id is 64 hex digits, of which the first 6 or more will do"),
        }
    }
}

impl View {
    /// Stored posts whose ids begin so, in their order.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn posts_beginning(&self, prefix: &IdPrefix, limit: usize) -> Result<Vec<PostId>, Fault> {
        let opened = self.open()?;
        let tables = [opened.handles().posts];
        let ids = self.beginning(&tables, prefix, limit)?;
        Ok(ids.into_iter().map(PostId::from_bytes).collect())
    }

    /// Nodes of which anything is stored (a profile, a relationship, a list of posts, an address) and whose ids begin so, in their order.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn nodes_beginning(&self, prefix: &IdPrefix, limit: usize) -> Result<Vec<NodeId>, Fault> {
        let opened = self.open()?;
        let of = opened.handles();
        let tables = [
            of.profiles,
            of.relationships,
            of.author_recent_posts,
            of.peers,
        ];
        let ids = self.beginning(&tables, prefix, limit)?;
        Ok(ids.into_iter().map(NodeId::from_bytes).collect())
    }

    fn beginning(
        &self,
        tables: &[Raw],
        prefix: &IdPrefix,
        limit: usize,
    ) -> Result<BTreeSet<[u8; 32]>, Fault> {
        let opened = self.open()?;
        let txn = opened.env().read_txn();
        let txn = txn.map_err(|error| self.fault(error))?;
        let mut ids = BTreeSet::new();
        for table in tables {
            let first = prefix.first();
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&first), Bound::Unbounded);
            let rows = table.range(&txn, &range);
            for row in rows.map_err(|error| self.fault(error))?.take(limit) {
                let (key, _) = row.map_err(|error| self.fault(error))?;
                match <[u8; 32]>::try_from(key) {
                    Ok(id) if prefix.is_of(&id) => ids.insert(id),
                    _ => break,
                };
            }
        }
        while ids.len() > limit {
            ids.pop_last();
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_begin_so_or_do_not_at_odd_and_even_places() {
        let id: [u8; 32] = std::array::from_fn(|index| 0xab ^ index as u8);
        let whole: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        for digits in IdPrefix::DIGITS_MIN..=IdPrefix::DIGITS_MAX {
            let prefix: IdPrefix = whole[..digits].to_uppercase().parse().unwrap();
            assert!(prefix.is_of(&id), "{digits}");
            assert!(
                prefix.is_of(&prefix.first()) && prefix.first() <= id,
                "{digits}"
            );
            assert_eq!(prefix.is_whole(), prefix.first() == id, "{digits}");
            let mut other = id;
            other[(digits - 1) / 2] ^= if digits % 2 == 0 { 1 } else { 0x10 };
            assert!(!prefix.is_of(&other), "{digits}");
        }
        for wrong in [
            "",
            "abcde",
            "abcdeg",
            "abcdé",
            &format!("{whole}0"),
            "+bcdef",
        ] {
            assert!(wrong.parse::<IdPrefix>().is_err(), "{wrong}");
        }
    }
}
