//! The texts that stand beside files, in extended attributes: what is read of them is the same after it was written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mydumper2s3::model::given_back::GivenBack;
use mydumper2s3::model::record::Record;

fuzz_target!(|text: &[u8]| {
    if let Ok(record) = Record::read(text) {
        let _ = record.binds();
        for limit in [960, 4032, 65_536] {
            let written = record.to_text(limit);
            if written.len() <= limit {
                Record::read(&written).expect("what we wrote can be read");
            }
        }
    }
    if let Ok(given) = GivenBack::read(text) {
        let _ = given.bytes();
        let again = GivenBack::read(&given.to_text()).expect("what we wrote can be read");
        assert_eq!(given.to_text(), again.to_text());
    }
});
