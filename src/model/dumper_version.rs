//! mydumper's version, as far as it can be known without running mydumper: what is called so may be a script that would
//! begin a second dump.

/// The first version that writes a statement on from where a full disk cut it short. Earlier ones write all of it again,
/// with garbage between, and still end with status 0.
const SURVIVES_FULL_DISK: [u32; 3] = [0, 20, 1];

/// The first version that reads the group `[mydumper]` of its defaults file like arguments (`load_config_file`).
const READS_DEFAULTS_FILE: [u32; 3] = [0, 11, 1];

/// The first version looked at that dumps triggers also without schemas; 0.11.5 does not.
const TRIGGERS_WITHOUT_SCHEMAS: [u32; 3] = [0, 12, 7];

/// The first version whose `--exec-per-thread` takes the rows of each file. 0.14.5 hangs with it, earlier ones fail.
const HANDS_ROWS_OVER: [u32; 3] = [0, 15, 1];

/// The first version looked at that sets `net_write_timeout` high for its own connections.
const RAISES_NET_WRITE_TIMEOUT: [u32; 3] = [1, 0, 1];

/// What only a mydumper's program file holds: the words around its version, in all versions from 0.10 to 1.0.
const SAYS_VERSION: [&[u8]; 2] = [b" v%s, built against ", b"mydumper %s, built against "];

/// Whether this mydumper is known to come through a moment without disk space. `version` is what is known of it.
pub fn survives_full_disk(version: Option<&str>) -> bool {
    version.and_then(numbers).is_some_and(|numbers| numbers >= SURVIVES_FULL_DISK)
}

/// Whether this mydumper takes options from its defaults file. `None` where its version is not known.
pub fn reads_defaults_file(version: Option<&str>) -> Option<bool> {
    version.and_then(numbers).map(|numbers| numbers >= READS_DEFAULTS_FILE)
}

/// Whether `--no-schemas` leaves the triggers in. Earlier versions write them beside a table's schema.
pub fn dumps_triggers_without_schemas(version: Option<&str>) -> bool {
    version.and_then(numbers).is_some_and(|numbers| numbers >= TRIGGERS_WITHOUT_SCHEMAS)
}

/// Whether a program of ours can take the rows of each file from this mydumper. `None` where its version is not known.
pub fn hands_rows_over(version: Option<&str>) -> Option<bool> {
    version.and_then(numbers).map(|numbers| numbers >= HANDS_ROWS_OVER)
}

/// Whether the server waits for this mydumper for long when nobody takes its rows: else it gives the connection up after
/// its own `net_write_timeout`, which is 60 s where nobody changed it.
pub fn raises_net_write_timeout(version: Option<&str>) -> bool {
    version.and_then(numbers).is_some_and(|numbers| numbers >= RAISES_NET_WRITE_TIMEOUT)
}

/// The numbers in a version, or in a sentence that holds one: `1.0.1-3`, `mydumper v0.19.3-1, built against …`.
pub fn numbers(text: &str) -> Option<[u32; 3]> {
    text.split([' ', ',']).find_map(|word| {
        let word = word.strip_prefix('v').unwrap_or(word);
        let mut numbers = word.split('-').next()?.splitn(3, '.').map(|number| number.parse().ok());
        Some([numbers.next()??, numbers.next()??, numbers.next()??])
    })
}

/// The version in the bytes of mydumper's program file. `None` where it is no mydumper, or where it holds several
/// texts that could be the version: one that is linked with its libraries has theirs, too.
pub fn version_in_program(program: &[u8]) -> Option<String> {
    let has = |wanted: &[u8]| program.windows(wanted.len()).any(|window| window == wanted);
    if !program.starts_with(b"\x7fELF") || !SAYS_VERSION.iter().any(|words| has(words)) {
        return None;
    }
    let mut found: Vec<&str> = program.split(|byte| *byte == 0).filter_map(as_version).collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [version] => Some((*version).to_owned()),
        _ => None,
    }
}

/// A text that is nothing but a version that mydumper had or may get. Those of MySQL and MariaDB begin higher.
fn as_version(text: &[u8]) -> Option<&str> {
    const LONGEST: usize = 16;
    if text.len() > LONGEST || !text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-')) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let [major, minor, _] = numbers(text)?;
    (major == 1 || (major == 0 && minor > 0)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_that_is_known_survives_a_full_disk() {
        for (version, survives) in [
            ("1.0.1-3", true),
            ("0.20.1-1", true),
            ("0.20.1", true),
            ("0.21.4", true),
            ("mydumper v1.0.1-3, built against MySQL 10.11.19", true),
            ("mydumper 1.0.1, scripted", true),
            ("0.20.0", false),
            ("0.19.3-3", false),
            ("0.10.0", false),
            ("mydumper 0.10.0, built against MySQL 10.11.14", false),
            ("1.0", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(survives_full_disk(Some(version)), survives, "{version}");
        }
        assert!(!survives_full_disk(None));
    }

    fn program(texts: &[&str]) -> Vec<u8> {
        format!("\x7fELF\0{}\0", texts.join("\0")).into_bytes()
    }

    #[test]
    fn a_program_file_tells_its_version_where_it_is_clear() {
        let says = "mydumper %s, built against MySQL %s\n";
        let newer = " v%s, built against %s %s";
        // As they stand in Debian's 0.10.1, which calls itself 0.10.0, and in 1.0.1.
        assert_eq!(version_in_program(&program(&["10.11.14", "0.10.0", says])).as_deref(), Some("0.10.0"));
        let texts = ["1.0.1-3", "0.0.0", "10.11.19", newer];
        assert_eq!(version_in_program(&program(&texts)).as_deref(), Some("1.0.1-3"));
        // Linked with a zlib.
        assert_eq!(version_in_program(&program(&["1.0.1-3", "1.2.13", newer])), None);
        // Another program, a script, nothing.
        assert_eq!(version_in_program(&program(&["1.0.1-3"])), None);
        assert_eq!(version_in_program(format!("#!/bin/sh\0{newer}\01.0.1-3\0").as_bytes()), None);
        assert_eq!(version_in_program(b""), None);
    }
}
