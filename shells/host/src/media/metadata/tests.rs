//! What goes, what stays, and files that lie about their parts.

use super::super::TYPES_OF_PICTURES as TYPES;
use super::super::tests::{file, format_of};
use super::*;
use image::codecs::gif::{GifDecoder, GifEncoder, Repeat};
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{
    AnimationDecoder, Delay, DynamicImage, Frame, ImageDecoder, ImageReader, Rgba, RgbaImage,
};
use miniz_oxide::deflate::compress_to_vec_zlib;
use proptest::prelude::*;
use std::io::Cursor;

/// Stands in everything that must go.
const NOTE: &[u8] = b"52.5200 N, 13.4050 E by Ada with a Camera 3";

fn has_note(bytes: &[u8]) -> bool {
    bytes.windows(NOTE.len()).any(|part| part == NOTE)
}

/// What a camera writes: its name, the orientation, and the note in the place of both.
fn exif(orientation: u8, is_little: bool) -> Vec<u8> {
    let number = |number: u16| match is_little {
        true => number.to_le_bytes(),
        false => number.to_be_bytes(),
    };
    let long = |number: u32| match is_little {
        true => number.to_le_bytes(),
        false => number.to_be_bytes(),
    };
    let magic = if is_little { b"II*\0" } else { b"MM\0*" };
    let after = 8 + 2 + 2 * 12 + 4;
    let name = [
        &number(0x010f)[..],
        &number(2),
        &long(NOTE.len() as u32),
        &long(after),
    ]
    .concat();
    let way = [
        &number(0x0112)[..],
        &number(3),
        &long(1),
        &number(orientation.into()),
        &[0; 2],
    ];
    let directory = [&number(2)[..], &name, &way.concat(), &long(0)].concat();
    [magic.as_slice(), &long(8), &directory, NOTE].concat()
}

fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&[0xff, marker], length.as_slice(), content].concat()
}

fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [name.as_slice(), content].concat();
    let length = (content.len() as u32).to_be_bytes();
    [
        &length,
        named.as_slice(),
        &png::check_sum(&named).to_be_bytes(),
    ]
    .concat()
}

fn riff_chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_le_bytes();
    let padding = vec![b'!'; content.len() % 2];
    [name.as_slice(), &length, content, &padding].concat()
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = [b"WEBP".as_slice(), &chunks.concat()].concat();
    [
        b"RIFF".as_slice(),
        &(body.len() as u32).to_le_bytes(),
        &body,
    ]
    .concat()
}

/// The head of an extended file of 20 × 10.
fn canvas(flags: u8) -> Vec<u8> {
    riff_chunk(b"VP8X", &[flags, 0, 0, 0, 19, 0, 0, 9, 0, 0])
}

fn gif_chain(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut chain = vec![0x21, kind];
    for part in parts {
        chain.push(part.len() as u8);
        chain.extend_from_slice(part);
    }
    chain.push(0);
    chain
}

const LOOP: &[&[u8]] = &[b"NETSCAPE2.0", &[1, 3, 0]];

