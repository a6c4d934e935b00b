//! What goes wrong amid a load: the right status, words that name what is not whole, and nothing left behind. With the real
//! programs where a server is in it, else with a loader that notes which files it takes for whole.

use std::path::PathBuf;

use rustix::process::{Signal, kill_process};

use crate::support::load_story::{
    ROWS, Story, assert_nothing_is_left, endpoint_of, eventually_nothing_is_left, processes,
};
use crate::support::mariadb::MariaDb;
use crate::support::s3_server::{BUCKET, Fault, Operation, S3Server};
use crate::support::sandbox::{Program, eventually, eventually_some};
use crate::support::scripted_loader::ScriptedLoader;
use crate::support::stored_dump::StoredDump;

/// Of the stored dump: three parts, and one.
const LARGE: &str = "shop.orders.sql";
const SMALL: &str = "shop.people.sql";

fn is_large_table(key: &str) -> bool {
    key.contains(".big.") && !key.contains("schema")
}

/// A stored dump, and a loader that does not ask a server.
fn load<'a>(dump: &'a StoredDump, loader: &ScriptedLoader) -> Program<'a> {
    load_with(dump, [], loader)
}

fn load_with<'a, const N: usize>(dump: &'a StoredDump, options: [&str; N], loader: &ScriptedLoader) -> Program<'a> {
    std::fs::create_dir_all(tmp(dump)).expect("a directory");
    let load = dump.command("load").env("TMPDIR", tmp(dump)).arg("--unchecked").args(options);
    load.arg("--").args(loader.line())
}

fn tmp(dump: &StoredDump) -> PathBuf {
    dump.sandbox.path("tmp")
}

#[test]
fn a_myloader_that_is_killed_is_a_failure() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_loader_killed", &[]);
    let held = server.inject(Fault::hold().on(Operation::GetObject).key_where(is_large_table));
    let run = story.load_all().start();
    held.wait_for_hits(1);
    kill_process(story.loader(), Signal::KILL).expect("a signal to myloader");
    let finished = run.finish().assert_status(1).assert_says("myloader was ended by signal 9");
    finished.assert_says("load_loader_killed.big (").assert_does_not_say("INFO  loaded");
    story.assert_nothing_is_left();
}

/// "A server whose disk is full takes no more rows, and says so."
#[test]
fn needs_root_a_full_disk_of_the_server_is_a_failure() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_full", &[]);
    let target = MariaDb::on_a_small_disk(40);
    let finished = story.load().arg("--").args(target.myloader()).run().assert_status(1);
    finished.assert_says("is full").assert_says("hint:").assert_does_not_say("INFO  loaded");
    story.assert_nothing_is_left();
    let rows = target.sql("SELECT COUNT(*) FROM load_full.big");
    assert!(rows.trim().parse::<u32>().expect("a number") < ROWS, "{rows}");
}

#[test]
fn a_missing_right_is_a_failure() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_rights", &[]);
    for (user, rights, denied) in [
        (
            "inserts_nothing",
            "SELECT, CREATE, DROP, ALTER, INDEX, LOCK TABLES, RELOAD, PROCESS",
            "INSERT command denied",
        ),
        ("creates_nothing", "SELECT, INSERT, LOCK TABLES, RELOAD, PROCESS", "ccess denied for user"),
    ] {
        MariaDb::second().sql("DROP DATABASE IF EXISTS load_rights");
        let loader = MariaDb::second().myloader_with_rights(user, rights);
        let finished = story.load().arg("--").args(loader).run().assert_status(1);
        finished.assert_says(denied).assert_says("hint:").assert_does_not_say("INFO  loaded");
        story.assert_nothing_is_left();
    }
}

