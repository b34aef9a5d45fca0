//! What a RoutingDiff says, by row (PROTOCOL section 6): the difference of two views.

use super::Row;
use roaring::RoaringBitmap;

/// Changes at hop 1 and hop 2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowChanges {
    /// New, by hop.
    pub added: [RoaringBitmap; 2],
    /// Gone, by hop.
    pub removed: [RoaringBitmap; 2],
    /// Still at hop 1, at another address.
    pub moved: Vec<Row>,
}

impl RowChanges {
    /// What changed between two views, each of hop 1 and hop 2; nobody has moved.
    #[must_use]
    pub fn between(old: [&RoaringBitmap; 2], new: [&RoaringBitmap; 2]) -> Self {
        Self {
            added: [new[0] - old[0], new[1] - old[1]],
            removed: [old[0] - new[0], old[1] - new[1]],
            moved: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn applied_to_the_old_view_they_give_the_new(
            sets in prop::array::uniform4(prop::collection::btree_set(0u32..500, 0..200)),
        ) {
            let [a, b, c, d]: [RoaringBitmap; 4] = sets.map(|rows| rows.into_iter().collect());
            let changes = RowChanges::between([&a, &b], [&c, &d]);
            for (hop, (old, new)) in [(a, c), (b, d)].into_iter().enumerate() {
                let (added, removed) = (&changes.added[hop], &changes.removed[hop]);
                prop_assert!(added.is_disjoint(&old) && removed.is_subset(&old));
                prop_assert_eq!((old - removed) | added, new);
            }
        }
    }
}
