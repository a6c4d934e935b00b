//! Bodies of requests: dropped, hashed, kept in memory or in a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use md5::{Digest, Md5};

use crate::operations::Sink;
use crate::request::{Incoming, Request, malformed};
use crate::store::Piece;

/// Longer lines between chunks are nobody's.
const CHUNK_LINE_MAX: u64 = 8 * 1024;
const PIECE_SIZE: usize = 128 * 1024;

/// A body that has come as a whole.
pub struct Received {
    pub piece: Piece,
    /// As hashed, or as the client says it is, or made up.
    pub md5: [u8; 16],
    /// As it came, with its framing.
    pub bytes: u64,
    /// It is not what its Content-MD5 says.
    pub is_damaged: bool,
}

/// What is read back must be kept: the manifest, and `metadata`.
fn is_read_back(request: &Request) -> bool {
    let name = request.path.rsplit('/').next().unwrap_or_default();
    request.method == "POST" || name == "mydumper2s3.json" || name == "metadata"
}

pub fn receive(sink: &Sink, request: &Request, incoming: &mut Incoming) -> io::Result<Received> {
    if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        incoming.transport.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let promised = request.header("content-md5").and_then(from_base64);
    let length = number(request, "content-length")?;
    let is_in_chunks = request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let must_be_seen = sink.hashes || sink.dir.is_some() || is_read_back(request);
    if !is_in_chunks && !must_be_seen {
        let length = length.unwrap_or(0);
        incoming.discard(length)?;
        let size = number(request, "x-amz-decoded-content-length")?.unwrap_or(length);
        let md5 = promised.unwrap_or_else(|| made_up(sink));
        return Ok(Received { piece: Piece::Dropped { length: size }, md5, bytes: length, is_damaged: false });
    }
    let mut framed = Counting { inner: incoming, count: 0 };
    let mut target = Target::new(sink, request)?;
    {
        let mut plain: Box<dyn Read + '_> = if is_in_chunks {
            Box::new(Chunks::new(&mut framed))
        } else {
            Box::new((&mut framed).take(length.unwrap_or(0)))
        };
        if request.header("x-amz-decoded-content-length").is_some() {
            let mut inner = Chunks::new(&mut plain);
            copy(&mut inner, &mut target)?;
        } else {
            copy(&mut plain, &mut target)?;
        }
        // The trailers of what is in chunks twice.
        io::copy(&mut plain, &mut io::sink())?;
    }
    let bytes = framed.count;
    if !is_in_chunks && bytes != length.unwrap_or(0) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (piece, hashed) = target.finish()?;
    let is_damaged = hashed.is_some() && promised.is_some() && hashed != promised;
    Ok(Received { piece, md5: hashed.or(promised).unwrap_or_else(|| made_up(sink)), bytes, is_damaged })
}

fn copy(from: &mut impl Read, target: &mut Target) -> io::Result<()> {
    let mut piece = vec![0; PIECE_SIZE];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            count => target.take(&piece[..count])?,
        }
    }
}

/// Where a body goes.
struct Target {
    kept: Kept,
    md5: Option<Md5>,
}

enum Kept {
    Memory(Vec<u8>),
    File(File, Piece),
    Dropped(u64),
}

impl Target {
    fn new(sink: &Sink, request: &Request) -> io::Result<Self> {
        let kept = if is_read_back(request) {
            Kept::Memory(Vec::new())
        } else if let Some(dir) = &sink.dir {
            let path = dir.join(format!("{:016x}", sink.store.number()));
            Kept::File(File::create(&path)?, Piece::File { path, length: 0 })
        } else {
            Kept::Dropped(0)
        };
        Ok(Self { kept, md5: sink.hashes.then(Md5::new) })
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        match &mut self.kept {
            Kept::Memory(memory) => memory.extend_from_slice(bytes),
            Kept::File(file, piece) => {
                file.write_all(bytes)?;
                if let Piece::File { length, .. } = piece {
                    *length += bytes.len() as u64;
                }
            }
            Kept::Dropped(length) => *length += bytes.len() as u64,
        }
        Ok(())
    }