/// "The end of a pipe says that a file is whole": also where we die, and who reads the pipe is no child of ours. The helper
/// that holds it is stopped meanwhile, so it is not by its haste that none ends.
#[test]
fn no_pipe_ends_when_we_are_killed() {
    let dump = StoredDump::new();
    let loader = ScriptedLoader::new(&dump.sandbox);
    dump.server.inject(Fault::hold().on(Operation::GetObject).key(&dump.key(LARGE)));
    std::fs::create_dir_all(tmp(&dump)).expect("a directory");
    let load = dump.command("load").env("TMPDIR", tmp(&dump)).args(["--unchecked", "--"]);
    let run = load.args(["timeout", "1h"]).args(loader.line()).start();
    let find = |word: &str| {
        let tmp = tmp(&dump).display().to_string();
        let is_it =
            |line: &[String]| line.iter().any(|part| part == word) && line.iter().any(|part| part.contains(&tmp));
        processes().into_iter().find(|(_, line)| is_it(line)).map(|(pid, _)| pid)
    };
    let helper = eventually_some("the helper", || find("--tidy-when-the-pipe-breaks"));
    eventually("the helper holds a pipe", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", helper.as_raw_nonzero())).expect("what it has open");
        let mut open = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        open.any(|path| path.parent().is_some_and(|parent| parent.ends_with("pipes")))
    });
    kill_process(helper, Signal::STOP).expect("a signal to the helper");
    run.kill();
    eventually("who started the reader is gone", || find("timeout").is_none());
    // It would have read to the end by now.
    let reader = find("cat").expect("who reads");
    kill_process(helper, Signal::CONT).expect("a signal to the helper");
    eventually_nothing_is_left(&tmp(&dump));
    assert_eq!(loader.whole(), [] as [String; 0], "{reader:?} read to an end");
}

#[test]
fn a_loader_gets_the_bytes_that_were_uploaded() {
    let dump = StoredDump::new();
    let loader = ScriptedLoader::new(&dump.sandbox);
    load(&dump, &loader).run().assert_status(0).assert_says("loaded 2 data files of 2 tables, 12");
    for name in [LARGE, SMALL] {
        assert!(loader.bytes(name) == dump.files[name], "{name} differs");
    }
    assert_eq!(loader.whole(), [LARGE, SMALL]);
    assert_nothing_is_left(&tmp(&dump));
}

/// The first byte, the last one, the only part of a small file: no loader takes such a file for whole.
#[test]
fn a_byte_that_differs_keeps_the_end_of_its_file_back() {
    for (name, offset, table) in
        [(LARGE, 0, "shop.orders"), (LARGE, (12 << 20) - 1, "shop.orders"), (SMALL, 7, "shop.people")]
    {
        let dump = StoredDump::new();
        let loader = ScriptedLoader::new(&dump.sandbox);
        dump.server.object(BUCKET, &dump.key(name)).expect("an object").flip_byte_at(offset);
        let finished =
            load(&dump, &loader).run().assert_status(4).assert_says(&format!("'{name}' in the bucket is not"));
        finished.assert_says(&format!("{table} (1 of 1 files missing)")).assert_does_not_say("INFO  loaded");
        assert!(!loader.whole().iter().any(|whole| whole == name), "{:?}", loader.whole());
        let (got, all) = (loader.bytes(name), &dump.files[name]);
        assert!(all.starts_with(&got) && got.len() < all.len(), "wrong bytes of {name} went in");
        assert_nothing_is_left(&tmp(&dump));
    }
}

/// What is away when the load begins is found before anything is loaded; what goes amid it ends it.
#[test]
fn an_object_that_is_gone_ends_the_load() {
    let dump = StoredDump::new();
    let loader = ScriptedLoader::new(&dump.sandbox);
    let held = dump.server.inject(Fault::hold().on(Operation::GetObject).key(&dump.key(LARGE)));
    let run = load(&dump, &loader).start();
    held.wait_for_hits(1);
    dump.remove(LARGE);
    held.clear();
    let finished = run.finish().assert_status(1).assert_says(&format!("cannot fetch '{LARGE}'"));
    finished.assert_says("shop.orders (1 of 1 files missing)").assert_does_not_say("INFO  loaded");
    assert_eq!(loader.whole(), [] as [String; 0]);
    assert_nothing_is_left(&tmp(&dump));

    let again = load(&dump, &loader).run().assert_status(4).assert_says(&format!("'{LARGE}' is missing"));
    again.assert_does_not_say("started");
    assert_nothing_is_left(&tmp(&dump));
}