/// A picture of 20 × 10 with all that can be in it, and the EXIF block that it has.
fn full(media_type: MediaType, exif: &[u8]) -> Vec<u8> {
    let plain = file(media_type, 20, 10);
    let profile = profile::of_a_camera(NOTE);
    match media_type {
        MediaType::Jpeg => {
            let app0 = 2 + 18;
            let parts = [
                segment(0xe1, &[b"Exif\0\0", exif].concat()),
                segment(0xe1, &[b"http://ns.adobe.com/xap/1.0/\0", NOTE].concat()),
                segment(0xe2, &[b"ICC_PROFILE\0\x01\x01", &profile[..]].concat()),
                segment(0xe2, &[b"MPF\0", NOTE].concat()),
                segment(0xeb, &[b"JP\0\0", NOTE].concat()),
                segment(0xed, &[b"Photoshop 3.0\08BIM", NOTE].concat()),
                segment(0xfe, NOTE),
                vec![0xff; 3],
            ];
            let second = [&[0xff, 0xd8], segment(0xe1, NOTE).as_slice()].concat();
            [&plain[..app0], &parts.concat(), &plain[app0..], &second].concat()
        }
        MediaType::Png => {
            let (head, end) = (8 + 25, plain.len() - 12);
            let before = [
                chunk(b"pHYs", &[0, 0, 11, 19, 0, 0, 11, 19, 1]),
                chunk(b"tEXt", &[b"Author\0", NOTE].concat()),
                chunk(b"iCCP", &packed(&profile)),
                chunk(b"zTXt", NOTE),
                chunk(b"iTXt", NOTE),
                chunk(b"tIME", &[7, 234, 1, 1, 1, 1, 1]),
                chunk(b"eXIf", exif),
                chunk(b"caBX", NOTE),
                chunk(b"gAMA", NOTE),
            ];
            let after = chunk(b"tEXt", &[b"Comment\0", NOTE].concat());
            [
                &plain[..head],
                &before.concat(),
                &plain[head..end],
                &after,
                &plain[end..],
                NOTE,
            ]
            .concat()
        }
        MediaType::Webp => {
            let with_note = riff(&[
                canvas(0x2c),
                riff_chunk(b"ICCP", &profile),
                plain[12..].to_vec(),
                riff_chunk(b"EXIF", exif),
                riff_chunk(b"XMP ", NOTE),
                riff_chunk(b"note", NOTE),
            ]);
            [&with_note, NOTE].concat()
        }
        MediaType::Gif => {
            let head = 13 + colour_table(&plain);
            let parts = [
                gif_chain(0xfe, &[NOTE]),
                gif_chain(0xff, LOOP),
                gif_chain(0xff, &[b"XMP DataXMP", NOTE]),
                gif_chain(0xff, &[b"NETSCAPE2.0", &[1, 3, 0], NOTE]),
                gif_chain(0xff, &[b"ICCRGBG1012", NOTE]),
                gif_chain(0x01, &[NOTE]),
            ];
            [&plain[..head], &parts.concat(), &plain[head..], NOTE].concat()
        }
        MediaType::Other => NOTE.to_vec(),
    }
}

/// As the content of a PNG's chunk, under a name that must go.
fn packed(profile: &[u8]) -> Vec<u8> {
    [NOTE, b"\0\0", &compress_to_vec_zlib(profile, 9)].concat()
}

fn colour_table(gif: &[u8]) -> usize {
    if gif[10] & 0x80 == 0 {
        0
    } else {
        6 << (gif[10] & 7)
    }
}

fn strip(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    without_metadata(MediaType::of(bytes), bytes.to_vec())
}

/// The pixels, the orientation and the colour profile, where it is no larger than 256 pixels a side.
fn shown(bytes: &[u8]) -> Option<(DynamicImage, Orientation, Option<Vec<u8>>)> {
    let format = format_of(MediaType::of(bytes))?;
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > 256 {
        return None;
    }
    let orientation = decoder.orientation().ok()?;
    let profile = decoder.icc_profile().ok()?;
    let pixels = DynamicImage::from_decoder(decoder).ok()?;
    Some((pixels, orientation, profile))
}

#[test]
fn what_tells_of_the_maker_goes_and_the_picture_stays() {
    for media_type in TYPES {
        for is_little in [true, false] {
            let whole = full(media_type, &exif(6, is_little));
            let stripped = strip(&whole).unwrap();
            assert!(has_note(&whole) && !has_note(&stripped), "{media_type:?}");
            let (pixels, orientation, profile) = shown(&stripped).unwrap();
            let before = shown(&whole).unwrap();
            assert!(pixels == before.0, "{media_type:?}");
            assert_eq!(orientation, before.1);
            let is_gif = media_type == MediaType::Gif;
            assert_eq!(orientation == Orientation::Rotate90, !is_gif);
            let wanted = before.2.filter(|_| !is_gif);
            let wanted = wanted.map(|profile| profile::known(&profile).unwrap());
            assert_eq!(profile, wanted, "{media_type:?}");
            assert_eq!(profile.is_none(), is_gif);
            assert!(strip(&stripped) == Ok(stripped), "nothing more to take");
        }
    }
}

