//! What the work costs, counted and not timed: requests, bytes read, system calls, memory. A count is the same on a
//! loaded machine, so a change that makes the program dearer shows here at once. Beside each bound stands what was
//! measured, and why it may not grow. How fast the program is, benchmarks tell.

use std::collections::BTreeMap;

use crate::support::dir_watch::DirWatch;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, LoggedRequest, Operation};
use crate::support::stage::{MANIFEST, Stage};
use crate::support::strace::{Call, Trace, by_name};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A dump of files `shop.orders.00000.sql` and so on that has ended when the program comes to it: then one look finds
/// all of them, and no count depends on when it was made.
fn ended_dump(stage: &Stage, files: u64, bytes: u64) -> FakeDumper {
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.generate(files, bytes, 0);
    dumper.finish_and_exit();
    dumper
}

/// Uploads a dump that has ended, and returns the system calls that it took.
fn traced(stage: &Stage, dumper: &FakeDumper, options: &[&str]) -> Vec<Call> {
    let trace = Trace::new(&stage.sandbox);
    stage.upload_with_defaults().args(options).wrapped_in(trace.wrapper()).run().assert_status(0);
    stage.assert_whole(dumper);
    trace.calls()
}

/// How many requests of each kind there were for the object of that name, or for none.
fn requests_for(requests: &[LoggedRequest], name: &str) -> BTreeMap<Operation, usize> {
    let mut counts = BTreeMap::new();
    for request in requests.iter().filter(|request| request.key.rsplit('/').next() == Some(name)) {
        *counts.entry(request.operation).or_default() += 1;
    }
    counts
}

/// A store charges by the request, and each costs a round trip: one for a file, for one in parts one each and two more,
/// and what does not depend on the files.
#[test]
fn requests_are_as_many_as_files_and_parts_and_a_constant() {
    for files in [10, 200] {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.generate(files, KIB, 0);
        dumper.file("shop.empty.00000.sql", 0);
        dumper.file("shop.large.00000.sql", 21 * MIB);
        dumper.finish_and_exit();
        stage.upload_with_defaults().args(["--part-size", "5MiB"]).run().assert_status(0);
        stage.assert_whole(&dumper);
        let requests = stage.server.requests();
        let once = BTreeMap::from([(Operation::PutObject, 1)]);
        for name in dumper.files().into_keys().filter(|name| !name.starts_with("shop.large.")) {
            assert_eq!(requests_for(&requests, &name), once, "{name}");
        }
        let in_parts = [
            (Operation::CreateMultipartUpload, 1),
            (Operation::UploadPart, 5),
            (Operation::CompleteMultipartUpload, 1),
        ];
        assert_eq!(requests_for(&requests, "shop.large.00000.sql"), in_parts.into());
        let of_the_manifest = [
            // Whether the rights are enough to read; and whether the claim is still ours before the first removal.
            (Operation::HeadObject, 2),
            // The claim; whether the store knows conditions, and lets a key be overwritten; and the whole manifest.
            (Operation::PutObject, 4),
            // Whether the rights are enough for a file in parts, before there is one.
            (Operation::CreateMultipartUpload, 1),
            (Operation::AbortMultipartUpload, 1),
        ];
        assert_eq!(requests_for(&requests, MANIFEST), of_the_manifest.into());
        let of_the_bucket = [
            // The prefix at the start, twice around the claim, and before the commit. One answer has 1,000 keys.
            (Operation::ListObjectsV2, 4),
            // What an earlier run may have left.
            (Operation::ListMultipartUploads, 3),
        ];
        assert_eq!(requests_for(&requests, ""), of_the_bucket.into());
    }
}

/// Several stores refuse chunked bodies, or checksums that they were not asked for; and to sign a body is to hash every
/// byte once more.
#[test]
fn bodies_go_plain_with_their_md5_and_nothing_else() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.empty.00000.sql", 0);
    dumper.file("shop.small.00000.sql", KIB);
    dumper.file("shop.large.00000.sql", 6 * MIB);
    dumper.finish_and_exit();
    stage.upload_with_defaults().args(["--part-size", "5MiB"]).run().assert_status(0);
    stage.assert_whole(&dumper);
    let carries = |request: &LoggedRequest| [Operation::PutObject, Operation::UploadPart].contains(&request.operation);
    let requests: Vec<_> = stage.server.requests().into_iter().filter(carries).collect();
    // The files, of which one goes in two parts, `metadata`; the claim and its two trials; the manifest.
    assert_eq!(requests.len(), 9);
    for request in requests {
        assert!(request.has_content_md5() && !request.is_aws_chunked(), "{request:?}");
        assert_eq!(request.content_length(), Some(request.received), "{request:?}");
        assert_eq!(request.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"), "{request:?}");
        assert_eq!(request.header("transfer-encoding"), None, "{request:?}");
        let unwanted = ["x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer", "x-amz-decoded", "content-encoding"];
        for name in request.headers.keys() {
            assert!(!unwanted.iter().any(|unwanted| name.as_str().starts_with(unwanted)), "{request:?}");
        }
    }
}

