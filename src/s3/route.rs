//! What goes past a proxy; and for credentials, who is asked for them and whether it is away.
//!
//! The SDK's errors do not say whether a source of credentials is away or refuses, and seldom which one it is.

use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use parking_lot::Mutex;

use super::error::{ErrorKind, chain, classify_dispatch, classify_status};

/// Where a machine, a container or a pod asks for the credentials of its role. (AWS, "IMDS credential provider",
/// "Container credential provider"; those of EKS; and this machine, where an agent may tell them.)
const PAST_A_PROXY: [&str; 8] = [
    "169.254.169.254",
    "fd00:ec2::254",
    "169.254.170.2",
    "169.254.170.23",
    "fd00:ec2::23",
    "127.0.0.1",
    "::1",
    "localhost",
];

/// Who was asked last, and whether it is away for the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Host and port.
    pub host: String,
    /// Whether it gave no answer, or one that says to come again.
    pub is_away: bool,
}

/// What became of the last request for credentials. Its mutex is never held across an `.await`.
#[derive(Debug, Clone, Default)]
pub struct LastAsked(Arc<Mutex<Option<Asked>>>);

impl LastAsked {
    /// Who was asked since the last look.
    pub fn take(&self) -> Option<Asked> {
        self.0.lock().take()
    }

    fn set(&self, host: &str, is_away: bool) {
        let asked = Asked { host: host.to_owned(), is_away };
        *self.0.lock() = Some(asked);
    }
}

/// The HTTP client for the store and for credentials.
#[derive(Debug, Clone)]
pub struct RoutedClient {
    /// As the environment wants it.
    pub as_set: SharedHttpClient,
    /// Past any proxy.
    pub direct: SharedHttpClient,
    /// Where it notes who was asked, if it is for credentials.
    pub last: Option<LastAsked>,
}

impl HttpClient for RoutedClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let (settings, components) = (settings.clone(), components.clone());
        SharedHttpConnector::new(RoutedConnector { client: self.clone(), settings, components })
    }
}

#[derive(Debug)]
struct RoutedConnector {
    client: RoutedClient,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for RoutedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let RoutedClient { as_set, direct, last } = &self.client;
        let authority = authority_of(request.uri()).to_owned();
        let client = if goes_past_a_proxy(&authority) { direct } else { as_set };
        let answer = client.http_connector(&self.settings, &self.components).call(request);
        let Some(last) = last.clone() else { return answer };
        // So it stays where nobody waits for the answer any more.
        last.set(&authority, true);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            let kind = match &answer {
                Ok(answer) => classify_status(answer.status().as_u16()),
                Err(error) => classify_dispatch(&chain(Some(error))),
            };
            let succeeded = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
            last.set(&authority, kind == ErrorKind::Unavailable && !succeeded);
            answer
        })
    }
}

/// Without whoever may stand before an `@`.
fn authority_of(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn goes_past_a_proxy(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    PAST_A_PROXY.contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tells_a_roles_credentials_is_known_by_its_host() {
        for uri in [
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::23]:80/v1/credentials",
            "http://127.0.0.1:1234?a",
            "https://somebody@localhost:1/",
        ] {
            assert!(goes_past_a_proxy(authority_of(uri)), "{uri}");
        }
        for uri in ["https://sts.eu-central-1.amazonaws.com/", "http://localhost.example.com", "https://a/127.0.0.1"] {
            assert!(!goes_past_a_proxy(authority_of(uri)), "{uri}");
        }
        assert_eq!(authority_of("https://name:secret@agent:8080/path?token=x"), "agent:8080");
    }
}
