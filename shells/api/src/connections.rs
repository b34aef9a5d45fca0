//! The connections of clients: so many at once. One over which nobody has shown the token yet makes room for a new one, the oldest
//! first: any program of this machine could hold all places otherwise.

use async_channel::{Receiver, Sender};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections at once.
const CONNECTIONS_MAX: usize = 128;

/// Those of one server.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// Over which the token was shown.
    admitted: usize,
    /// All others by age; each ends when its sender is dropped.
    waiting: BTreeMap<u64, Sender<()>>,
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    number: u64,
    /// What keeps it, once it is admitted.
    admitted: Mutex<Option<Sender<()>>>,
}

impl Connections {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, and what closes when it has to make room; `None` where all are taken by those who showed the
    /// token.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<(Place, Receiver<()>)> {
        let mut table = self.table();
        if table.admitted + table.waiting.len() >= CONNECTIONS_MAX {
            table.waiting.pop_first()?;
        }
        let number = table.next;
        table.next += 1;
        let (keep, gone) = async_channel::bounded(1);
        table.waiting.insert(number, keep);
        let place = Place {
            connections: self.clone(),
            number,
            admitted: Mutex::default(),
        };
        Some((place, gone))
    }
}

impl Place {
    /// The token was shown: the connection stays, however many come. One that had to make room meanwhile ends all the same.
    pub(crate) fn admit(&self) {
        let mut table = self.connections.table();
        if let Some(keep) = table.waiting.remove(&self.number) {
            table.admitted += 1;
            *self.admitted() = Some(keep);
        }
    }

    fn admitted(&self) -> MutexGuard<'_, Option<Sender<()>>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let was_admitted = self.admitted().is_some();
        let mut table = self.connections.table();
        table.waiting.remove(&self.number);
        table.admitted -= usize::from(was_admitted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_showed_no_token_makes_room() {
        let connections = Arc::new(Connections::default());
        let mut taken: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| connections.enter().expect("there is room"))
            .collect();
        taken[0].0.admit();
        taken[0].0.admit();
        let (newest, _gone) = connections.enter().expect("one makes room");
        let closed: Vec<usize> = (0..CONNECTIONS_MAX)
            .filter(|place| taken[*place].1.is_closed())
            .collect();
        assert_eq!(closed, [1], "the oldest but for the admitted one");
        taken[1].0.admit();
        assert!(taken[1].1.is_closed(), "what made room stays gone");
        newest.admit();
        for (place, _) in &taken {
            place.admit();
        }
        assert!(connections.enter().is_none(), "all showed the token");
        drop(taken.pop());
        assert!(connections.enter().is_some(), "places come back");
        drop((taken, newest));
        let table = connections.table();
        assert_eq!((table.admitted, table.waiting.len()), (0, 0));
    }
}