/// How many bytes of the file of that name were read.
fn bytes_read(calls: &[Call], name: &str) -> u64 {
    let reads = ["read", "readv", "pread64", "preadv", "preadv2", "sendfile", "splice", "copy_file_range"];
    let of_it = calls.iter().filter(|call| call.arguments.contains(&format!("/{name}>")));
    let of_it: Vec<_> = of_it.inspect(|call| assert_ne!(call.name, "mmap", "its bytes cannot be counted")).collect();
    let read = of_it.iter().filter(|call| reads.contains(&call.name.as_str()));
    read.filter_map(|call| u64::try_from(call.result?).ok()).sum()
}

/// Bytes of a file that are read to see whether the page cache has it, and whether its text ends where a statement does
/// (what these files hold is no SQL, so its beginning is looked at, too).
const LOOKED_AT: u64 = 8 + 64 + 16;

/// Each byte is read to be hashed and once more to be sent: measured, exactly twice, and once where a file is short.
/// Reads are copies out of the page
/// cache, and from the disk where memory is short: a third would cost the database's host as much as the sending.
#[test]
fn each_byte_is_read_twice() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let files = [
        ("shop.empty.00000.sql", 0),
        ("shop.small.00000.sql", 4 * KIB),
        ("shop.medium.00000.sql", 3 * MIB + 1),
        ("shop.large.00000.sql", 21 * MIB + 1),
    ];
    files.iter().for_each(|(name, bytes)| dumper.file(name, *bytes));
    dumper.finish_and_exit();
    let calls = traced(&stage, &dumper, &["--part-size", "5MiB"]);
    for (name, bytes) in files {
        let (read, times) = (bytes_read(&calls, name), if bytes <= 64 * KIB { 1 } else { 2 });
        let allowed = times * bytes..=times * bytes + LOOKED_AT;
        assert!(allowed.contains(&read), "{read} bytes of {name} were read, which has {bytes}");
    }
}

/// The page cache is the database's: a file that only we read into it is taken out again, and one that was there stays.
#[test]
fn the_page_cache_is_left_as_it_was() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let (cold, warm) = ("shop.cold.00000.sql", "shop.warm.00000.sql");
    [cold, warm].into_iter().for_each(|name| dumper.file(name, 11 * MIB));
    dumper.finish_and_exit();
    let open = |name: &str| std::fs::File::open(stage.sandbox.dump_dir().join(name)).expect("the file");
    let file = open(cold);
    file.sync_all().expect("on the disk");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("out of the cache");
    stage.upload_with_defaults().args(["--keep", "--part-size", "5MiB"]).run().assert_status(0);
    // 9 MiB from its start is in its second part.
    let is_cached = |name: &str| {
        let mut byte = [0];
        let mut slices = [std::io::IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(open(name), &mut slices, 9 * MIB, rustix::io::ReadWriteFlags::NOWAIT)
    };
    // Some filesystems, overlayfs for one, do not tell: there nothing is taken out, and the file that was read stays.
    let tells = !matches!(is_cached(warm), Err(rustix::io::Errno::OPNOTSUPP));
    println!("the filesystem tells what is cached: {tells}");
    if tells {
        assert_eq!((is_cached(warm), is_cached(cold)), (Ok(1), Err(rustix::io::Errno::AGAIN)));
    }
}

/// What an error of the store costs: the request's own bytes, once more. Measured: exactly that.
#[test]
fn a_request_that_is_repeated_reads_only_its_own_bytes_again() {
    let stage = Stage::new();
    let refused = stage.server.inject(Fault::answer(500, "InternalError").on(Operation::UploadPart).part(2).once());
    let dumper = ended_dump(&stage, 1, 21 * MIB);
    let calls = traced(&stage, &dumper, &["--part-size", "5MiB"]);
    refused.wait_for_hits(1);
    let read = bytes_read(&calls, "shop.orders.00000.sql");
    assert!(read <= (2 * 21 + 5) * MIB + LOOKED_AT, "{read} bytes were read");
}

/// A dump may have a hundred thousand small files. Measured for a file of 4 KiB: 17 calls that name it or its descriptor
/// (two of them only in a debug build), 3 for the network and the record, and 7 (idle) to 12 (busy) by which threads wait
/// for each other and wake each other. Each is a microsecond or more of the host's CPU, for every file.
#[test]
fn a_small_file_takes_few_system_calls() {
    const WAITS: [&str; 3] = ["futex", "epoll_wait", "write"];
    const SENDS: [&str; 4] = ["writev", "sendto", "recvfrom", "fsetxattr"];
    let run = |files: u64| {
        let stage = Stage::new();
        let dumper = ended_dump(&stage, files, 4 * KIB);
        let calls = traced(&stage, &dumper, &[]);
        let own = by_name(calls.iter().filter(|call| call.arguments.contains("shop.orders.")));
        println!("{files} files, of the calls that name one: {own:?}");
        let all = by_name(calls.iter());
        let count = |names: &[&str]| names.iter().filter_map(|name| all.get(*name)).sum::<usize>();
        [own.values().sum(), count(&SENDS), count(&WAITS)]
    };
    let (few, many) = (run(10), run(110));
    let [own, sends, waits] = [0, 1, 2].map(|kind| many[kind].saturating_sub(few[kind]) / 100);
    println!("a small file takes {own} calls of its own, {sends} to be sent and noted, {waits} to wait");
    assert!(own <= 19, "{own} calls for a file");
    assert!(own + sends <= 23, "{own} calls for a file, and {sends} to be sent and noted");
    assert!(waits <= 20, "{waits} calls for a file to wait");
}

