//! The bytes of a stream on their way: read, looked at, compressed, and given to the sink. It may wait for either end, so
//! it has a thread of its own.

use std::fs::File;
use std::io::{self, Read, Write};

use data_encoding::HEXLOWER;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::cli::Compress;
use crate::model::content_check::ContentCheck;
use crate::object_writer::{Broken, Sink};

/// How much is read at a time.
const PIECE: usize = 128 * 1024;

/// What is done with the bytes.
pub struct Pump {
    /// Where they come from.
    pub input: File,
    /// Where they go.
    pub sink: Sink,
    /// How.
    pub compress: Compress,
    /// Looks at them as they come.
    pub check: Option<ContentCheck>,
    /// Whether the SHA-256 of what goes out is made.
    pub sha256: bool,
}

/// What is known of a stream at its end.
#[derive(Debug)]
pub struct Passed {
    /// Bytes that came.
    pub read: u64,
    /// Why its content is not whole, if it is not.
    pub broken: Option<String>,
    /// Whether all of its content could be looked at, as far as that was wanted.
    pub is_seen: bool,
    /// SHA-256 of the object in hexadecimal, where that is wanted.
    pub sha256: Option<String>,
}

impl Pump {
    /// Passes all of it on. Blocks until it ends.
    pub fn run(self) -> Result<Passed, Broken> {
        let Self { mut input, sink, compress, mut check, sha256 } = self;
        let outlet = Outlet { sink, sha256: sha256.then(Sha256::new) };
        let mut output = Output::new(compress, outlet).map_err(Broken::Output)?;
        let mut read = 0;
        loop {
            let piece = match output.pass(&mut input) {
                Err(Broken::Input(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                piece => piece?,
            };
            if piece.is_empty() {
                break;
            }
            read += piece.len() as u64;
            if let Some(check) = &mut check {
                check.update(piece);
            }
        }
        let Outlet { sink, sha256 } = output.finish().map_err(Broken::Output)?;
        sink.end();
        let is_wanted = check.is_some();
        let (broken, is_seen) = match check.map(ContentCheck::finish) {
            Some(Err(why)) => (Some(why), true),
            Some(Ok(content)) => (None, is_wanted && content.is_seen),
            None => (None, true),
        };
        let sha256 = sha256.map(|sha256| HEXLOWER.encode(&sha256.finalize()));
        Ok(Passed { read, broken, is_seen, sha256 })
    }
}

/// What becomes the object.
struct Outlet {
    sink: Sink,
    sha256: Option<Sha256>,
}

impl Outlet {
    fn take(&mut self, input: &mut File) -> Result<&[u8], Broken> {
        let piece = self.sink.read_from(input)?;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(piece);
        }
        Ok(piece)
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.sink.write(bytes)?;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(&bytes[..length]);
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The outlet, behind what compresses.
enum Output {
    Plain(Outlet),
    Zstd(zstd::stream::write::Encoder<'static, Outlet>, Vec<u8>),
    Gzip(GzEncoder<Outlet>, Vec<u8>),
}

impl Output {
    fn new(compress: Compress, outlet: Outlet) -> io::Result<Self> {
        Ok(match compress {
            Compress::None => Self::Plain(outlet),
            Compress::Gzip => Self::Gzip(GzEncoder::new(outlet, flate2::Compression::default()), vec![0; PIECE]),
            Compress::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(outlet, level)?;
                // As the program `zstd` does it: who decodes it finds damage.
                encoder.include_checksum(true)?;
                Self::Zstd(encoder, vec![0; PIECE])
            }
        })
    }

    /// Passes one piece on, and returns it; an empty one at the end. What need not be changed is read to where it stays.
    fn pass(&mut self, input: &mut File) -> Result<&[u8], Broken> {
        let (encoder, piece): (&mut dyn Write, _) = match self {
            Self::Plain(outlet) => return outlet.take(input),
            Self::Zstd(encoder, piece) => (encoder, piece),
            Self::Gzip(encoder, piece) => (encoder, piece),
        };
        let length = input.read(piece).map_err(Broken::Input)?;
        encoder.write_all(&piece[..length]).map_err(Broken::Output)?;
        Ok(&piece[..length])
    }

    fn finish(self) -> io::Result<Outlet> {
        match self {
            Self::Plain(outlet) => Ok(outlet),
            Self::Zstd(encoder, _) => encoder.finish(),
            Self::Gzip(encoder, _) => encoder.finish(),
        }
    }
}
