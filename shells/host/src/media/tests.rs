//! Bombs, cut files, wrong types, and what is kept.

use super::thumbnail::thumbnail;
use super::*;
use crate::blobs::BlobReader;
use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use miniz_oxide::deflate::compress_to_vec_zlib;

const TYPES: [MediaType; 4] = TYPES_OF_PICTURES;

pub(super) fn format_of(media_type: MediaType) -> Option<ImageFormat> {
    match media_type {
        MediaType::Png => Some(ImageFormat::Png),
        MediaType::Jpeg => Some(ImageFormat::Jpeg),
        MediaType::Gif => Some(ImageFormat::Gif),
        MediaType::Webp => Some(ImageFormat::WebP),
        MediaType::Other => None,
    }
}

/// A picture with a gradient, as a file of this type.
pub(super) fn file(media_type: MediaType, width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 90]));
    let mut bytes = Vec::new();
    let format = format_of(media_type).unwrap();
    DynamicImage::from(picture)
        .write_to(&mut Cursor::new(&mut bytes), format)
        .unwrap();
    bytes
}

/// The head of a PNG, with the check sum that it needs to be read.
fn png_head(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = file(MediaType::Png, 1, 1);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = bytes[12..29].iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
        })
    });
    bytes[29..33].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

/// A file that says it has far more pixels than there are bytes.
fn bomb(media_type: MediaType) -> (Vec<u8>, (u32, u32)) {
    let mut bytes = file(media_type, 16, 16);
    match media_type {
        MediaType::Png => (png_head(100_000, 100_000), (100_000, 100_000)),
        MediaType::Jpeg => {
            let at = bytes
                .windows(2)
                .position(|two| matches!(two, [0xff, 0xc0 | 0xc2]))
                .unwrap();
            bytes[at + 5..at + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
            (bytes, (65_500, 65_500))
        }
        MediaType::Gif => {
            bytes[6..10].fill(0xff);
            (bytes, (65_535, 65_535))
        }
        _ => {
            // A canvas of 60,000 × 60,000 around a picture of 16 × 16.
            let side = &59_999u32.to_le_bytes()[..3];
            let head = [&[0, 0, 0, 0][..], side, side].concat();
            let canvas = [b"WEBPVP8X".as_slice(), &10u32.to_le_bytes(), &head].concat();
            let body = [&canvas, &bytes[12..]].concat();
            let size = (body.len() as u32).to_le_bytes();
            let bytes = [b"RIFF".as_slice(), &size, &body].concat();
            (bytes, (60_000, 60_000))
        }
    }
}

fn small(bytes: &[u8], side: u32) -> Result<Thumbnail, MediaFault> {
    let side = ThumbnailSide::for_wish(side).unwrap();
    thumbnail(MediaType::of(bytes), Cursor::new(bytes), side)
}

#[test]
fn the_type_is_told_by_the_content() {
    for media_type in TYPES {
        let bytes = file(media_type, 20, 10);
        assert_eq!(MediaType::of(&bytes[..MAGIC_BYTES]), media_type);
        let head = head_of(&bytes).unwrap();
        assert_eq!((head.media_type, head.pixels), (media_type, Some((20, 10))));
    }
    for other in [
        &b""[..],
        b"GIF8",
        b"GIF88a",
        b"RIFF....WAVE",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html>",
        b"\x89PNG\n",
        b"%PDF-1.7",
    ] {
        let head = head_of(other).unwrap();
        assert_eq!((head.media_type, head.pixels), (MediaType::Other, None));
        assert_eq!(head.media_type.name(), "application/octet-stream");
        assert!(matches!(small(other, 64), Err(MediaFault::NotAPicture)));
    }
}

#[test]
fn every_type_becomes_small_and_keeps_its_shape() {
    for media_type in TYPES {
        let made = small(&file(media_type, 600, 300), 100).unwrap();
        let shown = image::load_from_memory(&made.bytes).unwrap();
        assert_eq!((shown.width(), shown.height()), (128, 64), "{media_type:?}");
        assert_eq!(MediaType::of(&made.bytes), made.media_type);
        let same = small(&file(media_type, 30, 20), 1024).unwrap();
        let shown = image::load_from_memory(&same.bytes).unwrap();
        assert_eq!((shown.width(), shown.height()), (30, 20), "{media_type:?}");
    }
}

#[test]
fn what_is_transparent_stays_so() {
    let clear = RgbaImage::from_pixel(200, 200, Rgba([9, 9, 9, 0]));
    let mut bytes = Vec::new();
    let mut to = Cursor::new(&mut bytes);
    clear.write_to(&mut to, ImageFormat::Png).unwrap();
    let made = small(&bytes, 64).unwrap();
    assert_eq!(made.media_type, MediaType::Png);
    let shown = image::load_from_memory(&made.bytes).unwrap().into_rgba8();
    assert_eq!(shown.get_pixel(3, 3).0[3], 0);
}

#[test]
fn a_bomb_is_refused_by_its_head_with_its_size() {
    for media_type in TYPES {
        let (bytes, (width, height)) = bomb(media_type);
        for fault in [head_of(&bytes).unwrap_err(), small(&bytes, 64).unwrap_err()] {
            let said = fault.to_string();
            assert!(
                matches!(fault, MediaFault::TooManyPixels { .. })
                    && said.contains(&format!("{width} × {height}")),
                "{media_type:?}: {said}"
            );
        }
    }
    let long = png_head(SIDE_PIXELS_MAX + 1, 1);
    assert!(matches!(
        head_of(&long),
        Err(MediaFault::TooManyPixels { .. })
    ));
}

#[test]
fn a_bomb_of_64_mb_is_refused_by_its_head_and_read_no_further() {
    const LENGTH: u64 = 64 * 1024 * 1024;
    for media_type in TYPES {
        let (head, _) = bomb(media_type);
        let mut read_bytes = 0;
        let mut reader = BlobReader::of(LENGTH, |range: std::ops::Range<u64>| {
            read_bytes += range.end - range.start;
            let byte = |place| head.get(place as usize).copied().unwrap_or_default();
            Ok(Some(range.map(byte).collect()))
        });
        let made = thumbnail(media_type, &mut reader, ThumbnailSide::default());
        assert!(
            matches!(made, Err(MediaFault::TooManyPixels { .. })),
            "{media_type:?}: {made:?}"
        );
        drop(reader);
        let read_bytes_max = crate::blobs::PART_BYTES_MAX;
        assert!(read_bytes <= read_bytes_max, "{media_type:?}: {read_bytes}");
    }
}

#[test]
fn a_jpeg_whose_coefficients_take_too_much_is_refused_with_its_size() {
    let (mut bytes, _) = bomb(MediaType::Jpeg);
    let frame = bytes.windows(2).position(|two| two == [0xff, 0xc0]);
    let frame = frame.unwrap();
    // Within the pixels that may be shown, and progressive: three colours, each a byte to show and two to gather.
    bytes[frame + 1] = 0xc2;
    bytes[frame + 5..frame + 9].copy_from_slice(&[0x17, 0x70, 0x17, 0x70]);
    for fault in [head_of(&bytes).unwrap_err(), small(&bytes, 64).unwrap_err()] {
        let said = "the picture of 6000 × 6000 pixels takes more than 268 MB to decode";
        assert!(fault.to_string().starts_with(said), "{fault}");
    }
}

#[test]
fn a_file_that_is_cut_short_is_damaged_wherever_it_is_cut() {
    for media_type in TYPES {
        let bytes = file(media_type, 64, 64);
        for length in [MAGIC_BYTES, 20, bytes.len() / 4, bytes.len() / 2] {
            let cut = &bytes[..length];
            // A JPEG may still be shown as far as it came; nothing panics, and nothing else is said.
            match small(cut, 64) {
                Err(MediaFault::Damaged) => {}
                Ok(_) if matches!(media_type, MediaType::Jpeg | MediaType::Gif) => {}
                other => panic!("{media_type:?} at {length}: {other:?}"),
            }
        }
    }
}

#[test]
fn whatever_byte_is_wrong_nothing_panics() {
    for media_type in TYPES {
        let bytes = file(media_type, 24, 24);
        for place in (MAGIC_BYTES..bytes.len()).step_by(5) {
            for flip in [0x01, 0x80, 0xff] {
                let mut wrong = bytes.clone();
                wrong[place] ^= flip;
                let _ = small(&wrong, 64);
            }
        }
    }
}

#[test]
fn wishes_are_rounded_up_within_their_range() {
    let side = |wish| ThumbnailSide::for_wish(wish).map(ThumbnailSide::pixels);
    assert_eq!(
        [16, 64, 65, 1000, 1024].map(side),
        [64, 64, 128, 1024, 1024].map(Some)
    );
    assert_eq!([0, 15, 1025, u32::MAX].map(side), [None; 4]);
}

#[test]
fn what_a_camera_wrote_in_a_form_that_is_not_read_is_not_published() {
    let jpeg = [&b"\0\xff\xd8\xff\xe1\0\x20Exif\0\0"[..], &[7; 100]].concat();
    for bytes in [
        b"II*\0 a raw picture".to_vec(),
        b"MM\0* another".to_vec(),
        b"\0\0\0\x18ftypheic\0\0\0\0".to_vec(),
        jpeg,
    ] {
        let refused = publishable(bytes);
        assert!(matches!(refused, Err(MediaFault::Untold)), "{refused:?}");
    }
    let (head, bytes) = publishable(b"%PDF-1.7".to_vec()).unwrap();
    assert_eq!(
        (head.media_type, &bytes[..]),
        (MediaType::Other, &b"%PDF-1.7"[..])
    );
}

fn png_chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [name.as_slice(), content].concat();
    let sum = named.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
        })
    });
    let length = (content.len() as u32).to_be_bytes();
    [&length, named.as_slice(), &(!sum).to_be_bytes()].concat()
}

