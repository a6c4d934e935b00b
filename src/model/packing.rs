//! How rows are compressed that come as a stream, and what their files are called then.

use std::fmt;
use std::str::FromStr;

/// As mydumper's own `-c` does it: it starts `zstd -c` and `gzip -c`, whose levels by default are these.
const ZSTD_LEVEL: i32 = 3;
/// The levels of zstd that need no option of their own there.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// The format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Frames of zstd, at a level.
    Zstd(i32),
    /// gzip, at its usual level.
    Gzip,
    /// As the rows come.
    None,
}

impl Packing {
    /// What file names end with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd(_) => ".zst",
            Self::Gzip => ".gz",
            Self::None => "",
        }
    }
}

impl Default for Packing {
    fn default() -> Self {
        Self::Zstd(ZSTD_LEVEL)
    }
}

impl FromStr for Packing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zstd" => Ok(Self::default()),
            "gzip" => Ok(Self::Gzip),
            "none" => Ok(Self::None),
            _ => {
                let level = text.strip_prefix("zstd:").and_then(|level| level.parse().ok());
                let level = level.filter(|level| ZSTD_LEVELS.contains(level)).map(Self::Zstd);
                level.ok_or_else(|| "must be zstd, zstd:LEVEL with a level from 1 to 19, gzip or none".to_owned())
            }
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd(level) => write!(formatter, "zstd:{level}"),
            Self::Gzip => formatter.write_str("gzip"),
            Self::None => formatter.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_comes_out_as_it_went_in() {
        for (text, packing) in [
            ("zstd", Packing::Zstd(3)),
            ("zstd:1", Packing::Zstd(1)),
            ("zstd:19", Packing::Zstd(19)),
            ("gzip", Packing::Gzip),
            ("none", Packing::None),
        ] {
            let parsed: Packing = text.parse().expect(text);
            assert_eq!(parsed, packing);
            assert_eq!(parsed.to_string().parse(), Ok(packing));
        }
        for text in ["", "zst", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "gzip:9", "none:1"] {
            assert!(text.parse::<Packing>().is_err_and(|why| why.contains("zstd:LEVEL")), "{text}");
        }
    }
}
