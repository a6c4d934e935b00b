//! What a dump without files asks of mydumper's command line and of our memory.

use std::ffi::{OsStr, OsString};

use super::child_arguments::position_of;
use super::dumper_options::options;
use super::left_out::values_in_defaults;
use super::packing::Packing;
use super::part_plan::MIB;
use super::units::ByteSize;
use super::usage_error::UsageError;

/// mydumper's threads where nobody says how many (`num_threads` in `common_options.c`), and the fewest that it takes.
const THREADS: usize = 4;
const THREADS_MIN: usize = 2;
/// Files that a thread has open at a time: rows, and with LOAD_DATA and CSV the statement beside them. Each of them must be
/// read, or mydumper waits for ever.
const OPEN_FOR_THREAD: usize = 2;
/// S3's least size of a part that is not the last one.
const PART_SIZE_MIN: u64 = 5 * MIB;

/// What of mydumper's options does not go with `--no-disk`.
const REFUSED: [(&[u8], &str); 4] = [
    (b"compress", "leave it away: rows are compressed here, see --compress"),
    (b"exec-per-thread", "leave it away: rows are handed over by it"),
    (b"exec-per-thread-extension", "leave it away: --compress says how files are called"),
    (b"exec", "leave it away: there are no files that a command could take"),
];

/// Refuses what does not fit.
pub fn check_command(command: &[OsString]) -> Result<(), UsageError> {
    let Some(program) = position_of("mydumper", command) else {
        return Err(UsageError::new(
            "--no-disk needs a mydumper behind '--' that it can give options to",
            "write it out, as in: -- mydumper -B shop",
        ));
    };
    for option in options(&command[program + 1..]) {
        if let Some((name, hint)) = REFUSED.iter().find(|(name, _)| *name == option.name) {
            let name = String::from_utf8_lossy(name);
            return Err(UsageError::new(format!("mydumper's --{name} does not go with --no-disk"), *hint));
        }
    }
    Ok(())
}

/// The same command, where mydumper starts that program for each of its files.
pub fn with_program(command: &[OsString], program: &str, packing: Packing) -> Vec<OsString> {
    let mut command = command.to_vec();
    let start = position_of("mydumper", &command).unwrap_or_default();
    // Options end at a `--`.
    let end = command[start..].iter().position(|argument| argument == "--").map_or(command.len(), |at| start + at);
    let added = ["--exec-per-thread", program, "--exec-per-thread-extension", packing.extension()];
    command.splice(end..end, added.map(OsString::from));
    command
}

/// How many threads mydumper will have, or more: what is not known for sure must not be too few. `defaults` are the texts
/// of its defaults files.
pub fn threads(arguments: &[OsString], defaults: &[String], processors: usize) -> usize {
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(0) => Some(processors),
        Ok(threads) => Some(threads),
        Err(_) => None,
    };
    let given = options(arguments).into_iter().filter(|option| option.name == b"threads");
    let given = given.filter_map(|option| option.value.and_then(OsStr::to_str)).filter_map(number).next_back();
    let in_files = defaults.iter().flat_map(|text| values_in_defaults(text, "threads")).filter_map(number).max();
    given.max(in_files).unwrap_or(THREADS).max(THREADS_MIN)
}

/// What a dump without files takes of our memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamMemory {
    /// Files that are taken at a time.
    pub streams: usize,
    /// Bytes of a part, before parts grow.
    pub part_size: u64,
    /// Parts that are held at a time: at least one for each stream.
    pub parts: usize,
}

impl StreamMemory {
    /// For so many threads of mydumper. Parts become smaller before it is refused.
    pub fn plan(threads: usize, part_size: u64, most: ByteSize) -> Result<Self, UsageError> {
        let streams = threads.saturating_mul(OPEN_FOR_THREAD).max(1);
        let least = (streams as u64).saturating_mul(PART_SIZE_MIN);
        if most.0 < least {
            return Err(UsageError::new(
                format!("--max-memory {most} is too little for {threads} threads of mydumper without disk"),
                format!(
                    "each of them may have two files open, and of each a part of {} at least is held: give {} or more, \
                     or mydumper fewer --threads",
                    ByteSize(PART_SIZE_MIN),
                    ByteSize(least)
                ),
            ));
        }
        let part_size = part_size.min(most.0 / streams as u64 / MIB * MIB).max(PART_SIZE_MIN);
        let parts = usize::try_from(most.0 / part_size).unwrap_or(usize::MAX);
        Ok(Self { streams, part_size, parts })
    }

