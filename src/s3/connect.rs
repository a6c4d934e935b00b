//! How the store is reached: endpoint, region, credentials, proxy, certificates, time-outs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::service_config::ServiceConfigKey;
use tracing::warn;

use super::answer::BoundedAnswers;
use super::credentials::Sources;
use super::route::{LastAsked, RoutedClient};
use crate::hint::HintExt;
use crate::model::destination::EndpointUrl;

/// What is not given here is found by the SDK as usual: in `AWS_…` variables and its files.
#[derive(Debug, Clone, Default)]
pub struct ConnectionSettings {
    /// Another store than AWS.
    pub endpoint_url: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// A profile in the AWS configuration files.
    pub profile: Option<String>,
    /// Bucket in the path, not in the host name.
    pub path_style: bool,
    /// Certificates to trust, in PEM form, in place of the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// Connecting takes milliseconds; a host that does not answer is another one's turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries within one request, by the SDK: for a hiccup. Outages are waited out above it.
pub(super) const TRIES: u32 = 3;
/// An endpoint of one's own has no region, but the signature needs one.
const REGION_OF_OTHER_STORES: &str = "us-east-1";

/// The way to the store.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// Makes the requests.
    pub client: Client,
    /// Where the client finds its credentials.
    pub credentials: SharedCredentialsProvider,
    /// The store's, where it is not AWS's own.
    pub endpoint: Option<String>,
}

/// Finds the way; found again, it has new credentials.
pub(super) async fn connect(settings: &ConnectionSettings) -> anyhow::Result<Way> {
    let (shared, http_client) = load(settings).await?;
    let endpoint = endpoint_of_s3(&shared);
    let credentials = shared.credentials_provider().context("no credentials are configured")?;
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        // The default adds a CRC32 trailer in aws-chunked form, which several stores refuse; Content-MD5 and ETag do
        // more for us.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(BoundedAnswers)
        .http_client(http_client)
        .force_path_style(settings.path_style || endpoint.as_deref().is_some_and(needs_path_style));
    if let Some(endpoint) = &endpoint {
        // Without the slash the SDK glues the bucket to an endpoint's path.
        config = config.endpoint_url(format!("{endpoint}/"));
    }
    if shared.region().is_none() {
        if endpoint.is_none() {
            return Err(anyhow!("no region is known")).hint("set --region, AWS_REGION, or a region in the profile");
        }
        config = config.region(Region::new(REGION_OF_OTHER_STORES));
    }
    Ok(Way { client: Client::from_conf(config.build()), credentials, endpoint })
}

/// Looks at the endpoint: everything may go to it in the clear, or the bucket may be in it already.
pub(super) fn check(endpoint: Option<&str>, bucket: &str) -> anyhow::Result<()> {
    if endpoint.is_some_and(is_unencrypted_remote) {
        warn!("the endpoint is http://: the dump crosses the network unencrypted; use https://");
    }
    if let Some(without) = endpoint.and_then(|endpoint| without_bucket(endpoint, bucket)) {
        let error = anyhow!("the endpoint {} holds the bucket's name", endpoint.unwrap_or_default());
        return Err(error).hint(format!("leave the bucket out: {without}"));
    }
    Ok(())
}

/// What is found by the SDK, and the HTTP client for the store.
async fn load(settings: &ConnectionSettings) -> anyhow::Result<(SdkConfig, RoutedClient)> {
    let tls = TlsContext::builder().with_trust_store(trust_store(settings)?).build().context("cannot set up TLS")?;
    let as_set = http_client(tls.clone(), ProxyConfig::from_env());
    let of_store = RoutedClient { as_set, direct: http_client(tls, ProxyConfig::disabled()), last: None };
    let last = LastAsked::default();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(RoutedClient { last: Some(last.clone()), ..of_store.clone() })
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
        // How long a whole request may take depends on its body: `Store::persist` sees to it.
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        // It does not see bodies of ours, and it kills healthy slow ones.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(url) = &settings.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    } else if endpoint_given(settings).is_some_and(|url| !url.contains(".amazonaws.com")) {
        loader = loader.region(region_of_other_store(settings).await);
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    let loaded = loader.load().await;
    let region = loaded.region().map(region_of).transpose()?.flatten();
    let credentials =
        loaded.credentials_provider().map(|found| SharedCredentialsProvider::new(Sources { found, last }));
    let mut shared = loaded.into_builder();
    shared.set_region(region).set_credentials_provider(credentials);
    Ok((shared.build(), of_store))
}

/// Like credentials it may come out of a file, with a line break. An empty one is none.
fn region_of(found: &Region) -> anyhow::Result<Option<Region>> {
    let region = found.as_ref().trim();
    if region.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Ok(Some(Region::new(region.to_owned())).filter(|_| !region.is_empty()));
    }
    Err(anyhow!("'{}' cannot be a region", region.escape_debug())).hint("look at --region, AWS_REGION and the profile")
}

