//! The addresses this machine can be dialled at, and their changes: a person walks from Wi-Fi to mobile, and the node
//! hears of it within seconds.

use crate::{limits, runtime};
use distsoc_engine::io::Input;
use std::net::SocketAddr;
use std::time::Duration;

/// Where a socket bound to `bound` can be reached: itself, or for an unspecified address every interface that is up.
fn reachable_at(bound: SocketAddr) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<SocketAddr> = interfaces
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|ip| ip.is_ipv4() == bound.is_ipv4())
        .map(|ip| SocketAddr::new(ip, bound.port()))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Tells the own addresses now, and for an unspecified address again at each change, until nobody listens.
pub(crate) async fn watch(bound: SocketAddr, inputs: async_channel::Sender<Input>) {
    let mut known = Vec::new();
    loop {
        let current = reachable_at(bound);
        if current != known {
            known.clone_from(&current);
            if inputs.send(Input::OwnAddresses(current)).await.is_err() {
                return;
            }
        }
        if !bound.ip().is_unspecified() {
            return;
        }
        runtime::sleep(Duration::from_millis(limits::ADDRESS_POLL_MS)).await;
        if inputs.is_closed() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_address_is_itself_and_an_unspecified_one_is_the_machine() {
        let bound: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(reachable_at(bound), [bound]);
        let any = reachable_at("0.0.0.0:4000".parse().unwrap());
        assert!(any.contains(&bound), "{any:?}");
    }
}
