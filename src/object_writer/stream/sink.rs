//! Where the bytes of a stream are written: they become parts in memory, and whoever sends these is told of each.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::memory::Room;
use crate::model::part_plan::Part;
use crate::model::part_sizes::PartSizes;

/// Takes the bytes of a stream, on a thread that may wait: until there is memory, if need be. Dropped without
/// [`Sink::end`] the stream is not whole, and no object comes of it.
#[derive(Debug)]
pub struct Sink {
    room: Arc<Room>,
    sizes: PartSizes,
    tell: UnboundedSender<Told>,
    /// Bytes that were written.
    pub(super) at: u64,
    /// The part that they are in. `None`: not one byte came yet.
    pub(super) part: Option<Part>,
}

/// What is told of a stream. As much as memory allows is on its way, so there is no other limit.
#[derive(Debug)]
pub(super) enum Told {
    /// A part is full, and another one follows.
    Part(Part),
    /// There is no memory for the next part.
    Starved,
    /// It is whole, as far as its writer knows, with so many bytes; those behind the last part that was told are its last.
    End(u64),
}

impl Sink {
    pub(super) fn new(room: Arc<Room>, sizes: PartSizes) -> (Self, UnboundedReceiver<Told>) {
        let (tell, told) = unbounded_channel();
        (Self { room, sizes, tell, at: 0, part: None }, told)
    }

    /// Bytes that were written.
    pub fn written(&self) -> u64 {
        self.at
    }

    /// All was written that there is. Whether an object may come of it is for others to say.
    pub fn end(self) {
        self.tell(Told::End(self.at));
    }

    /// The part that the next byte goes into: the one that is begun, or another one.
    fn part(&mut self) -> io::Result<Part> {
        let number = match self.part {
            Some(part) if self.at < part.offset + part.length => return Ok(part),
            Some(full) => {
                self.tell(Told::Part(full));
                full.number + 1
            }
            None => 1,
        };
        let Some(next) = self.sizes.part(number) else {
            let largest = self.sizes.largest();
            let why = format!("it is longer than the {largest} bytes that so many parts of such a size hold");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        };
        self.room.take(next, || self.tell(Told::Starved))?;
        self.part = Some(next);
        Ok(next)
    }

    fn tell(&self, told: Told) {
        // Where nobody listens any more the next byte is refused.
        let _ = self.tell.send(told);
    }

    fn file(&self) -> &File {
        self.room.file()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let part = self.part()?;
        let room = part.offset + part.length - self.at;
        let length = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        self.file().write_all_at(&bytes[..length], self.at)?;
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
