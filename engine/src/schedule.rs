//! The order of a frame: `Ingest → Judge → Plan → Emit` (ARCHITECTURE, "A frame").
//!
//! Every system has its turn: phases in order, within a phase as they were added. So there is nothing for a scheduler to work out:
//! bevy's would cost each node half a megabyte for a graph that is a line, and each frame as much again as its systems.
//!
//! A system costs as much as all that it looks at, be there anything to do or not: in most frames there is not. So whoever only
//! takes what came in says so ([`Occasions`]), and whoever waits for a time or for what others leave names a condition ([`Due`]) that
//! looks at one thing or two; it has its turn in frames in which it has a reason ([`Turns`]). In which order a query goes through its
//! archetypes depends on when its system ran first after they came up: peers are told the same in one frame, in whichever order.

use crate::wire::{Code, PacketSpec};
use bevy_ecs::change_detection::{DetectChanges, Tick};
use bevy_ecs::prelude::*;
use bevy_ecs::system::{BoxedSystem, RunSystemError};

/// The parts of a frame, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// What came in reaches the world: connections, Hellos, results of reads.
    Ingest,
    /// Packets and calls are judged and change the world.
    Judge,
    /// What the node does by itself: dial, pull, evict.
    Plan,
    /// What is to be stored and announced leaves.
    Emit,
}

/// Kinds of input, as a set: those of a frame, or those that a system is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occasions(u128);

impl Occasions {
    /// Codes of packets are below this ([PROTOCOL section 5](crate::wire)).
    const CODES: u32 = 0x60;
    /// A packet of any type.
    pub const PACKET: Self = Self((1 << Self::CODES) - 1);
    /// A connection or a dial began or ended, or something on one was refused.
    pub const LINK: Self = Self(1 << Self::CODES);
    /// A request ended.
    pub const RESPONSE: Self = Self(1 << (Self::CODES + 1));
    /// A read ended.
    pub const READ: Self = Self(1 << (Self::CODES + 2));
    /// A batch ended.
    pub const BATCH: Self = Self(1 << (Self::CODES + 3));
    /// A person wants something.
    pub const CALL: Self = Self(1 << (Self::CODES + 4));
    /// The driver told the own addresses.
    pub const OWN_ADDRESSES: Self = Self(1 << (Self::CODES + 5));
    /// The driver is about to stop.
    pub const STOP: Self = Self(1 << (Self::CODES + 6));

    /// A packet of this type.
    #[must_use]
    pub const fn packet(spec: &PacketSpec) -> Self {
        Self::code(spec.code)
    }

    /// A packet with this code.
    pub(crate) const fn code(code: Code) -> Self {
        assert!((code as u32) < Self::CODES, "codes are below 0x60");
        Self(1 << code)
    }

    /// Adds these.
    pub fn add(&mut self, more: Self) {
        self.0 |= more.0;
    }

    /// Whether one is in both.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a condition looks at, just before the turn of its system.
pub struct Glance<'w> {
    world: &'w World,
    system: &'w BoxedSystem,
}

impl<'w> Glance<'w> {
    /// A resource.
    ///
    /// # Panics
    /// On a bug in the rules: nobody inserted it.
    #[must_use]
    pub fn at<R: Resource>(&self) -> &'w R {
        self.world.resource::<R>()
    }

    /// Whether somebody changed a resource since the system last ran: what `is_changed` would say in it.
    ///
    /// # Panics
    /// On a bug in the rules: nobody inserted it.
    #[must_use]
    pub fn has_changed<R: Resource>(&self) -> bool {
        let changed: Tick = self.world.resource_ref::<R>().last_changed();
        changed.is_newer_than(self.system.get_last_run(), self.world.read_change_tick())
    }
}

