//! A file of a dump, plain, `.gz` or `.zst`: looked at while it grows, it is found to be what one look finds.
#![no_main]

use std::fs::File;
use std::io::Write;

use libfuzzer_sys::fuzz_target;
use mydumper2s3::content::{Closeness, ContentLook, Wanted, look};
use mydumper2s3::platform::memory_file;

const NAMES: [&str; 8] = [
    "shop.orders.00000.sql",
    "shop.orders.00000.sql.gz",
    "shop.orders.00000.sql.zst",
    "shop.orders.00000.dat",
    "shop.orders.00000.dat.zst",
    "shop.orders-schema.sql",
    "shop.orders.00000.dat.gz",
    "metadata",
];
const CLOSENESS: [Closeness; 3] = [Closeness::Ends, Closeness::Inflated, Closeness::Whole];

fuzz_target!(|input: (u8, u8, Vec<u16>, &[u8])| {
    let (name, closeness, cuts, content) = input;
    let name = NAMES[usize::from(name) % NAMES.len()];
    let wanted = Wanted { closeness: CLOSENESS[usize::from(closeness) % CLOSENESS.len()], sha256: true };
    let mut file: File = memory_file("content").expect("memory");
    file.write_all(content).expect("memory");
    let size = content.len() as u64;
    let at_once = look(name, &file, size, wanted).expect("it can be read");

    let mut growing = ContentLook::new(name, wanted);
    let mut at = 0;
    for cut in cuts.into_iter().take(16) {
        at = (at + u64::from(cut) % (size + 1)).min(size);
        growing.advance(&file, at).expect("it can be read");
    }
    assert_eq!(growing.finish(&file, size, wanted.closeness).expect("it can be read"), at_once);
});
