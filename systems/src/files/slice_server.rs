//! PROTOCOL section 7, fetching: any holder serves slices of the blobs it keeps, as they lie on its disk, a few answers at a time.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::io::{Effect, ReadId, ReadQuery, ReadResult, StreamToken};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::{FileRequest, FileResponse, PacketBytes};
use distsoc_engine::world::blobs::BlobBook;
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Offences;
use std::collections::BTreeMap;

/// Answers that wait for the disk, at most [`limits::FILE_READS_MAX`].
#[derive(Resource, Debug, Default)]
struct Reading(BTreeMap<ReadId, (StreamToken, FileRequest)>);

fn encoded<'a>(
    request: &FileRequest,
    slices: impl Iterator<Item = &'a [u8]> + Clone,
) -> PacketBytes {
    FileResponse::encode_stored(request.blob, request.first, slices)
}

fn look_up(
    book: Res<BlobBook>,
    mut arrivals: ResMut<Arrivals<FileRequest>>,
    mut reading: ResMut<Reading>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
) {
    for arrival in arrivals.take() {
        let Some(stream) = arrival.stream else {
            continue;
        };
        let request = arrival.packet;
        // What waits for its post is nobody's business yet.
        let part = book.get(&request.blob);
        let part = part.filter(|part| part.posts().next().is_some());
        let run = part.map_or(0, |part| part.run_from(request.first));
        if run == 0 {
            let bytes = Some(encoded(&request, std::iter::empty()));
            outbox.push(Effect::Respond { stream, bytes });
        } else if reading.0.len() >= limits::FILE_READS_MAX {
            offences.note(arrival.link, Refusal::Full, "FileRequest");
            outbox.respond(stream, None);
        } else {
            let read = outbox.read(ReadQuery::Slices {
                blob: request.blob.hash,
                first: request.first,
                count: request.count.min(run),
            });
            reading.0.insert(read, (stream, request));
        }
    }
}

fn answer(mut inbox: ResMut<Inbox>, mut reading: ResMut<Reading>, mut outbox: ResMut<Outbox>) {
    for ((stream, request), result) in inbox.take_reads(|read| reading.0.remove(&read)) {
        let bytes = match result {
            Ok(ReadResult::Slices(slices)) => {
                Some(encoded(&request, slices.iter().map(|slice| &**slice)))
            }
            _ => None,
        };
        outbox.push(Effect::Respond { stream, bytes });
    }
}

/// Serves slices of blobs.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Reading::default());
    frame.on(Occasions::READ, Phase::Ingest, answer);
    frame.on(Occasions::packet(&FileRequest::SPEC), Phase::Judge, look_up);
}