/// A store of one's own is asked for in the region that environment or profile name. Not in the machine's: to find out
/// that there is none can take a second of waiting for instance metadata.
async fn region_of_other_store(settings: &ConnectionSettings) -> Option<Region> {
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build());
    chain.or_else(Region::from_static(REGION_OF_OTHER_STORES)).region().await
}

/// The SDK's own has no proxy.
fn http_client(tls: TlsContext, proxy: ProxyConfig) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |connection, runtime| {
        let mut connector = Connector::builder()
            .proxy_config(proxy.clone())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls.clone());
        connector.set_connector_settings(connection.cloned());
        connector.set_sleep_impl(runtime.and_then(|runtime| runtime.sleep_impl()));
        connector.build()
    })
}

fn trust_store(settings: &ConnectionSettings) -> anyhow::Result<TrustStore> {
    let from_environment = || std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(path) = settings.ca_bundle.clone().or_else(from_environment) else {
        return Ok(TrustStore::default());
    };
    let pem = std::fs::read(&path).with_context(|| format!("cannot read the certificates in '{}'", path.display()))?;
    if !pem.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(anyhow!("'{}' holds no certificate in PEM form", path.display()))
            .hint("a PEM file has lines like -----BEGIN CERTIFICATE-----");
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

/// What the user gave for S3, outside of the profile.
fn endpoint_given(settings: &ConnectionSettings) -> Option<String> {
    settings.endpoint_url.clone().or_else(|| std::env::var("AWS_ENDPOINT_URL_S3").ok()).filter(|url| !url.is_empty())
}

/// The endpoint that requests to S3 go to, without a slash at its end; `None` for AWS's own. As the SDK finds it: one that
/// was given, `AWS_ENDPOINT_URL_S3`, the profile's for S3, the profile's for all.
fn endpoint_of_s3(shared: &SdkConfig) -> Option<String> {
    let key = || {
        let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url");
        key.build().ok()
    };
    let of_service = || shared.service_config()?.load_config(key()?);
    let for_all = || shared.endpoint_url().map(str::to_owned);
    let endpoint = match shared.get_origin("endpoint_url").is_client_config() {
        true => for_all(),
        false => of_service().or_else(for_all),
    };
    endpoint.map(|url| url.trim_end_matches('/').to_owned()).filter(|url| !url.is_empty())
}

/// The endpoint without the bucket, where it surely is in it: as the name below an S3 host, or as the whole path.
fn without_bucket(endpoint: &str, bucket: &str) -> Option<String> {
    let (scheme, rest) = endpoint.split_once("://")?;
    let of_host = rest.strip_prefix(bucket).and_then(|host| host.strip_prefix('.'));
    let of_host = of_host.filter(|host| host.starts_with("s3.") || host.starts_with("s3-"));
    let of_path = || rest.split_once('/').filter(|(_, path)| *path == bucket).map(|(host, _)| host);
    of_host.or_else(of_path).map(|host| format!("{scheme}://{host}"))
}

/// The SDK takes endpoints that we would refuse; their hosts are not looked at.
fn is_unencrypted_remote(endpoint: &str) -> bool {
    endpoint.parse().map_or(endpoint.starts_with("http://"), |url: EndpointUrl| url.is_unencrypted_remote())
}

/// A bucket cannot be a host name below an IP address or `localhost`; and below one whose requests go to a path none is
/// known that expects it.
fn needs_path_style(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    if rest.trim_end_matches('/').contains('/') {
        return true;
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || !host.contains('.') || host.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_trimmed_and_an_empty_one_is_none() {
        let found = |text: &'static str| region_of(&Region::from_static(text)).map_err(|error| error.to_string());
        assert_eq!(found("eu-central-1\n"), Ok(Some(Region::from_static("eu-central-1"))));
        assert_eq!(found(" "), Ok(None));
        assert_eq!(found("us east"), Err("'us east' cannot be a region".to_owned()));
    }

    #[test]
    fn a_bucket_in_the_endpoint_is_found() {
        for (endpoint, without) in [
            ("https://b.s3.eu-central-1.amazonaws.com", Some("https://s3.eu-central-1.amazonaws.com")),
            ("https://b.s3-eu.example.com:9000", Some("https://s3-eu.example.com:9000")),
            ("http://127.0.0.1:9000/b", Some("http://127.0.0.1:9000")),
            ("https://b.example.com", None),
            ("https://host/storage/v1/b", None),
            ("https://s3.example.com", None),
        ] {
            assert_eq!(without_bucket(endpoint, "b").as_deref(), without, "{endpoint}");
        }
    }

    #[test]
    fn a_bucket_cannot_be_a_host_name_below_an_address() {
        for endpoint in ["http://127.0.0.1:9000", "http://[::1]:9000/", "https://localhost", "http://minio:9000"] {
            assert!(needs_path_style(endpoint), "{endpoint}");
        }
        assert!(!needs_path_style("https://s3.example.com"));
    }
}
