use super::*;
use proptest::prelude::*;

fn header() -> ManifestHeader {
    ManifestHeader {
        format: FORMAT,
        kind: DumpKind::Directory,
        name: None,
        state: DumpStateWord::Complete,
        reason: None,
        identity: DumpIdentity { host: "db1".into(), started: "2026-11-22 02:00:01".into(), inode: 7, born: Some(5) },
        dump_id: "id".into(),
        series: Some("shop".into()),
        started: Timestamp::UNIX_EPOCH,
        finished: None,
        dumper_finished: None,
        dumper_version: None,
        left_out: None,
        full_disk: None,
        dumper_exit: DumperExit { status: Some(0), ..DumperExit::seen(ExitSeen::Child) },
        directory: "/backup".into(),
        closed_by: ClosedBy::Lease,
        seen_alive: true,
        told_to_stop: false,
        renewed: None,
        version: "0.1.0".into(),
        total_files: 2,
        total_bytes: 12,
        sources: Vec::new(),
        metadata_text: None,
        withdrawn: Vec::new(),
    }
}

fn files() -> Vec<ManifestFile> {
    let md5 = Md5Digest::of(b"hello");
    let object = |hash, proof| ObjectRecord {
        size: 6,
        hash,
        etag: None,
        version_id: None,
        sha256: None,
        proof,
        is_read_back: false,
    };
    let file = |name: &str, object| ManifestFile {
        name: name.parse().expect("a name"),
        kind: "data".into(),
        database: Some("shop".into()),
        table: None,
        rows: Some(3),
        object,
    };
    vec![
        file("a\"b.sql", object(ContentHash::Whole { md5 }, Proof::EtagMd5)),
        file(
            "c.sql",
            object(ContentHash::Parts { sizes: PartSizes::equal(5), part_md5s: vec![md5, md5] }, Proof::EtagComposite),
        ),
        file("d.sql", object(ContentHash::Unknown {}, Proof::ContentMd5)),
    ]
}

fn written() -> Vec<u8> {
    let mut text = Vec::new();
    write(&mut text, &header(), files().into_iter()).expect("writing into memory");
    text
}

fn read_all(text: &[u8]) -> Result<(ManifestHeader, Vec<ManifestFile>), BadManifest> {
    let mut files = Vec::new();
    let header = read(text, |file| files.push(file))?;
    Ok((header, files))
}

/// A program of version 0.1 refuses what it would misread, and reads the rest.
#[test]
fn growing_parts_need_the_second_format() {
    let of = |sizes| ContentHash::Parts { sizes, part_md5s: Vec::new() }.format();
    let growing = PartSizes::growing(5 << 20, 10);
    assert_eq!((of(PartSizes::equal(5)), of(growing), of(growing.of_object(25 << 20))), (1, 2, 1));
    assert_eq!(ContentHash::Unknown {}.format(), FORMAT_OF_EQUAL_PARTS);
    let text = serde_json::to_string(&ContentHash::Parts { sizes: growing, part_md5s: Vec::new() }).expect("JSON");
    assert_eq!(text, r#"{"part_size":5242880,"max_parts":10,"part_md5s":[]}"#);
    assert_eq!(
        serde_json::from_str::<ContentHash>(&text).expect("a hash"),
        ContentHash::Parts { sizes: growing, part_md5s: Vec::new() }
    );
}

#[test]
fn what_was_written_is_read_back() {
    let (header, read) = read_all(&written()).expect("a manifest");
    assert_eq!(read, files());
    assert_eq!(header.dumper_exit.seen, ExitSeen::Child);
    assert_eq!(header.identity, self::header().identity);
}

#[test]
fn one_file_is_one_line() {
    let text = String::from_utf8(written()).expect("text");
    assert_eq!(text.lines().filter(|line| line.contains("\"name\"")).count(), 3);
}

#[test]
fn unknown_fields_are_ignored() {
    let text = String::from_utf8(written()).expect("text");
    let text = text.replacen('{', "{\"colour\": {\"deep\": [1]},", 1).replace("\"kind\"", "\"new\":[{}],\"kind\"");
    assert_eq!(read_all(text.as_bytes()).expect("a manifest").1, files());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let text = String::from_utf8(written())
        .expect("text")
        .replace("\"format\": 2", "\"format\": 3")
        .replace("\"kind\"", "\"sort\"");
    let error = read_all(text.as_bytes()).expect_err("newer");
    assert!(matches!(error, BadManifest::Newer(3)), "{error}");
    assert!(error.to_string().contains("newer mydumper2s3"));
}

#[test]
fn every_shorter_text_is_damaged() {
    let text = written();
    for length in 0..text.len() - 2 {
        assert!(matches!(read_all(&text[..length]), Err(BadManifest::Damaged(_))), "{length}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn no_changed_byte_makes_the_reader_panic(at in 0_usize..2000, byte in any::<u8>()) {
        let mut text = written();
        if let Some(place) = text.get_mut(at) {
            *place = byte;
        }
        let _ = read_all(&text);
    }
}

#[test]
fn what_is_larger_than_its_limit_is_not_read() {
    let text = |fields: &str, files: &str| format!(r#"{{"format":1,{fields}"files":[{files}]}}"#);
    let long = "x".repeat(usize::try_from(FILE_SIZE_MAX).expect("a size"));
    let too_large = |text: String| match read(text.as_bytes(), drop) {
        Err(BadManifest::TooLarge(what)) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(too_large(text("", &format!(r#"{{"name":"{long}"}}"#))), "one of its values");
    // A field has more room than a file, and one that is not known takes no memory, but it ends, too.
    assert!(matches!(read(text(&format!(r#""more":"{long}","#), "").as_bytes(), drop), Err(BadManifest::Damaged(_))));
    let endless = std::io::Read::chain(&br#"{"format":1,"reason":""#[..], std::io::repeat(b'x'));
    assert!(matches!(read(std::io::BufReader::new(endless), drop), Err(BadManifest::TooLarge("one of its values"))));
    let endless = std::io::Read::chain(&br#"{"format":1"#[..], std::io::repeat(b' '));
    assert!(matches!(read(std::io::BufReader::new(endless), drop), Err(BadManifest::TooLarge("one of its values"))));
}
