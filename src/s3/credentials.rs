//! Credentials as a request can carry them, and what it means that there are none.
//!
//! Secrets come out of files, mounted secrets and programs, and there they end in a newline. The SDK panics where it
//! cannot make a header of one.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, SharedCredentialsProvider, future};

use super::error::chain;
use super::route::LastAsked;

/// How long looking for credentials may take. Less than a request may stand still: so it is known who keeps it waiting.
const PATIENCE: Duration = Duration::from_secs(25);

/// The SDK's sources of credentials. What they tell has no white space around it and none in it; and a source that is
/// away is told from one that refuses.
#[derive(Debug)]
pub struct Sources {
    /// Where to look.
    pub found: SharedCredentialsProvider,
    /// Who was asked over the network.
    pub last: LastAsked,
}

/// Who tells the credentials is out of reach, busy or broken for the moment: like a store that is, and no wrong setting.
#[derive(Debug)]
pub struct Away {
    who: String,
    why: String,
}

impl fmt::Display for Away {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} does not tell them: {}", self.who, self.why)
    }
}

impl StdError for Away {}

impl Sources {
    async fn provide(&self) -> Result {
        self.last.take();
        let answer = tokio::time::timeout(PATIENCE, self.found.provide_credentials()).await;
        let error = match answer {
            Ok(Ok(found)) => return trimmed(found),
            Ok(Err(error)) => error,
            // Those of before may do for a while.
            Err(_) => match self.found.fallback_on_interrupt() {
                Some(found) => return trimmed(found),
                None => CredentialsError::provider_timed_out(PATIENCE),
            },
        };
        let asked = self.last.take();
        let away = asked.as_ref().filter(|asked| asked.is_away).map(|asked| asked.host.as_str());
        match who_is_away(&error, away) {
            Some(who) => {
                let why = chain(StdError::source(&error).or(Some(&error)));
                Err(CredentialsError::provider_error(Away { who: who.to_owned(), why }))
            }
            None => Err(error),
        }
    }
}

/// `away` is the host that was asked last, if that one is away. That the machine has no metadata service is no outage:
/// most have none, and it is asked where nothing else is set.
fn who_is_away<'a>(error: &CredentialsError, away: Option<&'a str>) -> Option<&'a str> {
    let words = || chain(Some(error)).to_ascii_lowercase();
    match error {
        CredentialsError::CredentialsNotLoaded(_) => None,
        // The name of who is to be asked was not found; the SDK calls that a wrong setting.
        CredentialsError::InvalidConfiguration(_) => {
            words().contains("dns lookup").then_some("the container's endpoint")
        }
        CredentialsError::ProviderTimedOut(_) => away.or(Some("the source of credentials")),
        _ if away.is_some() => away,
        _ => {
            let words = words();
            let who =
                if words.contains("external process") { "the credential_process" } else { "the source of credentials" };
            are_of_an_outage(&words).then_some(who)
        }
    }
}

/// What a program says on its standard error, and what STS says with status 400. Numbers count only as words of their own:
/// an account's or a request's holds any digits.
fn are_of_an_outage(words: &str) -> bool {
    let signs = [
        "timed out",
        "timeout",
        "throttl",
        "unavailable",
        "idpcommunicationerror",
        "connection refused",
        "could not connect",
        "unreachable",
        "could not resolve",
        "name resolution",
    ];
    let mut numbers = words.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    signs.iter().any(|sign| words.contains(sign))
        || numbers.any(|number| ["429", "500", "502", "503", "504"].contains(&number))
}

impl ProvideCredentials for Sources {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.found.fallback_on_interrupt().and_then(|found| trimmed(found).ok())
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
    fn a_source_of_credentials_that_is_away_is_told_from_one_that_refuses() {
        let of = |words: &str, away| who_is_away(&CredentialsError::provider_error(words), away);
        let process = "Error retrieving credentials: external process exited with code 1. Stderr: HTTP 503";
        assert_eq!(of("Non-success status", Some("agent:80")), Some("agent:80"));
        assert_eq!(of(process, None), Some("the credential_process"));
        for words in ["ThrottlingException: Rate exceeded", "IDPCommunicationError: try again", "connect timeout"] {
            assert_eq!(of(words, None), Some("the source of credentials"), "{words}");
        }
        for words in [
            "AccessDenied: arn:aws:iam::500503429500:role/x (status 403, id 1503-500a)",
            "InvalidIdentityToken",
            "external process exited with code 127. Stderr: sh: 1: tell: not found",
        ] {
            assert_eq!(of(words, None), None, "{words}");
        }
    }

    #[test]
    fn that_there_are_no_credentials_is_no_outage() {
        let silent = Some("169.254.169.254");
        assert_eq!(who_is_away(&CredentialsError::not_loaded("no profile"), silent), None);
        assert_eq!(who_is_away(&CredentialsError::invalid_configuration("a loop of profiles"), silent), None);
        let unknown = CredentialsError::invalid_configuration("failed to perform DNS lookup while validating URI");
        assert_eq!(who_is_away(&unknown, None), Some("the container's endpoint"));
        // A profile that names the metadata service as its source.
        let named = CredentialsError::provider_error(CredentialsError::not_loaded("no answer"));
        assert_eq!(who_is_away(&named, silent), silent);
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
