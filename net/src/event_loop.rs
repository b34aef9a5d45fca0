//! s2n-quic's event loops, one for each socket, which can be ended: by itself a server's goes on, and holds its port, for as
//! long as the process lives.

use crate::streams::lock;
use crate::{limits, runtime};
use s2n_quic::provider::io::{Provider, tokio as io};
use s2n_quic_core::endpoint::Endpoint;
use s2n_quic_core::inet::SocketAddress;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use tokio::task::AbortHandle;

/// The event loops of one endpoint; they end with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventLoops(Arc<Mutex<Vec<AbortHandle>>>);

impl EventLoops {
    /// An event loop on this socket, for s2n-quic to start.
    pub(crate) fn on(&self, socket: UdpSocket) -> std::io::Result<OneLoop> {
        let io = io::Provider::builder()
            .with_handle(runtime::quic_io())
            .with_rx_socket(socket)?
            .with_internal_recv_buffer_size(limits::RECEIVE_RING_BYTES)?
            .build()?;
        Ok(OneLoop {
            io,
            all: self.clone(),
        })
    }

    /// Ends them, with every connection that still is on one, and closes the sockets.
    pub(crate) fn end(&self) {
        for event_loop in lock(&self.0).drain(..) {
            event_loop.abort();
        }
    }
}

/// An event loop that s2n-quic has not started yet.
pub(crate) struct OneLoop {
    io: io::Provider,
    all: EventLoops,
}

impl Provider for OneLoop {
    type PathHandle = <io::Provider as Provider>::PathHandle;
    type Error = std::io::Error;

    fn start<E: Endpoint<PathHandle = Self::PathHandle>>(
        self,
        endpoint: E,
    ) -> Result<SocketAddress, Self::Error> {
        let (task, address) = self.io.start(endpoint)?;
        lock(&self.all.0).push(task.abort_handle());
        Ok(address)
    }
}
