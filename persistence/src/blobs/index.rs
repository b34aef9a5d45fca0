//! Which slice lies where, in memory.

use super::SHELVES;
use distsoc_engine::domain::{BlobHash, pages_of};
use distsoc_engine::io::StoredBlob;
use std::collections::BTreeMap;

/// Slices that lie together: 1 MiB of a blob.
pub(crate) const STRIPE_SLICES: u32 = 16;

/// What lies on one shelf of a stripe. Mostly there is one for each: more only where a shelf was full before the stripe was whole.
#[derive(Clone, Copy, Debug)]
struct Part {
    shelf: u8,
    /// The slices, a bit each.
    slices: u16,
    pages: u32,
    /// Bytes of the highest.
    last_bytes: u32,
}

/// All that is stored.
#[derive(Debug, Default)]
pub(crate) struct Index {
    stripes: BTreeMap<(BlobHash, u32), Vec<Part>>,
    /// Pages that slices take, by shelf.
    used: [u64; SHELVES],
}

/// The stripe and the bit of a slice.
fn place_of(slice: u32) -> (u32, u16) {
    (slice / STRIPE_SLICES, 1 << (slice % STRIPE_SLICES))
}

impl Index {
    pub(crate) fn used(&self) -> &[u64; SHELVES] {
        &self.used
    }

    pub(crate) fn shelf_of(&self, hash: &BlobHash, slice: u32) -> Option<u8> {
        let (stripe, bit) = place_of(slice);
        let parts = self.stripes.get(&(*hash, stripe))?;
        let part = parts.iter().find(|part| part.slices & bit != 0);
        part.map(|part| part.shelf)
    }

    /// The shelves that have something of a slice's stripe.
    pub(crate) fn beside(&self, hash: &BlobHash, slice: u32) -> impl Iterator<Item = u8> {
        let parts = self.stripes.get(&(*hash, place_of(slice).0));
        parts.into_iter().flatten().map(|part| part.shelf)
    }

    /// Takes up a slice; false where it is there already.
    pub(crate) fn add(&mut self, hash: &BlobHash, slice: u32, shelf: u8, bytes: usize) -> bool {
        if self.shelf_of(hash, slice).is_some() {
            return false;
        }
        let pages = pages_of(bytes);
        let (stripe, bit) = place_of(slice);
        let parts = self.stripes.entry((*hash, stripe)).or_default();
        match parts.iter_mut().find(|part| part.shelf == shelf) {
            Some(part) => {
                if part.slices < bit {
                    part.last_bytes = bytes as u32;
                }
                part.slices |= bit;
                part.pages += pages as u32;
            }
            None => parts.push(Part {
                shelf,
                slices: bit,
                pages: pages as u32,
                last_bytes: bytes as u32,
            }),
        }
        self.used[usize::from(shelf)] += pages;
        true
    }

    /// Pages that a blob takes, by shelf.
    pub(crate) fn pages_of_blob(&self, hash: &BlobHash) -> [u64; SHELVES] {
        let mut pages = [0; SHELVES];
        let stripes = self.stripes.range((*hash, 0)..=(*hash, u32::MAX));
        for part in stripes.flat_map(|(_, parts)| parts) {
            pages[usize::from(part.shelf)] += u64::from(part.pages);
        }
        pages
    }

    /// What one shelf had of a blob is there no more.
    pub(crate) fn remove(&mut self, hash: &BlobHash, shelf: u8) {
        let mut freed = 0;
        let mut empty = Vec::new();
        for (key, parts) in self.stripes.range_mut((*hash, 0)..=(*hash, u32::MAX)) {
            parts.retain(|part| {
                let stays = part.shelf != shelf;
                freed += if stays { 0 } else { u64::from(part.pages) };
                stays
            });
            if parts.is_empty() {
                empty.push(*key);
            }
        }
        for key in empty {
            self.stripes.remove(&key);
        }
        self.used[usize::from(shelf)] -= freed;
    }

    /// A slice lies on another shelf from now on: one that [`any_on`](Self::any_on) gave, so no lower one is left behind it.
    pub(crate) fn moved(&mut self, hash: &BlobHash, slice: u32, to: u8, bytes: usize) {
        let pages = pages_of(bytes);
        let (stripe, bit) = place_of(slice);
        let Some(parts) = self.stripes.get_mut(&(*hash, stripe)) else {
            return;
        };
        let Some(part) = parts.iter_mut().find(|part| part.slices & bit != 0) else {
            return;
        };
        part.slices &= !bit;
        part.pages -= pages as u32;
        self.used[usize::from(part.shelf)] -= pages;
        parts.retain(|part| part.slices != 0);
        self.add(hash, slice, to, bytes);
    }

    /// Any slice on a shelf, the lowest there of its stripe.
    pub(crate) fn any_on(&self, shelf: u8) -> Option<(BlobHash, u32)> {
        self.stripes.iter().find_map(|((hash, stripe), parts)| {
            let part = parts.iter().find(|part| part.shelf == shelf)?;
            let slice = stripe * STRIPE_SLICES + part.slices.trailing_zeros();
            Some((*hash, slice))
        })
    }

    /// What lies here, in the order of the hashes.
    pub(crate) fn stored(&self) -> Vec<StoredBlob> {
        let mut all: Vec<StoredBlob> = Vec::new();
        for ((hash, stripe), parts) in &self.stripes {
            let slices = parts.iter().fold(0, |slices, part| slices | part.slices);
            let last = parts.iter().max_by_key(|part| part.slices);
            let last_bytes = last.map_or(0, |part| part.last_bytes);
            if all.last().is_none_or(|blob| blob.hash != *hash) {
                all.push(StoredBlob {
                    hash: *hash,
                    slices: Vec::new(),
                    last_bytes,
                });
            }
            let Some(blob) = all.last_mut() else { continue };
            blob.last_bytes = last_bytes;
            let ranges = &mut blob.slices;
            for place in (0..STRIPE_SLICES).filter(|place| slices & (1 << place) != 0) {
                let slice = stripe * STRIPE_SLICES + place;
                match ranges.last_mut() {
                    Some(range) if range.end == slice => range.end += 1,
                    _ => ranges.push(slice..slice + 1),
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_in_any_order_make_ranges_and_are_counted_once() {
        let mut index = Index::default();
        let hash = BlobHash::from_bytes([1; 32]);
        for (count, slice) in [5, 3, 4, 0, 9, 1, 2, 7, 3, 15, 16, 40].iter().enumerate() {
            let is_new = index.add(&hash, *slice, (count % 3) as u8, 4_100 + *slice as usize);
            assert_eq!(is_new, count != 8);
        }
        let stored = index.stored();
        assert_eq!(stored[0].slices, vec![0..6, 7..8, 9..10, 15..17, 40..41]);
        assert_eq!(stored[0].last_bytes, 4_140);
        assert_eq!(index.used().iter().sum::<u64>(), 22);
        let (from, pages) = (index.used()[0], index.pages_of_blob(&hash)[0]);
        assert_eq!(from, pages);
        let moved = [16, 40].map(|slice| {
            index.moved(&hash, slice, 7, 4_100 + slice as usize);
            (index.shelf_of(&hash, slice), index.stored() == stored)
        });
        assert_eq!(moved, [(Some(7), true); 2]);
        assert_eq!(index.used()[7], 4);
        for shelf in 0..SHELVES as u8 {
            index.remove(&hash, shelf);
        }
        assert_eq!(index.used(), &[0; SHELVES]);
        assert_eq!(index.stored(), []);
    }
}
