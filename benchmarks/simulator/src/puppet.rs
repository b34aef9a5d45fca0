//! Somebody with a key, an address and a script instead of a node: speaks raw bytes to real nodes. For hostile peers, and for
//! whatever an honest node would never say.

use crate::cargo::Cargo;
use crate::host::{Heard, Host, NodeIdOrNone, Power};
use crate::queue::HostNumber;
use crate::simulation::Simulation;
use crate::transport::{EndState, Exchange, split};
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::Address;
use distsoc_engine::io::{DialId, DialTarget, LinkId, RequestId};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::wire::{Hello, Packet, PacketBytes, Purpose};

impl Simulation {
    /// A machine with a script, and a key that is the test's.
    pub fn add_puppet(&mut self, secret: &Secret) -> HostNumber {
        let number = self.hosts.len() as HostNumber;
        self.hosts.push(Host {
            id: NodeIdOrNone(secret.node_id()),
            power: Power::Puppet(Vec::new()),
            starts: 1,
            idle_timeout_ms: NodeProfile::of(ProfileKind::Desktop).open_idle_timeout_ms,
            ..Host::default()
        });
        self.numbers.insert(secret.node_id(), number);
        number
    }

    /// A puppet dials a machine; the connection is up once [`Simulation::heard_by`] says so.
    ///
    /// # Panics
    /// Where the machine's address cannot be dialled, which the simulator never gives out.
    pub fn puppet_dials(&mut self, puppet: HostNumber, target: HostNumber) {
        let address =
            Address::new(self.public_address_of(target)).expect("machines have usable addresses");
        let node = self.hosts[target as usize].node_id();
        self.last_call += 1;
        self.dial(
            puppet,
            DialId(self.last_call),
            node,
            DialTarget::Addresses(vec![address]),
        );
    }

    /// What a puppet heard since it was last asked.
    pub fn heard_by(&mut self, puppet: HostNumber) -> Vec<Heard> {
        match &mut self.hosts[puppet as usize].power {
            Power::Puppet(heard) => std::mem::take(heard),
            Power::On(_) | Power::Off => Vec::new(),
        }
    }

    /// A puppet sends bytes on a one-way stream.
    pub fn puppet_notifies(&mut self, puppet: HostNumber, link: LinkId, bytes: &[u8]) {
        self.ship(puppet, link, Cargo::Notification(PacketBytes::from(bytes)));
    }

    /// A puppet opens an exchange with any bytes; `answer` is the code it would take.
    pub fn puppet_asks(&mut self, puppet: HostNumber, link: LinkId, bytes: &[u8], answer: u8) {
        let code = bytes.first().copied().unwrap_or_default();
        self.last_call += 1;
        let exchange = Exchange {
            asker: link,
            request: RequestId(self.last_call),
            code,
            answer,
            is_over: false,
            is_answered: false,
            until_us: u64::MAX,
        };
        let exchange = self.exchanges.insert(exchange);
        let (key, side) = split(link);
        match self.connections.get_mut(key) {
            Some(connection) if connection.ends[side].state == EndState::Open => {
                connection.ends[side].asking.push(exchange);
                self.ship(
                    puppet,
                    link,
                    Cargo::Request(PacketBytes::from(bytes), exchange),
                );
            }
            _ => {
                self.exchanges.remove(exchange);
            }
        }
    }

    /// A puppet answers a request it heard, with any bytes.
    pub fn puppet_answers(
        &mut self,
        puppet: HostNumber,
        link: LinkId,
        request: &Cargo,
        bytes: &[u8],
    ) {
        if let Cargo::Request(_, exchange) = request {
            self.ship(
                puppet,
                link,
                Cargo::Response(Some(PacketBytes::from(bytes)), *exchange),
            );
        }
    }

    /// Dials and says an honest Hello; returns the connection once the target has answered, `None` where it did not.
    pub fn puppet_joins(&mut self, puppet: HostNumber, target: HostNumber) -> Option<LinkId> {
        self.puppet_dials(puppet, target);
        let mut up = None;
        for _ in 0..100 {
            self.run_until(self.now_us + 100_000);
            for heard in self.heard_by(puppet) {
                match heard {
                    Heard::Up(link) => {
                        let hello = Hello::new(
                            ProfileKind::Desktop,
                            Purpose::Social,
                            false,
                            false,
                            None,
                            None,
                        );
                        self.puppet_notifies(puppet, link, &Packet::from(hello).encode());
                        up = Some(link);
                    }
                    Heard::Stream(link, Cargo::Notification(bytes)) if Some(link) == up => {
                        return (bytes.first() == Some(&Hello::SPEC.code)).then_some(link);
                    }
                    Heard::Down(..) => return None,
                    Heard::Stream(..) => {}
                }
            }
        }
        None
    }
}