#[test]
fn what_lies_packed_beside_the_pixels_is_not_unpacked() {
    let packed = compress_to_vec_zlib(&vec![b' '; 32 * 1024 * 1024], 9);
    assert!(packed.len() < 100_000);
    let plain = file(MediaType::Png, 20, 10);
    let parts = [
        png_chunk(b"iCCP", &[b"name\0\0", &packed[..]].concat()),
        png_chunk(b"zTXt", &[b"XML\0\0", &packed[..]].concat()),
        png_chunk(b"iTXt", &[b"XML\0\x01\0\0\0", &packed[..]].concat()),
    ];
    let bomb = [&plain[..33], &parts.concat(), &plain[33..]].concat();
    let rows = Rows::open(Cursor::new(&bomb)).unwrap();
    assert!(rows.has_pixels_only());
    let published = publishable(bomb.clone()).unwrap();
    assert!(published.1 == plain, "it is published without");
    assert!(small(&bomb, 64).unwrap() == small(&plain, 64).unwrap());
    let long = png_chunk(b"eXIf", &vec![0; 17 * 1024 * 1024]);
    let long = [&plain[..33], &long, &plain[33..]].concat();
    let refused = small(&long, 64);
    assert!(
        matches!(refused, Err(MediaFault::TooMuchMemory { .. })),
        "{refused:?}"
    );
}

