//! What the scripted dumper and whoever drives it share: how a command is written on one line, and
//! what the bytes of a generated file are.

/// Names the Unix socket on which the dumper asks for its commands.
pub const CONTROL_VARIABLE: &str = "SCRIPTED_DUMPER_CONTROL";
/// Names the file with its commands, for a dumper that nobody drives.
pub const SCRIPT_VARIABLE: &str = "SCRIPTED_DUMPER_SCRIPT";

/// Writes any bytes as one word without spaces. Most file names stay as they are.
pub fn encode(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "\\e".to_owned();
    }
    let mut word = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => word.push_str("\\\\"),
            b'\n' => word.push_str("\\n"),
            // '#' as the first byte of a line would make it a comment.
            b'!'..=b'~' if byte != b'#' => word.push(char::from(byte)),
            _ => word.push_str(&format!("\\x{byte:02x}")),
        }
    }
    word
}

/// The bytes that [`encode`] wrote; what needs no escape may stand as it is.
pub fn decode(word: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("'{word}' has a broken escape");
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().ok_or_else(bad)? {
            b'e' => {}
            b'n' => bytes.push(b'\n'),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = digit().zip(digit()).ok_or_else(bad)?;
                bytes.push((high * 16 + low) as u8);
            }
            _ => return Err(bad()),
        }
    }
    Ok(bytes)
}

/// The seed of a file's bytes: its name when it was opened, so that no two files of a dump are alike.
pub fn seed_of(name: &[u8]) -> u64 {
    // FNV-1a.
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Fills `buffer` with the bytes that stand at `offset` of the file with this seed: printable lines of
/// 64 bytes, fast enough in a debug build for dumps of some gigabytes.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let mut index = offset / 8;
    let mut skip = (offset % 8) as usize;
    let mut rest = buffer;
    while !rest.is_empty() {
        let eight = eight_bytes(seed, index);
        let taken = (8 - skip).min(rest.len());
        let (now, later) = rest.split_at_mut(taken);
        now.copy_from_slice(&eight[skip..skip + taken]);
        (rest, skip, index) = (later, 0, index + 1);
    }
}

fn eight_bytes(seed: u64, index: u64) -> [u8; 8] {
    // splitmix64, so that any place of a file can be made without what stands before it.
    let mut mixed = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let printable = (mixed & 0x3f3f_3f3f_3f3f_3f3f) + 0x3030_3030_3030_3030;
    let mut bytes = printable.to_le_bytes();
    if index % 8 == 7 {
        bytes[7] = b'\n';
    }
    bytes
}