/// A dump that lives for hours is looked at every second. Measured: 17 calls for a look, whatever the number of files
/// that are kept, and some more `getdents64` that list them. None of them may open or stat a file that is done.
#[test]
fn a_look_does_not_touch_files_that_are_done() {
    const LOOKS: usize = 10;
    // Only a look at the files opens the directory anew, through its own descriptor.
    let is_look = |call: &Call| call.name == "openat" && call.arguments.contains(r#"/dump>, ".","#);
    let calls_of_looks = |files: u64| {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.generate(files, KIB, 0);
        let trace = Trace::new(&stage.sandbox);
        let run = stage.upload().arg("--keep").wrapped_in(trace.wrapper()).start();
        dumper.file("shop.last.00000.sql", KIB);
        (0..files).for_each(|index| stage.wait_for(&format!("shop.orders.{index:05}.sql")));
        stage.wait_for("shop.last.00000.sql");
        // The last answer has to come back.
        stage.let_looks_pass();
        let done = trace.calls().len();
        DirWatch::on(&stage.sandbox.dump_dir()).wait_for_opens(3 * (LOOKS + 3));
        let calls = trace.calls().split_off(done);
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        let looks: Vec<_> = (0..calls.len()).filter(|index| is_look(&calls[*index])).collect();
        assert!(looks.len() > LOOKS, "{} looks", looks.len());
        let calls = &calls[looks[0]..looks[LOOKS]];
        let touched = calls.iter().find(|call| call.arguments.contains("shop."));
        assert!(touched.is_none(), "with {files} files: {touched:?}");
        let kinds = ["close", "fcntl", "fstat", "newfstatat", "open", "openat", "pread64", "read", "statx"];
        let mut counts: BTreeMap<String, usize> =
            by_name(calls).into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        println!("{LOOKS} looks at {files} files: {counts:?}");
        counts.retain(|name, _| kinds.contains(&name.as_str()));
        counts
    };
    let (few, many) = (calls_of_looks(50), calls_of_looks(1_000));
    assert_eq!(few, many, "calls in {LOOKS} looks");
    let for_a_look = few.values().sum::<usize>() / LOOKS;
    assert!(for_a_look <= 27, "{for_a_look} calls for a look");
}

/// "Memory … bounded by the settings, not by the … size of files." Measured in a debug build:
/// 44 MiB with four workers and a file of 64 MiB, 45 MiB with one of 512 MiB, and 77 to 79 MiB with 64 workers, all of whom
/// have a part under way, the more the busier the machine. A buffer for a whole part would show at once: it would be 5 MiB for
/// each worker.
#[test]
fn memory_grows_with_the_workers_and_not_with_the_file() {
    let ((small, large), many) = ((peak_memory(4, 64), peak_memory(4, 512)), peak_memory(64, 512));
    println!("peak memory in KiB: {small}, with a larger file {large}, with 64 workers {many}");
    assert!(large < small + 5 * KIB, "{small} KiB grew to {large} KiB with the size of a file");
    assert!(large < 50 * KIB, "{large} KiB with 4 workers");
    assert!(many < 96 * KIB, "{many} KiB with 64 workers");
}

/// The most memory that an upload of one file has had before its commit, in KiB.
fn peak_memory(workers: usize, mib: u64) -> u64 {
    const NAME: &str = "shop.sparse.00000.sql";
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    // Closed at once: a file that somebody writes is not uploaded.
    let file = std::fs::File::create(stage.sandbox.dump_dir().join(NAME)).expect("a file in the dump directory");
    file.set_len(mib * MIB).expect("a sparse file");
    drop(file);
    dumper.finish_and_exit();
    let parts = stage.server.inject(Fault::hold().on(Operation::UploadPart));
    let commit = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/metadata")));
    let options = ["--workers", &workers.to_string(), "--part-size", "5MiB"];
    let run = stage.upload_with_defaults().args(options).start();
    // All of them have a body under way, as with a slow store.
    parts.wait_for_hits(workers);
    parts.clear();
    commit.wait_for_hits(1);
    let status = format!("/proc/{}/status", run.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).expect("the status of a running program");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    commit.clear();
    run.finish().assert_status(0);
    let object = stage.server.object(BUCKET, &format!("{}/{NAME}", stage.prefix())).expect("the object");
    assert_eq!(object.size, mib * MIB);
    peak.expect("its peak").parse().expect("KiB")
}