#[test]
fn what_holds_no_metadata_is_not_touched_and_what_stands_upright_needs_no_note_of_it() {
    for media_type in TYPES {
        let plain = file(media_type, 20, 10);
        assert!(strip(&plain) == Ok(plain), "{media_type:?}");
        let upright = strip(&full(media_type, &exif(1, true))).unwrap();
        let unreadable = strip(&full(media_type, NOTE)).unwrap();
        assert!(
            upright == unreadable && !has_note(&upright),
            "{media_type:?}"
        );
        let has_exif = upright
            .windows(4)
            .any(|part| part.eq_ignore_ascii_case(b"exif"));
        assert!(!has_exif, "{media_type:?}");
        assert!(strip(&upright) == Ok(upright.clone()));
    }
    let other = [b"%PDF-1.7 ".as_slice(), NOTE].concat();
    assert!(strip(&other) == Ok(other));
}

#[test]
fn a_profile_of_a_space_that_is_not_known_goes() {
    let plain = |media_type| file(media_type, 20, 10);
    let profile = [b"a profile of one screen: ", NOTE].concat();
    let jpeg = plain(MediaType::Jpeg);
    let marked = segment(0xe2, &[b"ICC_PROFILE\0\x01\x01", &profile[..]].concat());
    let known = profile::of_a_camera(NOTE);
    let in_two = [&b"ICC_PROFILE\0\x01\x02"[..], &known].concat();
    for marked in [marked, segment(0xe2, &in_two)] {
        let with_profile = [&jpeg[..20], &marked, &jpeg[20..]].concat();
        assert!(strip(&with_profile) == Ok(jpeg.clone()));
    }
    let png = plain(MediaType::Png);
    let packed = chunk(b"iCCP", &packed(&profile));
    let with_profile = [&png[..33], &packed, &png[33..]].concat();
    assert!(strip(&with_profile) == Ok(png));
    let webp = |flags, chunks: &[Vec<u8>]| {
        let picture = plain(MediaType::Webp)[12..].to_vec();
        riff(&[&[canvas(flags)], chunks, &[picture]].concat())
    };
    let with_profile = webp(0x20, &[riff_chunk(b"ICCP", &profile)]);
    assert!(strip(&with_profile) == Ok(webp(0, &[])));
}

#[test]
fn the_small_picture_in_the_head_of_a_jpeg_goes() {
    let plain = file(MediaType::Jpeg, 20, 10);
    let mut head = plain[6..20].to_vec();
    head[12..].copy_from_slice(&[4, 4]);
    head.extend_from_slice(&[7; 3 * 16]);
    let with_thumbnail = [&plain[..2], &segment(0xe0, &head), &plain[20..]].concat();
    assert!(shown(&with_thumbnail).is_some());
    assert!(strip(&with_thumbnail) == Ok(plain));
}

#[test]
fn a_scan_goes_on_over_restarts_and_ends_with_the_next_part() {
    let scan = |data: &[u8]| [&segment(0xda, &[1, 1, 0, 0, 63, 0]), data].concat();
    let scans = [
        scan(&[0x12, 0xff, 0x00, 0xff, 0xd3, 0x55]),
        segment(0xfe, NOTE),
        scan(&[0xff, 0xff, 0xd7, 0x01]),
    ];
    let whole = [&[0xff, 0xd8, 0xff], &scans.concat()[1..], &[0xff, 0xd9]].concat();
    let wanted = [&[0xff, 0xd8], &scans[0][..], &scans[2], &[0xff, 0xd9]].concat();
    assert_eq!(strip(&whole), Ok(wanted));
}

fn frame(level: u8) -> Frame {
    let pixels = RgbaImage::from_fn(20, 10, |x, y| Rgba([level, x as u8, y as u8, 255]));
    Frame::from_parts(pixels, 0, 0, Delay::from_numer_denom_ms(100, 1))
}