    fn finish(self) -> io::Result<(Piece, Option<[u8; 16]>)> {
        let piece = match self.kept {
            Kept::Memory(memory) => Piece::Memory(memory),
            Kept::File(_, piece) => piece,
            Kept::Dropped(length) => Piece::Dropped { length },
        };
        Ok((piece, self.md5.map(|md5| md5.finalize().into())))
    }
}

/// Takes the framing off: of HTTP's chunks, and of aws-chunked, whose lines also hold signatures.
struct Chunks<R: Read> {
    inner: OneByOne<R>,
    left: u64,
    is_first: bool,
    has_ended: bool,
}

impl<R: Read> Chunks<R> {
    fn new(inner: R) -> Self {
        Self { inner: OneByOne(inner), left: 0, is_first: true, has_ended: false }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if !self.is_first {
            self.inner.line()?;
        }
        self.is_first = false;
        let line = self.inner.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(size, 16).map_err(|_| malformed(format!("a chunk has no size: {line:?}")))?;
        if self.left == 0 {
            self.has_ended = true;
            // Trailers, up to an empty line.
            while !self.inner.line()?.is_empty() {}
        }
        Ok(())
    }
}

impl<R: Read> Read for Chunks<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.has_ended {
            self.next_chunk()?;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(target.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.0.read(&mut target[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Lines without a look ahead: what comes after them belongs to somebody else.
struct OneByOne<R: Read>(R);

impl<R: Read> OneByOne<R> {
    /// Without its end. At the body's end it is empty.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        BufReader::with_capacity(1, (&mut self.0).take(CHUNK_LINE_MAX)).read_until(b'\n', &mut line)?;
        Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }
}

struct Counting<'incoming> {
    inner: &'incoming mut Incoming,
    count: u64,
}

impl Read for Counting<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(target)?;
        self.count += count as u64;
        Ok(count)
    }
}

fn number(request: &Request, header: &str) -> io::Result<Option<u64>> {
    let value = request.header(header);
    value.map(|value| value.parse().map_err(|_| malformed(format!("{header} is '{value}'")))).transpose()
}

/// Looks like a digest and is none: for a client that does not say what it sends.
fn made_up(sink: &Sink) -> [u8; 16] {
    (u128::from(sink.store.number()) | 1 << 127).to_be_bytes()
}

pub fn hex(md5: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*md5))
}

/// Sixteen bytes in base64.
fn from_base64(text: &str) -> Option<[u8; 16]> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.strip_suffix("==").filter(|digits| digits.len() == 22)?;
    let mut bits = 0_u128;
    for (index, digit) in digits.bytes().enumerate() {
        let value = ALPHABET.iter().position(|letter| *letter == digit)? as u128;
        // The last digit holds two bits; its other four are padding.
        bits = if index < 21 { bits << 6 | value } else { bits << 2 | value >> 4 };
    }
    Some(bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_md5_is_read() {
        // RFC 1321: the MD5 of nothing.
        let md5 = from_base64("1B2M2Y8AsgTpgAmY7PhCfg==").unwrap();
        assert_eq!(hex(&md5), "d41d8cd98f00b204e9800998ecf8427e");
        for wrong in ["", "==", "1B2M2Y8AsgTpgAmY7PhCfg", "1B2M2Y8AsgTpgAmY7PhC!g=="] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn framing_is_taken_off_to_the_last_byte() {
        // AWS, "Signature calculations for trailing headers": chunks, then trailers. What follows is the next request.
        let text = b"5;chunk-signature=ab\r\nhello\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\nGET";
        let mut rest = &text[..];
        let mut body = Vec::new();
        Chunks::new(&mut rest).read_to_end(&mut body).unwrap();
        assert_eq!(body, b"hello!");
        assert_eq!(rest, b"GET");
    }

    #[test]
    fn a_body_that_breaks_off_is_no_body() {
        for text in [&b"5\r\nhell"[..], b"zz\r\n", b"5\r\nhello\r\n"] {
            assert!(Chunks::new(text).read_to_end(&mut Vec::new()).is_err(), "{text:?}");
        }
    }
}