/// The same picture as [`file`] makes, in seven passes.
fn interlaced(width: usize, height: usize) -> Vec<u8> {
    let mut rows = Vec::new();
    for (x, across, y, down) in [
        (0, 8, 0, 8),
        (4, 8, 0, 8),
        (0, 4, 4, 8),
        (2, 4, 0, 4),
        (0, 2, 2, 4),
        (1, 2, 0, 2),
        (0, 1, 1, 2),
    ] {
        for y in (y..height).step_by(down).filter(|_| x < width) {
            let pixels = (x..width).step_by(across);
            rows.push(0);
            rows.extend(pixels.flat_map(|x| [x as u8, y as u8, 90]));
        }
    }
    let sides = [width, height].map(|side| (side as u32).to_be_bytes());
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        png_chunk(b"IHDR", &[sides.as_flattened(), &[8, 2, 0, 0, 1]].concat()),
        png_chunk(b"IDAT", &compress_to_vec_zlib(&rows, 6)),
        png_chunk(b"IEND", b""),
    ]
    .concat()
}

#[test]
fn what_is_interlaced_becomes_the_same_small_picture() {
    for (width, height) in [(200, 100), (97, 130), (1, 70), (3, 1), (1, 1)] {
        let plain = file(MediaType::Png, width, height);
        let in_passes = interlaced(width as usize, height as usize);
        let same = image::load_from_memory(&in_passes).unwrap();
        assert!(same == image::load_from_memory(&plain).unwrap());
        assert!(small(&in_passes, 64).unwrap() == small(&plain, 64).unwrap());
        assert!(publishable(in_passes.clone()).unwrap().1 == in_passes);
        let cut = [
            &in_passes[..in_passes.len() - 30],
            &in_passes[in_passes.len() - 12..],
        ];
        assert!(publishable(cut.concat()).is_err());
    }
}

#[test]
fn every_depth_of_a_png_is_shown() {
    let grey = DynamicImage::from(RgbImage::from_pixel(90, 90, Rgb([40, 40, 40])));
    for picture in [
        grey.to_luma8().into(),
        grey.to_luma16().into(),
        grey.to_luma_alpha8().into(),
        grey.to_luma_alpha16().into(),
        grey.to_rgb8().into(),
        grey.to_rgb16().into(),
        grey.to_rgba8().into(),
        grey.to_rgba16().into(),
    ] {
        let picture: DynamicImage = picture;
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        let made = small(bytes.get_ref(), 64).unwrap();
        let shown = image::load_from_memory(&made.bytes).unwrap().into_rgba8();
        assert_eq!(shown.dimensions(), (64, 64));
        let [red, _, _, clear] = shown.get_pixel(30, 30).0;
        assert!(
            (39..=41).contains(&red) && clear == 255,
            "{:?}",
            picture.color()
        );
    }
}

#[test]
fn a_webp_that_takes_more_to_decode_than_its_pixels_is_refused() {
    // A canvas of 6,000 × 6,000 that is transparent, around a picture of 16 × 16.
    let side = &5_999_u32.to_le_bytes()[..3];
    let head = [&[0x10, 0, 0, 0][..], side, side].concat();
    let canvas = [b"WEBPVP8X".as_slice(), &10_u32.to_le_bytes(), &head].concat();
    let body = [&canvas, &file(MediaType::Webp, 16, 16)[12..]].concat();
    let size = (body.len() as u32).to_le_bytes();
    let bytes = [b"RIFF".as_slice(), &size, &body].concat();
    let refused = small(&bytes, 64).unwrap_err().to_string();
    let said = "the picture of 6000 × 6000 pixels takes more than 268 MB to decode";
    assert!(refused.starts_with(said), "{refused}");
}
