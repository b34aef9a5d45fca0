//! One UDP port for dialling and accepting on Linux; two elsewhere.
//!
//! s2n-quic's server and client are endpoints with a socket each. On Linux both sockets share a port (SO_REUSEPORT), and a
//! small classic BPF program gives each datagram to the right one: those for connections we dialled carry a connection id that
//! begins with this endpoint's tag.

use s2n_quic::provider::connection_id::{ConnectionInfo, Generator, LocalId, Validator};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// The sockets for accepting and for dialling, on one port where the system can.
pub(crate) struct Sockets {
    pub(crate) accept: UdpSocket,
    pub(crate) dial: UdpSocket,
}

/// Length of the connection ids of dialled connections.
const ID_BYTES: usize = 16;

/// Connection ids that begin with the tag of this endpoint.
pub(crate) struct Tagged {
    tag: [u8; 4],
    state: u64,
}

impl Tagged {
    /// Ids under this tag; `seed` makes the rest unpredictable to others.
    pub(crate) fn new(tag: [u8; 4], seed: u64) -> Self {
        Self { tag, state: seed }
    }

    fn next(&mut self) -> [u8; ID_BYTES] {
        self.state = self.state.wrapping_add(1);
        let mut id = [0; ID_BYTES];
        let hash = distsoc_engine::crypto::hash(&self.state.to_be_bytes());
        id.copy_from_slice(&hash[..ID_BYTES]);
        id[..4].copy_from_slice(&self.tag);
        id
    }
}

impl Generator for Tagged {
    fn generate(&mut self, _: &ConnectionInfo<'_>) -> LocalId {
        LocalId::try_from_bytes(&self.next()).expect("16 bytes are a connection id")
    }

    fn lifetime(&self) -> Option<Duration> {
        None
    }

    fn rotate_handshake_connection_id(&self) -> bool {
        true
    }
}

impl Validator for Tagged {
    fn validate(&self, _: &ConnectionInfo<'_>, bytes: &[u8]) -> Option<usize> {
        (bytes.len() >= ID_BYTES).then_some(ID_BYTES)
    }
}

#[cfg(target_os = "linux")]
pub(crate) fn open(listen: SocketAddr, tag: [u8; 4]) -> io::Result<Sockets> {
    // The first socket gets the port for itself and shares it only then: nobody else's port is ever joined, nor drawn by
    // the system where the port is 0.
    let accept = UdpSocket::bind(listen)?;
    linux::share(&accept)?;
    let dial = linux::reusable(accept.local_addr()?)?;
    linux::steer(&accept, tag)?;
    for socket in [&accept, &dial] {
        linux::ask_for_buffer(socket);
        socket.set_nonblocking(true)?;
    }
    Ok(Sockets { accept, dial })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn open(listen: SocketAddr, _: [u8; 4]) -> io::Result<Sockets> {
    let accept = UdpSocket::bind(listen)?;
    let dial = UdpSocket::bind(SocketAddr::new(listen.ip(), 0))?;
    for socket in [&accept, &dial] {
        socket.set_nonblocking(true)?;
    }
    Ok(Sockets { accept, dial })
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "SO_REUSEPORT has to be set before bind, which std does not offer"
)]
mod linux {
    use crate::limits;
    use std::io;
    use std::mem::size_of;
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

    fn set_option<T>(fd: RawFd, option: i32, value: &T) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `value`, which lives through the call.
        let result = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// From now on a second socket may be bound to the same port.
    pub(super) fn share(socket: &UdpSocket) -> io::Result<()> {
        set_option(socket.as_raw_fd(), libc::SO_REUSEPORT, &1i32)
    }

    /// A UDP socket bound to an address that a second one may share.
    pub(super) fn reusable(address: SocketAddr) -> io::Result<UdpSocket> {
        let family = if address.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and nobody else owns it.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(fd, libc::SO_REUSEPORT, &1i32)?;
        bind(fd, address)?;
        Ok(UdpSocket::from(owned))
    }

    fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
        let result = match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                // SAFETY: the pointer and the length describe `raw`, which lives through the call.
                unsafe { libc::bind(fd, std::ptr::from_ref(&raw).cast(), length) }
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                let length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
                // SAFETY: the pointer and the length describe `raw`, which lives through the call.
                unsafe { libc::bind(fd, std::ptr::from_ref(&raw).cast(), length) }
            }
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Attaches the program that chooses between the two sockets: 1 (dialling) where the destination connection id begins
    /// with the tag, else 0 (accepting). A long header (first bit set) has the id at byte 6, a short one at byte 1.
    pub(super) fn steer(socket: &UdpSocket, tag: [u8; 4]) -> io::Result<()> {
        const LOAD_BYTE: u16 = 0x30;
        const LOAD_WORD: u16 = 0x20;
        const JUMP_IF_SET: u16 = 0x45;
        const JUMP: u16 = 0x05;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut program = [
            step(LOAD_BYTE, 0, 0, 0),
            step(JUMP_IF_SET, 0, 2, 0x80),
            step(LOAD_WORD, 0, 0, 6),
            step(JUMP, 0, 0, 1),
            step(LOAD_WORD, 0, 0, 1),
            step(JUMP_IF_EQUAL, 0, 1, u32::from_be_bytes(tag)),
            step(RETURN, 0, 0, 1),
            step(RETURN, 0, 0, 0),
        ];
        let described = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        set_option(
            socket.as_raw_fd(),
            libc::SO_ATTACH_REUSEPORT_CBPF,
            &described,
        )
    }

    /// The system may give less; bursts of handshakes are then lost and dialled again.
    pub(super) fn ask_for_buffer(socket: &UdpSocket) {
        let bytes = limits::SOCKET_BUFFER_BYTES as i32;
        let _ = set_option(socket.as_raw_fd(), libc::SO_RCVBUF, &bytes);
        let _ = set_option(socket.as_raw_fd(), libc::SO_SNDBUF, &bytes);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn no_two_endpoints_share_a_port() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let open: Vec<Sockets> = (0..400)
            .map(|number: u32| open(any, number.to_be_bytes()).unwrap())
            .collect();
        let mut ports: Vec<u16> = Vec::new();
        for sockets in &open {
            let port = sockets.accept.local_addr().unwrap().port();
            assert_eq!(sockets.dial.local_addr().unwrap().port(), port);
            ports.push(port);
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), open.len());
        let taken = open[0].accept.local_addr().unwrap();
        let refused = super::open(taken, [9; 4]).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn datagrams_go_to_the_socket_their_id_names() {
        let tag = [7, 8, 9, 10];
        let sockets = open("127.0.0.1:0".parse().unwrap(), tag).unwrap();
        let place = sockets.accept.local_addr().unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let long = |id: [u8; 4]| [&[0xc0, 0, 0, 0, 1, 16][..], &id, &[0; 12]].concat();
        let short = |id: [u8; 4]| [&[0x40][..], &id, &[0; 12]].concat();
        for (datagram, to) in [
            (long(tag), &sockets.dial),
            (short(tag), &sockets.dial),
            (long([7, 8, 9, 11]), &sockets.accept),
            (short([0; 4]), &sockets.accept),
            (vec![0xc0], &sockets.accept),
        ] {
            to.set_nonblocking(false).unwrap();
            to.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            peer.send_to(&datagram, place).unwrap();
            let mut buffer = [0; 64];
            assert_eq!(to.recv(&mut buffer).unwrap(), datagram.len());
        }
    }
}
