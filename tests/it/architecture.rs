//! The floors of the house, held by a test: arrows go down only.

use std::path::{Path, PathBuf};

/// A source file, without its tests at the end.
struct Source {
    /// From the repository's root.
    path: String,
    text: String,
}

impl Source {
    /// The lines that are code: numbers and texts, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().take_while(|(_, line)| *line != "#[cfg(test)]" || self.is_test());
        lines.map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// A file of tests beside its module.
    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.ends_with("testing.rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(dir: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory of the repository").flatten() {
        let path = entry.path();
        // A directory, or in a worktree a file that leads to it.
        if path.ends_with(".git") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !path.ends_with("target") {
                files_under(&path, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_under(&root().join("src"), &|path| path.extension().is_some_and(|name| name == "rs"), &mut paths);
    assert!(paths.len() > 40, "only {} sources found", paths.len());
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).expect("a source"),
        path: path.strip_prefix(root()).expect("in the repository").display().to_string(),
    };
    paths.into_iter().map(read).collect()
}

/// Every line of code outside `allowed` (paths begin so) that has one of the words.
fn lines_with(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        if source.is_test() || allowed.iter().any(|path| source.path.starts_with(path)) {
            continue;
        }
        let lines = source.code().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.extend(lines.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())));
    }
    found
}

const NONE: [String; 0] = [];

#[test]
fn only_s3_names_the_sdk() {
    assert_eq!(lines_with(&["aws_"], &["src/s3/"]), NONE);
    // The test can fail.
    assert_ne!(lines_with(&["aws_sdk_s3"], &[]), NONE);
}

/// clap prints its own errors, through `error.exit()`; everything else goes through the report.
#[test]
fn only_the_report_prints() {
    let words = ["println!", "print!", "eprint!", "stdout()", "stderr()", "dbg!"];
    assert_eq!(lines_with(&words, &["src/report/"]), NONE);
    assert_ne!(lines_with(&words, &[]), NONE);
}

#[test]
fn only_dump_dir_removes_files() {
    let words = ["unlink", "remove_file", "remove_dir", "rename(", "renameat", "set_len", "truncate("];
    let allowed = [
        "src/dump_dir.rs",
        // The metrics file is written beside itself and renamed; it is refused in the dump directory.
        "src/report/metrics.rs",
        // The manifest, where there are no files without a name: in the system's temporary directory.
        "src/platform/other.rs",
    ];
    assert_eq!(lines_with(&words, &allowed), NONE);
    assert_ne!(lines_with(&words, &[]), NONE);
}

#[test]
fn the_model_is_pure() {
    let words =
        ["tokio", "std::fs", "std::io::stdin", "std::process", "std::thread", "rustix", "libc", "aws_", "tracing"];
    let impure = lines_with(&words, &[]).into_iter().filter(|line| line.starts_with("src/model/"));
    assert_eq!(impure.collect::<Vec<_>>(), NONE);
    let upwards =
        ["crate::commands", "crate::s3", "crate::report", "crate::dumper", "crate::transfer", "crate::dump_dir"];
    let upwards = lines_with(&upwards, &[]).into_iter().filter(|line| line.starts_with("src/model/"));
    assert_eq!(upwards.collect::<Vec<_>>(), NONE);
}

/// The edges know nothing of the commands, and nothing of each other's work.
#[test]
fn arrows_go_down_only() {
    let up = |words: &[&str], from: &[&str]| -> Vec<String> {
        let lines = lines_with(words, &[]).into_iter();
        lines.filter(|line| from.iter().any(|path| line.starts_with(path))).collect()
    };
    let edges =
        ["src/s3/", "src/platform/", "src/dump_dir.rs", "src/writers.rs", "src/dumper/", "src/scan.rs", "src/pool.rs"];
    assert_eq!(up(&["crate::commands", "crate::transfer", "crate::cli", "crate::report"], &edges), NONE);
    assert_eq!(up(&["crate::commands", "crate::cli"], &["src/transfer.rs", "src/report/"]), NONE);
    assert_eq!(up(&["crate::"], &["src/pool.rs"]), NONE);
    assert_eq!(up(&["unsafe {"], &["src/"]).iter().filter(|line| !line.starts_with("src/platform/")).count(), 0);
}

#[test]
fn no_file_is_long() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= 550, "{} has {lines} lines", source.path);
    }
}

/// The repository stands by itself.
#[test]
fn nothing_refers_to_what_is_outside() {
    let mut paths = Vec::new();
    files_under(root(), &|_| true, &mut paths);
    // Put together here, or this file would be found.
    let (folder, prefix) = (["..", "shared"].join("/"), ["", "work", ""].join("/"));
    for path in paths {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let shown = path.strip_prefix(root()).expect("in the repository").display();
        for word in [&folder, &prefix] {
            assert!(!text.contains(word.as_str()), "{shown} refers to '{word}'");
        }
    }
}
