//! The head of a request.

use std::collections::HashMap;
use std::io::{self, Read};

use crate::transport::Transport;

/// A head is never longer; no client of ours comes near.
const HEAD_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;

/// What a connection has sent and nobody has looked at yet.
pub struct Incoming {
    pub transport: Transport,
    buffer: Vec<u8>,
    start: usize,
}

#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Decoded, without the leading `/`.
    pub path: String,
    pub query: HashMap<String, String>,
    /// Names in lower case.
    headers: HashMap<String, String>,
}

impl Incoming {
    pub fn new(transport: Transport) -> Self {
        Self { transport, buffer: Vec::with_capacity(HEAD_MAX), start: 0 }
    }

    /// The next request's head; `None` when the client has closed the connection.
    pub fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((request, length)) = parse(&self.buffer[self.start..])? {
                self.start += length;
                return Ok(Some(request));
            }
            if self.buffer.len() - self.start > HEAD_MAX {
                return Err(malformed("the head does not end"));
            }
            if self.more()? == 0 {
                let between_requests = self.start == self.buffer.len();
                return if between_requests { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn more(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let length = self.buffer.len();
        self.buffer.resize(length + 16 * 1024, 0);
        let count = self.transport.read(&mut self.buffer[length..]);
        self.buffer.truncate(length + *count.as_ref().unwrap_or(&0));
        count
    }

    /// Drops the next `length` bytes.
    pub fn discard(&mut self, length: u64) -> io::Result<()> {
        let mut left = length - self.take_buffered(length).len() as u64;
        while left > 0 {
            match self.transport.drop_some(left)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                dropped => left -= dropped,
            }
        }
        Ok(())
    }

    /// Up to `most` bytes of those that are here already.
    fn take_buffered(&mut self, most: u64) -> &[u8] {
        let here = self.buffer.len() - self.start;
        let count = here.min(usize::try_from(most).unwrap_or(usize::MAX));
        self.start += count;
        &self.buffer[self.start - count..self.start]
    }
}

impl Read for Incoming {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.start < self.buffer.len() {
            let bytes = self.take_buffered(target.len() as u64);
            target[..bytes.len()].copy_from_slice(bytes);
            return Ok(bytes.len());
        }
        self.transport.read(target)
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes).map_err(malformed)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = parsed.headers.iter().map(|header| (header.name.to_ascii_lowercase(), text(header.value))).collect();
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: decode(path.trim_start_matches('/')),
        query: parse_query(query),
        headers,
    };
    Ok(Some((request, length)))
}

fn parse_query(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(&value.replace('+', "%20")))
    });
    pairs.collect()
}

fn decode(text: &str) -> String {
    urlencoding::decode(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}

pub fn malformed(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

impl Request {
    #[cfg(test)]
    pub fn get(path: &str, query: &str) -> Self {
        let query = parse_query(query);
        Self { method: "GET".to_owned(), path: path.to_owned(), query, headers: HashMap::new() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn has(&self, parameter: &str) -> bool {
        self.query.contains_key(parameter)
    }

    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// The first segment of the path: requests are in path style.
    pub fn bucket(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    pub fn key(&self) -> &str {
        self.path.split_once('/').map_or("", |(_, key)| key)
    }

    pub fn user_metadata(&self) -> Vec<(String, String)> {
        let of_user = self.headers.iter().filter(|(name, _)| name.starts_with("x-amz-meta-"));
        of_user.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}
