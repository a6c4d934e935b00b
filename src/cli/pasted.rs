//! `s3://bucket/prefix`, as our own output has it, in place of a bucket or a prefix: it can be pasted everywhere.

use std::ffi::OsString;

use crate::model::usage_error::UsageError;

/// The arguments with such addresses taken apart. What follows `--` is somebody else's.
pub fn taken_apart(mut arguments: Vec<OsString>) -> Result<Vec<OsString>, UsageError> {
    let rest = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let rest = arguments.split_off(rest);
    let (bucket, prefix) = (value_of(&arguments, "--bucket"), value_of(&arguments, "--prefix"));
    let addresses = [bucket.as_deref().and_then(address), prefix.as_deref().and_then(address)];
    if addresses.iter().any(Option::is_some) {
        let plain = |value: &Option<String>, address: Option<Address<'_>>| value.clone().filter(|_| address.is_none());
        let told = |of: fn(&Address<'_>) -> String, plain: Option<String>| {
            let told = addresses.iter().flatten().map(of).filter(|text| !text.is_empty());
            told.chain(plain).collect::<Vec<_>>()
        };
        let buckets = told(|address| address.bucket.to_owned(), plain(&bucket, addresses[0]));
        let mut prefixes = told(|address| address.prefix.to_owned(), plain(&prefix, addresses[1]));
        if addresses[1].is_some() && prefixes.is_empty() {
            // The bucket's root.
            prefixes.push(String::new());
        }
        set(&mut arguments, "--bucket", &buckets)?;
        set(&mut arguments, "--prefix", &prefixes)?;
    }
    arguments.extend(rest);
    Ok(arguments)
}

#[derive(Clone, Copy)]
struct Address<'a> {
    bucket: &'a str,
    /// Empty where it names the bucket alone.
    prefix: &'a str,
}

fn address(text: &str) -> Option<Address<'_>> {
    let rest = text.strip_prefix("s3://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    Some(Address { bucket, prefix: prefix.trim_matches('/') })
}

/// Gives an option the value that was told, once or twice.
fn set(arguments: &mut Vec<OsString>, option: &str, told: &[String]) -> Result<(), UsageError> {
    let Some(value) = told.first().map(|value| value.trim_matches('/')) else { return Ok(()) };
    if let Some(other) = told.iter().map(|other| other.trim_matches('/')).find(|other| *other != value) {
        return Err(UsageError::new(
            format!("two values for {option}: '{}' and '{}'", value.escape_debug(), other.escape_debug()),
            "an address s3://bucket/prefix names both; leave the other option away, or name the same in it",
        ));
    }
    match position(arguments, option) {
        Some((at, true)) => arguments[at] = format!("{option}={value}").into(),
        Some((at, false)) => arguments[at + 1] = value.into(),
        None => arguments.push(format!("{option}={value}").into()),
    }
    Ok(())
}

fn value_of(arguments: &[OsString], option: &str) -> Option<String> {
    let (at, is_joined) = position(arguments, option)?;
    match is_joined {
        true => arguments[at].to_str()?.split_once('=').map(|(_, value)| value.to_owned()),
        false => arguments.get(at + 1)?.to_str().map(str::to_owned),
    }
}

/// Where an option stands, and whether its value is joined to it by `=`.
fn position(arguments: &[OsString], option: &str) -> Option<(usize, bool)> {
    arguments.iter().enumerate().find_map(|(at, argument)| match argument.to_str()?.strip_prefix(option)? {
        "" if at + 1 < arguments.len() => Some((at, false)),
        joined if joined.starts_with('=') => Some((at, true)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(line: &str) -> Result<String, String> {
        let arguments = line.split(' ').map(OsString::from).collect();
        let taken = taken_apart(arguments).map_err(|error| error.to_string())?;
        Ok(taken.iter().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn an_address_is_taken_apart_wherever_it_is_pasted() {
        for (pasted, meant) in [
            ("list --bucket s3://b", "list --bucket b"),
            ("list --bucket=s3://b/", "list --bucket=b"),
            ("verify --bucket s3://b/db1/night/", "verify --bucket b --prefix=db1/night"),
            ("verify --prefix s3://b/db1/night/ --deep", "verify --prefix db1/night --deep --bucket=b"),
            ("verify --bucket b --prefix=s3://b/a", "verify --bucket b --prefix=a"),
            ("verify --bucket s3://b/a --prefix a/", "verify --bucket b --prefix a"),
            ("verify --bucket s3://b/a --prefix s3://b/a", "verify --bucket b --prefix a"),
            ("--bucket b -- mydumper --prefix s3://x/y", "--bucket b -- mydumper --prefix s3://x/y"),
            ("--bucket s3://b/a -- mydumper", "--bucket b --prefix=a -- mydumper"),
            ("list --prefix s3://b/", "list --prefix  --bucket=b"),
            ("list --bucket", "list --bucket"),
        ] {
            assert_eq!(apart(pasted).as_deref(), Ok(meant), "{pasted}");
        }
    }

    #[test]
    fn an_address_that_says_otherwise_is_refused() {
        let refused = apart("verify --bucket c --prefix s3://b/a").expect_err("two buckets");
        assert!(refused.contains("two values for --bucket: 'b' and 'c'"), "{refused}");
        let refused = apart("verify --bucket s3://b/a --prefix x").expect_err("two prefixes");
        assert!(refused.contains("two values for --prefix: 'a' and 'x'"), "{refused}");
        assert!(apart("verify --bucket s3://b/a --prefix s3://c/a").is_err());
    }
}