/// Three frames, with notes between them.
fn animation(media_type: MediaType) -> Vec<u8> {
    match media_type {
        MediaType::Gif => {
            let mut bytes = Vec::new();
            let mut encoder = GifEncoder::new(&mut bytes);
            encoder.set_repeat(Repeat::Finite(3)).unwrap();
            encoder.encode_frames([10, 120, 240].map(frame)).unwrap();
            drop(encoder);
            let end = bytes.len() - 1;
            [&bytes[..end], &gif_chain(0xfe, &[NOTE]), &bytes[end..]].concat()
        }
        MediaType::Png => {
            let plain = file(media_type, 20, 10);
            let (head, end) = (8 + 25, plain.len() - 12);
            let content = &plain[head + 8..end - 4];
            let control = |number: u8| {
                let sides = [0, 0, 0, number, 0, 0, 0, 20, 0, 0, 0, 10];
                chunk(
                    b"fcTL",
                    &[&sides[..], &[0; 8], &[0, 1, 0, 10, 0, 0]].concat(),
                )
            };
            let frames = [
                chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]),
                control(0),
                plain[head..end].to_vec(),
                chunk(b"tEXt", NOTE),
                control(1),
                chunk(b"fdAT", &[&[0, 0, 0, 2], content].concat()),
            ];
            [&plain[..head], &frames.concat(), &plain[end..]].concat()
        }
        _ => {
            let picture = &file(media_type, 20, 10)[12..];
            let head = [0, 0, 0, 0, 0, 0, 19, 0, 0, 9, 0, 0, 100, 0, 0, 0];
            let parts = [&head[..], picture, &riff_chunk(b"note", NOTE)].concat();
            let one = riff_chunk(b"ANMF", &parts);
            let setting = riff_chunk(b"ANIM", &[0, 0, 0, 0, 3, 0]);
            riff(&[
                canvas(0x02),
                setting,
                one.clone(),
                one,
                riff_chunk(b"XMP ", NOTE),
            ])
        }
    }
}

fn frames(media_type: MediaType, bytes: &[u8]) -> Vec<(RgbaImage, Delay)> {
    let bytes = Cursor::new(bytes);
    let frames = match media_type {
        MediaType::Gif => GifDecoder::new(bytes).unwrap().into_frames(),
        MediaType::Png => PngDecoder::new(bytes)
            .unwrap()
            .apng()
            .unwrap()
            .into_frames(),
        _ => WebPDecoder::new(bytes).unwrap().into_frames(),
    };
    let frames = frames.collect_frames().unwrap().into_iter();
    frames
        .map(|frame| (frame.clone().into_buffer(), frame.delay()))
        .collect()
}

#[test]
fn what_moves_goes_on_moving() {
    for (media_type, count) in [
        (MediaType::Gif, 3),
        (MediaType::Png, 2),
        (MediaType::Webp, 2),
    ] {
        let whole = animation(media_type);
        let stripped = strip(&whole).unwrap();
        assert!(has_note(&whole) && !has_note(&stripped), "{media_type:?}");
        let moving = frames(media_type, &stripped);
        assert_eq!(moving.len(), count);
        assert!(moving == frames(media_type, &whole), "{media_type:?}");
        let repeats = |bytes: &[u8]| bytes.windows(11).any(|part| part == b"NETSCAPE2.0");
        assert_eq!(repeats(&stripped), media_type == MediaType::Gif);
    }
}

#[test]
fn wherever_a_file_is_cut_it_is_damaged() {
    for media_type in TYPES {
        let whole = strip(&full(media_type, &exif(6, true))).unwrap();
        for length in 12..whole.len() {
            assert_eq!(
                strip(&whole[..length]),
                Err(Damaged),
                "{media_type:?} at {length}"
            );
        }
    }
}

