//! The numbers that this node gives the ids it reports (PROTOCOL section 6): the same on every connection, so that a diff is
//! built once; whether a peer has been told an id in full is kept for each connection ([`Told`]).

use super::index::Row;
use crate::wire::Number;
use std::collections::{BTreeMap, VecDeque};

/// Ids that are reported no more keep their number until so many others went after them: who leaves mostly comes back.
pub const RESTING_MAX: usize = 512;

/// From rows to numbers.
#[derive(Clone, Debug, Default)]
pub struct NumberBook {
    by_row: BTreeMap<Row, Number>,
    rows: Vec<Row>,
    free: Vec<Number>,
    resting: VecDeque<Row>,
}

impl NumberBook {
    /// The number of a row.
    #[must_use]
    pub fn of(&self, row: Row) -> Option<Number> {
        self.by_row.get(&row).copied()
    }

    /// Whether a row has a number: it must stand for its id still.
    #[must_use]
    pub fn holds(&self, row: Row) -> bool {
        self.by_row.contains_key(&row)
    }

    /// Gives a row that is reported from now on its number. Where it was another's before, every [`Told`] must forget it: the
    /// number is returned beside.
    pub fn assign(&mut self, row: Row) -> Option<Number> {
        if self.by_row.contains_key(&row) {
            self.resting.retain(|resting| *resting != row);
            return None;
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = Number::new(self.rows.len())?;
                self.rows.push(row);
                number
            }
        };
        self.rows[number.index()] = row;
        self.by_row.insert(row, number);
        Some(number)
    }

    /// A row is reported no more. Numbers that fall free for it are returned: every [`Told`] must forget them.
    pub fn rest(&mut self, row: Row) -> Option<Number> {
        if !self.by_row.contains_key(&row) {
            return None;
        }
        self.resting.push_back(row);
        if self.resting.len() <= RESTING_MAX {
            return None;
        }
        let oldest = self.resting.pop_front()?;
        let number = self.by_row.remove(&oldest)?;
        self.free.push(number);
        Some(number)
    }
}

/// Which numbers a peer knows the ids of.
#[derive(Clone, Debug)]
pub struct Told(Box<[u64; Number::MAX.div_ceil(64)]>);

impl Default for Told {
    fn default() -> Self {
        Self(Box::new([0; Number::MAX.div_ceil(64)]))
    }
}

impl Told {
    /// Whether the peer knows it.
    #[must_use]
    pub fn knows(&self, number: Number) -> bool {
        self.0[number.index() / 64] & 1 << (number.index() % 64) != 0
    }

    /// The peer is told now.
    pub fn tell(&mut self, number: Number) {
        self.0[number.index() / 64] |= 1 << (number.index() % 64);
    }

    /// The number is another's.
    pub fn forget(&mut self, number: Number) {
        self.0[number.index() / 64] &= !(1 << (number.index() % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_soon_has_its_number_still() {
        let mut book = NumberBook::default();
        let numbers: Vec<_> = (0..1_000).map(|row| book.assign(row).unwrap()).collect();
        for row in 0..RESTING_MAX as Row {
            assert_eq!(book.rest(row), None);
        }
        assert_eq!(book.assign(3), None, "it has its own");
        assert_eq!(book.of(3), Some(numbers[3]));
        assert_eq!(book.rest(600), None);
        assert_eq!(
            book.rest(601),
            Some(numbers[0]),
            "the one that rested longest"
        );
        assert!(!book.holds(0));
        assert_eq!(book.assign(5_000), Some(numbers[0]));
    }

    #[test]
    fn there_are_only_so_many_numbers() {
        let mut book = NumberBook::default();
        let given = (0..20_000)
            .filter(|row| book.assign(*row).is_some())
            .count();
        assert_eq!(given, Number::MAX);
        assert_eq!(book.of(19_999), None);
        assert_eq!(book.rest(19_999), None);
    }
}