/// Other bytes with an ETag of their own, as of another dump at the same key: never mixed.
#[test]
fn an_object_that_is_replaced_amid_the_load_ends_it() {
    let dump = StoredDump::new();
    let loader = ScriptedLoader::new(&dump.sandbox);
    let held = dump.server.inject(Fault::hold().on(Operation::GetObject).key(&dump.key(LARGE)).after(1));
    let run = load(&dump, &loader).start();
    held.wait_for_hits(1);
    dump.put(LARGE, vec![b'x'; 12 << 20]);
    held.clear();
    let finished = run.finish();
    assert!(matches!(finished.status.code(), Some(1 | 4)), "{finished:?}");
    finished.assert_says(LARGE).assert_says("shop.orders (1 of 1 files missing)").assert_does_not_say("INFO  loaded");
    assert_eq!(loader.whole(), [] as [String; 0]);
    assert_nothing_is_left(&tmp(&dump));
}

#[test]
fn a_store_that_refuses_connections_amid_a_file_is_waited_out() {
    let dump = StoredDump::new();
    let loader = ScriptedLoader::new(&dump.sandbox);
    let held = dump.server.inject(Fault::hold().on(Operation::GetObject).key(&dump.key(LARGE)).after(1));
    let mut run = load(&dump, &loader).start();
    held.wait_for_hits(1);
    dump.server.down();
    held.clear();
    run.wait_for_line("cannot be used");
    dump.server.up();
    run.finish().assert_status(0).assert_says("the store is back");
    assert!(loader.bytes(LARGE) == dump.files[LARGE]);
    assert_eq!(loader.whole(), [LARGE, SMALL]);
    assert_nothing_is_left(&tmp(&dump));
}

#[test]
fn a_store_that_refuses_connections_for_too_long_ends_the_load() {
    let dump = StoredDump::new();
    let loader = ScriptedLoader::new(&dump.sandbox);
    let held = dump.server.inject(Fault::hold().on(Operation::GetObject).key(&dump.key(LARGE)).after(1));
    let run = load_with(&dump, ["--retry-for", "1s"], &loader).start();
    held.wait_for_hits(1);
    dump.server.down();
    held.clear();
    let finished = run.finish().assert_status(1).assert_says(&format!("cannot fetch '{LARGE}'"));
    finished.assert_says("shop.orders (1 of 1 files missing)").assert_does_not_say("INFO  loaded");
    assert_eq!(loader.whole(), [] as [String; 0]);
    assert_nothing_is_left(&tmp(&dump));
}

/// A loader's status 0 is not enough: each file must have been read to its end.
#[test]
fn a_loader_that_leaves_something_unread_is_a_failure() {
    let script = |what: &str| format!("for dump; do :; done; {what}");
    let passes_over = script(&format!("cat \"$dump/{LARGE}\" >/dev/null; exit 0"));
    let closes_early = script(&format!("head -c 10 \"$dump/{LARGE}\" >/dev/null; exit 0"));
    // Its own end may be seen first.
    for (script, says) in
        [(passes_over, format!("left 1 files unread: '{SMALL}'")), (closes_early, format!("'{LARGE}'"))]
    {
        let dump = StoredDump::new();
        let loader = ScriptedLoader::with(&dump.sandbox, &script);
        let finished = load(&dump, &loader).run().assert_status(1).assert_says(&says);
        finished.assert_says("files missing").assert_does_not_say("INFO  loaded");
        assert_nothing_is_left(&tmp(&dump));
    }
}
