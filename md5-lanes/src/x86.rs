//! Vector registers of x86-64.
//!
//! The methods are compiled into the two functions at the top, which switch the instructions on; nothing else may call
//! them. That is what makes each `unsafe` here sound: the instruction exists wherever these functions may run.
//!
//! Loops and macros, no closures: a closure is a function of its own without these instructions, so each of them would
//! become a call, ten times slower than all the rest.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::Block;
use crate::rounds::{self, Words};

/// Sixteen messages in registers of 512 bits.
#[target_feature(enable = "avx512f")]
pub fn update_avx512(chains: &mut [[u32; 16]; 4], messages: [&[Block]; 16]) {
    rounds::update::<Avx512, 16>(chains, messages);
}

/// Sixteen messages in pairs of registers of 256 bits: one would wait for its own last step most of the time.
#[target_feature(enable = "avx2")]
pub fn update_avx2(chains: &mut [[u32; 16]; 4], messages: [&[Block]; 16]) {
    rounds::update::<Avx2, 16>(chains, messages);
}

#[derive(Clone, Copy)]
struct Avx512(__m512i);

impl Words<16> for Avx512 {
    #[inline(always)]
    fn load(words: &[u32; 16]) -> Self {
        // SAFETY: the array has 64 bytes.
        Self(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self) -> [u32; 16] {
        let mut words = [0_u32; 16];
        // SAFETY: the array has 64 bytes.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), self.0) };
        words
    }

    #[inline(always)]
    fn splat(word: u32) -> Self {
        Self(unsafe { _mm512_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn rotate_left<const BITS: i32, const REST: i32>(self) -> Self {
        Self(unsafe { _mm512_rol_epi32::<BITS>(self.0) })
    }

    // The constants are truth tables: bit 4b + 2c + d is the result for these three bits.
    #[inline(always)]
    fn f(b: Self, c: Self, d: Self) -> Self {
        Self(unsafe { _mm512_ternarylogic_epi32::<0b1100_1010>(b.0, c.0, d.0) })
    }

    #[inline(always)]
    fn g(b: Self, c: Self, d: Self) -> Self {
        Self(unsafe { _mm512_ternarylogic_epi32::<0b1110_0100>(b.0, c.0, d.0) })
    }

    #[inline(always)]
    fn h(b: Self, c: Self, d: Self) -> Self {
        Self(unsafe { _mm512_ternarylogic_epi32::<0b1001_0110>(b.0, c.0, d.0) })
    }

    #[inline(always)]
    fn i(b: Self, c: Self, d: Self) -> Self {
        Self(unsafe { _mm512_ternarylogic_epi32::<0b0011_1001>(b.0, c.0, d.0) })
    }

    #[inline(always)]
    fn transpose(blocks: [&Block; 16]) -> [Self; 16] {
        let mut rows = [Self::splat(0).0; 16];
        for (row, block) in rows.iter_mut().zip(blocks) {
            // SAFETY: a block has 64 bytes.
            *row = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        }
        // Word w, 4 + w, 8 + w and 12 + w of four rows, in the four quarters of a register.
        let mut fours = [[rows[0]; 4]; 4];
        for (four, row) in fours.iter_mut().zip(rows.as_chunks::<4>().0) {
            unsafe {
                let (low_01, high_01) = (_mm512_unpacklo_epi32(row[0], row[1]), _mm512_unpackhi_epi32(row[0], row[1]));
                let (low_23, high_23) = (_mm512_unpacklo_epi32(row[2], row[3]), _mm512_unpackhi_epi32(row[2], row[3]));
                four[0] = _mm512_unpacklo_epi64(low_01, low_23);
                four[1] = _mm512_unpackhi_epi64(low_01, low_23);
                four[2] = _mm512_unpacklo_epi64(high_01, high_23);
                four[3] = _mm512_unpackhi_epi64(high_01, high_23);
            }
        }
        // The same quarter of all four, in order.
        let mut words = [Self(rows[0]); 16];
        for w in 0..4 {
            unsafe {
                let first_two = _mm512_shuffle_i32x4::<0x44>(fours[0][w], fours[1][w]);
                let first_two_high = _mm512_shuffle_i32x4::<0xEE>(fours[0][w], fours[1][w]);
                let last_two = _mm512_shuffle_i32x4::<0x44>(fours[2][w], fours[3][w]);
                let last_two_high = _mm512_shuffle_i32x4::<0xEE>(fours[2][w], fours[3][w]);
                words[w] = Self(_mm512_shuffle_i32x4::<0x88>(first_two, last_two));
                words[4 + w] = Self(_mm512_shuffle_i32x4::<0xDD>(first_two, last_two));
                words[8 + w] = Self(_mm512_shuffle_i32x4::<0x88>(first_two_high, last_two_high));
                words[12 + w] = Self(_mm512_shuffle_i32x4::<0xDD>(first_two_high, last_two_high));
            }
        }
        words
    }
}

/// Messages 0 to 7, and 8 to 15.
#[derive(Clone, Copy)]
struct Avx2(__m256i, __m256i);

impl Avx2 {
    /// Words `8 * half` to `8 * half + 7` of eight blocks.
    #[inline(always)]
    fn transpose_half(blocks: &[&Block; 8], half: usize) -> [__m256i; 8] {
        let mut rows = [Self::splat(0).0; 8];
        for (row, block) in rows.iter_mut().zip(blocks) {
            // SAFETY: a half has 32 bytes.
            *row = unsafe { _mm256_loadu_si256(block[32 * half..32 * half + 32].as_ptr().cast()) };
        }
        // Word w and 4 + w of four rows, in the two halves of a register.
        let mut fours = [[rows[0]; 4]; 2];
        for (four, row) in fours.iter_mut().zip(rows.as_chunks::<4>().0) {
            unsafe {
                let (low_01, high_01) = (_mm256_unpacklo_epi32(row[0], row[1]), _mm256_unpackhi_epi32(row[0], row[1]));
                let (low_23, high_23) = (_mm256_unpacklo_epi32(row[2], row[3]), _mm256_unpackhi_epi32(row[2], row[3]));
                four[0] = _mm256_unpacklo_epi64(low_01, low_23);
                four[1] = _mm256_unpackhi_epi64(low_01, low_23);
                four[2] = _mm256_unpacklo_epi64(high_01, high_23);
                four[3] = _mm256_unpackhi_epi64(high_01, high_23);
            }
        }
        let mut words = [rows[0]; 8];
        for w in 0..4 {
            unsafe {
                words[w] = _mm256_permute2x128_si256::<0x20>(fours[0][w], fours[1][w]);
                words[4 + w] = _mm256_permute2x128_si256::<0x31>(fours[0][w], fours[1][w]);
            }
        }
        words
    }
}

/// The same for both registers: a macro, because a closure would not be compiled with these instructions.
macro_rules! both {
    (|$($name:ident),+| $body:expr) => {{
        let first = { $(let $name = $name.0;)+ unsafe { $body } };
        let second = { $(let $name = $name.1;)+ unsafe { $body } };
        Avx2(first, second)
    }};
}

impl Words<16> for Avx2 {
    #[inline(always)]
    fn load(words: &[u32; 16]) -> Self {
        let (first, second) = words.split_at(8);
        // SAFETY: each half has 32 bytes.
        unsafe { Self(_mm256_loadu_si256(first.as_ptr().cast()), _mm256_loadu_si256(second.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store(self) -> [u32; 16] {
        let mut words = [0_u32; 16];
        let (first, second) = words.split_at_mut(8);
        // SAFETY: each half has 32 bytes.
        unsafe {
            _mm256_storeu_si256(first.as_mut_ptr().cast(), self.0);
            _mm256_storeu_si256(second.as_mut_ptr().cast(), self.1);
        }
        words
    }

    #[inline(always)]
    fn splat(word: u32) -> Self {
        let words = unsafe { _mm256_set1_epi32(word.cast_signed()) };
        Self(words, words)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let a = self;
        both!(|a, other| _mm256_add_epi32(a, other))
    }

    #[inline(always)]
    fn rotate_left<const BITS: i32, const REST: i32>(self) -> Self {
        let a = self;
        both!(|a| _mm256_or_si256(_mm256_slli_epi32::<BITS>(a), _mm256_srli_epi32::<REST>(a)))
    }

    #[inline(always)]
    fn f(b: Self, c: Self, d: Self) -> Self {
        both!(|b, c, d| _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d))))
    }

    #[inline(always)]
    fn g(b: Self, c: Self, d: Self) -> Self {
        Self::f(d, b, c)
    }

    #[inline(always)]
    fn h(b: Self, c: Self, d: Self) -> Self {
        both!(|b, c, d| _mm256_xor_si256(b, _mm256_xor_si256(c, d)))
    }

    #[inline(always)]
    fn i(b: Self, c: Self, d: Self) -> Self {
        let ones = Self::splat(u32::MAX);
        both!(|b, c, d, ones| _mm256_xor_si256(c, _mm256_or_si256(b, _mm256_xor_si256(d, ones))))
    }

    #[inline(always)]
    fn transpose(blocks: [&Block; 16]) -> [Self; 16] {
        let mut words = [Self::splat(0); 16];
        let (eights, _) = blocks.as_chunks::<8>();
        for half in 0..2 {
            let (first, second) = (Self::transpose_half(&eights[0], half), Self::transpose_half(&eights[1], half));
            for (word, (first, second)) in words[8 * half..8 * half + 8].iter_mut().zip(first.into_iter().zip(second)) {
                *word = Self(first, second);
            }
        }
        words
    }
}
