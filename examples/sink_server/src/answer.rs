//! Answers.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use jiff::Timestamp;

use crate::store::{Object, Piece};
use crate::transport::Transport;
use crate::xml;

pub struct Answer {
    pub status: u16,
    headers: String,
    body: Body,
}

enum Body {
    Bytes(Vec<u8>),
    /// A stretch of an object.
    Content(Vec<Piece>, Range<u64>),
    /// That long, but not sent: the answer to HEAD.
    Only(u64),
}

impl Answer {
    pub fn empty(status: u16) -> Self {
        Self { status, headers: String::new(), body: Body::Bytes(Vec::new()) }
    }

    pub fn xml(root: &str, inner: &str) -> Self {
        Self::bytes("application/xml", xml::document(root, inner))
    }

    pub fn bytes(kind: &str, body: Vec<u8>) -> Self {
        Self { status: 200, headers: String::new(), body: Body::Bytes(body) }.header("Content-Type", kind)
    }

    pub fn error(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>");
        Self { status, ..Self::bytes("application/xml", body.into_bytes()) }
    }

    pub fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// The object's size, ETag and metadata, without its bytes.
    pub fn head(object: &Object) -> Self {
        let answer = Self { status: 200, headers: String::new(), body: Body::Only(object.size) };
        answer.describe(object)
    }

    pub fn content(object: Object, range: Option<Range<u64>>) -> Self {
        let size = object.size;
        let (status, range) = range.map_or((200, 0..size), |range| (206, range));
        let mut answer = Self { status, headers: String::new(), body: Body::Bytes(Vec::new()) }.describe(&object);
        if status == 206 {
            answer = answer.header("Content-Range", format!("bytes {}-{}/{size}", range.start, range.end - 1));
        }
        answer.body = Body::Content(object.pieces, range);
        answer
    }

    fn describe(self, object: &Object) -> Self {
        let answer = self
            .header("ETag", format!("\"{}\"", object.etag))
            .header("Last-Modified", http_date(object.modified))
            .header("Accept-Ranges", "bytes")
            .header("Content-Type", "application/octet-stream");
        object.metadata.iter().fold(answer, |answer, (name, value)| answer.header(name, value))
    }

    /// The answer to a HEAD has no body, whatever it is.
    pub fn without_body(mut self) -> Self {
        self.body = Body::Only(self.length());
        self
    }

    fn length(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Content(_, range) => range.end - range.start,
            Body::Only(length) => *length,
        }
    }

    pub fn send(self, transport: &mut Transport) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, if self.status < 400 { "OK" } else { "No" });
        head += &self.headers;
        head += &format!("Date: {}\r\nServer: sink\r\n", http_date(Timestamp::now()));
        // RFC 9110: an answer without content has no length either.
        if self.status != 204 {
            head += &format!("Content-Length: {}\r\n", self.length());
        }
        let mut bytes = (head + "\r\n").into_bytes();
        if let Body::Bytes(body) = &self.body {
            bytes.extend_from_slice(body);
        }
        transport.write_all(&bytes)?;
        if let Body::Content(pieces, range) = self.body {
            send_content(&pieces, range, transport)?;
        }
        transport.flush()
    }
}

fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn send_content(pieces: &[Piece], range: Range<u64>, transport: &mut Transport) -> io::Result<()> {
    let mut begin = 0;
    for piece in pieces {
        let end = begin + piece.length();
        let (from, to) = (range.start.max(begin), range.end.min(end));
        if from < to {
            send_piece(piece, from - begin..to - begin, transport)?;
        }
        begin = end;
    }
    Ok(())
}

fn send_piece(piece: &Piece, range: Range<u64>, transport: &mut Transport) -> io::Result<()> {
    let (path, length) = match piece {
        Piece::Memory(bytes) => return transport.write_all(&bytes[range.start as usize..range.end as usize]),
        Piece::File { path, .. } => (path, range.end - range.start),
        Piece::Dropped { .. } => return Err(io::Error::other("the bytes were not kept: start it with --dir")),
    };
    let mut file = File::open(path)?;
    let Some(stream) = transport.plain() else {
        file.seek(SeekFrom::Start(range.start))?;
        return io::copy(&mut file.take(length), transport).map(drop);
    };
    let (mut at, mut left) = (range.start, length);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::sendfile(stream, &file, Some(&mut at), most)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count as u64,
        }
    }
    Ok(())
}
