//! What goes wrong, as the scenario says: power cuts, people who leave and come, networks that fall apart, full disks,
//! jumping clocks, moving machines.

use crate::host::Power;
use crate::queue::{Event, HostNumber};
use crate::scenario::{Fault, FaultKind};
use crate::simulation::Simulation;
use distsoc_engine::io::{Input, StorageTrouble};

impl Simulation {
    /// A fault of the scenario begins.
    pub fn begin_fault(&mut self, fault: usize) {
        let planned = self.scenario.faults[fault].clone();
        self.last_fault_us = self.now_us;
        match planned.kind {
            FaultKind::Lossy => {
                self.loss_per_million = planned.by as u32;
                if let Some(for_s) = planned.for_s {
                    self.queue
                        .at(self.now_us + for_s * 1_000_000, Event::Recover(fault, None));
                }
            }
            FaultKind::Join => {
                for _ in 0..planned.count.unwrap_or_default() {
                    let number = self.add_host();
                    let at_us = self.within(&planned);
                    self.queue.at(at_us, Event::Boot(number));
                    self.plan_first_deed(number);
                }
            }
            _ => {
                for number in self.affected(&planned) {
                    let at_us = self.within(&planned);
                    self.queue.at(at_us, Event::Hit(fault, number));
                }
            }
        }
    }

    fn within(&mut self, fault: &Fault) -> u64 {
        self.now_us + self.chance.between(0, fault.within_s * 1_000_000)
    }

    fn affected(&mut self, fault: &Fault) -> Vec<HostNumber> {
        if let Some(nodes) = &fault.nodes {
            let all = self.hosts.len();
            return nodes
                .iter()
                .filter(|node| **node < all)
                .map(|node| *node as HostNumber)
                .collect();
        }
        let first = self.scenario.anchors.min(self.hosts.len());
        let others = self.hosts.len() - first;
        let count = match (fault.count, fault.percent) {
            (Some(count), _) => count,
            (None, percent) => others * percent.unwrap_or_default() as usize / 100,
        };
        self.chance
            .pick(count, others)
            .into_iter()
            .map(|other| (first + other) as HostNumber)
            .collect()
    }

    /// A fault hits one machine.
    pub fn hit(&mut self, fault: usize, number: HostNumber) {
        let planned = self.scenario.faults[fault].clone();
        self.last_fault_us = self.now_us;
        self.note(number, 20, &(fault as u64).to_be_bytes());
        match planned.kind {
            FaultKind::Crash => self.crash(number),
            FaultKind::Leave => self.leave(number),
            FaultKind::Partition => {
                self.change_paths(number, |host| host.partition = fault as u16 + 1)
            }
            FaultKind::Offline => {
                self.change_paths(number, |host| host.offline = true);
                self.give(number, Input::OwnAddresses(Vec::new()));
            }
            FaultKind::DiskFull => {
                self.hosts[number as usize].disk.trouble = Some(StorageTrouble::Full)
            }
            FaultKind::DiskFailed => {
                self.hosts[number as usize].disk.trouble = Some(StorageTrouble::Failed)
            }
            FaultKind::SlowDisk => self.hosts[number as usize].disk.slowness = planned.by as u64,
            FaultKind::ClockJump => self.hosts[number as usize].skew_ms += planned.by,
            FaultKind::AddressChange => self.move_host(number),
            FaultKind::Lie => self.hosts[number as usize].lies = true,
            FaultKind::Budget => self.set_budget(number, planned.by as u64),
            FaultKind::Lossy | FaultKind::Join => {}
        }
        if let Some(for_s) = planned.for_s {
            self.queue.at(
                self.now_us + for_s * 1_000_000,
                Event::Recover(fault, Some(number)),
            );
        }
    }

    /// A fault ends.
    pub fn recover(&mut self, fault: usize, number: Option<HostNumber>) {
        self.last_fault_us = self.now_us;
        let Some(number) = number else {
            self.loss_per_million = self.scenario.network.loss_per_million;
            return;
        };
        self.note(number, 21, &(fault as u64).to_be_bytes());
        let planned = &self.scenario.faults[fault];
        let host = &mut self.hosts[number as usize];
        match planned.kind {
            FaultKind::Crash | FaultKind::Leave => self.boot(number),
            FaultKind::Partition => self.change_paths(number, |host| host.partition = 0),
            FaultKind::Offline => {
                self.change_paths(number, |host| host.offline = false);
                let addresses = self.hosts[number as usize].own_addresses(number);
                self.give(number, Input::OwnAddresses(addresses));
            }
            FaultKind::DiskFull | FaultKind::DiskFailed => host.disk.trouble = None,
            FaultKind::SlowDisk => host.disk.slowness = 1,
            FaultKind::ClockJump => host.skew_ms -= planned.by,
            FaultKind::Lie => host.lies = false,
            FaultKind::Budget => {
                let bytes = self.scenario.disk.budget_of(host.kind);
                self.set_budget(number, bytes);
            }
            FaultKind::Lossy | FaultKind::Join | FaultKind::AddressChange => {}
        }
    }

    /// The machine loses power: of the batches under way some may be complete, though nobody was told.
    pub fn crash(&mut self, number: HostNumber) {
        if !self.hosts[number as usize].is_on() {
            return;
        }
        self.counts.crashes += 1;
        let pending = self.hosts[number as usize].disk.pending() as u64;
        let survivors = self.chance.between(0, pending) as usize;
        self.hosts[number as usize].disk.lose_power(survivors);
        self.power_off(number);
    }

    /// The program stops as it should: good-byes go out, everything handed in reaches the disk.
    pub fn leave(&mut self, number: HostNumber) {
        if !self.hosts[number as usize].is_on() {
            return;
        }
        self.give(number, Input::Stop);
        self.frame_now(number);
        let host = &mut self.hosts[number as usize];
        let pending = host.disk.pending();
        host.disk.lose_power(pending);
        self.power_off(number);
    }

    /// The disk keeps to another budget from its next commit on, and tells the node so.
    pub fn set_budget(&mut self, number: HostNumber, bytes: u64) {
        let at_us = self.now_us + self.scenario.disk.commit_ms[1] * 1000;
        let host = &mut self.hosts[number as usize];
        let at_us = host.disk.keep_to(bytes, at_us);
        self.queue.at(at_us, Event::Commit(number, host.starts));
    }

    /// The machine gets another address: nothing passes on its old connections.
    fn move_host(&mut self, number: HostNumber) {
        let links: Vec<_> = self.hosts[number as usize].links.iter().copied().collect();
        for link in links {
            let (key, _) = crate::transport::split(link);
            self.before_break(key);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.severed = true;
            }
        }
        let host = &mut self.hosts[number as usize];
        host.moves = (host.moves + 1) % 200;
        let addresses = host.own_addresses(number);
        if !matches!(host.power, Power::Off) {
            self.give(number, Input::OwnAddresses(addresses));
        }
    }

    /// Changes whom a machine reaches: connections that break know when they last heard, those that heal go on.
    fn change_paths(&mut self, number: HostNumber, change: impl FnOnce(&mut crate::host::Host)) {
        let links: Vec<_> = self.hosts[number as usize].links.iter().copied().collect();
        let keys: Vec<_> = links
            .into_iter()
            .map(|link| crate::transport::split(link).0)
            .collect();
        for key in &keys {
            self.before_break(*key);
        }
        change(&mut self.hosts[number as usize]);
        for key in keys {
            self.resume(key);
        }
    }
}
