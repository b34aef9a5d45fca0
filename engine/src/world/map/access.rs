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
    world.spawn_batch((0..more).map(|_| MapEntry::VACANT));
    world
        .resource_mut::<DiscoveryMap>()
        .add_rows(first..first + more);
}
