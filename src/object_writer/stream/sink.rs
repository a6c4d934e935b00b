//! Where the bytes of a stream are written: they become parts in memory, and whoever sends these is told of each.

use std::io::{self, Read, Write};
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::memory::{Buffer, Room};
use crate::model::part_plan::Part;
use crate::model::part_sizes::PartSizes;

/// So many bytes at most are read to see whether another part begins.
const FIRST: usize = 4096;

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
    /// What that stands in, until it is told of.
    buffer: Option<Buffer>,
}

/// Why a stream did not come to its end.
#[derive(Debug)]
pub enum Broken {
    /// It could not be read.
    Input(io::Error),
    /// It was not taken.
    Output(io::Error),
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
        (Self { room, sizes, tell, at: 0, part: None, buffer: None }, told)
    }

    /// Bytes that were written.
    pub fn written(&self) -> u64 {
        self.at
    }

    /// All was written that there is. Whether an object may come of it is for others to say.
    pub fn end(mut self) {
        if let (Some(part), Some(buffer)) = (self.part, self.buffer.take()) {
            self.room.keep(part, buffer);
        }
        self.tell(Told::End(self.at));
    }

    /// Reads once, straight into where the bytes stay; returns those that came, none at the end of what is read.
    pub fn read_from(&mut self, input: &mut impl Read) -> Result<&[u8], Broken> {
        let length = if self.buffer.as_mut().is_some_and(|buffer| buffer.rest().is_empty()) {
            // There may be nothing more, and then there is no further part.
            let mut first = [0; FIRST];
            let length = input.read(&mut first).map_err(Broken::Input)?;
            self.write_all(&first[..length]).map_err(Broken::Output)?;
            length
        } else {
            let buffer = self.buffer().map_err(Broken::Output)?;
            let length = input.read(buffer.rest()).map_err(Broken::Input)?;
            buffer.advance(length);
            self.at += length as u64;
            length
        };
        let filled = self.buffer.as_ref().map(Buffer::as_ref).unwrap_or_default();
        Ok(&filled[filled.len() - length..])
    }

    /// Where the next byte goes: the part that is begun, or another one.
    fn buffer(&mut self) -> io::Result<&mut Buffer> {
        if self.buffer.as_mut().is_none_or(|buffer| buffer.rest().is_empty()) {
            let buffer = self.next_part()?;
            self.buffer = Some(buffer);
        }
        self.buffer.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn next_part(&mut self) -> io::Result<Buffer> {
        if let (Some(full), Some(buffer)) = (self.part, self.buffer.take()) {
            self.room.keep(full, buffer);
            self.tell(Told::Part(full));
        }
        let number = self.part.map_or(1, |part| part.number + 1);
        let Some(next) = self.sizes.part(number) else {
            let largest = self.sizes.largest();
            let why = format!("it is longer than the {largest} bytes that so many parts of such a size hold");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        };
        let buffer = self.room.take(next, || self.tell(Told::Starved))?;
        self.part = Some(next);
        Ok(buffer)
    }

    fn tell(&self, told: Told) {
        // Where nobody listens any more the next part is refused.
        let _ = self.tell.send(told);
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let buffer = self.buffer()?;
        let rest = buffer.rest();
        let length = rest.len().min(bytes.len());
        rest[..length].copy_from_slice(&bytes[..length]);
        buffer.advance(length);
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
