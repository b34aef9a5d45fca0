//! One stream, one packet: the first byte says what it is, and nothing is read past what the packet table allows. What can be
//! proved while it comes in is, so that a stream ends with its first wrong byte.

use crate::meter::Meter;
use crate::{limits, runtime};
use bytes::Bytes;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::gate::Gate;
use distsoc_engine::wire::{Admitted, Code, Expected, Packet, PacketBytes, PacketReader};
use s2n_quic::application::Error as ApplicationError;
use s2n_quic::stream::{Error, ReceiveStream, SendStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Why a stream gave no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPacket {
    /// It had to be refused.
    Refused(Code, Refusal),
    /// The stream was reset before any of it came.
    Gone,
    /// The stream was reset in the middle of it.
    Cut,
    /// The connection went.
    Down,
    /// Nothing moved for too long.
    Stalled(Code),
}

/// An application error code for streams that are given up.
pub(crate) const GIVEN_UP: ApplicationError = ApplicationError::UNKNOWN;

/// Reads one packet. A token and a place in flight of the gate are taken once its first byte is known; whoever gets
/// `Ok` gives the place back.
pub(crate) async fn read_packet(
    stream: &mut ReceiveStream,
    expected: Expected,
    gate: Option<&Mutex<Gate>>,
    meter: &Meter,
) -> Result<Admitted<Packet>, NoPacket> {
    let first = next_chunk(stream, 0)
        .await?
        .ok_or(NoPacket::Refused(0, Refusal::Empty))?;
    let code = first[0];
    let result = read_rest(stream, first, expected, gate, meter).await;
    let result = result.map_err(|problem| match problem {
        NoPacket::Gone => NoPacket::Cut,
        problem => problem,
    });
    if let Err(NoPacket::Refused(..) | NoPacket::Stalled(_)) = result {
        let _ = stream.stop_sending(GIVEN_UP);
    }
    if let (Err(NoPacket::Cut | NoPacket::Down | NoPacket::Stalled(_)), Some(gate)) =
        (&result, gate)
    {
        lock(gate).finish(code);
    }
    result
}

async fn read_rest(
    stream: &mut ReceiveStream,
    first: Bytes,
    expected: Expected,
    gate: Option<&Mutex<Gate>>,
    meter: &Meter,
) -> Result<Admitted<Packet>, NoPacket> {
    let code = first[0];
    let refused = |refusal| NoPacket::Refused(code, refusal);
    let mut reader = PacketReader::new(code, expected).map_err(refused)?;
    if let Some(gate) = gate {
        lock(gate)
            .begin(reader.spec(), runtime::mono_ms())
            .map_err(refused)?;
    }
    let give_back = |refusal| {
        if let Some(gate) = gate {
            lock(gate).finish(code);
        }
        refused(refusal)
    };
    reader.take(&first).map_err(give_back)?;
    drop(first);
    while let Some(chunk) = next_chunk(stream, code).await? {
        reader.take(&chunk).map_err(give_back)?;
    }
    meter.received(code, reader.length());
    reader.finish().map_err(give_back)
}

async fn next_chunk(stream: &mut ReceiveStream, code: Code) -> Result<Option<Bytes>, NoPacket> {
    let stall = Duration::from_millis(limits::STREAM_STALL_MS_MAX);
    loop {
        match runtime::timeout(stall, stream.receive()).await {
            None => return Err(NoPacket::Stalled(code)),
            Some(Err(Error::ConnectionError { .. })) => return Err(NoPacket::Down),
            Some(Err(_)) => return Err(NoPacket::Gone),
            Some(Ok(Some(chunk))) if chunk.is_empty() => {}
            Some(Ok(chunk)) => return Ok(chunk),
        }
    }
}

/// Sends one packet and ends the stream; over once all of it is with the transport.
pub(crate) async fn write_packet(
    stream: &mut SendStream,
    bytes: &PacketBytes,
    meter: &Meter,
) -> Result<(), NoPacket> {
    write_open(stream, bytes).await?;
    end_packet(stream, bytes, meter)
}

/// Sends one packet, and leaves the stream open: the peer does not know yet that this was all. The bytes are shared, not copied, and
/// handed over in pieces, so that a peer that does not read is told from one that reads slowly.
pub(crate) async fn write_open(
    stream: &mut SendStream,
    bytes: &PacketBytes,
) -> Result<(), NoPacket> {
    let stall = Duration::from_millis(limits::STREAM_STALL_MS_MAX);
    let mut rest = Bytes::from_owner(bytes.clone());
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(limits::PIECE_BYTES));
        match runtime::timeout(stall, stream.send(piece)).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return Err(NoPacket::Gone),
            None => {
                let _ = stream.reset(GIVEN_UP);
                return Err(NoPacket::Stalled(bytes[0]));
            }
        }
    }
    Ok(())
}

/// Ends the stream of a packet that was sent.
pub(crate) fn end_packet(
    stream: &mut SendStream,
    bytes: &PacketBytes,
    meter: &Meter,
) -> Result<(), NoPacket> {
    stream.finish().map_err(|_| NoPacket::Gone)?;
    meter.sent(bytes[0], bytes.len());
    Ok(())
}

/// Waits until the peer has all of what was sent and the transport holds it no more, or for as long as a stream may stall, or this.
pub(crate) async fn let_go(stream: &mut SendStream, longest: Duration) {
    let stall = Duration::from_millis(limits::STREAM_STALL_MS_MAX).min(longest);
    if runtime::timeout(stall, stream.close()).await.is_none() {
        let _ = stream.reset(GIVEN_UP);
    }
}

/// A lock whose holder never panics while it matters.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
