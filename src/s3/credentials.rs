//! Credentials as a request can carry them.
//!
//! Secrets come out of files, mounted secrets and programs, and there they end in a newline. The SDK panics where it
//! cannot make a header of one.

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, SharedCredentialsProvider, future};

/// A provider whose credentials have no white space around them, and none in them.
#[derive(Debug)]
pub struct Trimmed(pub SharedCredentialsProvider);

impl ProvideCredentials for Trimmed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move { self.0.provide_credentials().await.and_then(trimmed) })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.fallback_on_interrupt().and_then(|found| trimmed(found).ok())
    }
}

/// The value is never part of the error.
fn trimmed(found: Credentials) -> Result {
    let parts = [
        ("access key id", Some(found.access_key_id())),
        ("secret access key", Some(found.secret_access_key())),
        ("session token", found.session_token()),
    ];
    for (what, text) in parts {
        let text = text.unwrap_or_default();
        if !text.trim().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CredentialsError::invalid_configuration(format!(
                "the {what} that was found has a space, a line break or another character that no request can carry"
            )));
        }
    }
    if parts.iter().all(|(_, text)| text.is_none_or(|text| text.trim().len() == text.len())) {
        return Ok(found);
    }
    let [id, secret, token] = parts.map(|(_, text)| text.map(|text| text.trim().to_owned()));
    Ok(Credentials::new(id.unwrap_or_default(), secret.unwrap_or_default(), token, found.expiry(), "trimmed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(id: &str, secret: &str, token: Option<&str>) -> Result {
        trimmed(Credentials::new(id, secret, token.map(str::to_owned), None, "test"))
    }

    #[test]
    fn a_line_break_at_an_end_is_taken_off() {
        let found = with("id\n", " secret\r\n", Some("token\n")).expect("credentials");
        assert_eq!((found.access_key_id(), found.secret_access_key()), ("id", "secret"));
        assert_eq!(found.session_token(), Some("token"));
    }

    #[test]
    fn what_no_request_can_carry_is_named_and_not_shown() {
        for (what, found) in [
            ("access key id", with("i\nd", "secret", None)),
            ("secret access key", with("id", "hunter 2", None)),
            ("session token", with("id", "secret", Some("hunter\u{7f}2"))),
        ] {
            let error = found.expect_err(what);
            let text = format!("{error:?} {:?}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(text.contains(what) && !text.contains("hunter"), "{text}");
        }
    }
}
