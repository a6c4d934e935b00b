//! The invariants of ARCHITECTURE.md that can be read off the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");

/// Each module's floor. Arrows go down or stay: a module uses none that stands on a higher floor.
const FLOORS: [(&str, &[&str]); 4] = [
    ("model", &["model", "exit_status"]),
    (
        "edges",
        &[
            "aside",
            "dump_dir",
            "dumper",
            "hand_over",
            "hint",
            "page_cache",
            "platform",
            "private_server",
            "program",
            "recorder",
            "report",
            "s3",
            "scratch_dir",
            "sql_client",
            "stop",
            "writers",
        ],
    ),
    (
        "lives",
        &[
            "bucket_dump",
            "bucket_manifest",
            "catalog",
            "claim",
            "cli",
            "content",
            "fetch",
            "hasher",
            "object_hash",
            "object_writer",
            "pool",
            "real_names",
            "removal",
            "retrieval",
            "scan",
            "streams",
            "transfer",
            "trial",
        ],
    ),
    ("commands", &["commands"]),
];

/// The sources without their tests, each by its path below `src/`.
fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                directories.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "testing.rs" {
                let text = std::fs::read_to_string(&path).expect("a source");
                let without_tests = text.split("#[cfg(test)]\nmod tests {").next().expect("what is before").to_owned();
                sources.insert(path.strip_prefix(&root).expect("a path below src").to_owned(), without_tests);
            }
        }
    }
    sources
}

/// `s3` of `s3/store.rs`, `cli` of `cli.rs`.
fn module(path: &Path) -> String {
    let first = path.components().next().expect("a path").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|(_, modules)| modules.contains(&module));
    found.unwrap_or_else(|| {
        panic!("say in FLOORS, in ARCHITECTURE.md and in src/lib.rs on which floor '{module}' stands")
    })
}

/// Lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The files whose code has one of these words, comments aside.
fn files_with(words: &[&str]) -> BTreeSet<String> {
    let has = |text: &str| code(text).any(|line| words.iter().any(|word| line.contains(word)));
    sources().iter().filter(|(_, text)| has(text)).map(|(path, _)| path.display().to_string()).collect()
}

#[track_caller]
fn assert_only(words: &[&str], allowed: &[&str]) {
    let others: Vec<_> =
        files_with(words).into_iter().filter(|file| !allowed.iter().any(|place| file.starts_with(place))).collect();
    assert!(others.is_empty(), "{words:?} only in {allowed:?}, but also in {others:?}");
}

#[test]
fn arrows_go_down() {
    for (path, text) in sources() {
        let own = module(&path);
        if own == "lib" || own == "main" {
            continue;
        }
        for line in code(&text) {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_').next();
                let used = used.expect("a first piece");
                // `crate::{…}` and macros have no name here.
                if !used.is_empty() {
                    assert!(floor(used) <= floor(&own), "{} uses {used}, which stands above it", path.display());
                }
            }
        }
    }
}

#[test]
fn the_map_in_lib_rs_names_every_module_and_so_does_architecture() {
    let lib = include_str!("../../src/lib.rs");
    for name in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')) {
        assert!(lib.lines().any(|line| line.starts_with(&format!("//! {name} "))), "the map does not name {name}");
        let floors = ARCHITECTURE.split("## Floors").nth(1).and_then(|rest| rest.split("**").next());
        assert!(floors.expect("the floors").contains(name), "ARCHITECTURE.md does not name {name}");
    }
}

#[test]
fn only_s3_names_the_sdk() {
    assert_only(&["aws_sdk_s3::", "aws_config::", "aws_smithy"], &["s3/"]);
}

#[test]
fn only_report_prints() {
    assert_only(&["println!", "eprintln!", "print!(", "io::stdout()", "io::stderr()"], &["report/"]);
}

#[test]
fn only_dump_dir_removes_files_of_a_dump() {
    // `restore` tidies up after itself, in a directory of its own; a file in memory has no name elsewhere.
    assert_only(
        &["unlink", "remove_file(", "remove_dir", "rename(", "renameat", "set_len(", "truncate("],
        // The metrics file is written beside itself and renamed, and refused in the dump directory.
        &["dump_dir.rs", "retrieval/directory.rs", "scratch_dir.rs", "platform/other.rs", "report/metrics.rs"],
    );
}

#[test]
fn model_names_neither_tokio_nor_the_filesystem() {
    let others: Vec<_> = files_with(&["tokio::", "std::fs", "std::process", "rustix::", "libc::", "tracing::"])
        .into_iter()
        .filter(|file| file.starts_with("model/"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn only_the_platform_is_unsafe() {
    assert_only(&["unsafe {", "allow(unsafe_code)"], &["platform/"]);
}

#[test]
fn jobs_are_made_in_one_place() {
    assert_only(&["UploadJob {"], &["model/state/mod.rs"]);
}

#[test]
fn no_file_is_long() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 550, "{} has {lines} lines", path.display());
    }
}

/// The repository stands by itself.
#[test]
fn nothing_refers_to_what_is_outside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Put together here, or this file would be found.
    let words = [["..", "shared"].join("/"), ["", "work", ""].join("/")];
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            if path.ends_with(".git") || path.ends_with("target") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let found = words.iter().find(|word| text.contains(word.as_str()));
                assert_eq!(found, None, "{} refers to what users do not have", path.display());
            }
        }
    }
}

#[test]
fn architecture_is_short_and_every_test_that_it_names_exists() {
    assert!(ARCHITECTURE.lines().count() <= 170, "ARCHITECTURE.md has more than 170 lines");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    let mut directories = vec![root.join("src"), root.join("tests")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                tests.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    let mut named = 0;
    for line in ARCHITECTURE.lines() {
        let Some((_, names)) = line.split_once("Held by") else { continue };
        for name in names.split('`').skip(1).step_by(2) {
            assert!(tests.contains(&format!("fn {name}(")), "no test is called {name}");
            named += 1;
        }
    }
    assert!(named > 10, "{named} tests are named");
}