/// When a system has something to do: mono ms, at once where that has passed; `None`: not before something else happens. It covers every
/// reason that its system has, and until the time comes says it in every frame, so that the driver is awake by then.
pub type Due = fn(&Glance<'_>) -> Option<u64>;

/// The time of what is due now.
pub const AT_ONCE: u64 = 0;

/// What is due at once, if at all.
#[must_use]
pub fn at_once_if(is_due: bool) -> Option<u64> {
    is_due.then_some(AT_ONCE)
}

/// In which frames a system has its turn.
#[derive(Clone, Copy, Debug)]
pub enum Turns {
    /// In every one.
    All,
    /// In those with one of these occasions.
    On(Occasions),
    /// In those in which it is due.
    Due(Due),
    /// In those with one of these occasions, and in those in which it is due.
    OnOrDue(Occasions, Due),
}

/// A system that is ready to run.
struct Turn {
    phase: Phase,
    turns: Turns,
    system: BoxedSystem,
    /// It hands in commands, which the next one shall see.
    defers: bool,
}

impl Turn {
    /// When it has a reason to run: see [`Due`].
    fn due_ms(&self, world: &World, occasions: Occasions) -> Option<u64> {
        let (on, due) = match self.turns {
            Turns::All => return Some(AT_ONCE),
            Turns::On(on) => return at_once_if(on.meets(occasions)),
            Turns::Due(due) => (Occasions::default(), due),
            Turns::OnOrDue(on, due) => (on, due),
        };
        let system = &self.system;
        match on.meets(occasions) {
            true => Some(AT_ONCE),
            false => due(&Glance { world, system }),
        }
    }
}

/// The systems of a node, in the order in which every frame runs them.
#[derive(Default)]
pub struct Frame(Vec<Turn>);

impl Frame {
    /// Adds a system to a phase, after everything that was added to it before.
    pub fn add<M>(
        &mut self,
        world: &mut World,
        phase: Phase,
        turns: Turns,
        system: impl IntoSystem<(), (), M>,
    ) {
        let mut system: BoxedSystem = Box::new(IntoSystem::into_system(system));
        system.initialize(world);
        let turn = Turn {
            phase,
            turns,
            defers: system.has_deferred(),
            system,
        };
        let at = self.0.partition_point(|other| other.phase <= phase);
        self.0.insert(at, turn);
    }

    /// Runs all systems once that have a reason to; when the first of the others has one, mono ms.
    ///
    /// # Panics
    /// On a bug in the rules: a system whose resources nobody inserted.
    pub fn run(&mut self, world: &mut World, occasions: Occasions, now_ms: u64) -> Option<u64> {
        if let Some(check) = world.check_change_ticks() {
            let systems = self.0.iter_mut();
            systems.for_each(|turn| turn.system.check_change_tick(check));
        }
        let mut first_ms: Option<u64> = None;
        for turn in &mut self.0 {
            match turn.due_ms(world, occasions) {
                Some(due_ms) if due_ms <= now_ms => {}
                Some(later_ms) => {
                    first_ms = Some(first_ms.map_or(later_ms, |first_ms| first_ms.min(later_ms)));
                    continue;
                }
                None => continue,
            }
            let Turn { system, defers, .. } = turn;
            match system.run_without_applying_deferred((), world) {
                Ok(()) => {}
                Err(RunSystemError::Skipped(why)) => panic!("{}: {why}", system.name()),
                Err(RunSystemError::Failed(why)) => panic!("{}: {why}", system.name()),
            }
            if *defers {
                system.apply_deferred(world);
            }
        }
        first_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Resource, Default)]
    struct Seen(Vec<&'static str>);

    fn says(word: &'static str) -> impl FnMut(ResMut<Seen>) {
        move |mut seen| seen.0.push(word)
    }

    #[test]
    fn phases_in_order_and_within_a_phase_as_they_were_added() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        world.insert_resource(Seen::default());
        frame.add(&mut world, Phase::Emit, Turns::All, says("emit"));
        frame.add(&mut world, Phase::Judge, Turns::All, says("judge 1"));
        frame.add(&mut world, Phase::Ingest, Turns::All, says("ingest"));
        frame.add(&mut world, Phase::Judge, Turns::All, says("judge 2"));
        frame.run(&mut world, Occasions::default(), 0);
        let seen = &world.resource::<Seen>().0;
        assert_eq!(*seen, ["ingest", "judge 1", "judge 2", "emit"]);
    }

    #[test]
    fn who_is_there_for_an_occasion_has_no_turn_without_it() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        world.insert_resource(Seen::default());
        let mut on = |occasion, word| {
            frame.add(&mut world, Phase::Judge, Turns::On(occasion), says(word));
        };
        on(Occasions::code(0x5f), "code 5f");
        on(Occasions::PACKET, "packet");
        on(Occasions::LINK, "link");
        on(Occasions::CALL, "call");
        let mut occasions = Occasions::code(0);
        frame.run(&mut world, occasions, 0);
        occasions.add(Occasions::CALL);
        frame.run(&mut world, occasions, 0);
        frame.run(&mut world, Occasions::default(), 0);
        assert_eq!(world.resource::<Seen>().0, ["packet", "packet", "call"]);
    }

    #[test]
    fn what_a_system_hands_in_is_there_for_the_next() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        let spawns = |mut commands: Commands| _ = commands.spawn_empty();
        let hands_in = |mut commands: Commands| commands.insert_resource(Seen(vec!["handed in"]));
        frame.add(&mut world, Phase::Plan, Turns::All, hands_in);
        frame.add(&mut world, Phase::Plan, Turns::All, says("next"));
        frame.add(&mut world, Phase::Plan, Turns::All, spawns);
        frame.run(&mut world, Occasions::default(), 0);
        assert_eq!(world.resource::<Seen>().0, ["handed in", "next"]);
    }

    #[derive(Resource)]
    struct DueAt(Option<u64>);

    #[test]
    fn who_is_due_has_a_turn_and_the_driver_hears_of_who_will_be() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        world.insert_resource(Seen::default());
        world.insert_resource(DueAt(None));
        let due: Due = |glance| glance.at::<DueAt>().0;
        let later: Due = |glance| glance.at::<DueAt>().0.map(|due_ms| due_ms + 20);
        let none = Occasions::default();
        frame.add(&mut world, Phase::Plan, Turns::Due(later), says("later"));
        frame.add(&mut world, Phase::Plan, Turns::Due(due), says("due"));
        let on_or_due = Turns::OnOrDue(Occasions::CALL, later);
        frame.add(&mut world, Phase::Plan, on_or_due, says("call"));
        assert_eq!(frame.run(&mut world, none, 50), None);
        assert_eq!(frame.run(&mut world, Occasions::CALL, 50), None);
        world.resource_mut::<DueAt>().0 = Some(60);
        assert_eq!(frame.run(&mut world, none, 59), Some(60));
        assert_eq!(frame.run(&mut world, none, 60), Some(80));
        assert_eq!(frame.run(&mut world, none, 80), None);
        let seen = &world.resource::<Seen>().0;
        assert_eq!(*seen, ["call", "due", "later", "due", "call"]);
    }

    #[test]
    fn a_condition_sees_what_changed_since_its_system_ran_though_it_had_no_turn_in_between() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        world.insert_resource(Seen::default());
        world.insert_resource(DueAt(None));
        let due: Due = |glance| at_once_if(glance.has_changed::<DueAt>());
        let changes = |mut due: ResMut<DueAt>| {
            let inside: &mut Option<u64> = &mut due.0;
            *inside = None;
        };
        let says = says("changed");
        frame.add(&mut world, Phase::Plan, Turns::Due(due), says);
        frame.add(&mut world, Phase::Emit, Turns::On(Occasions::CALL), changes);
        let mut seen_after = |occasions| {
            frame.run(&mut world, occasions, 0);
            world.clear_trackers();
            world.resource::<Seen>().0.len()
        };
        let none = Occasions::default();
        assert_eq!(seen_after(none), 1, "all is new to who has not run yet");
        assert_eq!(seen_after(none), 1);
        assert_eq!(seen_after(Occasions::CALL), 1, "changed behind it");
        assert_eq!(seen_after(none), 2);
        assert_eq!(seen_after(none), 2);
    }
}
