//! How much memory a program had at the most.

use super::sandbox::Finished;

/// Runs a program and says the most memory that it had: `ru_maxrss` of the children, as GNU time and bash have it. For
/// [`wrapped_in`](super::sandbox::Program::wrapped_in).
pub const WRAPPER: [&str; 4] = ["sh", "-c", SCRIPT, "sh"];

const SCRIPT: &str = "exec python3 -c '
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(\"peak KiB\", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)' \"$@\"";

#[track_caller]
pub fn mib(finished: &Finished) -> u64 {
    let line = finished.stderr.lines().find_map(|line| line.strip_prefix("peak KiB "));
    let kib: u64 = line.and_then(|kib| kib.parse().ok()).unwrap_or_else(|| panic!("no figure:\n{finished:?}"));
    kib / 1024
}
