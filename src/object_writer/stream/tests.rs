use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::*;

const PART: u64 = 100;

fn opened(room: Arc<Room>, memory: &PartMemory) -> (Sink, Incoming) {
    Incoming::open(room, PartSizes::equal(PART), memory.batch())
}

fn bytes(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// A producer that writes pieces of 7 bytes, every other time through a reader, and then says that this was all.
fn write(mut sink: Sink, bytes: Vec<u8>) -> JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        for (number, mut piece) in bytes.chunks(7).enumerate() {
            if number % 2 == 0 {
                sink.write_all(piece)?;
                continue;
            }
            while !piece.is_empty() {
                let left = piece.len();
                let came = sink.read_from(&mut piece).map(<[u8]>::len);
                let came = came.map_err(|(Broken::Input(error) | Broken::Output(error))| error)?;
                assert_eq!(came, left - piece.len());
            }
        }
        assert_eq!(sink.written(), bytes.len() as u64);
        // Nothing more comes, and no part more begins.
        assert!(matches!(sink.read_from(&mut io::empty()), Ok([])));
        sink.end();
        Ok(())
    })
}

/// What a part holds; then it counts as sent.
fn send(incoming: &Incoming, part: Part) -> Vec<u8> {
    let bytes = incoming.room.part(part.offset).expect("in memory");
    incoming.room.leave(part);
    bytes.to_vec()
}

#[tokio::test]
async fn a_stream_of_any_length_comes_out_in_parts_and_what_fits_into_one_has_none() {
    for streams in [1, 3] {
        let memory = PartMemory::new(streams, PART, 4 * PART);
        for length in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 5 * PART - 1, 5 * PART, 12 * PART + 3] {
            let bytes = bytes(length);
            let (sink, mut incoming) = opened(memory.room().await.expect("room"), &memory);
            let producer = write(sink, bytes.clone());
            let mut sent = Vec::new();
            let mut number = 0;
            while let Some(part) = incoming.next().await {
                number += 1;
                assert_eq!((part.number, part.offset), (number, sent.len() as u64));
                sent.extend(send(&incoming, part));
            }
            assert_eq!(incoming.size, Some(length));
            if length <= PART {
                assert_eq!(number, 0, "{length}");
                assert_eq!(incoming.room.part(0).unwrap_or_default(), bytes);
            } else {
                assert_eq!((u64::from(number), sent == bytes), (length.div_ceil(PART), true), "{length}");
            }
            producer.join().expect("no panic").expect("written");
        }
    }
}

#[tokio::test]
async fn parts_come_as_many_at_a_time_as_memory_allows_beside_one_that_is_filled() {
    let memory = PartMemory::new(1, PART, 4 * PART);
    let (sink, mut incoming) = opened(memory.room().await.expect("room"), &memory);
    let producer = write(sink, bytes(20 * PART));
    let first = incoming.next().await.expect("a part");
    assert_eq!(first.number, 1);
    for number in 2..=3 {
        assert_eq!(incoming.next().await.expect("a part").number, number);
    }
    // Nothing was sent yet, and the memory is full: the producer waits.
    while incoming.starved == 0 {
        let next = tokio::time::timeout(std::time::Duration::from_millis(1), incoming.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
    assert_eq!((incoming.room.held(), incoming.ready.len()), (4, 1));
    send(&incoming, first);
    send(&incoming, Part { number: 2, offset: PART, length: PART });
    assert_eq!(incoming.next().await.expect("a part").number, 4);
    assert_eq!(incoming.ready.len(), 2);
    drop(incoming);
    producer.join().expect("no panic").expect_err("nobody took the rest");
}

/// One stream holds all that there is; another gets its part all the same, and both come to their end.
#[tokio::test]
async fn each_stream_gets_on_with_one_part_whatever_the_others_hold() {
    let memory = PartMemory::new(2, PART, 5 * PART);
    let (first, mut first_incoming) = opened(memory.room().await.expect("room"), &memory);
    let greedy = write(first, bytes(9 * PART));
    let mut held = Vec::new();
    while held.len() < 3 {
        held.push(first_incoming.next().await.expect("a part"));
    }
    while first_incoming.room.held() < 4 {
        tokio::task::yield_now().await;
    }
    let (second, mut second_incoming) = opened(memory.room().await.expect("room"), &memory);
    let modest = write(second, bytes(3 * PART));
    // Its first part is full, and there is no memory for the second: so that one comes alone.
    for number in 1..=3 {
        let part = second_incoming.next().await.expect("a part");
        assert_eq!(part.number, number);
        assert_eq!(second_incoming.room.held(), 1);
        send(&second_incoming, part);
    }
    assert_eq!(second_incoming.next().await, None);
    modest.join().expect("no panic").expect("written");
    drop(second_incoming);
    for part in held {
        send(&first_incoming, part);
    }
    while let Some(part) = first_incoming.next().await {
        send(&first_incoming, part);
    }
    greedy.join().expect("no panic").expect("written");
    drop(first_incoming);
    assert_eq!(*memory.used(), 0);
}

#[tokio::test]
async fn a_stream_more_than_there_is_room_for_waits_for_another_to_end() {
    let memory = PartMemory::new(1, PART, PART);
    let room = memory.room().await.expect("room");
    let next = memory.room();
    let mut next = std::pin::pin!(next);
    assert!(futures_util::FutureExt::now_or_never(&mut next).is_none());
    drop(room);
    next.await.expect("room");
}

/// Parts that have grown beyond all memory come one by one; memory then is what one part takes.
#[tokio::test]
async fn a_part_that_is_larger_than_the_memory_is_taken_alone() {
    let memory = PartMemory::new(1, PART, 4 * PART);
    let sizes = PartSizes::growing(PART, 4);
    let (sink, mut incoming) = Incoming::open(memory.room().await.expect("room"), sizes, memory.batch());
    let (second, third) = (sizes.part(2).expect("a part"), sizes.part(3).expect("a part"));
    assert!(third.length > 4 * PART);
    let buffer = incoming.room.take(second, || panic!("there is room")).expect("room");
    let starved = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| incoming.room.take(third, || starved.store(true, Ordering::Relaxed)));
        while !starved.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        drop(buffer);
        let buffer = waits.join().expect("no panic").expect("room");
        assert_eq!(incoming.room.held(), 1);
        drop(buffer);
    });
    drop(sink);
    assert_eq!(incoming.next().await, None);
    assert_eq!(incoming.size, None, "it broke off");
}

#[test]
fn what_is_longer_than_all_parts_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let memory = PartMemory::new(1, PART, 100 * PART);
    let room = runtime.block_on(memory.room()).expect("room");
    // The largest object of S3 fits into any number of parts, but no part has more than 5 GiB.
    let sizes = PartSizes::growing(PART, 1);
    assert!(sizes.largest() > PART);
    let (mut sink, _incoming) = Incoming::open(room, sizes, 1);
    sink.at = sizes.largest();
    sink.part = sizes.part(1);
    assert_eq!(sink.write(b"x").expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
}
