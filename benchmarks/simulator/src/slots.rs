//! A store whose keys are never used twice, though its places are: constant-time look-ups without hashing, so that order
//! and memory are the same in every run.

/// Names one entry for ever: ascending in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

const PLACE_BITS: u32 = 24;

impl Key {
    fn place(self) -> usize {
        (self.0 & ((1 << PLACE_BITS) - 1)) as usize
    }

    /// The key as a number, for ids that cross the boundary of a node.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The key with this number.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

/// Entries by [`Key`]; at most 2^24 at once.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<Option<(Key, T)>>,
    free: Vec<u32>,
    created: u64,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            created: 0,
        }
    }
}

impl<T> Slots<T> {
    /// Adds an entry.
    ///
    /// # Panics
    /// Past 2^24 entries.
    pub fn insert(&mut self, value: T) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        });
        assert!(
            place < 1 << PLACE_BITS,
            "more entries than the simulator has places for"
        );
        self.created += 1;
        let key = Key(self.created << PLACE_BITS | u64::from(place));
        self.entries[place as usize] = Some((key, value));
        key
    }

    /// The entry, if it is still there.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let (held, value) = self.entries.get(key.place())?.as_ref()?;
        (*held == key).then_some(value)
    }

    /// The entry, if it is still there.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (held, value) = self.entries.get_mut(key.place())?.as_mut()?;
        (*held == key).then_some(value)
    }

    /// Takes the entry out, if it is still there.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (_, value) = self.entries[key.place()].take()?;
        self.free.push(key.place() as u32);
        Some(value)
    }

    /// Keys of all entries, in the order of their places: the same in every run of the same seed.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.entries.iter().flatten().map(|(key, _)| *key).collect()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_finds_what_took_its_place() {
        let mut slots = Slots::default();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!((slots.get(first), slots.get(second)), (None, Some(&'b')));
        assert!(first < second && slots.remove(first).is_none());
        assert_eq!((slots.len(), slots.keys()), (1, vec![second]));
    }
}