    /// All of it, in bytes.
    pub fn bytes(self) -> u64 {
        self.parts as u64 * self.part_size
    }

    /// Descriptors that are open at a time, beside those of everything else: of each stream the pipe and its memory, and of
    /// the one that waits for its turn its caller and its file, too.
    pub fn descriptors(self) -> u64 {
        2 * self.streams as u64 + 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn what_would_go_round_us_is_refused() {
        for command in [
            "mydumper -c",
            "mydumper -c zstd",
            "mydumper --compress=gzip",
            "nice mydumper -vc 3",
            "mydumper --exec-per-thread x",
            "mydumper --exec-per-thread-extension=.x",
            "mydumper --exec x",
        ] {
            let error = check_command(&words(command)).expect_err(command);
            assert!(error.to_string().contains("does not go with --no-disk"), "{command}: {error}");
        }
        assert!(
            check_command(&words("sh -c mydumper_and_more")).is_err_and(|error| error.to_string().contains("needs"))
        );
        for command in ["mydumper -B shop", "mydumper -C -p -c --format LOAD_DATA", "nice -n 9 mydumper -t 8"] {
            assert!(check_command(&words(command)).is_ok(), "{command}");
        }
    }

    #[test]
    fn mydumper_starts_our_program() {
        let of = |command: &str, packing: &str| {
            let packing = packing.parse().expect("a format");
            with_program(&words(command), "/proc/1/exe --hand-over s 1", packing)
        };
        let added = |extension: &str| {
            ["--exec-per-thread", "/proc/1/exe --hand-over s 1", "--exec-per-thread-extension", extension]
                .map(OsString::from)
        };
        let expected =
            |before: &str, extension, after: &str| [words(before), added(extension).to_vec(), words(after)].concat();
        assert_eq!(of("mydumper -B shop", "zstd"), expected("mydumper -B shop", ".zst", ""));
        assert_eq!(of("nice -- mydumper -B shop --", "gzip"), expected("nice -- mydumper -B shop", ".gz", "--"));
        assert_eq!(of("mydumper", "none"), expected("mydumper", "", ""));
    }

    #[test]
    fn threads_are_never_thought_fewer_than_they_are() {
        let of = |arguments: &str, file: &str| threads(&words(arguments), &[file.to_owned()], 16);
        assert_eq!(of("-B shop", ""), 4);
        assert_eq!(of("-t 8", ""), 8);
        assert_eq!(of("--threads=8 -t 2", ""), 2);
        assert_eq!(of("-vt 6", ""), 6);
        assert_eq!(of("-t 0", ""), 16);
        assert_eq!(of("-t 1", ""), 2);
        assert_eq!(of("-t many", ""), 4);
        assert_eq!(of("", "[client]\nthreads=9\n[mydumper]\nthreads = 7\n"), 7);
        assert_eq!(of("-t 2", "[mydumper]\nthreads=0\n"), 16);
    }

    #[test]
    fn parts_become_smaller_before_it_is_refused() {
        let plan = |threads, part, most| StreamMemory::plan(threads, part * MIB, ByteSize::mib(most));
        assert_eq!(plan(4, 16, 256), Ok(StreamMemory { streams: 8, part_size: 16 * MIB, parts: 16 }));
        assert_eq!(plan(8, 16, 256), Ok(StreamMemory { streams: 16, part_size: 16 * MIB, parts: 16 }));
        assert_eq!(plan(8, 16, 100), Ok(StreamMemory { streams: 16, part_size: 6 * MIB, parts: 16 }));
        assert_eq!(plan(8, 16, 80), Ok(StreamMemory { streams: 16, part_size: 5 * MIB, parts: 16 }));
        let error = plan(8, 16, 79).expect_err("too little");
        assert!(error.hint().contains("80 MiB") || error.hint().contains("80MiB"), "{}", error.hint());
        for (threads, part, most) in [(4, 16, 256), (8, 64, 500), (2, 5, 20), (64, 16, 640)] {
            let plan = plan(threads, part, most).expect("enough");
            assert!(plan.parts >= plan.streams && plan.bytes() <= most * MIB, "{plan:?}");
        }
    }
}
