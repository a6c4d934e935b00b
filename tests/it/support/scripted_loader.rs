//! A loader that is a shell script, where a story is about pipes and not about rows: it reads each data file to its end, one
//! after the other, and notes the names of those that had one.

use std::ffi::OsString;
use std::path::PathBuf;

use super::sandbox::Sandbox;

/// Data files are those that are no file but a pipe.
const READS_ALL: &str = r#"
    for dump; do :; done
    for file in "$dump"/*; do
        if [ -p "$file" ]; then
            cat "$file" >"$0.files/${file##*/}" && echo "${file##*/}" >>"$0.whole"
        fi
    done
"#;

/// Reads a file `SQL` and then a file `DAT`.
pub const READS_BOTH: &str = r#"
    for dump; do :; done
    for file in SQL DAT; do
        cat "$dump/$file" >"$0.files/$file" && echo "$file" >>"$0.whole"
    done
"#;

pub struct ScriptedLoader {
    script: PathBuf,
}

impl ScriptedLoader {
    pub fn new(sandbox: &Sandbox) -> Self {
        Self::with(sandbox, READS_ALL)
    }

    /// One that does something else; its last argument is the directory.
    pub fn with(sandbox: &Sandbox, script: &str) -> Self {
        let loader = ScriptedLoader { script: sandbox.path("myloader") };
        std::fs::write(&loader.script, script).expect("a script");
        std::fs::create_dir(loader.beside("files")).expect("a directory");
        loader
    }

    /// What follows `--`. It is read by a shell and not executed itself: a file that was just written cannot always be.
    pub fn line(&self) -> [OsString; 2] {
        ["sh".into(), self.script.clone().into()]
    }

    /// The names of the files that it takes for whole.
    pub fn whole(&self) -> Vec<String> {
        let names = std::fs::read_to_string(self.beside("whole")).unwrap_or_default();
        names.lines().map(str::to_owned).collect()
    }

    /// The bytes that it got of a file so far.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.beside("files").join(name)).unwrap_or_default()
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.script.with_added_extension(name)
    }
}
