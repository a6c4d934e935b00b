//! Four words in an array: the compiler knows to put them into one vector register.

use crate::Block;

#[derive(Clone, Copy)]
#[repr(align(16))]
pub struct Words([u32; 4]);

impl Words {
    #[inline(always)]
    fn of_each(b: Self, c: Self, d: Self, f: impl Fn(u32, u32, u32) -> u32) -> Self {
        let (b, c, d) = (b.0, c.0, d.0);
        // Written out: in this form it is vectorised, as a loop it is not.
        Self([f(b[0], c[0], d[0]), f(b[1], c[1], d[1]), f(b[2], c[2], d[2]), f(b[3], c[3], d[3])])
    }
}

impl crate::rounds::Words<4> for Words {
    #[inline(always)]
    fn load(words: &[u32; 4]) -> Self {
        Self(*words)
    }

    #[inline(always)]
    fn store(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn splat(word: u32) -> Self {
        Self([word; 4])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self::of_each(self, other, other, |a, b, _| a.wrapping_add(b))
    }

    #[inline(always)]
    fn rotate_left<const BITS: i32, const REST: i32>(self) -> Self {
        Self::of_each(self, self, self, |a, _, _| a.rotate_left(BITS.cast_unsigned()))
    }

    #[inline(always)]
    fn f(b: Self, c: Self, d: Self) -> Self {
        Self::of_each(b, c, d, |b, c, d| d ^ (b & (c ^ d)))
    }

    #[inline(always)]
    fn g(b: Self, c: Self, d: Self) -> Self {
        Self::f(d, b, c)
    }

    #[inline(always)]
    fn h(b: Self, c: Self, d: Self) -> Self {
        Self::of_each(b, c, d, |b, c, d| b ^ c ^ d)
    }

    #[inline(always)]
    fn i(b: Self, c: Self, d: Self) -> Self {
        Self::of_each(b, c, d, |b, c, d| c ^ (b | !d))
    }

    #[inline(always)]
    fn transpose(blocks: [&Block; 4]) -> [Self; 16] {
        let word = |block: &Block, at: usize| {
            u32::from_le_bytes([block[4 * at], block[4 * at + 1], block[4 * at + 2], block[4 * at + 3]])
        };
        std::array::from_fn(|at| Self(blocks.map(|block| word(block, at))))
    }
}