#[test]
fn parts_that_lie_about_their_length_are_damage() {
    let jpeg = file(MediaType::Jpeg, 20, 10);
    for length in [[0, 0], [0, 1], [0xff, 0xff]] {
        for marker in [0xc0, 0xda, 0xe1, 0xfe] {
            let part = [&[0xff, marker], &length[..]].concat();
            let wrong = [&jpeg[..20], &part, &jpeg[20..]].concat();
            assert_eq!(strip(&wrong), Err(Damaged), "{marker:x} {length:?}");
        }
    }
    for marker in [0x00, 0x01, 0x02, 0xd0, 0xd8, 0xd9, 0xf0] {
        let wrong = [&jpeg[..20], &[0xff, marker, 0, 2], &jpeg[20..]].concat();
        assert_eq!(strip(&wrong), Err(Damaged), "{marker:x} before a scan");
    }
    let png = file(MediaType::Png, 20, 10);
    for length in [0x7fff_ffff_u32, 0x8000_0000, u32::MAX - 11, u32::MAX] {
        let part = [&length.to_be_bytes(), b"tEXt".as_slice()].concat();
        let wrong = [&png[..33], &part, &png[33..]].concat();
        assert_eq!(strip(&wrong), Err(Damaged), "{length}");
    }
    for name in [b"NOTE", b"IEND"] {
        let wrong = [&png[..33], &chunk(name, NOTE), &png[33..]].concat();
        assert_eq!(strip(&wrong), Err(Damaged), "no decoder may pass over it");
    }
    let webp = full(MediaType::Webp, &exif(6, true));
    for place in [4, 16, 34] {
        for length in [0x7fff_ffff_u32, u32::MAX - 1, u32::MAX] {
            let mut wrong = webp.clone();
            wrong[place..place + 4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(strip(&wrong), Err(Damaged), "{place} {length}");
        }
    }
    let mut past_its_frame = animation(MediaType::Webp);
    let at = past_its_frame
        .windows(4)
        .position(|part| part == b"VP8L")
        .unwrap();
    past_its_frame[at + 5] += 1;
    assert_eq!(strip(&past_its_frame), Err(Damaged));
    let no_head = riff(&[
        riff_chunk(b"EXIF", NOTE),
        file(MediaType::Webp, 20, 10)[12..].to_vec(),
    ]);
    assert_eq!(strip(&no_head), Err(Damaged));
    let gif = file(MediaType::Gif, 20, 10);
    let head = 13 + colour_table(&gif);
    for wrong in [&[0x21, 0xfe, 0xff][..], &[0x21], &[0x00], &[0x2c, 0xff]] {
        assert_eq!(
            strip(&[&gif[..head], wrong].concat()),
            Err(Damaged),
            "{wrong:?}"
        );
    }
    let mut all_colours = gif;
    all_colours[10] = 0xff;
    assert_eq!(strip(&all_colours[..40]), Err(Damaged));
}

#[test]
fn a_million_parts_cost_no_more_than_their_bytes() {
    let png = file(MediaType::Png, 20, 10);
    let notes = chunk(b"note", b"").repeat(1 << 20);
    let many = [&png[..33], &notes, &png[33..]].concat();
    assert!(strip(&many) == Ok(png));
}

/// A change somewhere in a file.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Set(place, value) => {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
            Self::Insert(place, part) => {
                let place = place.index(bytes.len() + 1);
                bytes.splice(place..place, part.iter().copied());
            }
            Self::Remove(place, count) => {
                let from = place.index(bytes.len());
                let to = bytes.len().min(from + count);
                bytes.drain(from..to);
                bytes.push(0);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(place, value)| Change::Set(place, value)),
        1 => (place(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(place, part)| Change::Insert(place, part)),
        1 => (place(), 1..20usize).prop_map(|(place, count)| Change::Remove(place, count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn any_bytes_are_taken_or_refused(kind in 0..TYPES.len(), rest in prop::collection::vec(any::<u8>(), 0..400)) {
        let start = &file(TYPES[kind], 4, 4)[..12];
        let bytes = [start, &rest].concat();
        if let Ok(stripped) = without_metadata(TYPES[kind], bytes.clone()) {
            prop_assert!(stripped.len() <= bytes.len());
            prop_assert!(without_metadata(TYPES[kind], stripped.clone()) == Ok(stripped));
        }
        let _ = without_metadata(TYPES[kind], rest);
    }

    #[test]
    fn what_can_be_shown_after_a_change_is_the_same_when_stripped(
        kind in 0..TYPES.len(),
        orientation in 0..10u8,
        changes in prop::collection::vec(change(), 0..4),
    ) {
        let mut bytes = full(TYPES[kind], &exif(orientation, orientation % 2 == 0));
        for change in &changes {
            change.apply(&mut bytes);
        }
        let Ok(stripped) = strip(&bytes) else { return Ok(()) };
        prop_assert!(stripped.len() <= bytes.len());
        prop_assert!(strip(&stripped) == Ok(stripped.clone()));
        if let Some((pixels, ..)) = shown(&bytes) {
            let after = shown(&stripped).map(|(pixels, ..)| pixels);
            prop_assert!(after.as_ref() == Some(&pixels), "{:?}", TYPES[kind]);
        }
    }
}
