//! MD5 of many messages side by side.
//!
//! One MD5 is a chain of 64 steps for each 64 bytes, each of which needs the one before: a processor does 0.6 to
//! 0.9 GB/s and cannot be hurried. But the parts of a file, and files, are hashed independently of each other, so a step
//! can be done for sixteen messages at once, in the lanes of vector registers. [RFC
//! 1321](https://www.rfc-editor.org/rfc/rfc1321) has the algorithm.
//!
//! - [`Lanes`] is what does the work: the fastest [`Implementation`] that this processor has, or a chosen one.
//! - [`Message`] is one message under way.
//!
//! `rounds` has the 64 steps, once, for whatever holds the words; `portable` and `x86` are what holds them.

mod portable;
mod rounds;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;

/// Bytes that MD5 takes at a time.
pub const BLOCK: usize = 64;
/// What MD5 takes at a time.
pub type Block = [u8; BLOCK];

/// The chaining value at the start of a message: RFC 1321, section 3.3.
const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// How messages are hashed. All ways make the same digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// Sixteen messages in registers of 512 bits.
    Avx512,
    /// Sixteen messages in pairs of registers of 256 bits.
    Avx2,
    /// Four messages in arrays, which the compiler puts into the vector registers that the target always has.
    Portable,
    /// One message after the other.
    Serial,
}

impl Implementation {
    /// All of them, the fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Portable, Self::Serial];

    /// Its name, as it is written in settings and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
            Self::Serial => "serial",
        }
    }

    fn is_supported(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable | Self::Serial => true,
        }
    }
}

impl fmt::Display for Implementation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One message, as far as it is hashed.
#[derive(Debug, Clone)]
pub struct Message {
    chain: [u32; 4],
    /// Bytes so far.
    length: u64,
}

impl Default for Message {
    fn default() -> Self {
        Self { chain: INITIAL, length: 0 }
    }
}

impl Message {
    /// The digest, after the message's last bytes.
    pub fn finish(mut self, rest: &[u8]) -> [u8; 16] {
        let (blocks, tail) = rest.as_chunks();
        md5::block_api::compress(&mut self.chain, blocks);
        let bits = self.length.wrapping_add(rest.len() as u64).wrapping_mul(8);
        // A one, zeros, and the length in bits fill the last block, or the last two.
        let mut padded = [[0; BLOCK]; 2];
        let used = if tail.len() < BLOCK - 8 { 1 } else { 2 };
        padded[0][..tail.len()].copy_from_slice(tail);
        padded[0][tail.len()] = 0x80;
        padded[used - 1][BLOCK - 8..].copy_from_slice(&bits.to_le_bytes());
        md5::block_api::compress(&mut self.chain, &padded[..used]);
        let mut digest = [0; 16];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.chain) {
            *bytes = word.to_le_bytes();
        }
        digest
    }
}

/// An [`Implementation`] that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes(Implementation);

impl Lanes {
    /// A chosen one; `None` if this processor does not have it.
    pub fn new(implementation: Implementation) -> Option<Self> {
        implementation.is_supported().then_some(Self(implementation))
    }

    /// The fastest.
    pub fn best() -> Self {
        Implementation::ALL.into_iter().find_map(Self::new).unwrap_or(Self(Implementation::Serial))
    }

    /// Which one it is.
    pub fn implementation(self) -> Implementation {
        self.0
    }

    /// Messages that are hashed at the cost of one.
    pub fn width(self) -> usize {
        match self.0 {
            Implementation::Avx512 | Implementation::Avx2 => 16,
            Implementation::Portable => 4,
            Implementation::Serial => 1,
        }
    }

    /// Takes the next blocks of each message: of any number of messages, and of as many blocks as each has.
    pub fn update(self, messages: &mut [(&mut Message, &[Block])]) {
        for (message, blocks) in &mut *messages {
            message.length = message.length.wrapping_add(std::mem::size_of_val(*blocks) as u64);
        }
        // All that have blocks left go on together, until the first of them has no more.
        loop {
            let mut going: Vec<_> = messages.iter_mut().filter(|(_, blocks)| !blocks.is_empty()).collect();
            let Some(run) = going.iter().map(|(_, blocks)| blocks.len()).min() else {
                return;
            };
            for group in going.chunks_mut(self.width()) {
                self.update_group(group, run);
            }
        }
    }

    /// Takes `run` blocks of each of at most [`Self::width`] messages.
    fn update_group(self, group: &mut [&mut (&mut Message, &[Block])], run: usize) {
        match self.0 {
            // One alone is as quick without company.
            _ if group.len() == 1 => {
                let (message, blocks) = &mut *group[0];
                md5::block_api::compress(&mut message.chain, &blocks[..run]);
                *blocks = &blocks[run..];
            }
            // SAFETY, of both: `Self::new` has seen that the processor has these instructions.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Implementation::Avx512 => side_by_side(group, run, |chains, blocks| unsafe {
                x86::update_avx512(chains, blocks);
            }),
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Implementation::Avx2 => side_by_side(group, run, |chains, blocks| unsafe {
                x86::update_avx2(chains, blocks);
            }),
            _ => side_by_side(group, run, rounds::update::<portable::Words, 4>),
        }
    }
}

/// Hands a group to an implementation in the order of words that it wants. Lanes that are left over repeat the first
/// message, and what comes of them is dropped.
fn side_by_side<const N: usize>(
    group: &mut [&mut (&mut Message, &[Block])],
    run: usize,
    update: impl Fn(&mut [[u32; N]; 4], [&[Block]; N]),
) {
    let mut chains = [[0; N]; 4];
    for (lane, (message, _)) in group.iter().enumerate() {
        for (words, word) in chains.iter_mut().zip(message.chain) {
            words[lane] = word;
        }
    }
    update(&mut chains, std::array::from_fn(|lane| &group.get(lane).unwrap_or(&group[0]).1[..run]));
    for (lane, (message, blocks)) in group.iter_mut().map(|member| &mut **member).enumerate() {
        message.chain = chains.map(|words| words[lane]);
        *blocks = &blocks[run..];
    }
}
