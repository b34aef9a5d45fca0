//! A packet while its bytes come in: what a transport reads a stream with. Most packets are admitted once they are whole; a
//! [`FileResponse`] is proved on the way, so that a wrong byte ends its stream early.

use super::{
    Admitted, Code, Expected, FileReader, FileResponse, Packet, PacketSpec, admit, preview,
};
use crate::refusal::Refusal;

/// Takes one packet in, never more of it than its line in the table allows.
#[derive(Debug)]
pub struct PacketReader {
    spec: &'static PacketSpec,
    expected: Expected,
    length: usize,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Whole(Vec<u8>),
    File(Box<FileReader>),
}

impl PacketReader {
    /// Begins with nothing but the stream's first byte known.
    ///
    /// # Errors
    /// As [`preview`].
    pub fn new(code: Code, expected: Expected) -> Result<Self, Refusal> {
        let spec = preview(code, expected)?;
        let body = match code == FileResponse::SPEC.code {
            true => Body::File(Box::default()),
            false => Body::Whole(Vec::new()),
        };
        Ok(Self {
            spec,
            expected,
            length: 0,
            body,
        })
    }

    /// The packet's line in the table.
    #[must_use]
    pub fn spec(&self) -> &'static PacketSpec {
        self.spec
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Takes what came, the code byte first.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`]; whatever [`FileReader::take`] refuses.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.length = self.length.saturating_add(bytes.len());
        if self.length > self.spec.bytes_max {
            return Err(Refusal::TooLarge);
        }
        match &mut self.body {
            Body::Whole(whole) => {
                whole.extend_from_slice(bytes);
                Ok(())
            }
            Body::File(reader) => reader.take(bytes),
        }
    }

    /// The packet, once the stream has ended.
    ///
    /// # Errors
    /// As [`admit`].
    pub fn finish(self) -> Result<Admitted<Packet>, Refusal> {
        match self.body {
            Body::Whole(whole) => admit(&whole, self.expected),
            Body::File(reader) => reader.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Direction;

    #[test]
    fn every_packet_comes_in_byte_by_byte_and_none_past_its_line() {
        for packet in Packet::examples() {
            let spec = packet.spec();
            let expected = match spec.direction {
                Direction::Notification => Expected::Notification,
                Direction::Request(_) => Expected::Request,
                Direction::Response => Expected::Response(spec.code),
            };
            let mut reader = PacketReader::new(spec.code, expected).unwrap();
            for byte in packet.encode().iter() {
                reader.take(&[*byte]).unwrap();
            }
            assert_eq!(reader.finish().unwrap().into_inner(), packet);
            let mut reader = PacketReader::new(spec.code, expected).unwrap();
            let long = vec![spec.code; spec.bytes_max + 1];
            assert_eq!(reader.take(&long), Err(Refusal::TooLarge));
        }
    }
}
