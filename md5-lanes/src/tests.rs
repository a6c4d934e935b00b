use md5::{Digest, Md5};
use proptest::prelude::*;

use super::*;

/// What this processor has; the others are named, because they are not tested here.
fn supported() -> Vec<Lanes> {
    let (has, has_not): (Vec<_>, Vec<_>) =
        Implementation::ALL.into_iter().map(|one| (one, Lanes::new(one))).partition(|(_, lanes)| lanes.is_some());
    for (implementation, _) in has_not {
        println!("not tested, since this processor does not have it: {implementation}");
    }
    has.into_iter().filter_map(|(_, lanes)| lanes).collect()
}

/// All messages side by side, in pieces of `piece` blocks.
fn digests(lanes: Lanes, messages: &[Vec<u8>], piece: usize) -> Vec<[u8; 16]> {
    let mut under_way = vec![Message::default(); messages.len()];
    let longest = messages.iter().map(Vec::len).max().unwrap_or(0);
    for start in (0..longest / BLOCK).step_by(piece) {
        let mut next: Vec<_> = (under_way.iter_mut().zip(messages))
            .map(|(message, bytes)| {
                let blocks = bytes.as_chunks().0;
                (message, &blocks[start.min(blocks.len())..(start + piece).min(blocks.len())])
            })
            .collect();
        lanes.update(&mut next);
    }
    under_way.into_iter().zip(messages).map(|(message, bytes)| message.finish(bytes.as_chunks::<BLOCK>().1)).collect()
}

fn hex(digest: [u8; 16]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 1321, section A.5.
#[test]
fn the_digests_of_the_rfc() {
    let known = [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("a", "0cc175b9c0f1b6a831c399e269772661"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
        (
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
            "57edf4a22be3c955ac49da2e2107b67a",
        ),
    ];
    let messages: Vec<_> = known.iter().map(|(text, _)| text.as_bytes().to_vec()).collect();
    for lanes in supported() {
        let made: Vec<_> = digests(lanes, &messages, 1).into_iter().map(hex).collect();
        assert_eq!(made, known.map(|(_, digest)| digest.to_owned()), "{}", lanes.implementation());
    }
}

/// Of 1 to 20 messages of one length, so that every lane is used, and used alone. The constants are of Python's hashlib:
/// `md5(bytes((lane * 31 + i * 7 + (i >> 8)) & 255 for i in range(4096)))`.
#[test]
fn every_lane_makes_the_same_digest() {
    let message = |lane: usize| -> Vec<u8> { (0..4096).map(|i: usize| (lane * 31 + i * 7 + (i >> 8)) as u8).collect() };
    let messages: Vec<_> = (0..20).map(message).collect();
    let expected: Vec<[u8; 16]> = messages.iter().map(|bytes| Md5::digest(bytes).into()).collect();
    assert_eq!(hex(expected[0]), "32696fd7d176a4abe51ef096a885fa89");
    assert_eq!(hex(expected[15]), "fd8065a243c683f80dcea8dcef93c103");
    for lanes in supported() {
        for count in 1..=messages.len() {
            assert_eq!(digests(lanes, &messages[..count], 7), expected[..count], "{} {count}", lanes.implementation());
        }
    }
}

proptest! {
    /// Messages of any lengths, in pieces of any length.
    #[test]
    fn any_messages_have_the_digests_that_they_have_alone(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..40),
        piece in 1_usize..12,
    ) {
        let expected: Vec<[u8; 16]> = messages.iter().map(|bytes| Md5::digest(bytes).into()).collect();
        for lanes in supported() {
            prop_assert_eq!(&digests(lanes, &messages, piece), &expected, "{}", lanes.implementation());
        }
    }
}
