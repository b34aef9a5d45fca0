//! How systems get at the map: its state, and the one table of entries as a slice by row.

use super::{DiscoveryMap, MapEntry, Row};
use bevy_ecs::change_detection::ContiguousMut;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;

/// The map, to read.
#[derive(SystemParam)]
pub struct MapView<'w, 's> {
    /// All but the entries.
    pub map: Res<'w, DiscoveryMap>,
    entries: Query<'w, 's, &'static MapEntry>,
}

impl MapView<'_, '_> {
    /// The entries, by row.
    #[must_use]
    pub fn entries(&self) -> &[MapEntry] {
        let mut tables = self
            .entries
            .contiguous_iter()
            .expect("entries lie in a table");
        tables.next().unwrap_or_default()
    }
}

/// The map, to change.
#[derive(SystemParam)]
pub struct MapEdit<'w, 's> {
    map: ResMut<'w, DiscoveryMap>,
    entries: Query<'w, 's, &'static mut MapEntry>,
}

impl MapEdit<'_, '_> {
    /// All but the entries, and the entries, by row. Nobody watches single entries change, so none is marked as changed.
    pub fn parts(&mut self) -> (&mut DiscoveryMap, &mut [MapEntry]) {
        let mut tables = self
            .entries
            .contiguous_iter_mut()
            .expect("entries lie in a table");
        let entries = tables
            .next()
            .map(|table| ContiguousMut::bypass_change_detection_split(table).0);
        (&mut self.map, entries.unwrap_or_default())
    }
}

/// The entries, by row, outside the frame.
#[must_use]
pub fn entries_of(world: &World) -> &[MapEntry] {
    let Some(mut query) = world.try_query::<&MapEntry>() else {
        return &[];
    };
    let mut tables = query
        .contiguous_iter(world)
        .expect("entries lie in a table");
    tables.next().unwrap_or_default()
}

/// New ids that one frame can always take. Who has more asks for room first ([`DiscoveryMap::ask_for_room`]).
/// All peers of an anchor could come up in one frame.
pub const NEW_IDS_PER_FRAME: usize = 256;

/// Fewer entries are not worth fitting.
const FITTED_MIN: u32 = 10_000;

/// Spawns so many vacant entries, behind those there are.
///
/// bevy keeps 24 bytes of every entity in one table that doubles as entities come, whatever was reserved. So the first to come
/// is one at whose number doubling begins so that it ends at what is wanted: a map that is loaded takes no more than it needs.
pub fn spawn_vacant(world: &mut World, count: u32) {
    if count < FITTED_MIN {
        world.spawn_batch((0..count).map(|_| MapEntry::VACANT));
        return;
    }
    /// bevy makes entities of its own, for instance of a component when it comes up first.
    const OTHERS: u32 = 16;
    // Fewer would be rounded too coarsely: each doubling doubles what was rounded up.
    const BEGIN_MIN: u32 = 200;
    let room = world.entities().len();
    let first = world.entity_allocator().alloc();
    let wanted = first.index_u32() + count + OTHERS;
    let mut begin = wanted;
    while begin.div_ceil(2) > BEGIN_MIN.max(2 * room) {
        begin = begin.div_ceil(2);
    }
    let before = match begin > 2 * room {
        true => begin.saturating_sub(first.index_u32() + 1),
        false => 0,
    };
    let mut held = vec![first];
    held.extend(world.entity_allocator().alloc_many(before));
    let last = held.pop().expect("the first at least");
    world.entity_allocator_mut().free_many(&held);
    world
        .spawn_at(last, MapEntry::VACANT)
        .expect("nobody else has its number");
    world.spawn_batch((1..count).map(|_| MapEntry::VACANT));
}

/// Adds vacant rows where too few are left, before a frame. Rows are never taken away, so they are dense.
pub(crate) fn make_room(world: &mut World) {
    let mut map = world.resource_mut::<DiscoveryMap>();
    let wanted = std::mem::take(&mut map.room_wanted).max(NEW_IDS_PER_FRAME);
    let vacant = map.vacant();
    if vacant >= wanted {
        return;
    }
    let first = entries_of(world).len() as Row;
    let more = (wanted - vacant)
        .max(NEW_IDS_PER_FRAME)
        .max(first as usize / 64) as Row;
    spawn_vacant(world, more);
    world
        .resource_mut::<DiscoveryMap>()
        .add_rows(first..first + more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_is_loaded_takes_no_more_entities_than_it_needs() {
        for count in [1, 2, 100, 1_000, 50_000, 350_000] {
            let mut world = World::new();
            let before = world.entities().len();
            spawn_vacant(&mut world, count);
            assert_eq!(entries_of(&world).len(), count as usize);
            let entities = world.entities().len();
            assert!(
                count < FITTED_MIN || entities <= count + count / 50 + 50,
                "{entities} for {count}, {before} before"
            );
            spawn_vacant(&mut world, 10);
            assert_eq!(entries_of(&world).len(), count as usize + 10);
            assert!(
                entries_of(&world)
                    .iter()
                    .all(|entry| *entry == MapEntry::VACANT)
            );
        }
    }
}
