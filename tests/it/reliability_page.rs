//! `docs/reliability.md` promises by naming tests: each must exist.

use std::fs;
use std::path::Path;

#[test]
fn each_test_that_the_page_names_exists() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let files = fs::read_dir(tests).expect("the tests").filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let sources: String = files.collect();
    let page = include_str!("../../docs/reliability.md");
    let rows = page.lines().filter_map(|line| line.trim_end().strip_suffix(" |")?.rsplit_once("| "));
    let named: Vec<&str> =
        rows.flat_map(|(_, cell)| cell.split(", ")).filter_map(|name| name.strip_prefix('`')).collect();
    assert!(named.len() > 50, "{} names", named.len());
    for name in named {
        let name = name.trim_end_matches('`');
        assert!(sources.contains(&format!("#[test]\nfn {name}()")), "there is no test {name}");
    }
}
