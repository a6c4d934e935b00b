//! The 64 steps of MD5 on words of `N` messages, whatever holds them.

use crate::Block;

/// One 32-bit word of each of `N` messages.
pub trait Words<const N: usize>: Copy {
    /// Message by message.
    fn load(words: &[u32; N]) -> Self;
    /// Message by message.
    fn store(self) -> [u32; N];
    /// The same word for all.
    fn splat(word: u32) -> Self;
    /// Modulo 2³².
    fn add(self, other: Self) -> Self;
    /// `REST` is 32 - `BITS`: instructions take their distance as a constant.
    fn rotate_left<const BITS: i32, const REST: i32>(self) -> Self;
    /// `b ? c : d`, bit by bit.
    fn f(b: Self, c: Self, d: Self) -> Self;
    /// `d ? b : c`, bit by bit.
    fn g(b: Self, c: Self, d: Self) -> Self;
    /// `b ^ c ^ d`.
    fn h(b: Self, c: Self, d: Self) -> Self;
    /// `c ^ (b | !d)`.
    fn i(b: Self, c: Self, d: Self) -> Self;
    /// The sixteen words of a block of each message.
    fn transpose(blocks: [&Block; N]) -> [Self; 16];
}

/// Takes all blocks of `N` messages, which must have equally many of them. `chains` has the four words of each
/// message's chaining value: `chains[word][message]`.
#[inline(always)]
pub fn update<W: Words<N>, const N: usize>(chains: &mut [[u32; N]; 4], messages: [&[Block]; N]) {
    let [a, b, c, d] = &*chains;
    let (mut a, mut b, mut c, mut d) = (W::load(a), W::load(b), W::load(c), W::load(d));
    for at in 0..messages[0].len() {
        let m = W::transpose(messages.map(|blocks| &blocks[at]));
        let (a0, b0, c0, d0) = (a, b, c, d);
        // RFC 1321, section 3.4: a = b + ((a + f(b, c, d) + m[k] + t) <<< s). `b` comes last into the sum, because it is
        // the word that the step before has just made.
        macro_rules! step {
            ($f:ident, $a:ident, $b:ident, $c:ident, $d:ident, $k:expr, $s:literal, $t:literal) => {
                $a = $a.add(m[$k].add(W::splat($t))).add(W::$f($b, $c, $d)).rotate_left::<$s, { 32 - $s }>().add($b);
            };
        }
        macro_rules! round {
            ($f:ident, [$s0:literal, $s1:literal, $s2:literal, $s3:literal],
             $([$k0:literal $t0:literal, $k1:literal $t1:literal, $k2:literal $t2:literal, $k3:literal $t3:literal])*) => {
                $(
                    step!($f, a, b, c, d, $k0, $s0, $t0);
                    step!($f, d, a, b, c, $k1, $s1, $t1);
                    step!($f, c, d, a, b, $k2, $s2, $t2);
                    step!($f, b, c, d, a, $k3, $s3, $t3);
                )*
            };
        }
        round!(f, [7, 12, 17, 22],
            [0 0xd76a_a478, 1 0xe8c7_b756, 2 0x2420_70db, 3 0xc1bd_ceee]
            [4 0xf57c_0faf, 5 0x4787_c62a, 6 0xa830_4613, 7 0xfd46_9501]
            [8 0x6980_98d8, 9 0x8b44_f7af, 10 0xffff_5bb1, 11 0x895c_d7be]
            [12 0x6b90_1122, 13 0xfd98_7193, 14 0xa679_438e, 15 0x49b4_0821]);
        round!(g, [5, 9, 14, 20],
            [1 0xf61e_2562, 6 0xc040_b340, 11 0x265e_5a51, 0 0xe9b6_c7aa]
            [5 0xd62f_105d, 10 0x0244_1453, 15 0xd8a1_e681, 4 0xe7d3_fbc8]
            [9 0x21e1_cde6, 14 0xc337_07d6, 3 0xf4d5_0d87, 8 0x455a_14ed]
            [13 0xa9e3_e905, 2 0xfcef_a3f8, 7 0x676f_02d9, 12 0x8d2a_4c8a]);
        round!(h, [4, 11, 16, 23],
            [5 0xfffa_3942, 8 0x8771_f681, 11 0x6d9d_6122, 14 0xfde5_380c]
            [1 0xa4be_ea44, 4 0x4bde_cfa9, 7 0xf6bb_4b60, 10 0xbebf_bc70]
            [13 0x289b_7ec6, 0 0xeaa1_27fa, 3 0xd4ef_3085, 6 0x0488_1d05]
            [9 0xd9d4_d039, 12 0xe6db_99e5, 15 0x1fa2_7cf8, 2 0xc4ac_5665]);
        round!(i, [6, 10, 15, 21],
            [0 0xf429_2244, 7 0x432a_ff97, 14 0xab94_23a7, 5 0xfc93_a039]
            [12 0x655b_59c3, 3 0x8f0c_cc92, 10 0xffef_f47d, 1 0x8584_5dd1]
            [8 0x6fa8_7e4f, 15 0xfe2c_e6e0, 6 0xa301_4314, 13 0x4e08_11a1]
            [4 0xf753_7e82, 11 0xbd3a_f235, 2 0x2ad7_d2bb, 9 0xeb86_d391]);
        a = a.add(a0);
        b = b.add(b0);
        c = c.add(c0);
        d = d.add(d0);
    }
    *chains = [a.store(), b.store(), c.store(), d.store()];
}
