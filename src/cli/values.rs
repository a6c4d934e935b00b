//! Value parsers with a range, for clap: each names what is allowed.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::units::{ByteSize, Rate, parse_duration};

/// S3's limits for a part that is not the last one.
const PART_SIZE_MIN: ByteSize = ByteSize::mib(5);
const PART_SIZE_MAX: ByteSize = ByteSize::gib(5);

/// Below this a request of one part would take longer than stores wait for it; and who types `50` means MiB.
const LIMIT_RATE_MIN: Rate = Rate(64 << 10);

pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".into()),
        duration => Ok(duration),
    }
}

/// From one scan to the next. Shorter than 10 ms a scan would only compete with the dump.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&interval) {
        return Err("must be from 0.01 (10ms) to 1h; 1 is a good value".into());
    }
    Ok(interval)
}

pub fn size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|error: crate::model::units::UnitError| error.to_string())
}

pub fn positive_size(text: &str) -> Result<ByteSize, String> {
    match size(text)? {
        ByteSize(0) => Err("must be larger than 0".into()),
        size => Ok(size),
    }
}

pub fn part_size(text: &str) -> Result<ByteSize, String> {
    let size = size(text)?;
    if !(PART_SIZE_MIN..=PART_SIZE_MAX).contains(&size) {
        return Err(format!("must be from {PART_SIZE_MIN} to {PART_SIZE_MAX}, the limits of S3"));
    }
    Ok(size)
}

pub fn limit_rate(text: &str) -> Result<Rate, String> {
    let rate: Rate = text.parse().map_err(|error: crate::model::units::UnitError| error.to_string())?;
    if rate < LIMIT_RATE_MIN {
        return Err(format!("must be at least {LIMIT_RATE_MIN}; write bytes a second, like 50MiB"));
    }
    Ok(rate)
}

/// More workers than this only wait for each other.
pub fn workers(text: &str) -> Result<usize, String> {
    whole_number(text, 1, 256)
}

/// Some stores allow fewer parts than S3's 10,000.
pub fn max_parts(text: &str) -> Result<u32, String> {
    whole_number(text, 1, 10_000)
}

/// A process id. 0 and negative ones have other meanings to the kernel, and 1 is never mydumper... except in a
/// container, where it may well be.
pub fn process_id(text: &str) -> Result<u32, String> {
    whole_number(text, 1, i32::MAX.unsigned_abs())
}

/// The name of a database: what MySQL and MariaDB allow, 64 characters, and nothing that a terminal would act on.
pub fn database(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.chars().count() <= 64 && !text.chars().any(char::is_control);
    if is_name && !text.ends_with(' ') { Ok(text.to_owned()) } else { Err("must be the name of a database".into()) }
}

/// A file for node_exporter's textfile collector, which reads no others.
pub fn metrics_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension == "prom" => Ok(path),
        _ => Err("must end in .prom: node_exporter reads no other files".into()),
    }
}

fn whole_number<T>(text: &str, smallest: T, largest: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match text.trim().parse::<T>() {
        Ok(number) if number >= smallest && number <= largest => Ok(number),
        _ => Err(format!("must be a whole number from {smallest} to {largest}")),
    }
}
